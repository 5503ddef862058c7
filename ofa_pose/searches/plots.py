"""The picture of a search: AP over cost of every subnet it evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Limit
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.results import costs_of, first_limit, pareto_front, uniform_genomes
from ofa_pose.utils import files

Point = tuple[float, float]


def draw_pareto(path: Path, history: Sequence[Candidate], feasible: FeasibleSpace) -> None:
    """Write a PNG of AP over cost: all candidates, Pareto front, uniformly scaled nets, budget, and the chosen one.

    The cost is what the budget's first limit limits. Candidates whose evaluation failed (-inf) are only counted.
    """
    valid = [candidate for candidate in history if math.isfinite(candidate.fitness)]
    name, unit, scale = _axis(first_limit(feasible))
    points = [(cost / scale, c.fitness) for cost, c in zip(costs_of(feasible, valid), valid, strict=True)]
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    limit = first_limit(feasible).maximum / scale
    axes.axvline(limit, color="0.4", linestyle="--", lw=1.2, zorder=1, label=f"budget: {feasible.budget}")
    if points:
        _draw_all(figure, axes, points, [c.generation for c in valid])
        uniform = uniform_genomes(feasible)
        _draw_fronts(axes, points, [c.genome in uniform for c in valid], limit)
        x, y = points[max(range(len(valid)), key=lambda index: valid[index].rank)]
        label = f"chosen: AP {y:.3f} at {x:.3g}{unit}"
        axes.plot(
            x, y, "*", color="gold", markeredgecolor="black", markersize=17, linestyle="none", zorder=6, label=label
        )
    axes.set_xlabel(f"{name} [{unit}]")
    axes.set_ylabel("AP on the search images")
    failed = len(history) - len(valid)
    subnets = "1 subnet" if len(history) == 1 else f"{len(history):,} subnets"
    axes.set_title(f"{subnets} of {feasible.space.name}" + (f", {failed} of them failed" if failed else ""))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)  # where it can hide no point
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _draw_all(figure: Figure, axes: Axes, points: Sequence[Point], generations: Sequence[int]) -> None:
    """A dot each: small and pale where there are thousands, so that the lines over them can be seen."""
    many = len(points) / 100
    size, alpha = max(5.0, 24 / max(many, 1) ** 0.5), max(0.35, 0.8 / max(many, 1) ** 0.25)
    dots = axes.scatter(*_xy(points), c=generations, cmap="viridis", s=size, alpha=alpha, linewidths=0, zorder=2)
    if max(generations):
        bar = figure.colorbar(dots, ax=axes, label="generation", ticks=MaxNLocator(integer=True))
        bar.solids.set_alpha(1)  # type: ignore[union-attr]


def _draw_fronts(axes: Axes, points: Sequence[Point], is_uniform: Sequence[bool], limit: float) -> None:
    """The Pareto front, with marks while they can be kept apart, and the uniformly scaled nets with theirs."""
    end = max(limit, *(x for x, _ in points))
    front = _envelope(points, end)
    axes.step(*_xy(front), where="post", color="black", lw=1.3, zorder=4, label="Pareto front")
    if len(front) <= 60:
        axes.plot(*_xy(front[:-1]), "o", color="black", markersize=3.5, zorder=4)
    uniform = [point for point, one in zip(points, is_uniform, strict=True) if one]
    if uniform:
        axes.step(*_xy(_envelope(uniform, end)), where="post", color="tab:red", ls="--", lw=1.2, zorder=4)
        label = "uniformly scaled nets, and their front"
        axes.plot(*_xy(uniform), "s", color="tab:red", markeredgecolor="white", markersize=6, zorder=5, label=label)


def _envelope(points: Sequence[Point], end: float) -> list[Point]:
    """The front of some points, drawn on at its last height as far as `end`."""
    front = [points[index] for index in pareto_front(points)]
    return [*front, (end, front[-1][1])]


def _axis(limit: Limit) -> tuple[str, str, float]:
    """Name, unit and scale of the cost that a limit limits."""
    name = limit.quantity.removeprefix("of ")
    if limit.option == "--latency":
        return name, "ms", 1.0
    return (name, "G", 1e9) if limit.maximum >= 1e9 else (name, "M", 1e6)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
