"""Costs of a population and of a whole grid against those of the decoded specs, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.space import Genome, SearchSpace, load_space
from ofa_pose.arch.spec import HEADS
from ofa_pose.costs.macs import (
    QUANTITIES,
    Grid,
    canonical_rows,
    population_costs,
    present_genes,
    spec_macs,
    spec_params,
)

SHIPPED = ("litepose-nano", "litepose", "litepose-per-block", "litepose-depth")


def one_by_one(space: SearchSpace, joints: int, genomes: list[Genome]) -> dict[str, list[int]]:
    specs = [space.decode(genome, joints) for genome in genomes]
    macs = {f"macs_{name}": [getattr(spec_macs(spec), name) for spec in specs] for name in ("thop", "exact", "paper")}
    return {**macs, "params": [spec_params(spec) for spec in specs]}


def any_genomes(space: SearchSpace, count: int, seed: int) -> list[Genome]:
    """Uniform genes, canonical or not."""
    rng = np.random.default_rng(seed)
    return [tuple(int(rng.integers(len(choices))) for choices in space.choices) for _ in range(count)]


@st.composite
def small_spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of any kernel, head and depth, with one to three choices a gene."""

    def choices(low: int, high: int, most: int = 3) -> tuple[int, ...]:
        return tuple(sorted(draw(st.sets(st.integers(low, high), min_size=1, max_size=most))))

    depth = tuple(choices(1, 3, 2) for _ in range(4))
    elastic = draw(st.booleans())
    return SearchSpace(
        name="drawn",
        resolution=tuple(32 * side for side in choices(1, 5, 2)),
        stem=choices(1, 40),
        stages=tuple(choices(1, 90, 2) for _ in range(4)),
        deconv=tuple(choices(1, 70, 2) for _ in range(3)),
        expansion=choices(1, 8),
        blocks=tuple(counts[-1] for counts in depth),
        kernel=draw(st.sampled_from([1, 3, 5, 7])),
        head=draw(st.sampled_from(HEADS)),
        depth=depth if elastic else (),
    )


def same(found: dict[str, np.ndarray], expected: dict[str, list[int]]) -> None:
    assert tuple(found) == QUANTITIES
    for name, values in expected.items():
        assert found[name].dtype == np.int64
        assert found[name].tolist() == values, name


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("joints", [14, 17])
def test_random_subnets_of_shipped_spaces_to_the_last_mac(name: str, joints: int) -> None:
    space = load_space(name)
    ends = [(0,) * len(space.choices), tuple(len(choices) - 1 for choices in space.choices)]
    genomes = [*ends, *any_genomes(space, 60, joints)]
    same(population_costs(space, joints, np.array(genomes)), one_by_one(space, joints, genomes))


@settings(max_examples=60, deadline=None)
@given(small_spaces(), st.integers(1, 30), st.integers(1, 133), st.integers(0, 2**32))
def test_random_subnets_of_any_space(space: SearchSpace, count: int, joints: int, seed: int) -> None:
    genomes = any_genomes(space, count, seed)
    same(population_costs(space, joints, np.array(genomes)), one_by_one(space, joints, genomes))


def test_a_population_of_none() -> None:
    space = load_space("litepose-depth")
    costs = population_costs(space, 17, np.zeros((0, len(space.choices)), np.int64))
    assert [values.shape for values in costs.values()] == [(0,)] * 4


@settings(max_examples=60, deadline=None)
@given(small_spaces(), st.integers(0, 2**32))
def test_canonical_rows_are_the_spaces_own(space: SearchSpace, seed: int) -> None:
    genomes = any_genomes(space, 20, seed)
    rows = canonical_rows(space, np.array(genomes))
    assert [tuple(row) for row in rows.tolist()] == [space.canonical(genome) for genome in genomes]
    present = present_genes(space, np.array(genomes))
    assert (present is None) == (not space.depth)
    if present is not None:  # a gene that says nothing may take any value: the subnet stays the same
        other = np.where(present, genomes, any_genomes(space, 20, seed + 1))
        assert [space.decode(row, 17) for row in other.tolist()] == [space.decode(genome, 17) for genome in genomes]


@settings(max_examples=40, deadline=None)
@given(small_spaces(), st.data())
def test_a_grid_holds_every_subnet_below_its_top_once(space: SearchSpace, data: st.DataObject) -> None:
    most = [len(choices) - 1 for choices in space.choices]
    while np.prod([highest + 1 for highest in most]) > 3000:  # fewer choices of the dearest genes
        gene = int(np.argmax(most))
        most[gene] -= 1
    top = [data.draw(st.integers(0, highest)) for highest in most]
    grid = Grid(space, 17, top)
    genomes = grid.genomes(np.arange(grid.size))
    assert [tuple(row) for row in genomes.tolist()] == list(itertools.product(*(range(end + 1) for end in top)))
    canonical = grid.canonical()
    assert canonical.tolist() == [space.canonical(row) == tuple(row) for row in genomes.tolist()]
    costs = population_costs(space, 17, genomes)
    for name in QUANTITIES:
        assert grid.costs(name).tolist() == costs[name].tolist()


def test_the_grid_of_the_papers_space() -> None:
    space = load_space("litepose")
    grid = Grid(space, 17, [len(choices) - 1 for choices in space.choices])
    assert grid.size == space.size == 245_760
    assert grid.canonical().all()
    numbers = np.random.default_rng(0).integers(grid.size, size=500)
    costs = population_costs(space, 17, grid.genomes(numbers))
    for name in QUANTITIES:
        assert (grid.costs(name)[numbers] == costs[name]).all()
