from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches import surrogate
from ofa_pose.searches.algorithms import ALGORITHMS, evolve
from ofa_pose.searches.candidates import Candidate, FitnessOutcome
from ofa_pose.searches.surrogate import Screening
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.ranking import kendall
from tests.searches.evaluated_space import EvaluatedSpace, draw_space, evaluate_with

pytest.importorskip("sklearn")

SETTINGS = SearchSettings(population=8, generations=4, surrogate=True, surrogate_samples=8)


@pytest.fixture(scope="module")
def subnets() -> EvaluatedSpace:
    return draw_space(1)


@pytest.fixture(scope="module")
def feasible(subnets: EvaluatedSpace) -> FeasibleSpace:
    return subnets.feasible(0.5)


def some(subnets: EvaluatedSpace, feasible: FeasibleSpace, count: int, seed: int = 0) -> list[Candidate]:
    settings = SearchSettings(population=count, generations=0)
    return list(ALGORITHMS["random"](feasible, settings, seed, subnets.evaluate))


def test_it_predicts_aps_that_it_has_not_seen(subnets: EvaluatedSpace, feasible: FeasibleSpace) -> None:
    screening = Screening(feasible, SETTINGS)
    screening.learn(some(subnets, feasible, 60))
    told = screening.report()
    assert screening.trusted and told["surrogate_samples"] == 60
    others = some(subnets, feasible, 200, seed=1)
    prediction = screening.predict([c.genome for c in others])
    measured = np.array([c.fitness for c in others])
    tau = kendall(prediction.mean, measured)
    assert tau is not None and tau > 0.6
    assert told["surrogate_tau"] == pytest.approx(tau, abs=0.15)  # what it says of itself is true
    errors = np.abs(prediction.mean - measured) / prediction.deviation
    assert 0.8 < np.mean(errors < 2) <= 1


@pytest.mark.slow
def test_each_generation_is_reported_with_what_was_predicted_before(
    subnets: EvaluatedSpace, feasible: FeasibleSpace
) -> None:
    reports: list[dict[str, Any]] = []
    for candidate in evolve(feasible, SETTINGS, 0, subnets.evaluate, report=reports.append):
        assert len(reports) == candidate.generation  # told between a generation's last and the next one's first
    assert [report["generation"] for report in reports] == [0, 1, 2, 3, 4]
    assert [report["surrogate_samples"] for report in reports] == [8, 16, 24, 32, 40]
    assert not reports[0]["surrogate"] and reports[0]["surrogate_tau_new"] is None
    assert any(report["surrogate"] for report in reports)
    for report in reports[1:]:
        assert -1 <= report["surrogate_tau_new"] <= 1 and -1 <= report["surrogate_spearman"] <= 1


