"""TensorBoard's event files, written beside metrics.jsonl from its records."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.numbers import NUMBER
from ofa_pose.utils.run_dir import RunDir

TENSORBOARD = "tensorboard"  # the package, and the folder in a run
LOGS = (TENSORBOARD,)
FLUSH_S = 10
TIMES = {"seconds", "data_wait"}


def check_log(log: str | None) -> None:
    """Raise InputError where `log` names no other log than metrics.jsonl, or its package is missing."""
    if log is None:
        return
    if log not in LOGS:
        raise InputError(f"no such log: '{log}'", hint=nearest(log, LOGS))
    if importlib.util.find_spec(TENSORBOARD) is None:
        what = f"--log {log} needs the package {TENSORBOARD}"
        raise InputError(what, hint="pip install 'ofa-pose[tensorboard]'")


@contextmanager
def event_files(log: str | None, run: RunDir, step: int | None = None) -> Iterator[None]:
    """What a run logs in it goes into event files too, in its folder 'tensorboard'.

    Args:
        log: see `check_log`; None: only into metrics.jsonl.
        step: the run goes on after it, and what TensorBoard has of later steps is replaced; None: it begins.
    """
    if log is None:
        yield
        return
    from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

    purge = None if step is None else step + 1
    if step is None:  # what a run left there that was killed before its first checkpoint
        shutil.rmtree(run.path / TENSORBOARD, ignore_errors=True)
    with closing(SummaryWriter(str(run.path / TENSORBOARD), purge_step=purge, flush_secs=FLUSH_S)) as writer:

        def write(record: Mapping[str, Any]) -> None:
            for tag, value in curves(record):
                writer.add_scalar(tag, value, record["step"])

        run.listeners.append(write)
        try:
            yield
        finally:
            run.listeners.remove(write)


def curves(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a record of metrics.jsonl by the names of their curves: 'train/loss', 'val/AP', 'search/AP'."""
    if "calibration" in record or type(record.get("step")) is not int:
        return
    group = "search" if "evaluations" in record else "train"
    for name, value in record.items():
        if name == "val" and isinstance(value, Mapping):
            yield from ((f"val/{metric}", found) for metric, found in value.items() if type(found) in NUMBER)
        elif type(value) in NUMBER and name != "step" and not (name == "seconds" and "val" in record):
            yield f"{'time' if name in TIMES else group}/{name}", value
