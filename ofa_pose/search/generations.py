"""The course of a search that breeds: generation after generation of children of the fittest so far.

Built on DEAP's fitness and selection; a strategy says what fit means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from deap import base

from ofa_pose.arch.space import Genome
from ofa_pose.search.breeding import Breeder, Child, Parents
from ofa_pose.search.budget import FeasibleSpace
from ofa_pose.search.candidates import Candidate, Judge, Report, judged
from ofa_pose.search.settings import SearchSettings
from ofa_pose.search.surrogate import Forecast, Prescreen
from ofa_pose.seeding import generator


class Individual(list[int]):
    """A judged genome as DEAP handles it."""

    def __init__(self, genome: Sequence[int], fitness: base.Fitness) -> None:
        super().__init__(genome)
        self.fitness = fitness


@dataclass(frozen=True)
class Strategy:
    """What sets one algorithm apart.

    Attributes:
        fitness: what a candidate is worth.
        survivors: the so many fittest, in DEAP's way.
        parents: how the fittest mate.
        choose: which so many proposals to judge, dearest first, by index, given what a surrogate foretells.
        fill: share of samples and children that are grown to the budget.
    """

    fitness: Callable[[Candidate], base.Fitness]
    survivors: Callable[[Sequence[Individual], int], list[Individual]]
    parents: Callable[[Sequence[Individual]], Parents]
    choose: Callable[[Sequence[Child], Forecast, int], Sequence[int]]
    fill: float = 0.0


def breed(
    part: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    judge: Judge,
    prior: Sequence[tuple[Genome, float]],
    report: Report | None,
    strategy: Strategy,
) -> Iterator[Candidate]:
    """An `Algorithm` that goes by a strategy."""
    breeder = Breeder(part, settings, strategy.fill)
    screen = Prescreen(part, settings, prior) if settings.surrogate else None
    population: list[Individual] = []
    order = 0
    for generation in range(settings.generations + 1):
        rng = generator(seed, "search", generation)
        children = breeder.uniform() if generation == 0 else []
        breeder.take(children)
        wanted = settings.population - len(children)
        proposals = breeder.propose(
            rng,
            wanted * (settings.surrogate_proposals if screen and screen.trusted else 1),
            strategy.parents(population) if population else None,
        )
        if screen and len(proposals) > wanted:
            chosen = strategy.choose(proposals, screen.forecast([genome for genome, _ in proposals]), wanted)
            proposals = [proposals[index] for index in chosen]
        breeder.take(proposals)
        children += proposals
        if not children:
            return
        found: list[Candidate] = []
        for candidate in judged(part, judge, children, generation, order):
            found.append(candidate)
            if screen and len(found) == len(children):
                quality = screen.learn(found)
                if report:
                    report({"generation": generation, **quality})
            yield candidate
        order += len(found)
        # What could not be judged has no claim to offspring.
        fit = [Individual(c.genome, strategy.fitness(c)) for c in found if c.sound]
        population = strategy.survivors(population + fit, settings.population)
