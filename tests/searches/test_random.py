from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.algorithms import expected_evaluations, random_search
from tests.searches.evaluated_space import evaluate_with
from tests.searches.small_spaces import JOINTS, feasible_genomes, half_way, small_space, tiny_space

SPACE = small_space()
SETTINGS = SearchSettings(algorithm="random", population=8, generations=4)


def test_distinct_feasible_samples_in_generations() -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    history = list(random_search(feasible, SETTINGS, 0, evaluate_with(sum)))
    assert len(history) == len({c.genome for c in history}) == expected_evaluations(feasible, SETTINGS) == 40
    assert all(feasible.admits(c.genome) for c in history) and {c.origin for c in history} == {"sample"}
    assert Counter(c.generation for c in history) == dict.fromkeys(range(5), 8)
    assert [c.order for c in history] == list(range(1, 41))
    again = [c.genome for c in random_search(feasible, SETTINGS, 0, evaluate_with(lambda genome: -sum(genome)))]
    assert again == [c.genome for c in history]  # whatever it finds
    assert again != [c.genome for c in random_search(feasible, SETTINGS, 1, evaluate_with(sum))]


def test_it_draws_evenly_from_the_feasible_subnets() -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    inside = np.array(feasible_genomes(feasible))
    settings = SearchSettings(population=50, generations=1)
    drawn = [c.genome for seed in range(30) for c in random_search(feasible, settings, seed, evaluate_with(sum))]
    np.testing.assert_allclose(np.mean(drawn, axis=0), inside.mean(axis=0), atol=0.06)


def test_a_deep_net_is_as_likely_as_a_shallow_one() -> None:
    space = replace(tiny_space(), expansion=(2, 4), blocks=(2, 1, 1, 1), depth=((1, 2), (1,), (1,), (1,)))
    feasible = FeasibleSpace(space, JOINTS, Budget(macs=10**12))
    settings = SearchSettings(population=20, generations=0)
    drawn = [c.genome for seed in range(60) for c in random_search(feasible, settings, seed, evaluate_with(sum))]
    deep = np.mean([len(feasible.decode(genome).expansions[0]) == 2 for genome in drawn])
    assert deep == pytest.approx(2 / 3, abs=0.05)  # four subnets with two blocks to every two with one


def test_it_ends_when_all_were_evaluated() -> None:
    feasible = FeasibleSpace(tiny_space(), JOINTS, Budget(macs=10**12))
    history = list(random_search(feasible, SearchSettings(population=4, generations=50), 0, evaluate_with(sum)))
    assert sorted(c.genome for c in history) == sorted(feasible_genomes(feasible))


def test_a_budget_that_admits_next_to_nothing() -> None:
    least = Budget(macs=1).macs_of(SPACE.smallest(JOINTS))
    feasible = FeasibleSpace(SPACE, JOINTS, Budget(macs=round(1.02 * least)))
    history = list(random_search(feasible, SETTINGS, 0, evaluate_with(sum)))
    assert history and all(feasible.admits(c.genome) for c in history)
