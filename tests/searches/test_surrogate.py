from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe.settings import SearchSettings
from ofa_pose.searches import surrogate
from ofa_pose.searches.algorithms import ALGORITHMS
from ofa_pose.searches.candidates import Candidate, FitnessOutcome
from ofa_pose.searches.evolution import evolve
from ofa_pose.searches.surrogate import Screening
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.ranking import kendall
from tests.searches.landscape import Landscape, draw_landscape, judge_with

pytest.importorskip("sklearn")

SETTINGS = SearchSettings(population=8, generations=4, surrogate=True, surrogate_samples=8)


@pytest.fixture(scope="module")
def land() -> Landscape:
    return draw_landscape(1)


@pytest.fixture(scope="module")
def part(land: Landscape) -> FeasibleSpace:
    return land.part(0.5)


def some(land: Landscape, part: FeasibleSpace, count: int, seed: int = 0) -> list[Candidate]:
    settings = SearchSettings(population=count, generations=0)
    return list(ALGORITHMS["random"](part, settings, seed, land.judge()))


def test_it_foretells_aps_that_it_has_not_seen(land: Landscape, part: FeasibleSpace) -> None:
    screen = Screening(part, SETTINGS)
    screen.learn(some(land, part, 60))
    told = screen.report()
    assert screen.trusted and told["surrogate_samples"] == 60
    others = some(land, part, 200, seed=1)
    forecast = screen.forecast([c.genome for c in others])
    measured = np.array([c.fitness for c in others])
    tau = kendall(forecast.mean, measured)
    assert tau is not None and tau > 0.6
    assert told["surrogate_tau"] == pytest.approx(tau, abs=0.15)  # what it says of itself is true
    errors = np.abs(forecast.mean - measured) / forecast.deviation
    assert 0.8 < np.mean(errors < 2) <= 1


def test_each_generation_is_reported_with_what_was_foretold_before(land: Landscape, part: FeasibleSpace) -> None:
    reports: list[dict[str, Any]] = []
    for candidate in evolve(part, SETTINGS, 0, land.judge(), report=reports.append):
        assert len(reports) == candidate.generation  # told between a generation's last and the next one's first
    assert [report["generation"] for report in reports] == [0, 1, 2, 3, 4]
    assert [report["surrogate_samples"] for report in reports] == [8, 16, 24, 32, 40]
    assert not reports[0]["surrogate"] and reports[0]["surrogate_tau_new"] is None
    assert any(report["surrogate"] for report in reports)
    for report in reports[1:]:
        assert -1 <= report["surrogate_tau_new"] <= 1 and -1 <= report["surrogate_spearman"] <= 1


