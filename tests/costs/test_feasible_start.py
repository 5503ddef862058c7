"""Budgets that the smallest subnet does not keep, but others do: runtimes pad channels to blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace, find_feasible_start
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import Genomes, population_costs
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import parse_seconds
from tests.costs.listed_spaces import deep_space, members, unlisted
from tests.searches.small_spaces import JOINTS, small_space


class Padded:
    """Nets are the faster, the more of some genes stand at choice 1; else milliseconds grow with the MACs."""

    def __init__(self, space: SearchSpace, genes: tuple[int, ...]) -> None:
        self.space, self.genes = space, genes

    def many(self, space: SearchSpace, joints: int, genomes: Genomes) -> NDArray[np.float64]:
        macs = population_costs(space, joints, genomes)["macs_thop"].astype(np.float64)
        aligned = np.asarray(genomes)[:, list(self.genes)] == 1
        return macs / 1e6 * 0.5 ** aligned.sum(axis=1)

    def one(self, spec: ArchSpec) -> float:
        return float(self.many(self.space, JOINTS, np.array([self.space.encode(spec)]))[0])

    def budget(self, ms: float, macs: int | None = None) -> Budget:
        return Budget(macs=macs, latency_ms=ms, predict_ms=self.one, predict_many=self.many)

    @property
    def smallest(self) -> float:
        return self.one(self.space.smallest(JOINTS))


@pytest.mark.parametrize("space, genes", [(small_space(), (1,)), (small_space(), (2, 6)), (deep_space(), (1, 9, 13))])
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_faster_subnets_than_the_smallest_are_found_drawn_and_repaired_to(
    space: SearchSpace, genes: tuple[int, ...], share: float
) -> None:
    padded = Padded(space, genes)
    budget = padded.budget(share * padded.smallest)
    assert not budget.admits(space.smallest(JOINTS))
    feasible, free = FeasibleSpace(space, JOINTS, budget), unlisted(space, budget)
    inside = members(feasible)
    assert feasible.count().exact and feasible.count().number == len(inside) > 0
    fastest = padded.many(space, JOINTS, np.array([feasible.cheapest])).item()
    assert fastest == padded.many(space, JOINTS, np.array(sorted(inside))).min()
    counted = FeasibleSpace(space, JOINTS, padded.budget(share * padded.smallest, macs=10**12))
    assert counted.macs(counted.cheapest) == min(feasible.costs(np.array(sorted(inside)))["macs_thop"])
    rng = np.random.default_rng(0)
    assert set(feasible.sample_many(50, rng)) <= inside
    assert set(free.sample_many(50, rng)) <= inside
    assert free.cheapest in inside
    assert all(top >= max(genome[gene] for genome in inside) for gene, top in enumerate(free.top))
    everything = rng.integers(0, [len(choices) for choices in space.choices], (60, len(space.choices)))
    assert {tuple(row) for row in free.repair_many(everything, rng).tolist()} <= inside


def test_a_latency_below_the_fastest_is_refused_by_it() -> None:
    padded = Padded(small_space(), (1, 2))
    with pytest.raises(InputError, match=r"^the fastest subnet of small needs .* of latency; raise --latency to") as no:
        find_feasible_start(padded.space, JOINTS, padded.budget(0.01 * padded.smallest))
    least = 1e3 * parse_seconds(str(no.value).rpartition(" ")[2])
    assert least < 0.6 * padded.smallest
    assert padded.budget(least).admits(
        padded.space.decode(find_feasible_start(padded.space, JOINTS, padded.budget(least)), 17)
    )


def test_the_fastest_may_have_too_many_macs() -> None:
    padded = Padded(small_space(), (1,))
    least = Budget(macs=1).macs_of(padded.space.smallest(JOINTS))
    with pytest.raises(InputError, match=r"is found that keeps .* at once; raise --macs or --latency"):
        find_feasible_start(padded.space, JOINTS, padded.budget(0.9 * padded.smallest, macs=least))
    with pytest.raises(InputError, match=r"^the smallest subnet of small needs .* MACs .*; raise --macs to"):
        find_feasible_start(padded.space, JOINTS, padded.budget(0.9 * padded.smallest, macs=least - 1))
    feasible_start = padded.space.decode(
        find_feasible_start(padded.space, JOINTS, padded.budget(0.9 * padded.smallest, 2 * least)), 17
    )
    assert padded.budget(0.9 * padded.smallest, 2 * least).admits(feasible_start)


def test_shipped_spaces() -> None:
    for name in ("litepose", "litepose-per-block"):
        padded = Padded(load_space(name), (1, 3, 5))
        feasible = FeasibleSpace(padded.space, JOINTS, padded.budget(0.8 * padded.smallest))
        genomes = feasible.sample_many(20, np.random.default_rng(0))
        assert len(genomes) == 20 and feasible.admitted(np.array(genomes)).all()


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_exact_whatever_the_latency_does(seed: int) -> None:
    space = small_space()
    effects = np.random.default_rng(seed).uniform(0.5, 2.0, (len(space.choices), 4))

    def many(space: SearchSpace, joints: int, genomes: Genomes) -> NDArray[np.float64]:
        rows = np.asarray(genomes)
        return np.prod([effects[gene, rows[:, gene] ^ rows[:, gene - 1] & 1] for gene in range(rows.shape[1])], axis=0)

    def one(spec: ArchSpec) -> float:
        return float(many(space, JOINTS, np.array([space.encode(spec)]))[0])

    everything = np.array(list(np.ndindex(*map(len, space.choices))))
    limit = float(np.quantile(many(space, JOINTS, everything), 0.05))
    feasible = FeasibleSpace(space, JOINTS, Budget(latency_ms=limit, predict_ms=one, predict_many=many))
    assert feasible.count().exact and feasible.count().number == (many(space, JOINTS, everything) <= limit).sum()
    assert feasible.admitted(feasible.repair_many(everything[:200], np.random.default_rng(0))).all()
