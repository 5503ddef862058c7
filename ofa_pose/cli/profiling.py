"""What `ofa-pose profile` and `ofa-pose latency` show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD

from ofa_pose.cli.tables import key_table, rows_table
from ofa_pose.utils.console import say, show
from ofa_pose.utils.units import format_count

if TYPE_CHECKING:
    from ofa_pose.api.profiling import BundleResult, ProfileResult
    from ofa_pose.latency.verify import Verification


def show_profile(result: ProfileResult) -> None:
    """The figures, then the layers and the parts."""
    figures = {key: value for key, value in result.to_dict().items() if key not in ("layers", "latency")}
    measured = result.latency.to_dict() if result.latency else {}
    show(key_table({**figures, **{key: value for key, value in measured.items() if key != "parts"}}))
    if result.layers:
        columns = ("in", "out", "side", "params", *result.layers[0]["macs"])
        rows = [
            (row["name"], row["operator"], *(str(row[key]) for key in ("cin", "cout", "side", "params")))
            + tuple(map(format_count, row["macs"].values()))
            for row in result.layers
        ]
        title = f"{result.spec}, {result.spec.joints} joints: MACs by convention"
        show(rows_table(("layer", "operator"), columns, rows, title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0)))
    if result.latency:
        title = f"Parts, each measured alone: {result.latency.runtime}"
        parts = [(part.name, f"{part.ms:.3f}", f"{part.share:.1%}") for part in result.latency.parts]
        show(rows_table(["part"], ("ms", "share"), parts, title=title, box=SIMPLE_HEAD, title_justify="left"))


def show_verification(result: Verification) -> None:
    """The subnets, fastest first, each by what differs; then how well they were predicted."""
    parts = [str(spec).split(";") for spec in result.specs]
    names = [
        ";".join(part for part, *others in zip(own, *parts, strict=True) if set(others) != {part}) for own in parts
    ]
    rows = sorted(zip(names, result.measured, result.predicted, result.errors, strict=True), key=lambda row: row[1])
    shown = [(name, f"{ms:.2f}", f"{predicted:.2f}", f"{error:+.1%}") for name, ms, predicted, error in rows]
    show(rows_table(["subnet: what differs"], ("measured, ms", "predicted, ms", "error"), shown))
    say(f"the table's own networks take {result.drift:.3f} times as long now; that is divided out")
    show(key_table(result.to_dict()))


def after_bundle(result: BundleResult, _arguments: Mapping[str, Any]) -> None:
    """Say what to do with a bundle."""
    name = Path(result.out).name
    say(f"on the device: python {name}/measure.py; then here: ofa-pose latency import results.csv --out TABLE")