def test_a_generation_is_judged_in_rounds(land: Landscape, part: FeasibleSpace) -> None:
    asked = []

    def judge(genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        asked.append(len(genomes))
        yield from land.judge()(genomes)

    settings = SETTINGS.model_copy(update={"surrogate_round": 3, "uniform_start": False})
    history = list(evolve(part, settings, 0, judge))
    assert asked == [3, 3, 2] * 5
    assert [c.order for c in history] == list(range(1, 41))
    assert [c.generation for c in history] == [number // 8 for number in range(40)]


def test_more_uniform_nets_than_a_generation_are_all_judged_once(land: Landscape, part: FeasibleSpace) -> None:
    prior = [(c.genome, c.fitness) for c in some(land, part, 60, seed=2)]
    settings = SETTINGS.model_copy(update={"population": 2, "generations": 2})
    reports: list[dict[str, Any]] = []
    history = list(evolve(part, settings, 0, land.judge(), prior, reports.append))
    assert [(c.generation, c.origin == "uniform") for c in history] == [(0, True)] * 3 + [(1, False)] * 2 + [
        (2, False)
    ] * 2
    assert len({c.genome for c in history}) == 7 and reports[1]["surrogate"]


def test_it_finds_better_subnets_with_as_many_evaluations(land: Landscape, part: FeasibleSpace) -> None:
    def best(surrogate: bool, seed: int) -> float:
        settings = SETTINGS.model_copy(update={"surrogate": surrogate, "generations": 2})
        return max(c.fitness for c in evolve(part, settings, seed, land.judge()))

    gains = [best(True, seed) - best(False, seed) for seed in range(5)]
    assert np.mean(gains) > 0.002


def test_it_stands_aside_where_nothing_can_be_foretold(part: FeasibleSpace) -> None:
    def noise(genome: tuple[int, ...]) -> float:
        return np.random.default_rng(genome).random()

    reports: list[dict[str, Any]] = []
    settings = SETTINGS.model_copy(update={"population": 16, "surrogate_tau": 0.4})
    history = list(evolve(part, settings, 0, judge_with(noise), report=reports.append))
    assert len(history) == 80
    # A few samples can look as if they could be predicted: of 40 and more it is not deceived.
    assert not any(report["surrogate"] for report in reports[3:])
    assert all(report["surrogate_tau"] < 0.4 for report in reports[2:])


def test_prior_aps_serve_from_the_first_generation_and_are_judged_again(land: Landscape, part: FeasibleSpace) -> None:
    prior = [(c.genome, c.fitness) for c in some(land, part, 60, seed=2)]
    settings = SETTINGS.model_copy(update={"generations": 0})
    gains = []
    for seed in range(3):
        reports: list[dict[str, Any]] = []
        helped = list(evolve(part, settings, seed, land.judge(), prior, reports.append))
        alone = list(evolve(part, settings, seed, land.judge()))
        assert reports[0]["surrogate"] and reports[0]["surrogate_samples"] == 68
        assert len(helped) == len(alone) == 8
        gains.append(max(c.fitness for c in helped) - max(c.fitness for c in alone))
    assert np.mean(gains) > 0


def test_the_same_seed_gives_the_same_candidates(land: Landscape, part: FeasibleSpace) -> None:
    runs = [list(evolve(part, SETTINGS, 5, land.judge())) for _ in range(2)]
    assert runs[0] == runs[1]


def test_nsga2_can_be_screened_too(land: Landscape) -> None:
    reports: list[dict[str, Any]] = []
    history = list(ALGORITHMS["nsga2"](land.part(1.0), SETTINGS, 0, land.judge(), report=reports.append))
    assert len({c.genome for c in history}) == 40 and reports[-1]["surrogate"]
    late = [c.macs for c in history if c.generation > 1]
    assert np.ptp(late) > 0.4 * np.ptp(land.costs)  # it keeps to the whole front


def test_aps_that_are_no_numbers_count_as_the_worst(land: Landscape, part: FeasibleSpace) -> None:
    table = dict(zip(land.genomes, land.aps.tolist(), strict=True))
    judge = judge_with(lambda genome: float("nan") if genome[1] else table[genome])
    reports: list[dict[str, Any]] = []
    history = list(evolve(part, SETTINGS, 0, judge, report=reports.append))
    assert reports[-1]["surrogate_samples"] == len(history) == 40
    assert np.mean([c.is_valid for c in history if c.generation > 1]) > 0.6
    nothing = list(evolve(part, SETTINGS, 0, judge_with(lambda genome: float("nan"))))
    assert len(nothing) == 40


def test_without_scikit_learn_there_is_a_clear_word(part: FeasibleSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"needs scikit-learn.*\[surrogate\]"):
        Screening(part, SETTINGS)


def test_a_kernel_serves_until_a_fifth_more_is_known_whether_trusted_or_not(
    land: Landscape, part: FeasibleSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def fitted(inputs: np.ndarray, aps: np.ndarray, *start: Any) -> Any:
        if start:  # not a fold
            sizes.append(len(aps))
        return plain(inputs, aps, *start)

    plain = surrogate._fitted
    monkeypatch.setattr(surrogate, "_fitted", fitted)
    monkeypatch.setattr(surrogate, "MOST_SAMPLES", 50)
    known = some(land, part, 80)
    for tau, expected in ((0.0, [30, 36, 44, 50, 50, 50]), (0.99, [30, 36, 44, 50, 50, 50])):
        sizes.clear()
        screen = Screening(part, SETTINGS.model_copy(update={"surrogate_tau": tau}))
        screen.learn(known[:30])
        for start in range(30, 80, 2):
            screen.learn(known[start : start + 2])
        assert sizes == expected and screen.trusted == (tau == 0)
