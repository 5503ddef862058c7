"""What people see of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ofa_pose.utils.console import say, show

if TYPE_CHECKING:
    from ofa_pose.studies.comparison import CountComparison, FidelityResult, TuningComparison


def show_fidelity(result: FidelityResult) -> None:
    """The rank correlations, and where every figure is."""
    show(fidelity_table(result))
    say(f"every figure: {result.table}" + (f", drawn: {result.picture}" if result.picture else ""))


def fidelity_table(result: FidelityResult) -> Table:
    """The rank correlations; below them the advice."""
    table = Table(title=f"Rank correlation over {result.subnets} subnets of all costs", caption=result.advice)
    table.caption_justify = "left"
    for name in ("evaluated on", "against", "Kendall's tau", "95 % interval", "s a subnet"):
        table.add_column(name, justify="left" if name in ("evaluated on", "against") else "right")
    for lines, unit in ((result.images, "images"), (result.calibration, "calibration images")):
        *fewer, largest = lines
        for line in fewer:
            table.add_row(f"{line.count} {unit}", f"{largest.count}", *_cells(line), f"{line.seconds:.2f}")
    largest, tuned = result.images[-1], result.finetuned
    if tuned:
        label = f"{largest.count} images, inherited"
        table.add_row(label, f"after {tuned.steps} steps", *_cells(tuned), f"{largest.seconds:.2f}")
    return table


def _cells(found: CountComparison | TuningComparison) -> tuple[str, str]:
    if found.tau is None:
        return "–", "–"
    return f"{found.tau:.3f}", f"{found.low:.2f} to {found.high:.2f}"
