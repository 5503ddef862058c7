"""Small spaces listed whole, and made-up latencies, for the tests of budgets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs import feasible as feasible_module
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import Grid
from tests.searches.small_spaces import JOINTS, small_space


def deep_space() -> SearchSpace:
    """Elastic in everything: 13,824 subnets in a grid of 36,864."""
    return replace(
        small_space((2, 4)),
        stages=((8, 16), (16,), (24, 32), (32, 40)),
        blocks=(2, 1, 2, 2),
        depth=((1, 2), (1,), (1, 2), (1, 2)),
        deconv=((8, 16), (8,), (8,)),
    )


def nearly(space: SearchSpace, share: float) -> Budget:
    """A budget that admits about this share of a small space's subnets."""
    grid = Grid(space, JOINTS, [len(choices) - 1 for choices in space.choices])
    return Budget(macs=int(np.quantile(grid.costs("macs_thop")[grid.canonical()], share)))


def members(feasible: FeasibleSpace) -> set[Genome]:
    """Every canonical genome inside."""
    everything = itertools.product(*(range(len(choices)) for choices in feasible.space.choices))
    genomes = [genome for genome in everything if feasible.space.canonical(genome) == genome]
    return {genome for genome, inside in zip(genomes, feasible.admitted(np.array(genomes)), strict=True) if inside}


def repaired(feasible: FeasibleSpace, genome: Sequence[int], rng: np.random.Generator) -> Genome:
    """One genome brought inside."""
    return tuple(feasible.repair_many(np.array([genome]), rng)[0].tolist())


def unlisted(space: SearchSpace, budget: Budget) -> FeasibleSpace:
    """The feasible subnets drawn from as if they were too many to list."""
    with mock.patch.object(feasible_module, "LISTED", 0):
        feasible = FeasibleSpace(space, JOINTS, budget)
        assert feasible._listed is None
    return feasible


def tolerance(feasible: FeasibleSpace, number: int) -> float:
    """Five standard errors of an estimate where so many subnets are inside; 0 where they are counted."""
    if feasible.count().exact:
        return 0.0
    share = number / feasible._proposals.size
    return 5 * number * float(np.sqrt((1 - share) / share / feasible._trials)) + 1e-6


def latency(spec: ArchSpec) -> float:
    """A predictor that grows with the net, but not as its MACs do."""
    return 0.5 + 1e-3 * spec.resolution * float(np.sqrt(sum(spec.stages)))


def latencies(space: SearchSpace, joints: int, genomes: Sequence[Sequence[int]]) -> np.ndarray:
    """The same for many genomes."""
    columns = [np.array(choices)[genes] for choices, genes in zip(space.choices, np.array(genomes).T, strict=True)]
    return 0.5 + 1e-3 * columns[0] * np.sqrt(sum(columns[2:6]))
