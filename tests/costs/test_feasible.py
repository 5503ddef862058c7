from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace, find_feasible_start
from ofa_pose.costs.limits import Budget, uniform_candidates
from ofa_pose.costs.macs import CONVENTIONS, spec_macs, spec_params
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import parse_count, parse_seconds
from tests.costs.listed_spaces import repaired
from tests.searches.small_spaces import JOINTS, feasible_genomes, half_way, small_space, tiny_space

SPACES = {name: load_space(name) for name in ("litepose-nano", "litepose", "litepose-per-block", "litepose-depth")}


def between(space_name: str, share: float, convention: str = "thop") -> tuple[int, int]:
    """(MACs, parameters) at a share of the way from the smallest to the largest subnet."""
    space = SPACES[space_name]
    low, high = space.smallest(JOINTS), space.largest(JOINTS)
    macs = [getattr(spec_macs(spec), convention) for spec in (low, high)]
    params = [spec_params(spec) for spec in (low, high)]
    return tuple(int(least + share * (most - least)) for least, most in (macs, params))  # type: ignore[return-value]


def test_a_budget_needs_a_ceiling() -> None:
    with pytest.raises(InputError, match=r"needs a budget.*--macs") as caught:
        Budget()
    assert caught.value.exit_code == 2
    with pytest.raises(ValueError, match="predict_ms"):
        Budget(latency_ms=30.0)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_admits_up_to_the_ceiling_and_no_further(convention: str) -> None:
    spec = small_space().largest(JOINTS)
    macs, params = getattr(spec_macs(spec), convention), spec_params(spec)
    assert Budget(macs, params, convention).admits(spec)  # type: ignore[arg-type]
    assert not Budget(macs - 1, params, convention).admits(spec)  # type: ignore[arg-type]
    assert not Budget(macs, params - 1, convention).admits(spec)  # type: ignore[arg-type]
    assert Budget(params=params).admits(spec)


def test_the_refusal_names_the_space_the_minimum_and_the_mend() -> None:
    with pytest.raises(InputError) as caught:
        find_feasible_start(SPACES["litepose-nano"], JOINTS, Budget(macs=10_000_000))
    expected = (
        "the smallest subnet of litepose-nano needs 35.2M MACs (thop); raise --macs to at least 35.3M"  # 35,213,184
    )
    assert str(caught.value) == expected
    assert caught.value.exit_code == 2


def test_every_ceiling_that_is_too_low_is_named() -> None:
    budget = Budget(macs=1000, params=2000, convention="exact", latency_ms=1.0, predict_ms=lambda spec: 12.34)
    with pytest.raises(InputError) as caught:
        find_feasible_start(SPACES["litepose"], JOINTS, budget)
    macs, params, latency = str(caught.value).splitlines()
    assert "MACs (exact)" in macs and "parameters; raise --params" in params
    assert latency == "the smallest subnet of litepose needs 12.3ms of latency; raise --latency to at least 12.4ms"
    assert parse_seconds("12.4ms") >= 0.01234


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.integers(14, 133), st.sampled_from(CONVENTIONS))
def test_the_mend_is_a_budget_that_works(name: str, joints: int, convention: str) -> None:
    space = SPACES[name]
    with pytest.raises(InputError) as caught:
        find_feasible_start(space, joints, Budget(1, 1, convention))  # type: ignore[arg-type]
    macs, params = (parse_count(str(fault).rpartition(" ")[2]) for fault in caught.value.faults)
    find_feasible_start(space, joints, Budget(macs, params, convention))  # type: ignore[arg-type]
    least = getattr(spec_macs(space.smallest(joints)), convention)
    assert macs < 1.02 * least  # and not much more than is needed


def test_the_smallest_subnet_is_feasible_at_exactly_its_cost_and_not_below() -> None:
    space = SPACES["litepose-nano"]
    least = spec_macs(space.smallest(JOINTS)).thop
    find_feasible_start(space, JOINTS, Budget(macs=least))
    with pytest.raises(InputError):
        find_feasible_start(space, JOINTS, Budget(macs=least - 1))


def test_refusing_a_budget_loads_neither_torch_nor_deap() -> None:
    code = "import sys; import ofa_pose.costs.feasible; print(sorted({'torch', 'deap', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_uniform_candidates_are_the_widest_at_each_resolution() -> None:
    space = SPACES["litepose"]
    budget = Budget(macs=between("litepose", 0.2)[0])
    found = {spec.resolution: spec for spec in uniform_candidates(space, JOINTS, budget)}
    everything = space.uniform(JOINTS)
    assert set(found) == {s.resolution for s in everything if budget.admits(s)}
    for spec in everything:
        if budget.admits(spec):
            assert budget.macs_of(spec) <= budget.macs_of(found[spec.resolution]) <= budget.macs
    assert len({spec.stages for spec in found.values()}) > 1  # a larger resolution leaves narrower nets


