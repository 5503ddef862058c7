"""How alike two rankings of the same things are, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ofa_pose.utils import atomic
from ofa_pose.utils.seeding import generator

MARKS = "os^DvPX*"
Values = Sequence[float] | NDArray[np.float64]
Series = Mapping[str, Values]  # what is compared, by what a legend calls it


class Tau(NamedTuple):
    """Kendall's tau-b, -1 to 1, with its bootstrap interval; None where one ranking tells nothing apart."""

    tau: float | None
    low: float | None
    high: float | None


def kendall(one: ArrayLike, other: ArrayLike) -> float | None:
    """Kendall's tau-b; None where one ranking tells nothing apart."""
    return _tau(_signs(one), _signs(other))


def spearman(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's rho; None where one ranking tells nothing apart."""
    from scipy.stats import spearmanr

    alike = any(np.ptp(values) == 0 for values in (np.asarray(one), np.asarray(other)) if values.size)
    return None if alike or np.size(one) < 2 else float(spearmanr(one, other).statistic)


def kendall_interval(one: Sequence[float], other: Sequence[float], resamples: int = 1000, level: float = 0.95) -> Tau:
    """Kendall's tau-b with the percentile interval of as many bootstrap samples of the things compared."""
    a, b = _signs(one), _signs(other)
    tau = _tau(a, b)
    if tau is None:
        return Tau(None, None, None)
    rng = generator("bootstrap")
    draws = (rng.integers(len(a), size=len(a)) for _ in range(resamples))
    # A thing drawn twice is tied with itself, which tau-b leaves out of account.
    found = [_tau(a[np.ix_(draw, draw)], b[np.ix_(draw, draw)]) for draw in draws]
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile([value for value in found if value is not None], ends)
    return Tau(tau, float(low), float(high))


def draw_comparisons(path: str | Path, x: Values, panels: Sequence[tuple[str, str, Series]], title: str = "") -> Path:
    """Write a picture (PNG, or by the suffix SVG or PDF) with a panel for each comparison; gives its path.

    A dashed line shows where both agree.

    Args:
        panels: of each the label of its x axis, along which `x` lie, that of y, and what lies there, by legend entry.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 4.6), layout="constrained")
    for axes, (x_label, y_label, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for mark, (label, y) in zip(MARKS * len(series), series.items(), strict=False):
            axes.plot(x, y, mark, label=label, alpha=0.75, markersize=6, markeredgewidth=0)
        axes.axline((x[0], x[0]), slope=1, color="0.5", linestyle="--", lw=1, zorder=1)
        axes.margins(0.08)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    figure.suptitle(title, fontsize=10)
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return Path(path)


def _signs(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return np.sign(array[:, None] - array[None])


def _tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    pairs = np.count_nonzero(a) * np.count_nonzero(b)
    return float((a * b).sum() / np.sqrt(pairs)) if pairs else None
