"""What holds of every algorithm, and what the searches promise on the table measured from a trained supernet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.algorithms import ALGORITHMS, expected_evaluations
from ofa_pose.searches.candidates import FitnessOutcome
from tests.bench import search as bench
from tests.searches.evaluated_space import FOLDER, EvaluatedSpace, evaluate_with, load_table
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space

SPACE = small_space()


@pytest.fixture(scope="module")
def kept() -> EvaluatedSpace:
    if not (FOLDER / "table.csv").is_file():
        pytest.skip("no tests/search/table/table.csv yet")
    return load_table()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_evaluations_are_asked_for_whole_generations_of_new_feasible_genomes(name: str) -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    fitness, asked = Usefulness(SPACE), []

    def evaluate(genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        asked.append(list(genomes))
        for genome in genomes:
            yield fitness(genome), 1.5

    settings = SearchSettings(algorithm=name, population=10, generations=4)
    history = list(ALGORITHMS[name](feasible, settings, 0, evaluate))
    assert [len(generation) for generation in asked] == [10] * 5
    assert [genome for generation in asked for genome in generation] == [c.genome for c in history]
    assert len({c.genome for c in history}) == len(history) == expected_evaluations(feasible, settings)
    assert all(feasible.admits(c.genome) and c.macs == feasible.macs(c.genome) and c.seconds == 1.5 for c in history)
    assert all(type(gene) is int for c in history for gene in c.genome)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nothing_depends_on_how_often_it_is_run_or_on_prior_aps_without_a_surrogate(name: str) -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    settings = SearchSettings(algorithm=name, population=6, generations=3)
    prior = [((0,) * len(SPACE.choices), 0.9)]
    one = list(ALGORITHMS[name](feasible, settings, 2, evaluate_with(Usefulness(SPACE))))
    two = list(ALGORITHMS[name](feasible, settings, 2, evaluate_with(Usefulness(SPACE)), prior))
    assert one == two


@pytest.mark.parametrize("share", bench.SHARES)
@pytest.mark.slow
def test_evolution_gets_there_with_a_tenth_of_the_feasible_subnets(kept: EvaluatedSpace, share: float) -> None:
    row = bench.reach(kept, share, seeds=10, ways=("random", "grown", "default"))
    for name in ("grown", "default"):
        assert row["ways"][name]["in_time"] >= 9
        assert row["ways"][name]["median"] <= row["ways"]["random"]["median"] / 2


@pytest.mark.slow
def test_nsga2_misses_at_most_half_of_what_chance_misses(kept: EvaluatedSpace) -> None:
    gaps = bench.front(kept, seeds=4)["gaps"]
    assert gaps["nsga2"]["median"] <= gaps["random"]["median"] / 2


@pytest.mark.slow
@pytest.mark.parametrize("share", bench.SHARES)
def test_the_surrogate_halves_the_evaluations_of_the_papers_evolution(kept: EvaluatedSpace, share: float) -> None:
    pytest.importorskip("sklearn")
    ways = bench.reach(kept, share, seeds=20, ways=("paper", "paper + surrogate"))["ways"]
    assert ways["paper + surrogate"]["median"] <= ways["paper"]["median"] / 2
