"""Small spaces and made-up fitness functions, so that the search can be tested against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget

JOINTS = 17


def small_space(expansion: tuple[int, ...] = (4,)) -> SearchSpace:
    """1,024 subnets (with one expansion), each cheap to count."""
    return SearchSpace(
        name="small",
        resolution=(64, 96, 128, 160),
        stem=(8, 16),
        stages=((8, 16), (16, 24), (24, 32), (32, 40)),
        deconv=((8, 16), (8, 16), (8, 16)),
        expansion=expansion,
        blocks=(1, 1, 1, 1),
        kernel=3,
    )


def tiny_space() -> SearchSpace:
    """Six subnets."""
    return SearchSpace(
        "tiny", (64, 96), (8,), ((8, 16, 24), (8,), (8,), (8,)), ((8,), (8,), (8,)), (2,), (1, 1, 1, 1), 3
    )


def half_way(space: SearchSpace) -> Budget:
    """A budget half-way between the smallest and the largest subnet."""
    none = Budget(macs=1)
    return Budget(macs=(none.macs_of(space.smallest(JOINTS)) + none.macs_of(space.largest(JOINTS))) // 2)


def feasible_genomes(feasible: FeasibleSpace) -> list[Genome]:
    """Every genome of a small space inside the budget."""
    everything = itertools.product(*(range(len(choices)) for choices in feasible.space.choices))
    return [genome for genome in everything if feasible.admits(genome)]


class Usefulness:
    """A smooth fitness: each gene has a weight and diminishing returns, and some genes help each other."""

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        genes = len(space.choices)
        self._tops = np.array([max(len(choices) - 1, 1) for choices in space.choices])
        self._weights = rng.uniform(0.2, 1.0, genes)
        self._together = rng.uniform(-0.2, 0.2, (genes, genes))
        self.calls: list[Genome] = []

    def __call__(self, genome: Sequence[int]) -> float:
        self.calls.append(tuple(genome))
        share = np.array(genome) / self._tops
        gain = self._weights @ np.sqrt(share) + share @ self._together @ share / len(share)
        return max(0.0, float(gain) / 16)
