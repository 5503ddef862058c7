"""The course of a search that breeds: generation after generation of children of the fittest so far.

Built on DEAP's fitness and selection; a strategy says what fit means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from deap import base

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe.settings import SearchSettings
from ofa_pose.searches.candidates import Candidate, Judge, Report, judged
from ofa_pose.searches.operators import Breeder, Child, Parents
from ofa_pose.searches.surrogate import Forecast, Screening
from ofa_pose.utils.seeding import generator


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
        choose: which so many proposals to judge, by index, given what a surrogate predicts and the fittest so far.
        fill: share of samples and children that are grown to the budget.
    """

    fitness: Callable[[Candidate], base.Fitness]
    survivors: Callable[[Sequence[Individual], int], list[Individual]]
    parents: Callable[[Sequence[Individual]], Parents]
    choose: Callable[[Sequence[Child], Forecast, int, list[Individual]], Sequence[int]]
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
    """An `Algorithm` that goes by a strategy.

    With a surrogate a generation is judged in rounds, so that each is chosen by what the one before has taught.
    """
    screen = Screening(part, settings, prior) if settings.surrogate else None
    offspring = _Offspring(Breeder(part, settings, strategy.fill), settings, strategy, screen)
    population: list[Individual] = []
    order = 0
    for generation in range(settings.generations + 1):
        found: list[Candidate] = []
        for children in offspring.rounds(generator(seed, "search", generation), population):
            start = len(found)
            for candidate in judged(part, judge, children, generation, order + start):
                found.append(candidate)
                yield candidate
            if screen:
                screen.learn(found[start:])
        if not found:
            return
        if screen and report:
            report({"generation": generation, **screen.report()})
        order += len(found)
        # What could not be judged has no claim to offspring.
        fit = [Individual(c.genome, strategy.fitness(c)) for c in found if c.is_valid]
        population = strategy.survivors(population + fit, settings.population)


@dataclass(frozen=True)
class _Offspring:
    """Makes each generation's children."""

    breeder: Breeder
    settings: SearchSettings
    strategy: Strategy
    screen: Screening | None

    def rounds(self, rng: np.random.Generator, population: list[Individual]) -> Iterator[list[Child]]:
        """One generation: children to be judged before the next ones are made; at once where nothing is learnt.

        The first ones of all are the uniform nets, even if they are more than a round or a generation.
        """
        left = self.settings.population
        most = self.settings.surrogate_round if self.screen else left
        children = self.breeder.uniform()
        while left > 0:
            self.breeder.take(children)  # so that they are not bred again
            children += self._chosen(rng, max(min(left, most) - len(children), 0), population)
            if not children:
                return
            self.breeder.take(children)
            yield children
            left, children = left - len(children), []

    def _chosen(self, rng: np.random.Generator, wanted: int, population: list[Individual]) -> list[Child]:
        parents = self.strategy.parents(population) if population else None
        if not self.screen or not self.screen.trusted:
            return self.breeder.propose(rng, wanted, parents)
        # Not only offspring: what the fittest lack altogether would never be proposed.
        half = wanted * self.settings.surrogate_proposals // 2
        bred = self.breeder.propose(rng, half, parents)
        proposals = list(dict([*bred, *self.breeder.propose(rng, half, None)]).items())
        if len(proposals) <= wanted:
            return proposals
        forecast = self.screen.forecast([genome for genome, _ in proposals])
        return [proposals[index] for index in self.strategy.choose(proposals, forecast, wanted, population)]
