"""Drawing from the inside of a budget and repairing, against small spaces listed whole."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ofa_pose.costs.feasible as feasible_module
from ofa_pose.arch.space import Genome, SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import AFFORDABLE, FeasibleSpace, UniformDraws
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import spec_macs, spec_params
from tests.costs.listed_spaces import (
    deep_space,
    latencies,
    latency,
    members,
    nearly,
    repaired,
    tolerance,
    unlisted,
)
from tests.searches.small_spaces import JOINTS, half_way, small_space

SPACES = {name: load_space(name) for name in ("litepose-nano", "litepose", "litepose-per-block", "litepose-depth")}


def pull(feasible: FeasibleSpace, count: int, seed: int = 0) -> Counter[Genome]:
    """`count` independent draws, as `sample` makes them, many at once."""
    rng = np.random.default_rng(seed)
    drawn: list[Genome] = []
    while len(drawn) < count:
        drawn += [tuple(row) for row in feasible._draw(2000, rng).tolist()]
    return Counter(drawn[:count])


def deviation(counts: Counter[Genome], among: set[Genome]) -> float:
    """Pearson's chi-square against equal chances, in standard deviations of its distribution under these."""
    expected = counts.total() / len(among)
    square = sum((counts[genome] - expected) ** 2 for genome in among) / expected
    return (square - (len(among) - 1)) / math.sqrt(2 * (len(among) - 1))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("space", [small_space(), deep_space()], ids=["small", "deep"])
def test_draws_are_uniform_where_rejection_is_affordable(space: SearchSpace, listed: bool) -> None:
    budget = nearly(space, 0.15)
    feasible = FeasibleSpace(space, JOINTS, budget) if listed else unlisted(space, budget)
    if not listed:
        assert feasible._share >= AFFORDABLE
    inside = members(feasible)
    counts = pull(feasible, 20 * len(inside))
    assert set(counts) <= inside
    assert abs(deviation(counts, inside)) < 5


def test_the_check_of_uniformity_can_fail() -> None:
    among = {(number,) for number in range(100)}
    rng = np.random.default_rng(0)
    skewed = Counter((int(number),) for number in 100 * rng.random(2000) ** 1.3)
    assert deviation(skewed, among) > 10


@pytest.mark.parametrize("share", [0.004, 0.02])
@pytest.mark.parametrize("space", [small_space((2, 4)), deep_space()], ids=["blocks", "deep"])
def test_a_rare_part_is_drawn_whole_and_nearly_evenly(space: SearchSpace, share: float) -> None:
    feasible = unlisted(space, nearly(space, share))
    inside = members(feasible)
    assert len(inside) > 20
    # The choices left may make even a rare part common among proposals; here it is taken for rare all the same.
    with mock.patch("ofa_pose.costs.feasible.AFFORDABLE", 1.0):
        assert feasible._share < feasible_module.AFFORDABLE
        counts = pull(feasible, 40 * len(inside))
    assert set(counts) == inside
    chances = np.array([counts[genome] for genome in inside]) / counts.total() * len(inside)
    assert np.quantile(chances, 0.05) > 0.6 and np.quantile(chances, 0.95) < 1.6


