"""What `ofa-pose profile` and `ofa-pose latency` show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.cli.tables import key_table
from ofa_pose.utils.console import say, show
from ofa_pose.utils.units import format_count

if TYPE_CHECKING:
    from ofa_pose.api.profiling import BundleResult, ProfileResult
    from ofa_pose.latency.profile import NetworkTime
    from ofa_pose.latency.verify import Verification


def show_profile(result: ProfileResult) -> None:
    """The figures, then the layers and the parts."""
    figures = {key: value for key, value in result.to_dict().items() if key not in ("layers", "latency")}
    measured = result.latency.to_dict() if result.latency else {}
    show(key_table({**figures, **{key: value for key, value in measured.items() if key != "parts"}}))
    if result.layers:
        show(_layers(result.layers, f"{result.spec}, {result.spec.joints} joints"))
    if result.latency:
        show(_parts(result.latency))


def _layers(rows: list[dict[str, Any]], title: str) -> Table:
    """A row for each layer, its MACs rounded."""
    conventions = rows[0]["macs"]
    table = Table(title=f"{title}: MACs by convention", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer")
    table.add_column("operator")
    for name in ("in", "out", "side", "params", *conventions):
        table.add_column(name, justify="right")
    for row in rows:
        shape = (str(row[key]) for key in ("cin", "cout", "side", "params"))
        table.add_row(row["name"], row["operator"], *shape, *(format_count(macs) for macs in row["macs"].values()))
    return table


def _parts(time: NetworkTime) -> Table:
    table = Table(title=f"Parts, each measured alone: {time.runtime}", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("part")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for part in time.parts:
        table.add_row(part.name, f"{part.ms:.3f}", f"{part.share:.1%}")
    return table


def show_verification(result: Verification) -> None:
    """The subnets, fastest first, each by what differs; then how well they were predicted."""
    parts = [str(spec).split(";") for spec in result.specs]
    names = [
        ";".join(part for part, *others in zip(own, *parts, strict=True) if set(others) != {part}) for own in parts
    ]
    table = Table("subnet: what differs", *("measured, ms", "predicted, ms", "error"))
    for column in table.columns[1:]:
        column.justify = "right"
    rows = zip(names, result.measured, result.predicted, result.errors, strict=True)
    for name, measured, predicted, error in sorted(rows, key=lambda row: row[1]):
        table.add_row(name, f"{measured:.2f}", f"{predicted:.2f}", f"{error:+.1%}")
    show(table)
    say(f"the table's own networks take {result.drift:.3f} times as long now; that is divided out")
    show(key_table(result.to_dict()))


def after_bundle(result: BundleResult, _arguments: Mapping[str, Any]) -> None:
    """Say what to do with a bundle."""
    name = Path(result.out).name
    say(f"on the device: python {name}/measure.py; then here: ofa-pose latency import results.csv --out TABLE")
