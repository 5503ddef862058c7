"""The picture of a search: AP over cost of every subnet it judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ofa_pose import files
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import spec_params
from ofa_pose.search.budget import Budget, FeasibleSpace
from ofa_pose.search.candidates import Candidate

Point = tuple[float, float]


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the (cost, AP) points that no other matches or beats in both; by ascending cost, so ascending AP."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def draw_pareto(path: Path, history: Sequence[Candidate], part: FeasibleSpace) -> None:
    """Write a PNG of AP over cost: all candidates, Pareto front, uniformly scaled nets, budget, and the best one.

    The cost is what the budget limits: MACs, else parameters, else latency.
    """
    axis = _axis(part.budget, max((part.decode(c.genome) for c in history), key=part.budget.macs_of))
    points = [(axis.value(part.decode(c.genome)), c.fitness if math.isfinite(c.fitness) else 0.0) for c in history]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    generations = [c.generation for c in history]
    dots = axes.scatter(*_xy(points), c=generations, cmap="viridis", s=24, alpha=0.8, linewidths=0, zorder=2)
    if max(generations):
        figure.colorbar(dots, ax=axes, label="generation", ticks=MaxNLocator(integer=True))
    end = max(x for x, _ in points)
    axes.step(*_xy(_envelope(points, end)), where="post", color="black", lw=1.2, zorder=4, label="Pareto front")
    scaled = {part.space.encode(spec) for spec in part.space.uniform(part.joints)}
    uniform = [point for point, c in zip(points, history, strict=True) if c.genome in scaled]
    if uniform:
        axes.step(*_xy(_envelope(uniform, end)), where="post", color="tab:red", lw=1.2, zorder=3)
        label = "uniformly scaled nets, and their front"
        axes.plot(*_xy(uniform), "s", color="tab:red", markersize=5, zorder=4, label=label)
    if axis.limit is not None:
        axes.axvline(axis.limit, color="0.4", linestyle="--", lw=1.2, zorder=1, label=f"budget: {part.budget}")
    best = points[max(range(len(history)), key=lambda index: history[index].rank)]
    label = f"chosen: AP {best[1]:.3f} at {best[0]:.3g}{axis.unit}"
    axes.plot(*best, "*", color="gold", markeredgecolor="black", markersize=17, linestyle="none", zorder=5, label=label)
    axes.set_xlabel(axis.label)
    axes.set_ylabel("AP on the search images")
    axes.set_title(f"{len(history)} subnets of {part.space.name}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.9, fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _envelope(points: Sequence[Point], end: float) -> list[Point]:
    """The front of some points, drawn on at its last height as far as `end`."""
    front = [points[index] for index in pareto_front(points)]
    return [*front, (max(end, front[-1][0]), front[-1][1])]


@dataclass(frozen=True)
class _Axis:
    quantity: str
    unit: str
    scale: float
    limit: float | None
    budget: Budget

    @property
    def label(self) -> str:
        return f"{self.quantity} [{self.unit}]"

    def value(self, spec: ArchSpec) -> float:
        if self.quantity == "parameters":
            return spec_params(spec) / self.scale
        if self.quantity == "latency":
            assert self.budget.predict_ms is not None
            return self.budget.predict_ms(spec) / self.scale
        return self.budget.macs_of(spec) / self.scale


def _axis(budget: Budget, largest: ArchSpec) -> _Axis:
    if budget.macs is None and budget.params is not None:
        return _Axis("parameters", "M", 1e6, budget.params / 1e6, budget)
    if budget.macs is None and budget.latency_ms is not None:
        return _Axis("latency", "ms", 1.0, budget.latency_ms, budget)
    scale, unit = (1e9, "G") if budget.macs_of(largest) >= 1e9 else (1e6, "M")
    limit = None if budget.macs is None else budget.macs / scale
    return _Axis(f"MACs in the {budget.convention} convention", unit, scale, limit, budget)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
