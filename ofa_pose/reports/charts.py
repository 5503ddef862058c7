"""Pictures of a report, as SVG that stands in the page itself."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.utils.numbers import are_numbers

BLUE, GREY, RED, GREEN = "#2b6cb0", "#a0aec0", "#c53030", "#2f855a"
BLACK = "#000000"
_ON_PAGE = {BLUE: "var(--blue)", GREY: "var(--grey)", RED: "var(--red)", GREEN: "var(--green)", BLACK: "var(--text)"}
PANEL = (4.4, 2.7)  # inches: of a phone's width
PARTS = {  # what a training logs of its steps, in panels
    "loss by part": ("low", "high", "push", "pull"),
    "learning rate": ("lr",),
    "seconds waiting for data": ("data_wait",),
}
MANY = 500  # points from which a picture of them is smaller
SMOOTHED = 40  # a loss curve is the mean of as many stretches of steps


def svg(figure: Figure, name: str, label: str) -> str:
    """A figure as an <svg> element, always the same, in the page's colours; `label` says what it shows.

    Its identifiers begin with a name of its own on the page.
    """
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True, dpi=150)
    found = text.getvalue()
    found = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", found[found.index("<svg") :])
    found = re.sub("|".join(_ON_PAGE), lambda colour: _ON_PAGE[colour[0]], found)
    return f'<svg role="img" aria-label="{html.escape(label)}"' + found.removeprefix("<svg")


def training_charts(
    trained: Sequence[Mapping[str, Any]], validated: Sequence[Mapping[str, Any]], salt: str
) -> Iterator[str]:
    """Over the steps the loss, its parts and the learning rate, and the AP; of a supernet that of three subnets.

    Steps with a validation are marked on the loss.
    """
    if trained:
        marks = [record["step"] for record in validated]
        yield svg(_panel(lambda axes: _loss(axes, trained, marks)), f"{salt}loss", "training loss over the steps")
    of_supernet = any("AP_largest" in record["val"] for record in validated)
    names = ("AP_largest", "AP_middle", "AP_smallest") if of_supernet else ("AP",)
    points = {name: [(r["step"], ap) for r in validated if _is_number(ap := r["val"].get(name))] for name in names}
    curves = {name.removeprefix("AP_"): curve for name, curve in points.items() if curve}
    if curves:
        chart = _panel(lambda axes: _curves(axes, curves, "AP on the validation images", "o-"))
        yield svg(chart, f"{salt}ap", "AP on the validation images over the steps")
    for number, (title, parts) in enumerate(PARTS.items()):
        logged = {name: [(r["step"], r[name]) for r in trained if _is_number(r.get(name))] for name in parts}
        smooth = {name.replace("_", " "): _smooth(curve) for name, curve in logged.items() if curve}
        if smooth:
            drawn = partial(_curves, curves=smooth, title=title, style="-")
            yield svg(_panel(drawn), f"{salt}part{number}", f"{title} over the steps")


def comparison_chart(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """The APs of several runs over their steps, by their names; of more than four the first four."""
    figure = Figure(figsize=PANEL, layout="constrained")
    _curves(figure.subplots(), curves, "AP on the validation images", "o-")
    return figure


def _panel(draw: Callable[[Axes], None]) -> Figure:
    figure = Figure(figsize=PANEL, layout="constrained")
    draw(figure.subplots())
    return figure


def _curves(axes: Axes, curves: Mapping[str, Sequence[tuple[float, float]]], title: str, style: str) -> None:
    for (name, points), colour in zip(curves.items(), (BLUE, RED, GREEN, GREY), strict=False):
        axes.plot(*zip(*points, strict=True), style, color=colour, markersize=3.5, lw=1.4, label=name)
    _frame(axes, "step", title)
    if len(curves) > 1:
        _legend(axes)


def _smooth(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means of stretches of steps."""
    parts = np.array_split(np.array(points, np.float64), min(SMOOTHED, len(points)))
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]


def _is_number(value: Any) -> bool:
    return are_numbers([value], 1)


def _loss(axes: Axes, trained: Sequence[Mapping[str, Any]], marks: Sequence[int]) -> None:
    steps, losses = (np.array([record[name] for record in trained]) for name in ("step", "loss"))
    stretches = np.array_split(np.arange(len(steps)), min(SMOOTHED, len(steps)))
    if len(steps) > 2 * SMOOTHED:
        axes.plot(steps, losses, color=GREY, lw=0.5, alpha=0.6)
    style = "-" if len(stretches) > 2 else "o-"
    axes.plot([steps[s].mean() for s in stretches], [losses[s].mean() for s in stretches], style, color=BLUE, lw=1.6)
    for step in marks:
        axes.axvline(step, color=GREY, lw=0.7, ls=":")
    top = 1.1 * float(np.quantile(losses, 0.99))
    axes.set_ylim(bottom=min(0.0, float(losses.min())), top=top if top > 0 else None)
    _frame(axes, "step", "training loss" + (", spikes cut off" if losses.max() > top > 0 else ""))


