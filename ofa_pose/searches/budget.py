"""The budget of a search, as people write it."""

from __future__ import annotations

from pathlib import Path

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.latency.predictor import Predictor, load_predictor
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import sha256
from ofa_pose.utils.numbers import parse_seconds

DOUBTFUL = 0.15  # error of a latency table on its own networks


def read_budget(
    space: SearchSpace,
    joints: int,
    macs: str | int | None = None,
    params: str | int | None = None,
    convention: str = "thop",
    latency: str | None = None,
    latency_table: str | Path | None = None,
) -> Budget:
    """The budget for subnets of a space: at most '1.2G' MACs, '2M' parameters, '30ms' on the device of a table.

    Raises:
        InputError: no limit, or what is not one; a latency without a table, or one that cannot predict every subnet.
    """
    if latency is not None and latency_table is None:
        hint = "measure the device with 'ofa-pose latency build', then add --latency-table TABLE"
        raise InputError("--latency needs a latency table", hint=hint)
    found = _load_table(latency_table, space, joints) if latency_table is not None else None
    return Budget.parse(
        macs,
        params,
        convention,
        latency_ms=1e3 * parse_seconds(latency) if latency is not None else None,
        predict_ms=found.predict_ms if found else None,
        predict_many=found.predict_many if found else None,
        latency_table=sha256(latency_table) if latency_table is not None else None,
    )


def _load_table(path: str | Path, space: SearchSpace, joints: int) -> Predictor:
    found = load_predictor(path)
    interpolated, pieces = found.check_covers(space, joints)
    if found.error > DOUBTFUL:
        warn(f"{path}: predicts its own networks {found.error:.0%} wrong on average; build it again")
    if interpolated:
        what = f"{interpolated} of the {pieces} pieces of space '{space.name}' are interpolated, not measured"
        warn(f"{path}: {what}; 'ofa-pose latency build' without --share measures all")
    return found
