"""Uniform draws from a space, or from the part of it up to given choices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.population import canonical_rows


class UniformDraws:
    """Draws canonical genomes up to given choices, each with the same probability.

    Attributes:
        size: how many there are.
    """

    def __init__(self, space: SearchSpace, top: Sequence[int]) -> None:
        """`top`: for every gene the highest choice that is left."""
        self._space, self._top = space, np.array(top)
        most = max(len(choices) for choices in space.choices)
        weights = (np.arange(most) <= self._top[:, None]).astype(np.float64)
        counted = np.ones(len(top), bool)
        for place, gene in enumerate(space.genes):
            if gene.field == "depth":  # a deeper stage has more subnets
                for index, count in enumerate(gene.choices):
                    weights[place, index] *= math.prod(top[block] + 1 for block in space.block_genes(gene.stage, count))
                counted[space.block_genes(gene.stage, gene.choices[-1])] = False
        totals = weights.sum(axis=1)
        self.size = float(totals[counted].prod())
        self._cumulative = np.cumsum(weights / totals[:, None], axis=1)[:, :-1]

    def redraw(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """(N,): a new choice of each of (N,) genes."""
        return np.asarray((rng.random((len(genes), 1)) > self._cumulative[genes]).sum(axis=1))

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, G) genomes, each drawn on its own."""
        uniform = rng.random((count, len(self._top), 1))
        return canonical_rows(self._space, np.minimum((uniform > self._cumulative).sum(axis=2), self._top))
