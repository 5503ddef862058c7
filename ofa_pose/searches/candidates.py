"""What the search algorithms share: candidates, how they are evaluated, and reports on how a surrogate does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ofa_pose.arch.space import Genome
from ofa_pose.recipe import SearchSettings

if TYPE_CHECKING:
    from ofa_pose.costs.feasible import FeasibleSpace

FitnessOutcome = tuple[float, float]  # AP (finite, or -inf where it was not a number), seconds
Evaluate = Callable[[Sequence[Genome]], Iterator[FitnessOutcome]]
"""Outcomes of distinct genomes, in the order given, each as soon as it (and those before it) is known."""
Report = Callable[[dict[str, Any]], None]
Origin = Literal["uniform", "sample", "crossover", "mutation"]


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

    It never leaves the budget and never asks for a genome twice; the same seed and the same outcomes give the same
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


def evaluated(
    feasible: FeasibleSpace,
    evaluate: Evaluate,
    children: Iterable[tuple[Genome, Origin]],
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
