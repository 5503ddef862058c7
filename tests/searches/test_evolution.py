from __future__ import annotations

import csv
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deap import creator

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget, uniform_candidates
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches import candidates as breeding
from ofa_pose.searches.algorithms import evolve, expected_evaluations
from ofa_pose.searches.candidates import Candidate, mutate, uniform_crossover
from ofa_pose.searches.results import History
from tests.searches.evaluated_space import evaluate_with
from tests.searches.small_spaces import JOINTS, Usefulness, feasible_genomes, half_way, small_space, tiny_space

SPACE = small_space()
SETTINGS = SearchSettings(population=16, generations=8)


@pytest.fixture(scope="module")
def feasible() -> FeasibleSpace:
    return FeasibleSpace(SPACE, JOINTS, half_way(SPACE))


def best(history: list[Candidate]) -> Candidate:
    return max(history, key=lambda c: c.rank)


def test_every_candidate_is_inside_the_budget_and_evaluated_once(feasible: FeasibleSpace) -> None:
    fitness = Usefulness(SPACE)
    history = list(evolve(feasible, SETTINGS, 0, evaluate_with(fitness)))
    assert len(history) == expected_evaluations(feasible, SETTINGS) == 16 * 9
    assert all(feasible.admits(candidate.genome) for candidate in history)
    assert all(
        c.macs == feasible.budget.macs_of(feasible.decode(c.genome)) <= (feasible.budget.macs or 0) for c in history
    )
    assert max(Counter(fitness.calls).values()) == 1
    assert [c.genome for c in history] == fitness.calls
    assert [c.order for c in history] == list(range(1, len(history) + 1))
    assert Counter(c.generation for c in history) == dict.fromkeys(range(9), 16)


def test_it_finds_the_optimum_of_a_small_space(feasible: FeasibleSpace) -> None:
    genomes = feasible_genomes(feasible)
    found = 0
    for seed in range(6):
        fitness = Usefulness(SPACE, seed)
        values = sorted((fitness(genome) for genome in genomes), reverse=True)
        reached = best(list(evolve(feasible, SETTINGS, seed, evaluate_with(fitness)))).fitness
        assert reached >= values[3]  # of 795, having seen 144
        found += reached == values[0]
    assert found >= 4


@pytest.mark.slow
def test_it_beats_random_search_of_the_same_size(feasible: FeasibleSpace) -> None:
    gains = []
    for seed in range(8):
        fitness = Usefulness(SPACE, seed)
        settings = SearchSettings(population=10, generations=6, uniform_start=False)
        history = list(evolve(feasible, settings, seed, evaluate_with(fitness)))
        rng = np.random.default_rng(seed)
        drawn: set[Genome] = set()
        while len(drawn) < len(history):
            drawn.add(feasible.draw(1, rng)[0])
        gains.append(best(history).fitness - max(fitness(genome) for genome in drawn))
    assert np.mean(gains) > 0.02
    assert sum(gain >= 0 for gain in gains) >= 6


def test_it_is_deterministic_and_the_seed_matters(feasible: FeasibleSpace) -> None:
    def run(seed: int) -> list[tuple[int, str, Genome, float]]:
        history = evolve(feasible, SETTINGS, seed, evaluate_with(Usefulness(SPACE)))
        return [(c.generation, c.origin, c.genome, c.fitness) for c in history]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_it_touches_no_global_randomness_and_no_deap_globals(feasible: FeasibleSpace) -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), set(vars(creator))  # type: ignore[index, union-attr]
    list(evolve(feasible, SETTINGS, 0, evaluate_with(Usefulness(SPACE))))
    after = random.getstate(), np.random.get_state()[1].tolist(), set(vars(creator))  # type: ignore[index, union-attr]
    assert before == after


def test_the_first_population_holds_the_uniform_nets(feasible: FeasibleSpace) -> None:
    history = list(evolve(feasible, SETTINGS, 0, evaluate_with(Usefulness(SPACE))))
    uniform = [c.genome for c in history if c.origin == "uniform"]
    assert uniform == [SPACE.encode(s) for s in uniform_candidates(SPACE, JOINTS, feasible.budget)]
    assert len(uniform) == 4 and all(c.generation == 0 for c in history[:16])
    without = SearchSettings(population=16, generations=0, uniform_start=False)
    assert {c.origin for c in evolve(feasible, without, 0, evaluate_with(Usefulness(SPACE)))} == {"sample"}


def test_all_uniform_nets_are_evaluated_even_by_a_small_population(feasible: FeasibleSpace) -> None:
    settings = SearchSettings(population=2, generations=1)
    history = list(evolve(feasible, settings, 0, evaluate_with(Usefulness(SPACE))))
    assert [c.origin for c in history][:4] == ["uniform"] * 4
    assert len(history) == expected_evaluations(feasible, settings) == 4 + 2


