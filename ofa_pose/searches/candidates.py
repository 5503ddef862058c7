"""What the search algorithms share: candidates, how they are evaluated, and how new genomes come about.

What is drawn comes from the generator given, never from a global stream as DEAP's own operators do.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import uniform_candidates
from ofa_pose.recipe import SearchSettings
from ofa_pose.utils.errors import InputError

ROUNDS = 6  # of making what is still missing, because what was made was there before
MORE = 16  # made at least in each further round: a call for many costs hardly more than for one
NEIGHBOUR = 0.7  # share of a mutation's changes that go to a neighbouring choice

FitnessOutcome = tuple[float, float]  # AP (finite, or -inf where it was not a number), seconds
Evaluate = Callable[[Sequence[Genome]], Iterator[FitnessOutcome]]
"""Outcomes of distinct genomes, in the order given, each as soon as it (and those before it) is known."""
Report = Callable[[dict[str, Any]], None]
Origin = Literal["uniform", "sample", "crossover", "mutation"]
OWN_ALGORITHM = "give a generator function as `ofa_pose.searches.candidates.Algorithm` describes it"
Child = tuple[Genome, Origin]
Parents = Callable[[np.random.Generator], tuple[Sequence[int], Sequence[int]]]
"""Draws two parents; a mutation takes the first."""


@dataclass(frozen=True)
class Candidate:
    """One evaluated subnet.

    Attributes:
        order: its number in the search, from 1.
        generation: 0 is the first population.
        origin: how it came about.
        fitness: the higher the better: its AP; -inf where the fitness function gave no finite number.
        macs: multiply-adds in the budget's convention.
        seconds: what evaluating it took.
    """

    order: int
    generation: int
    origin: Origin
    genome: Genome
    fitness: float
    macs: int
    seconds: float

    @property
    def rank(self) -> tuple[float, int]:
        """Orders candidates: the fitness, then fewer MACs where two are equally fit."""
        return self.fitness, -self.macs

    @property
    def is_valid(self) -> bool:
        """Whether its fitness is a number."""
        return math.isfinite(self.fitness)


class Algorithm(Protocol):
    """A way to search: yields candidates as they are evaluated.

    It never leaves the budget and never yields a genome twice; the same seed and the same outcomes give the same
    candidates in the same order. It ends after the last generation, or when it finds no new genome.
    """

    def __call__(
        self,
        feasible: FeasibleSpace,
        settings: SearchSettings,
        seed: int,
        evaluate: Evaluate,
        prior: Sequence[tuple[Genome, float]] = (),
        report: Report | None = None,
    ) -> Iterator[Candidate]:
        """Search the feasible subnets.

        Args:
            evaluate: asked for a whole generation at a time; with a surrogate, for one round of it.
            prior: APs known from elsewhere, of which only a surrogate may learn.
            report: called after each generation, before the next one's first candidate, with how good the surrogate is.
        """


def check_algorithm(algorithm: object) -> None:
    """Raise InputError where it cannot be called as an `Algorithm` is."""
    if not callable(algorithm):
        raise InputError(f"the algorithm {algorithm!r:.80} cannot be called", hint=OWN_ALGORITHM)
    with suppress(ValueError):  # what is not written in Python may not say what it takes
        signature = inspect.signature(algorithm)
        _, *given = inspect.signature(Algorithm.__call__).parameters
        try:
            signature.bind(*given)
        except TypeError:
            what = f"the algorithm {algorithm!r:.80} takes {signature}, but is given ({', '.join(given)})"
            raise InputError(what, hint=OWN_ALGORITHM) from None


def check_genomes(genomes: Sequence[Genome], space: SearchSpace) -> None:
    """Raise InputError where an algorithm asks for what is not a genome of the space."""
    for genome in genomes:
        if not isinstance(genome, tuple):
            what = f"the algorithm asked for {genome!r:.80}, which is not a tuple"
            raise InputError(what, hint="a genome is a tuple: write tuple(genome)")
        try:
            space.check_genome(genome)
        except InputError as error:
            hint = "a genome has a whole number for each gene, from 0 to the gene's entry in feasible.top"
            raise InputError(f"the algorithm asked for a {error}", hint=hint) from None


def check_candidates(found: object, name: str) -> Iterator[Candidate]:
    """What an algorithm of that name found, as it comes. Raises InputError where that is not distinct candidates."""
    seen: set[Genome] = set()
    if not isinstance(found, Iterable):
        raise InputError(f"the algorithm {name} returned {found!r:.80}, no candidates", hint=OWN_ALGORITHM)
    for one in found:
        if not isinstance(one, Candidate) or not isinstance(one.genome, tuple):
            what = f"the algorithm {name} gave {one!r:.80}, which is not a Candidate with a tuple as its genome"
            raise InputError(what, hint=OWN_ALGORITHM)
        if one.genome in seen:
            hint = "let it skip genomes that it has seen; the archive keeps what was evaluated, for --resume"
            raise InputError(f"the algorithm {name} gave the genome {one.genome} twice", hint=hint)
        seen.add(one.genome)
        yield one


def evaluated(
    feasible: FeasibleSpace,
    evaluate: Evaluate,
    children: Iterable[Child],
    generation: int,
    start: int,
) -> Iterator[Candidate]:
    """The candidates of one generation, numbered from `start` + 1, each as soon as its outcome is known."""
    known = list(children)
    outcomes = evaluate([genome for genome, _ in known])
    for order, ((genome, origin), (value, seconds)) in enumerate(zip(known, outcomes, strict=True), start + 1):
        # NaN compares false with everything, so a selection would let it win.
        fitness = value if math.isfinite(value) else -math.inf
        yield Candidate(order, generation, origin, genome, fitness, feasible.macs(genome), seconds)


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
        """Up to `count` new children inside the budget, some at its edge, none twice; not taken yet.

        Of the share that the settings say with two parents. Parents that have become alike have no new children by
        crossover, so mutations fill the gap; samples, where there are no parents or they have no new children at all.
        """
        children: dict[Genome, Origin] = {}

        def make(origin: Origin, number: int) -> list[Genome]:
            if origin == "sample":
                return self.feasible.sample_many(number, rng)
            if parents is None:
                return []
            if origin == "crossover":
                return [uniform_crossover(rng, *parents(rng)) for _ in range(number)]
            return [mutate(rng, parents(rng)[0], self.feasible.top, self.settings.mutation) for _ in range(number)]

        wanted: dict[Origin, int] = {
            "crossover": round(self.settings.crossover * count),
            "mutation": count,
            "sample": count,
        }
        for origin, until in wanted.items():
            for attempt in range(ROUNDS):
                missing = until - len(children)
                genomes = make(origin, max(missing, MORE) if attempt else missing) if missing > 0 else []
                if not genomes:
                    break
                rows = self.feasible.repair_many(np.array(genomes), rng)
                filled = rng.random(len(rows)) < self.fill
                rows[filled] = self.feasible.fill_many(rows[filled], rng)
                new = [
                    genome for genome in map(tuple, rows.tolist()) if genome not in self.seen and genome not in children
                ]
                children.update(dict.fromkeys(list(dict.fromkeys(new))[:missing], origin))
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
