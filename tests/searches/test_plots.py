"""The picture of a search: drawn for few points, for thousands, for each kind of budget and where judging failed."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import spec_params
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.results import draw_pareto
from tests.searches.small_spaces import JOINTS, half_way, small_space
from tests.searches.test_results import evaluated, predict_ms, samples, widest

SPACE = small_space()
RED, GOLD = (214, 39, 40), (255, 215, 0)


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of the picture that is drawn: axis, title, legend."""
    from matplotlib.figure import Figure

    found: list[str] = []
    original = Figure.savefig

    def savefig(figure: Figure, *arguments: object, **named: object) -> None:
        axes = figure.axes[0]
        found.extend([axes.get_xlabel(), axes.get_title(), *axes.get_legend_handles_labels()[1]])
        original(figure, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def pixels(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels have a colour, given as RGB."""
    image = cv2.imread(str(path))
    assert image is not None
    return int((np.abs(image[..., ::-1].astype(int) - colour).max(-1) < 12).sum())


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_few_points_and_many(tmp_path: Path, labels: list[str], count: int) -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    candidates = evaluated(feasible, [*widest(feasible), *samples(feasible, 4 * count)][:count])
    draw_pareto(tmp_path / "pareto.png", candidates, feasible)
    assert pixels(tmp_path / "pareto.png", RED) > 40, "the uniform nets are seen"
    assert pixels(tmp_path / "pareto.png", GOLD) > 30, "the chosen one is seen"
    assert labels[0] == "MACs (thop) [M]" and labels[1] == f"{len(candidates)} subnet{'s' * (count > 1)} of small"
    best = max(candidates, key=lambda c: c.rank)
    assert f"chosen: AP {best.fitness:.3f} at {best.macs / 1e6:.3g}M" in labels
    assert f"budget: {feasible.budget}" in labels and "Pareto front" in labels


def test_the_axis_is_the_first_limits(tmp_path: Path, labels: list[str]) -> None:
    largest = SPACE.largest(JOINTS)
    for budget, axis in (
        (Budget(params=spec_params(largest) // 2), "parameters [M]"),
        (Budget(latency_ms=predict_ms(largest) / 2, predict_ms=predict_ms), "latency [ms]"),
        (Budget(macs=10**10, params=spec_params(largest) // 2, convention="paper"), "MACs (paper) [G]"),
    ):
        labels.clear()
        feasible = FeasibleSpace(SPACE, JOINTS, budget)
        draw_pareto(tmp_path / "pareto.png", evaluated(feasible, samples(feasible, 10)), feasible)
        assert labels[0] == axis


def test_failed_candidates_are_counted_not_drawn(tmp_path: Path, labels: list[str]) -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    draw_pareto(tmp_path / "some.png", evaluated(feasible, samples(feasible, 10), failing=4), feasible)
    assert labels[1].endswith("subnets of small, 4 of them failed")
    failed = Candidate(1, 0, "sample", samples(feasible, 1)[0], -math.inf, 1, 0.1)
    draw_pareto(tmp_path / "all.png", [failed], feasible)
    assert "1 of them failed" in " ".join(labels) and pixels(tmp_path / "all.png", GOLD) == 0