def test_offspring_come_from_both_operators_in_the_share_that_was_asked_for(feasible: FeasibleSpace) -> None:
    for share, crossed in ((0.0, 0), (0.5, 8), (1.0, 16)):
        settings = SearchSettings(population=16, generations=1, crossover=share)
        origins = Counter(
            c.origin for c in evolve(feasible, settings, 0, evaluate_with(Usefulness(SPACE))) if c.generation
        )
        assert origins["crossover"] == crossed
        assert origins["mutation"] == 16 - crossed


def test_parents_are_the_best_of_all_that_was_evaluated(feasible: FeasibleSpace) -> None:
    """With mutation of one gene only, every child is one gene (and its repair) away from an elite."""
    settings = SearchSettings(population=16, generations=4, parents=0.125, crossover=0.0, mutation=1e-9, fill=0.0)
    roomy = FeasibleSpace(SPACE, JOINTS, Budget(macs=10**12))  # no repair
    history = list(evolve(roomy, settings, 0, evaluate_with(Usefulness(SPACE))))
    for generation in range(1, 5):
        before = sorted((c for c in history if c.generation < generation), key=lambda c: c.rank, reverse=True)
        elite = [np.array(c.genome) for c in before[:2]]
        for child in (c for c in history if c.generation == generation and c.origin == "mutation"):
            assert min((np.array(child.genome) != parent).sum() for parent in elite) == 1


def test_a_tiny_space_ends_when_everything_was_evaluated() -> None:
    space = tiny_space()
    feasible = FeasibleSpace(space, JOINTS, Budget(macs=10**12))
    fitness = Usefulness(space)
    history = list(evolve(feasible, SearchSettings(population=4, generations=50), 0, evaluate_with(fitness)))
    assert sorted(c.genome for c in history) == sorted(feasible_genomes(feasible)) and len(history) == 6


def test_a_budget_of_one_subnet_judges_that_one() -> None:
    least = Budget(macs=1).macs_of(SPACE.smallest(JOINTS))
    history = list(
        evolve(FeasibleSpace(SPACE, JOINTS, Budget(macs=least)), SETTINGS, 0, evaluate_with(Usefulness(SPACE)))
    )
    assert [c.genome for c in history] == [(0,) * len(SPACE.choices)]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_fitness_that_is_no_number_never_wins(feasible: FeasibleSpace, broken: float) -> None:
    truth = Usefulness(SPACE)

    def fitness(genome: Genome) -> float:
        return broken if sum(genome) % 2 else truth(genome) - 100.0

    history = list(evolve(feasible, SETTINGS, 0, evaluate_with(fitness)))
    assert {c.fitness for c in history if sum(c.genome) % 2} == {-np.inf}
    assert sum(best(history).genome) % 2 == 0


def test_what_could_not_be_evaluated_has_no_offspring() -> None:
    roomy = FeasibleSpace(SPACE, JOINTS, Budget(macs=10**12))  # no repair
    settings = SearchSettings(population=16, generations=3, parents=1, crossover=0.0, mutation=1e-9, fill=0.0)
    evaluate = evaluate_with(lambda genome: float("nan") if genome[1] else sum(genome))
    history = list(evolve(roomy, settings, 0, evaluate))
    assert sum(c.is_valid for c in history if not c.generation) < 16  # fewer than there are to be parents
    valid = np.array([c.genome for c in history if c.is_valid])
    for child in (c for c in history if c.origin == "mutation"):
        assert (np.array(child.genome) != valid).sum(axis=1).min() <= 1


def test_of_two_equally_fit_the_cheaper_wins(feasible: FeasibleSpace) -> None:
    settings = SETTINGS.model_copy(update={"fill": 0.0})
    history = list(evolve(feasible, settings, 0, evaluate_with(lambda genome: 0.5)))
    assert best(history).macs == min(c.macs for c in history)
    assert best(history).genome == (0,) * len(SPACE.choices)  # ties drive it to the smallest subnet


def test_candidates_come_as_they_are_evaluated(feasible: FeasibleSpace) -> None:
    fitness = Usefulness(SPACE)
    running = evolve(feasible, SETTINGS, 0, evaluate_with(fitness))
    for expected in range(1, 4):
        next(running)
        assert len(fitness.calls) == expected


