"""Rank correlations against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from ofa_pose.utils.ranking import kendall, kendall_interval, spearman


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_tau_is_scipys_ties_included() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 12, 50):
        for levels in (2, 5, 1000):
            one, other = rng.integers(levels, size=(2, size))
            expected, found = kendalltau(one, other).statistic, kendall_interval(one, other, resamples=20).tau
            assert found is None if np.isnan(expected) else found == pytest.approx(expected, abs=1e-12)
            assert found == kendall(one, other)
            rho = spearmanr(one, other).statistic
            assert spearman(one, other) == (None if np.isnan(rho) else rho)
    assert kendall_interval([1, 1, 1], [1, 2, 3]).tau is None


def test_the_interval_tells_how_sure_a_tau_is() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=8), rng.normal(size=80)
    rough, sure = (kendall_interval(values, values + rng.normal(scale=0.5, size=len(values))) for values in (few, many))
    for found in (rough, sure):
        assert found.tau is not None and found.low is not None and found.high is not None
        assert -1 <= found.low < found.tau < found.high <= 1
    assert rough.high - rough.low > 2 * (sure.high - sure.low)  # type: ignore[operator]
    same = kendall_interval(few, few * 2)
    assert (same.tau, same.low, same.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert (
        kendall_interval([1, 1, 1], [1, 2, 3]) == kendall_interval([1, 2, 3], [0, 0, 0])
        and kendall_interval([1, 1], [1, 2]).tau is None
    )


def test_rank_correlations_of_what_cannot_be_ranked() -> None:
    assert kendall([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == spearman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1.0
    assert kendall([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]) == pytest.approx(-1)
    for one, other in (([1.0], [1.0]), ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]), ([], [])):
        assert kendall(one, other) is None and spearman(one, other) is None