def test_one_sample_after_the_other_reaches_all() -> None:
    space = small_space()
    budget = nearly(space, 0.03)
    for feasible in (FeasibleSpace(space, JOINTS, budget), unlisted(space, budget)):
        rng = np.random.default_rng(1)
        assert {feasible.draw(1, rng)[0] for _ in range(600)} == members(feasible)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(sorted(SPACES)),
    st.floats(0, 1).map(lambda x: x**4),  # mostly tight
    st.sampled_from(["macs", "params", "both"]),
    st.integers(1, 40),
    st.integers(0, 2**32),
)
def test_sample_many_is_distinct_inside_canonical_and_deterministic(
    name: str, share: float, which: str, count: int, seed: int
) -> None:
    space = SPACES[name]
    low, high = space.smallest(JOINTS), space.largest(JOINTS)
    macs = int((1 - share) * spec_macs(low).thop + share * spec_macs(high).thop)
    params = int((1 - share) * spec_params(low) + share * spec_params(high))
    budget = Budget(macs if which != "params" else None, params if which != "macs" else None)
    feasible = FeasibleSpace(space, JOINTS, budget)
    drawn = feasible.sample_many(count, np.random.default_rng(seed))
    assert 1 <= len(set(drawn)) == len(drawn) <= count
    assert len(drawn) == count or len(drawn) == feasible.count().number
    assert all(feasible.admits(genome) and space.canonical(genome) == genome for genome in drawn)
    again = FeasibleSpace(space, JOINTS, budget)  # and whatever was asked of the part before
    again.draw(1, np.random.default_rng(seed + 1))
    assert again.sample_many(count, np.random.default_rng(seed)) == drawn


def test_sample_many_gives_all_where_there_are_no_more() -> None:
    space = small_space()
    budget = nearly(space, 0.02)
    for feasible in (FeasibleSpace(space, JOINTS, budget), unlisted(space, budget)):
        drawn = feasible.sample_many(1000, np.random.default_rng(0))
        assert set(drawn) == members(feasible) and len(drawn) < 30


def test_one_subnet_in_a_million_million() -> None:
    space = SPACES["litepose-per-block"]
    budget = Budget(macs=int(1.1 * spec_macs(space.smallest(JOINTS)).thop))
    feasible = FeasibleSpace(space, JOINTS, budget)
    assert feasible.count().number < 1e-8 * space.size
    drawn = feasible.sample_many(1000, np.random.default_rng(0))
    assert len(set(drawn)) == 1000
    assert feasible.admitted(np.array(drawn)).all()
    low, high = spec_macs(space.smallest(JOINTS)).thop, budget.macs or 0
    # Nearly all that is inside lies close to the limit.
    assert np.median(feasible.costs(np.array(drawn))["macs_thop"]) > low + 0.9 * (high - low)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.floats(0, 0.3), st.sampled_from(["macs", "params"]), st.integers(0, 2**32))
def test_repair_of_many_stays_inside_and_leaves_alone_what_is(name: str, share: float, which: str, seed: int) -> None:
    space = SPACES[name]
    low, high = space.smallest(JOINTS), space.largest(JOINTS)
    macs, params = (
        int((1 - share) * cost(low) + share * cost(high)) for cost in (lambda s: spec_macs(s).thop, spec_params)
    )
    feasible = FeasibleSpace(space, JOINTS, Budget(macs=macs) if which == "macs" else Budget(params=params))
    rng = np.random.default_rng(seed)
    genomes = np.array([space.sample(rng) for _ in range(8)] + feasible.sample_many(4, rng))
    before = feasible.admitted(genomes)
    inside = feasible.repair_many(genomes, rng)
    assert feasible.admitted(inside).all()
    assert (inside <= genomes).all()
    assert (inside[before] == genomes[before]).all()
    once, again = (repaired(feasible, genomes[0], np.random.default_rng(1)) for _ in range(2))
    assert once == again


def test_admitted_and_costs_agree_with_the_specs() -> None:
    space = deep_space()
    budget = Budget(macs=half_way(space).macs, params=50_000, convention="paper", predict_ms=latency)
    feasible = FeasibleSpace(space, JOINTS, budget)
    rng = np.random.default_rng(0)
    genomes = [space.sample(rng) for _ in range(100)]
    assert feasible.admitted(np.array(genomes)).tolist() == [feasible.admits(genome) for genome in genomes]
    costs = feasible.costs(np.array(genomes))
    assert tuple(costs) == ("macs_thop", "macs_exact", "macs_paper", "params", "latency_ms")
    assert costs["macs_paper"].tolist() == [feasible.macs(genome) for genome in genomes]
    assert costs["latency_ms"].tolist() == [latency(feasible.decode(genome)) for genome in genomes]


