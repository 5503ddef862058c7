"""How new genomes come about: uniform nets, samples, crossover and mutation; each inside the budget and new.

The operators draw from the generator they are given, never from a global stream as DEAP's own do.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import numpy as np

from ofa_pose.arch.space import Genome
from ofa_pose.search.budget import FeasibleSpace, uniform_candidates
from ofa_pose.search.candidates import Origin
from ofa_pose.search.settings import SearchSettings

CHILD_TRIES = 30  # to find a new child of two parents, or of one
SAMPLE_TRIES = 500  # to find any new genome at all
NEIGHBOUR = 0.7  # share of a mutation's changes that go to a neighbouring choice

Child = tuple[Genome, Origin]
Parents = Callable[[np.random.Generator], tuple[Sequence[int], Sequence[int]]]
"""Draws two parents; a mutation takes the first."""


class Breeder:
    """Finds genomes inside a budget that were not there before.

    Attributes:
        seen: all genomes that were taken.
    """

    def __init__(self, part: FeasibleSpace, settings: SearchSettings, fill: float = 0.0) -> None:
        """`fill`: share of samples and children that are grown until nothing more fits into the budget."""
        self.part, self.settings, self.fill = part, settings, fill
        self.seen: set[Genome] = set()

    def uniform(self) -> list[Child]:
        """The widest uniformly scaled net of each resolution, if a search is to start with them."""
        return [(genome, "uniform") for genome in uniform_genomes(self.part, self.settings)]

    def propose(self, rng: np.random.Generator, count: int, parents: Parents | None) -> list[Child]:
        """Up to `count` new children, none twice; not taken yet. Samples where there are no parents or none is new."""
        children: dict[Genome, Origin] = {}
        crossed = round(self.settings.crossover * count)
        for number in range(count):
            child = self._child(rng, parents, number < crossed, children) if parents else None
            child = child or self._sample(rng, children)
            if child is None:
                break
            children[child[0]] = child[1]
        return list(children.items())

    def even(self, rng: np.random.Generator, count: int) -> list[Child]:
        """Up to `count` new samples, each genome inside the budget as likely as any other; not taken yet.

        Where hardly any draw is inside the budget, draws are repaired, which favours genomes at its edge.
        """
        children: dict[Genome, Origin] = {}
        while len(children) < count:
            child = self._even_sample(rng, children) or self._sample(rng, children)
            if child is None:
                break
            children[child[0]] = child[1]
        return list(children.items())

    def take(self, children: Sequence[Child]) -> None:
        """Mark children as no longer new."""
        self.seen.update(genome for genome, _ in children)

    def _even_sample(self, rng: np.random.Generator, but: Container[Genome]) -> Child | None:
        for _ in range(SAMPLE_TRIES):
            genome = tuple(rng.integers(np.add(self.part.top, 1)).tolist())
            # Of the genomes that stand for one subnet only the canonical one counts, else deep nets were rarer.
            if self.part.space.canonical(genome) != genome or genome in self.seen or genome in but:
                continue
            if self.part.admits(genome):
                return genome, "sample"
        return None

    def _sample(self, rng: np.random.Generator, but: Container[Genome]) -> Child | None:
        for _ in range(SAMPLE_TRIES):
            genome = self._filled(self.part.sample(rng), rng)
            if genome not in self.seen and genome not in but:
                return genome, "sample"
        return None

    def _child(self, rng: np.random.Generator, parents: Parents, cross: bool, but: Container[Genome]) -> Child | None:
        # Parents that have become alike have no new children by crossover: mutation follows it.
        ways: tuple[Origin, ...] = ("crossover", "mutation") if cross else ("mutation",)
        for origin in ways:
            for _ in range(CHILD_TRIES):
                first, second = parents(rng)
                if origin == "crossover":
                    genome = uniform_crossover(rng, first, second)
                else:
                    genome = mutate(rng, first, self.part.top, self.settings.mutation)
                genome = self._filled(self.part.repair(genome, rng), rng)
                if genome not in self.seen and genome not in but:
                    return genome, origin
        return None

    def _filled(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Now and then, `genome` with genes raised in random order as far as the budget lets them."""
        if rng.random() >= self.fill:
            return genome
        genes = list(genome)
        canonical = self.part.space.canonical
        for gene in rng.permutation(len(genes)):
            while genes[gene] < self.part.top[gene]:
                genes[gene] += 1
                if not self.part.admits(canonical(genes)):
                    genes[gene] -= 1
                    break
        return canonical(genes)


def uniform_genomes(part: FeasibleSpace, settings: SearchSettings) -> list[Genome]:
    """The widest uniformly scaled net of each resolution, if a search is to start with them."""
    if not settings.uniform_start:
        return []
    return [part.space.encode(spec) for spec in uniform_candidates(part.space, part.joints, part.budget)]


def uniform_crossover(rng: np.random.Generator, first: Sequence[int], second: Sequence[int]) -> Genome:
    """A genome with every gene from either parent, at equal odds."""
    takes = rng.random(len(first)) < 0.5
    return tuple(a if take else b for a, b, take in zip(first, second, takes, strict=True))


def mutate(rng: np.random.Generator, genome: Sequence[int], top: Sequence[int], chance: float) -> Genome:
    """`genome` with each gene changed at this chance to another of its choices 0 … top, at least one gene in any case.

    A change goes to a neighbouring choice more often than to any.
    """
    elastic = np.flatnonzero(np.asarray(top))
    if not len(elastic):
        return tuple(genome)
    changed = elastic[rng.random(len(elastic)) < chance]
    if not len(changed):
        changed = rng.choice(elastic, 1)
    genes = list(genome)
    for index in changed:
        if rng.random() < NEIGHBOUR:
            beside = [gene for gene in (genes[index] - 1, genes[index] + 1) if 0 <= gene <= top[index]]
            genes[index] = beside[int(rng.integers(len(beside)))]
        else:
            other = int(rng.integers(top[index]))  # one fewer than the choices: the present one is stepped over
            genes[index] = other + (other >= genes[index])
    return tuple(genes)
