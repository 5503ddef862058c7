"""Pictures of a report, as SVG that stands in the page itself."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ofa_pose.arch.spec import ArchSpec

BLUE, GREY, RED, GREEN = "#2b6cb0", "#a0aec0", "#c53030", "#2f855a"
MANY = 500  # points from which a picture of them is smaller
SMOOTHED = 40  # a loss curve is the mean of as many stretches of steps


def svg(figure: Figure, name: str) -> str:
    """A figure as an <svg> element, always the same; its identifiers begin with a name of its own on the page."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True, dpi=150)
    found = text.getvalue()
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", found[found.index("<svg") :])


def training_chart(trained: Sequence[Mapping[str, Any]], validated: Sequence[Mapping[str, Any]]) -> Figure:
    """The loss and, where it was validated, the AP over the steps; of a supernet the AP of three of its subnets."""
    of_supernet = any("AP_largest" in record["val"] for record in validated)
    curves = {}
    for name in ("AP_largest", "AP_middle", "AP_smallest") if of_supernet else ("AP",):
        points = [(r["step"], ap) for r in validated if isinstance(ap := r["val"].get(name), int | float)]
        if points:
            curves[name.removeprefix("AP_")] = points
    panels = bool(trained) + bool(curves)
    figure = Figure(figsize=(4.6 * panels, 2.9), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if trained:
        _loss(axes.pop(0), trained)
    if curves:
        for name, points in curves.items():
            axes[0].plot(*zip(*points, strict=True), "o-", markersize=3.5, lw=1.4, label=name)
        _frame(axes[0], "step", "AP on the validation images")
        if len(curves) > 1:
            _legend(axes[0])
    return figure


def _loss(axes: Axes, trained: Sequence[Mapping[str, Any]]) -> None:
    steps, losses = (np.array([record[name] for record in trained]) for name in ("step", "loss"))
    stretches = np.array_split(np.arange(len(steps)), min(SMOOTHED, len(steps)))
    if len(steps) > 2 * SMOOTHED:
        axes.plot(steps, losses, color=GREY, lw=0.5, alpha=0.6)
    style = "-" if len(stretches) > 2 else "o-"
    axes.plot([steps[s].mean() for s in stretches], [losses[s].mean() for s in stretches], style, color=BLUE, lw=1.6)
    top = 1.1 * float(np.quantile(losses, 0.99))
    axes.set_ylim(bottom=min(0.0, float(losses.min())), top=top if top > 0 else None)
    _frame(axes, "step", "training loss" + (", spikes cut off" if losses.max() > top > 0 else ""))


def progress_chart(aps: Sequence[float | None]) -> Figure:
    """The AP of every subnet that a search evaluated, in its order, and the best so far."""
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
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


def choices_chart(choices: Mapping[str, Sequence[tuple[int, float]]], chosen: Mapping[str, int]) -> Figure:
    """What choices were worth: by gene, (value, AP) of every subnet evaluated, with best and median; bold: chosen."""
    columns, rows = min(5, len(choices)), -(-len(choices) // 5)
    figure = Figure(figsize=(1.9 * columns, 1.75 * rows), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in cells.flat[len(choices) :]:
        axes.set_visible(False)
    for axes, (name, pairs) in zip(cells.flat, choices.items(), strict=False):
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
        if chosen.get(name) in values:
            axes.get_xticklabels()[values.index(chosen[name])].set_fontweight("bold")
        axes.set_xlim(-0.6, len(values) - 0.4)
        axes.set_title(name, fontsize=9)
        _frame(axes, "", "", grid="y")
    return figure


def network_chart(spec: ArchSpec, largest: ArchSpec | None = None) -> Figure:
    """A bar for each part, as high as it is wide and as broad as it is deep; behind, the largest of its space."""
    figure = Figure(figsize=(8.6, 2.7), layout="constrained")
    axes = figure.subplots()
    parts, reach, left = _parts(spec), _parts(largest or spec), 0.0
    gap = max(1.0, sum(depth for _, _, depth in reach) / 12)  # labels need room
    ticks = []
    for (name, width, depth), (_, most, deepest) in zip(parts, reach, strict=True):
        color = BLUE if name.startswith("stage") else GREEN if name.startswith("deconv") else RED
        if largest is not None:
            axes.add_patch(Rectangle((left, 0), deepest, most, fill=False, edgecolor=GREY, ls="--", lw=0.9))
        axes.add_patch(Rectangle((left, 0), depth, width, facecolor=color, alpha=0.85))
        axes.text(left + depth / 2, width, str(width), ha="center", va="bottom", fontsize=9)
        label = f"{name}\n{depth} blocks" if name.startswith("stage") else name.replace(" ", "\n")
        ticks.append((left + deepest / 2, label))
        left += max(deepest, depth) + gap
    axes.set(xlim=(-0.5, left), ylim=(0, 1.15 * max(width for _, width, _ in (*reach, *parts))))
    axes.set_xticks(*zip(*ticks, strict=True), fontsize=8)
    _frame(axes, "", "channels")
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
