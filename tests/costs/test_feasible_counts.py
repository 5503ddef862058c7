"""How many subnets a budget admits, which is the cheapest and the largest, and what is said of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace, describe_feasible
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import Genomes, spec_macs
from ofa_pose.utils.numbers import format_count
from tests.costs.listed_spaces import deep_space, latency, members, nearly, tolerance, unlisted
from tests.searches.small_spaces import JOINTS, half_way, small_space, tiny_space

SPACES = {name: load_space(name) for name in ("litepose", "litepose-per-block")}


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("space", [small_space((2, 4)), deep_space()], ids=["blocks", "deep"])
def test_counts_and_their_estimates_agree(space: SearchSpace, share: float) -> None:
    budget = nearly(space, share)
    counted = FeasibleSpace(space, JOINTS, budget).count()
    assert counted.exact and not counted.bound
    number = len(members(FeasibleSpace(space, JOINTS, budget)))
    assert counted.number == number
    free = unlisted(space, budget)
    assert not free.count().exact and not free.count().bound
    assert abs(free.count().number - number) < tolerance(free, number) < 0.3 * number + 1e-5


def test_an_estimate_of_a_rare_part_of_a_shipped_space() -> None:
    space = SPACES["litepose"]
    for factor in (1.02, 1.1, 1.5):
        budget = Budget(macs=int(factor * spec_macs(space.smallest(JOINTS)).thop))
        counted, free = FeasibleSpace(space, JOINTS, budget).count(), unlisted(space, budget)
        assert counted.exact and not free.count().exact
        assert abs(free.count().number - counted.number) < tolerance(free, int(counted.number)) < 0.3 * counted.number


def test_what_no_draw_hits_is_bounded() -> None:
    space = SPACES["litepose-per-block"]
    feasible = FeasibleSpace(space, JOINTS, Budget(macs=int(1.1 * spec_macs(space.smallest(JOINTS)).thop)))
    assert feasible.count().bound and 1e9 < feasible.count().number < 1e-8 * space.size
    assert describe_feasible(feasible).startswith("at most about ")


@pytest.mark.parametrize("listed", [True, False])
def test_the_cheapest_and_the_largest_member(listed: bool) -> None:
    space = small_space()
    budget = half_way(space)
    feasible = FeasibleSpace(space, JOINTS, budget) if listed else unlisted(space, budget)
    macs = [feasible.macs(genome) for genome in members(feasible)]
    assert feasible.decode(feasible.cheapest) == space.smallest(JOINTS)
    assert feasible.macs(feasible.cheapest) == min(macs)
    assert space.canonical(feasible.largest) == feasible.largest
    assert feasible.costs(np.array([feasible.largest]))["macs_thop"] == feasible.macs(feasible.largest)
    assert feasible.admits(feasible.largest)
    most = feasible.macs(feasible.largest)
    assert most == max(macs) if listed else most > 0.97 * max(macs)
    everything = FeasibleSpace(space, JOINTS, Budget(macs=10**12))
    assert everything.decode(everything.largest) == space.largest(JOINTS)


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2])
def test_a_latency_that_falls_where_a_subnet_grows_hides_no_choice(share: float) -> None:
    """As of runtimes that compute channels in blocks: 16 take less than 8."""
    space = small_space()

    def predict_ms(spec: ArchSpec) -> float:
        return spec_macs(spec).thop / 1e8 * (0.8 if spec.stem == 16 else 1.0) * (0.9 if spec.stages[0] == 16 else 1.0)

    def predict_many(space: SearchSpace, joints: int, genomes: Genomes) -> NDArray[np.floating]:
        return np.array([predict_ms(space.decode(genome, joints)) for genome in np.asarray(genomes).tolist()])

    every = list(itertools.product(*(range(len(choices)) for choices in space.choices)))
    took = predict_many(space, JOINTS, np.array(every))
    limit = max(float(np.quantile(took, share)), predict_ms(space.smallest(JOINTS)))
    feasible = FeasibleSpace(space, JOINTS, Budget(latency_ms=limit, predict_ms=predict_ms, predict_many=predict_many))
    inside = np.array(every)[took <= limit]
    assert feasible.top == tuple(inside.max(axis=0).tolist())
    assert feasible.count().number == len(inside)
    assert predict_ms(feasible.decode(feasible.cheapest)) == took.min() < predict_ms(space.smallest(JOINTS))
    assert describe_feasible(feasible).endswith(f": {took.min():.3g}ms to {took[took <= limit].max():.3g}ms")


def test_what_is_said_before_a_search() -> None:
    litepose = FeasibleSpace(SPACES["litepose"], JOINTS, Budget(macs=800_000_000))
    count = int(litepose.count().number)
    assert count > 100
    most = max(litepose.macs(genome) for genome in litepose.sample_many(count, np.random.default_rng(0)))
    said = f"{count:,} of 245,760 subnets keep 800M MACs (thop): 429M to {format_count(most)}"
    assert describe_feasible(litepose) == said
    blocks = describe_feasible(FeasibleSpace(SPACES["litepose-per-block"], JOINTS, Budget(10**9, 2_000_000)))
    assert (
        blocks.startswith("about ")
        and " of 4.1e21 subnets keep 1G MACs (thop), 2M parameters: 243M to " in blocks
        and blocks.endswith(" MACs (thop)")
    )
    tiny = tiny_space()
    least = spec_macs(tiny.smallest(JOINTS)).thop
    one = describe_feasible(FeasibleSpace(tiny, JOINTS, Budget(macs=least)))
    assert one.startswith("1 of 6 subnets keeps ") and " to " not in one
    ms = describe_feasible(FeasibleSpace(small_space(), JOINTS, Budget(latency_ms=1.3, predict_ms=latency)))
    assert "subnets keep 1.3ms of latency: 1.07ms to 1." in ms and ms.endswith("ms")
