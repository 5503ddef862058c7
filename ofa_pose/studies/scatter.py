"""The picture of a comparison: the same subnets' APs under two ways of judging, a point each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ofa_pose.utils import files

Panel = tuple[str, str, dict[str, list[tuple[float, float]]]]
MARKS = "os^DvPX*"


def draw_scatter(path: Path, panels: Sequence[Panel]) -> None:
    """Write a PNG with a panel for each comparison; a dashed line shows where both ways agree.

    Args:
        panels: of each the x axis, the y axis, and the points of each legend entry. With none, nothing is written.
    """
    if not panels:
        return
    figure = Figure(figsize=(4.4 * len(panels), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (x_label, y_label, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for mark, (label, points) in zip(MARKS * len(series), series.items(), strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, mark, label=label, alpha=0.75, markersize=6, markeredgewidth=0)
        start = next(iter(series.values()))[0][0]
        axes.axline((start, start), slope=1, color="0.5", linestyle="--", lw=1, zorder=1)
        axes.margins(0.08)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