@pytest.mark.slow
def test_a_generation_is_evaluated_in_rounds(subnets: EvaluatedSpace, feasible: FeasibleSpace) -> None:
    asked = []

    def evaluate(genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        asked.append(len(genomes))
        yield from subnets.evaluate(genomes)

    settings = SETTINGS.model_copy(update={"surrogate_round": 3, "uniform_start": False})
    history = list(evolve(feasible, settings, 0, evaluate))
    assert asked == [3, 3, 2] * 5
    assert [c.order for c in history] == list(range(1, 41))
    assert [c.generation for c in history] == [number // 8 for number in range(40)]


def test_more_uniform_nets_than_a_generation_are_all_evaluated_once(
    subnets: EvaluatedSpace, feasible: FeasibleSpace
) -> None:
    prior = [(c.genome, c.fitness) for c in some(subnets, feasible, 60, seed=2)]
    settings = SETTINGS.model_copy(update={"population": 2, "generations": 2})
    reports: list[dict[str, Any]] = []
    history = list(evolve(feasible, settings, 0, subnets.evaluate, prior, reports.append))
    assert [(c.generation, c.origin == "uniform") for c in history] == [(0, True)] * 3 + [(1, False)] * 2 + [
        (2, False)
    ] * 2
    assert len({c.genome for c in history}) == 7 and reports[1]["surrogate"]


@pytest.mark.slow
def test_it_finds_better_subnets_with_as_many_evaluations(subnets: EvaluatedSpace, feasible: FeasibleSpace) -> None:
    def best(surrogate: bool, seed: int) -> float:
        settings = SETTINGS.model_copy(update={"surrogate": surrogate, "generations": 2})
        return max(c.fitness for c in evolve(feasible, settings, seed, subnets.evaluate))

    gains = [best(True, seed) - best(False, seed) for seed in range(5)]
    assert np.mean(gains) > 0.002


@pytest.mark.slow
def test_it_stands_aside_where_nothing_can_be_predicted(feasible: FeasibleSpace) -> None:
    def noise(genome: tuple[int, ...]) -> float:
        return np.random.default_rng(genome).random()

    reports: list[dict[str, Any]] = []
    settings = SETTINGS.model_copy(update={"population": 16, "surrogate_tau": 0.4})
    history = list(evolve(feasible, settings, 0, evaluate_with(noise), report=reports.append))
    assert len(history) == 80
    # A few samples can look as if they could be predicted: of 40 and more it is not deceived.
    assert not any(report["surrogate"] for report in reports[3:])
    assert all(report["surrogate_tau"] < 0.4 for report in reports[2:])


def test_prior_aps_serve_from_the_first_generation_and_are_evaluated_again(
    subnets: EvaluatedSpace, feasible: FeasibleSpace
) -> None:
    prior = [(c.genome, c.fitness) for c in some(subnets, feasible, 60, seed=2)]
    settings = SETTINGS.model_copy(update={"generations": 0})
    gains = []
    for seed in range(3):
        reports: list[dict[str, Any]] = []
        helped = list(evolve(feasible, settings, seed, subnets.evaluate, prior, reports.append))
        alone = list(evolve(feasible, settings, seed, subnets.evaluate))
        assert reports[0]["surrogate"] and reports[0]["surrogate_samples"] == 68
        assert len(helped) == len(alone) == 8
        gains.append(max(c.fitness for c in helped) - max(c.fitness for c in alone))
    assert np.mean(gains) > 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_candidates(subnets: EvaluatedSpace, feasible: FeasibleSpace) -> None:
    runs = [list(evolve(feasible, SETTINGS, 5, subnets.evaluate)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_nsga2_can_be_screened_too(subnets: EvaluatedSpace) -> None:
    reports: list[dict[str, Any]] = []
    history = list(ALGORITHMS["nsga2"](subnets.feasible(1.0), SETTINGS, 0, subnets.evaluate, report=reports.append))
    assert len({c.genome for c in history}) == 40 and reports[-1]["surrogate"]
    late = [c.macs for c in history if c.generation > 1]
    assert np.ptp(late) > 0.4 * np.ptp(subnets.costs)  # it keeps to the whole front


@pytest.mark.slow
def test_aps_that_are_no_numbers_count_as_the_worst(subnets: EvaluatedSpace, feasible: FeasibleSpace) -> None:
    table = dict(zip(subnets.genomes, subnets.aps.tolist(), strict=True))
    evaluate = evaluate_with(lambda genome: float("nan") if genome[1] else table[genome])
    reports: list[dict[str, Any]] = []
    history = list(evolve(feasible, SETTINGS, 0, evaluate, report=reports.append))
    assert reports[-1]["surrogate_samples"] == len(history) == 40
    assert np.mean([c.is_valid for c in history if c.generation > 1]) > 0.6
    nothing = list(evolve(feasible, SETTINGS, 0, evaluate_with(lambda genome: float("nan"))))
    assert len(nothing) == 40


def test_without_scikit_learn_there_is_a_clear_word(feasible: FeasibleSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"needs scikit-learn.*\[surrogate\]"):
        Screening(feasible, SETTINGS)


@pytest.mark.slow
def test_a_kernel_serves_until_a_fifth_more_is_known_whether_trusted_or_not(
    subnets: EvaluatedSpace, feasible: FeasibleSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def fitted(inputs: np.ndarray, aps: np.ndarray, *start: Any) -> Any:
        if start:  # not a fold
            sizes.append(len(aps))
        return plain(inputs, aps, *start)

    plain = surrogate._fitted
    monkeypatch.setattr(surrogate, "_fitted", fitted)
    monkeypatch.setattr(surrogate, "MOST_SAMPLES", 50)
    known = some(subnets, feasible, 80)
    for tau, expected in ((0.0, [30, 36, 44, 50, 50, 50]), (0.99, [30, 36, 44, 50, 50, 50])):
        sizes.clear()
        screening = Screening(feasible, SETTINGS.model_copy(update={"surrogate_tau": tau}))
        screening.learn(known[:30])
        for start in range(30, 80, 2):
            screening.learn(known[start : start + 2])
        assert sizes == expected and screening.trusted == (tau == 0)