def test_mutation_changes_at_least_one_gene_and_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    top = (3, 0, 1, 2)
    changes = Counter()
    for _ in range(2000):
        genome = tuple(int(rng.integers(t + 1)) for t in top)
        mutated = mutate(rng, genome, top, 0.3)
        assert mutated != genome and mutated[1] == 0
        assert all(0 <= gene <= limit for gene, limit in zip(mutated, top, strict=True))
        changes.update(i for i, (a, b) in enumerate(zip(genome, mutated, strict=True)) if a != b)
    # Each elastic gene changes at 0.3, plus a third of the 0.343 in which none would have.
    for gene in (0, 2, 3):
        assert changes[gene] / 2000 == pytest.approx(0.3 + 0.7**3 / 3, abs=0.04)


def test_mutation_favours_neighbours_and_leaves_rigid_genomes() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(mutate(rng, (1,), (4,), 0.5)[0] for _ in range(4000))
    assert set(drawn) == {0, 2, 3, 4}
    near, far = breeding.NEIGHBOUR / 2 + (1 - breeding.NEIGHBOUR) / 4, (1 - breeding.NEIGHBOUR) / 4
    for gene, share in ((0, near), (2, near), (3, far), (4, far)):
        assert drawn[gene] / 4000 == pytest.approx(share, abs=0.03)
    assert {mutate(rng, (4,), (4,), 0.5)[0] for _ in range(200)} == {0, 1, 2, 3}
    assert mutate(rng, (0, 0), (0, 0), 1.0) == (0, 0)


def test_filled_offspring_reach_the_edge_of_the_budget(feasible: FeasibleSpace) -> None:
    def at_the_edge(genome: Genome) -> bool:
        rows = np.array(genome) + np.eye(len(genome), dtype=int)
        return not any(feasible.admits(row.tolist()) for row in rows if (row <= feasible.top).all())

    shares = []
    for fill in (0.0, 0.5, 1.0):
        settings = SearchSettings(population=4, generations=2, fill=fill, uniform_start=False)
        history = list(evolve(feasible, settings, 0, evaluate_with(Usefulness(SPACE))))
        assert all(feasible.admits(c.genome) for c in history)
        shares.append(np.mean([at_the_edge(c.genome) for c in history]))
    assert shares[0] < shares[1] < shares[2] == 1


def test_where_nothing_can_be_evaluated_it_goes_on_with_samples(feasible: FeasibleSpace) -> None:
    history = list(
        evolve(feasible, SearchSettings(population=8, generations=2), 0, evaluate_with(lambda genome: float("nan")))
    )
    assert len(history) == 24 and {c.fitness for c in history} == {-np.inf}
    assert {c.origin for c in history if c.generation} == {"sample"}


def test_crossover_takes_every_gene_from_either_parent_the_resolution_too() -> None:
    rng = np.random.default_rng(0)
    children = np.array([uniform_crossover(rng, (0,) * 6, (1,) * 6) for _ in range(2000)])
    assert np.all(np.abs(children.mean(axis=0) - 0.5) < 0.05)
    together = np.corrcoef(children.T)
    assert np.abs(together - np.eye(6)).max() < 0.1  # gene by gene, not in blocks


def test_predicted_latency_is_a_budget_too() -> None:
    def milliseconds(spec: ArchSpec) -> float:
        return spec.resolution / 10 + sum(spec.stages) / 20

    feasible = FeasibleSpace(SPACE, JOINTS, Budget(latency_ms=14.0, predict_ms=milliseconds))
    history = list(evolve(feasible, SETTINGS, 0, evaluate_with(Usefulness(SPACE))))
    assert max(milliseconds(feasible.decode(c.genome)) for c in history) <= 14.0
    assert len({c.genome[0] for c in history}) > 1


def test_elastic_depth_no_subnet_is_evaluated_twice_whatever_the_genes_of_blocks_it_has_not(tmp_path: Path) -> None:
    space = replace(small_space((2, 4)), blocks=(2, 3, 1, 2), depth=((1, 2), (1, 3), (1,), (1, 2)))
    budget = half_way(space)
    feasible = FeasibleSpace(space, JOINTS, budget)
    settings = SearchSettings(population=12, generations=8)
    candidates = list(evolve(feasible, settings, 0, evaluate_with(Usefulness(space))))
    specs = [feasible.decode(candidate.genome) for candidate in candidates]
    assert len(set(specs)) == len(specs) > 60
    assert all(space.encode(spec) == c.genome for spec, c in zip(specs, candidates, strict=True))
    assert all(budget.admits(spec) for spec in specs)
    assert len({tuple(len(stage) for stage in spec.expansions) for spec in specs}) > 4
    history = History(tmp_path / "history.csv", feasible)
    for candidate in candidates:
        history.add(candidate)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["genome"], float(row["AP"])) for row in rows] == [
        ("-".join(map(str, c.genome)), c.fitness) for c in candidates
    ]