@pytest.mark.parametrize("convention", ["thop", "exact", "paper"])
def test_a_cost_equal_to_the_ceiling_is_inside_and_one_more_is_not(convention: str) -> None:
    space = SPACES["litepose"]
    rng = np.random.default_rng(0)
    for _ in range(30):
        genome = space.sample(rng)
        macs = getattr(spec_macs(space.decode(genome, JOINTS)), convention)
        for limit, inside in ((macs, True), (macs - 1, False), (macs + 1, True)):
            excess = Budget(macs=limit, convention=convention).excess(space, JOINTS, np.array([genome]))  # type: ignore[arg-type]
            assert (excess <= 0).item() is inside


@pytest.mark.parametrize("many", [None, latencies])
@pytest.mark.parametrize("listed", [True, False])
def test_ceilings_combine(listed: bool, many: object) -> None:
    space = small_space()
    everything = [space.decode(row, JOINTS) for row in itertools.product(*(range(len(c)) for c in space.choices))]
    counts = (lambda spec: spec_macs(spec).thop, spec_params, latency)
    limits = [np.quantile([count(spec) for spec in everything], 0.4) for count in counts]
    budget = Budget(int(limits[0]), int(limits[1]), latency_ms=float(limits[2]), predict_ms=latency, predict_many=many)  # type: ignore[arg-type]
    feasible = FeasibleSpace(space, JOINTS, budget) if listed else unlisted(space, budget)
    inside = members(feasible)
    assert inside == {space.encode(spec) for spec in everything if budget.admits(spec)}
    assert set(feasible.sample_many(2000, np.random.default_rng(0))) == inside
    assert abs(feasible.count().number - len(inside)) <= tolerance(feasible, len(inside))
    genomes = np.array([space.sample(np.random.default_rng(seed)) for seed in range(20)])
    assert feasible.admitted(feasible.repair_many(genomes, np.random.default_rng(0))).all()


@pytest.mark.slow
def test_a_latency_without_order_ends_in_repair() -> None:
    space = small_space()
    smallest = space.smallest(JOINTS)

    def erratic(spec: ArchSpec) -> float:
        return 1.0 if spec == smallest else 1.4 + 0.1 * (int(spec.digest, 16) % 400) * (spec.stem + spec.deconv[0] > 16)

    feasible = unlisted(space, Budget(latency_ms=1.3, predict_ms=erratic))
    assert feasible.draw(1, np.random.default_rng(0))[0] == space.encode(smallest)
    assert feasible.sample_many(5, np.random.default_rng(0)) == [space.encode(smallest)]
    assert feasible.count().number >= 1


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-4, 1e-5])
def test_distinct_samples_of_a_rare_part_come_quickly(share: float) -> None:
    space = SPACES["litepose-per-block"]
    rng = np.random.default_rng(0)
    everything = UniformDraws(space, [len(choices) - 1 for choices in space.choices])
    macs = Budget(macs=1).costs(space, JOINTS, everything.draw(200_000, rng))["macs_thop"]
    feasible = FeasibleSpace(space, JOINTS, Budget(macs=int(np.quantile(macs, share))))
    start = time.process_time()
    drawn = feasible.sample_many(200, rng)
    assert len(set(drawn)) == 200 and feasible.admitted(np.array(drawn)).all()
    assert time.process_time() - start < 10.0  # half a second, for most of which the share is measured


def test_many_draws_are_those_that_come_one_by_one() -> None:
    feasible = FeasibleSpace(small_space(), JOINTS, half_way(small_space()))
    rng = np.random.default_rng(4)
    assert feasible.draw(200, np.random.default_rng(4)) == [feasible.draw(1, rng)[0] for _ in range(200)]
    free = unlisted(small_space(), half_way(small_space()))
    drawn = free.draw(200, np.random.default_rng(4))
    assert len(drawn) == 200 and free.admitted(np.array(drawn)).all()