def progress_chart(aps: Sequence[float | None]) -> Figure:
    """The AP of every subnet that a search evaluated, in its order, and the best so far."""
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    orders = np.array([order for order, ap in enumerate(aps, start=1) if ap is not None])
    values = np.array([ap for ap in aps if ap is not None])
    axes.plot(orders, values, ".", color=GREY, markersize=5, label="a subnet", rasterized=len(values) > MANY)
    if len(values):
        best = np.maximum.accumulate(values)
        ends = [*orders, len(aps) + 0.5]
        axes.step(ends, [*best, best[-1]], where="post", color=BLUE, lw=1.6, label="the best so far")
        _legend(axes)
    axes.set_xlim(0.5, max(len(aps), 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _frame(axes, "evaluation", "AP on the search images")
    return figure


def choice_chart(name: str, pairs: Sequence[tuple[int, float]], chosen: int | None = None) -> Figure:
    """What a gene's choices were worth: (value, AP) of every subnet, with best and median; bold: the chosen value."""
    figure = Figure(figsize=(2.1, 1.9), layout="constrained")
    axes = figure.subplots()
    values = sorted({value for value, _ in pairs})
    aps = [[ap for value, ap in pairs if value == one] for one in values]
    for place, found in enumerate(aps):
        # Side by side where there are many, so that their density can be seen.
        across = place + 0.25 * np.sin(np.arange(len(found)) * 2.4) * min(1, len(found) / 50)
        axes.plot(across, found, ".", color=GREY, markersize=3, alpha=0.6, rasterized=len(pairs) > MANY)
    axes.plot([np.median(found) for found in aps], "_-", color=BLUE, markersize=12, lw=1)
    axes.plot([max(found) for found in aps], "_", color=RED, markersize=12)
    axes.set_xticks(range(len(values)), [str(value) for value in values], fontsize=8)
    axes.tick_params(labelsize=8)
    if chosen in values:
        axes.get_xticklabels()[values.index(chosen)].set_fontweight("bold")
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_title(name, fontsize=9)
    _frame(axes, "", "", grid="y")
    return figure


def network_chart(spec: ArchSpec, largest: ArchSpec | None = None) -> Figure:
    """A bar for each part, as long as it is wide; round it, dashed, the largest of its space."""
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = figure.subplots()
    parts, reach = _parts(spec), _parts(largest or spec)
    longest = max(width for _, width, _ in (*reach, *parts))
    for place, ((name, width, depth), (_, most, deepest)) in enumerate(zip(parts, reach, strict=True)):
        color = BLUE if name.startswith("stage") else GREEN if name.startswith("deconv") else RED
        axes.barh(place, width, 0.6, color=color)
        said = str(width)
        if largest is not None:
            axes.add_patch(Rectangle((0, place - 0.36), most, 0.72, fill=False, edgecolor=GREY, ls="--", lw=0.9))
            said = f"{width} of {most}"
        if name.startswith("stage"):
            said += f", {depth} blocks" if depth == deepest else f", {depth} of {deepest} blocks"
        axes.text(max(width, most if largest is not None else 0) + longest / 60, place, said, va="center", fontsize=8)
    axes.set_yticks(range(len(parts)), [name for name, _, _ in parts], fontsize=9)
    axes.set(xlim=(0, 1.5 * longest))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="channels")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _parts(spec: ArchSpec) -> list[tuple[str, int, int]]:
    """Name, width and depth of stem, stages and deconvs."""
    stages = [(f"stage {i}", width, len(spec.expansions[i - 1])) for i, width in enumerate(spec.stages, start=1)]
    deconvs = [(f"deconv {i}", width, 1) for i, width in enumerate(spec.deconv, start=1)]
    return [("stem", spec.stem, 1), *stages, *deconvs]


def _legend(axes: Axes) -> None:
    """A legend over the panel, where it hides nothing."""
    axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _frame(axes: Axes, x: str, y: str, grid: Literal["both", "y"] = "both") -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25, axis=grid)
    axes.spines[["top", "right"]].set_visible(False)
