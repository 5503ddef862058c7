"""How new genomes come about: uniform nets, samples, crossover and mutation; each inside the budget and new.

The operators draw from the generator they are given, never from a global stream as DEAP's own do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import uniform_candidates
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.candidates import Origin

ROUNDS = 6  # of making what is still missing, because what was made was there before
MORE = 16  # made at least in each further round: a call for many costs hardly more than for one
NEIGHBOUR = 0.7  # share of a mutation's changes that go to a neighbouring choice

Child = tuple[Genome, Origin]
Parents = Callable[[np.random.Generator], tuple[Sequence[int], Sequence[int]]]
"""Draws two parents; a mutation takes the first."""


class Breeder:
    """Finds genomes inside a budget that were not there before.

    Attributes:
        seen: all genomes that were taken.
    """

    def __init__(self, feasible: FeasibleSpace, settings: SearchSettings, fill: float = 0.0) -> None:
        """`fill`: share of samples and children that are grown until nothing more fits into the budget."""
        self.feasible, self.settings, self.fill = feasible, settings, fill
        self.seen: set[Genome] = set()

    def uniform(self) -> list[Child]:
        """The widest uniformly scaled net of each resolution, if a search is to start with them; nothing later on."""
        return [] if self.seen else [(genome, "uniform") for genome in starting_genomes(self.feasible, self.settings)]

    def propose(self, rng: np.random.Generator, count: int, parents: Parents | None) -> list[Child]:
        """Up to `count` new children, none twice; not taken yet.

        Of the share that the settings say with two parents. Parents that have become alike have no new children by
        crossover, so mutations fill the gap; samples, where there are no parents or they have no new children at all.
        """
        children: dict[Genome, Origin] = {}
        top, chance = self.feasible.top, self.settings.mutation

        def crosses(number: int) -> list[Genome]:
            return [uniform_crossover(rng, *parents(rng)) for _ in range(number)] if parents else []

        def mutants(number: int) -> list[Genome]:
            return [mutate(rng, parents(rng)[0], top, chance) for _ in range(number)] if parents else []

        def samples(number: int) -> list[Genome]:
            return self.feasible.sample_many(number, rng)

        self._fill_up(children, round(self.settings.crossover * count), crosses, "crossover", rng)
        self._fill_up(children, count, mutants, "mutation", rng)
        self._fill_up(children, count, samples, "sample", rng)
        children.update(self.even(rng, count - len(children), children))
        return list(children.items())

    def even(self, rng: np.random.Generator, count: int, but: Collection[Genome] = ()) -> list[Child]:
        """Up to `count` new samples, as the budget's inside is drawn: evenly, where that can be; not taken yet."""
        if count <= 0:
            return []
        drawn = self.feasible.sample_many(count + len(self.seen) + len(but), rng)
        return [(genome, "sample") for genome in drawn if genome not in self.seen and genome not in but][:count]

    def take(self, children: Sequence[Child]) -> None:
        """Mark children as no longer new."""
        self.seen.update(genome for genome, _ in children)

    def _fill_up(
        self,
        children: dict[Genome, Origin],
        count: int,
        make: Callable[[int], Sequence[Genome]],
        origin: Origin,
        rng: np.random.Generator,
    ) -> None:
        """Add new children until there are `count`: what `make` makes, brought inside the budget, some to its edge."""
        for attempt in range(ROUNDS):
            missing = count - len(children)
            genomes = make(max(missing, MORE) if attempt else missing) if missing > 0 else ()
            if not len(genomes):
                return
            rows = self.feasible.repair_many(np.array(genomes), rng)
            filled = rng.random(len(rows)) < self.fill
            rows[filled] = self.feasible.fill_many(rows[filled], rng)
            new = [
                genome for row in rows.tolist() if (genome := tuple(row)) not in self.seen and genome not in children
            ]
            children.update(dict.fromkeys(list(dict.fromkeys(new))[:missing], origin))


def starting_genomes(feasible: FeasibleSpace, settings: SearchSettings) -> list[Genome]:
    """The widest uniformly scaled net of each resolution, if a search is to start with them."""
    if not settings.uniform_start:
        return []
    return [
        feasible.space.encode(spec) for spec in uniform_candidates(feasible.space, feasible.joints, feasible.budget)
    ]


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