def test_uniform_candidates_leave_out_resolutions_without_one() -> None:
    space = SPACES["litepose"]
    least = Budget(macs=spec_macs(space.smallest(JOINTS)).thop)
    assert uniform_candidates(space, JOINTS, least) == [space.smallest(JOINTS)]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(SPACES)),
    st.floats(0, 1).map(lambda x: x**3),  # mostly tight
    st.floats(0, 1).map(lambda x: x**3),
    st.sampled_from(["macs", "params", "both"]),
    st.sampled_from(CONVENTIONS),
    st.integers(0, 2**32),
)
def test_repair_always_ends_inside_the_budget(
    name: str, macs_share: float, params_share: float, which: str, convention: str, seed: int
) -> None:
    macs, params = between(name, macs_share, convention)[0], between(name, params_share)[1]
    budget = Budget(macs if which != "params" else None, params if which != "macs" else None, convention)  # type: ignore[arg-type]
    feasible = FeasibleSpace(SPACES[name], JOINTS, budget)
    rng = np.random.default_rng(seed)
    genome = feasible.space.sample(rng)
    inside = repaired(feasible, genome, rng)
    assert feasible.admits(inside)
    assert all(after <= before for after, before in zip(inside, genome, strict=True))
    if feasible.admits(genome):
        assert inside == genome


def test_repair_lowers_no_gene_that_does_not_help() -> None:
    space = small_space()
    params = (spec_params(space.smallest(JOINTS)) + spec_params(space.largest(JOINTS))) // 2
    feasible = FeasibleSpace(space, JOINTS, Budget(params=params))
    largest = [len(choices) - 1 for choices in space.choices]
    found = [repaired(feasible, largest, np.random.default_rng(seed)) for seed in range(20)]
    assert {genome[0] for genome in found} == {largest[0]}  # the resolution costs no parameters
    assert len(set(found)) > 5


def test_repair_does_not_lower_more_than_it_must() -> None:
    space = small_space()
    feasible = FeasibleSpace(space, JOINTS, half_way(space))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        genome = space.sample(rng)
        inside = repaired(feasible, genome, rng)
        if inside != genome:  # one step back up somewhere leaves the budget again
            raised = [
                tuple(gene + (place == index) for place, gene in enumerate(inside))
                for index in range(len(genome))
                if inside[index] < genome[index]
            ]
            assert any(not feasible.admits(up) for up in raised)


def test_repair_ends_with_a_latency_that_smaller_nets_do_not_always_better() -> None:
    space = small_space()
    smallest = space.smallest(JOINTS)

    def erratic(spec: ArchSpec) -> float:
        return 1.0 if spec == smallest else 2.0 + int(spec.digest, 16) % 7

    feasible = FeasibleSpace(space, JOINTS, Budget(latency_ms=1.5, predict_ms=erratic))
    assert feasible.draw(1, np.random.default_rng(0))[0] == space.encode(smallest)


def test_choices_that_no_subnet_in_the_budget_has_are_removed() -> None:
    space = small_space()
    least = spec_macs(space.smallest(JOINTS)).thop
    for budget in (Budget(macs=least), Budget(macs=int(1.3 * least)), half_way(space)):
        feasible = FeasibleSpace(space, JOINTS, budget)
        genomes = feasible_genomes(feasible)
        assert feasible.top == tuple(max(genome[gene] for genome in genomes) for gene in range(len(space.choices)))
    assert feasible_genomes(FeasibleSpace(space, JOINTS, Budget(macs=least))) == [(0,) * len(space.choices)]


def test_sampling_reaches_every_subnet_of_a_tiny_space() -> None:
    space = tiny_space()
    feasible = FeasibleSpace(space, JOINTS, half_way(space))
    rng = np.random.default_rng(0)
    assert {feasible.draw(1, rng)[0] for _ in range(300)} == set(feasible_genomes(feasible))


def test_sampling_is_deterministic() -> None:
    feasible = FeasibleSpace(small_space(), JOINTS, half_way(small_space()))
    draws = [[feasible.draw(1, np.random.default_rng(3))[0] for _ in range(5)] for _ in range(2)]
    assert draws[0] == draws[1]


def test_a_budget_says_what_it_allows() -> None:
    budget = Budget(macs=1_200_000_000, params=2_000_000)
    assert str(budget) == "1.2G MACs (thop), 2M parameters"
    assert budget.to_dict() == {"macs": 1_200_000_000, "params": 2_000_000, "latency_ms": None}
