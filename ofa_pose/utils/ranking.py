"""How alike two rankings of the same things are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ofa_pose.utils.seeding import generator


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


def _signs(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return np.sign(array[:, None] - array[None])


def _tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    pairs = np.count_nonzero(a) * np.count_nonzero(b)
    return float((a * b).sum() / np.sqrt(pairs)) if pairs else None
