"""The search algorithms: evolution, NSGA-II and random search, all with one interface (`candidates.Algorithm`).

The first two are one loop under two strategies. Fitness and selection are DEAP's; what it draws from a global stream is
drawn from our own generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from deap import base, tools

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.candidates import Algorithm, Candidate, Evaluate, Report, evaluated
from ofa_pose.searches.operators import Breeder, Child, starting_genomes
from ofa_pose.searches.surrogate import Prediction, Screening
from ofa_pose.utils.seeding import generator

BOLDEST = 4.0  # standard deviations that the most daring choice of a round gives an unsure prediction


class Individual(list[int]):
    """An evaluated genome as DEAP handles it."""

    def __init__(self, genome: Sequence[int], fitness: base.Fitness) -> None:
        super().__init__(genome)
        self.fitness = fitness


class Strategy(Protocol):
    """What sets one algorithm of generations apart.

    Attributes:
        fill: share of samples and offspring that are grown to the budget.
    """

    fill: float

    def fitness(self, candidate: Candidate) -> base.Fitness:
        """What a candidate is worth."""

    def survivors(self, population: Sequence[Individual], count: int) -> list[Individual]:
        """The so many fittest, in DEAP's way."""

    def mate(self, population: Sequence[Individual], rng: np.random.Generator) -> tuple[Individual, Individual]:
        """Two parents among the fittest."""

    def choose(
        self, children: Sequence[Child], prediction: Prediction, count: int, population: Sequence[Individual]
    ) -> Sequence[int]:
        """Which so many proposals to evaluate, by index, given what a surrogate predicts and the fittest so far."""


class Generations:
    """An `Algorithm`: generation after generation of offspring of the fittest so far, (mu + lambda), by a strategy.

    Crossover is uniform, mutation over every gene, the resolution included. With a surrogate a generation is evaluated
    in rounds, so that each is chosen by what the one before has taught.
    """

    def __init__(self, strategy: Callable[[FeasibleSpace, SearchSettings], Strategy]) -> None:
        self._strategy = strategy

    def __call__(
        self,
        feasible: FeasibleSpace,
        settings: SearchSettings,
        seed: int,
        evaluate: Evaluate,
        prior: Sequence[tuple[Genome, float]] = (),
        report: Report | None = None,
    ) -> Iterator[Candidate]:
        """See `Algorithm`."""
        strategy = self._strategy(feasible, settings)
        screening = Screening(feasible, settings, prior) if settings.surrogate else None
        offspring = _Offspring(Breeder(feasible, settings, strategy.fill), settings, strategy, screening)
        population: list[Individual] = []
        order = 0
        for generation in range(settings.generations + 1):
            found: list[Candidate] = []
            for children in offspring.rounds(generator(seed, "search", generation), population):
                start = len(found)
                for candidate in evaluated(feasible, evaluate, children, generation, order + start):
                    found.append(candidate)
                    yield candidate
                if screening:
                    screening.learn(found[start:])
            if not found:
                return
            if screening and report:
                report({"generation": generation, **screening.report()})
            order += len(found)
            # What could not be evaluated has no claim to offspring.
            fit = [Individual(c.genome, strategy.fitness(c)) for c in found if c.is_valid]
            population = strategy.survivors(population + fit, settings.population)


@dataclass(frozen=True)
class _Offspring:
    """Makes each generation's children."""

    breeder: Breeder
    settings: SearchSettings
    strategy: Strategy
    screening: Screening | None

    def rounds(self, rng: np.random.Generator, population: list[Individual]) -> Iterator[list[Child]]:
        """One generation: children to be evaluated before the next ones are made; at once where nothing is learnt.

        The first ones of all are the uniform nets, even if they are more than a round or a generation.
        """
        left = self.settings.population
        most = self.settings.surrogate_round if self.screening else left
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
        parents = partial(self.strategy.mate, population) if population else None
        if not self.screening or not self.screening.trusted:
            return self.breeder.propose(rng, wanted, parents)
        # Not only offspring: what the fittest lack altogether would never be proposed.
        half = wanted * self.settings.surrogate_proposals // 2
        bred = self.breeder.propose(rng, half, parents)
        proposals = list(dict([*bred, *self.breeder.propose(rng, half, None)]).items())
        if len(proposals) <= wanted:
            return proposals
        prediction = self.screening.predict([genome for genome, _ in proposals])
        return [proposals[index] for index in self.strategy.choose(proposals, prediction, wanted, population)]


class HighestFirst(base.Fitness):
    """(fitness, MACs), compared in that order, as `Candidate.rank` does."""

    weights = (1.0, -1.0)


class HighestAP:
    """Constrained evolution, for the highest AP inside a budget: the best share of all so far are the parents.

    After Cai et al., Once-for-All (ICLR 2020), section 3.4, and Wang et al., LitePose (CVPR 2022). Ours besides: since
    the best subnet mostly lies at the edge of the budget, a share of the offspring are grown until they reach it.
    """

    survivors = staticmethod(tools.selBest)

    def __init__(self, feasible: FeasibleSpace, settings: SearchSettings) -> None:
        self.fill = settings.fill
        self._parents = max(2, round(settings.parents * settings.population))

    def fitness(self, candidate: Candidate) -> base.Fitness:
        return HighestFirst((candidate.fitness, candidate.macs))

    def mate(self, population: Sequence[Individual], rng: np.random.Generator) -> tuple[Individual, Individual]:
        best = population[: self._parents]
        first, second = rng.choice(len(best), 2, replace=False) if len(best) > 1 else (0, 0)
        return best[first], best[second]

    def choose(
        self, children: Sequence[Child], prediction: Prediction, count: int, population: Sequence[Individual]
    ) -> list[int]:
        """The highest upper confidence bounds, the first by the mean alone, each next one bolder."""
        chosen: list[int] = []
        for boldness in np.linspace(0, BOLDEST, count):
            score = prediction.mean + boldness * prediction.deviation
            score[chosen] = -np.inf
            chosen.append(int(np.argmax(score)))
        return chosen


class APOverCost(base.Fitness):
    """(AP, cost): neither is bought with the other."""

    weights = (1.0, -1.0)


class FrontOverCost:
    """NSGA-II, for the whole front of AP over the cost that the budget names first: a budget is then only a cut of it.

    Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II (IEEE Trans. Evol. Comput. 2002).
    """

    fill = 0.0
    survivors = staticmethod(tools.selNSGA2)

    def __init__(self, feasible: FeasibleSpace, settings: SearchSettings) -> None:
        self._feasible, self._key = feasible, feasible.budget.limits[0].key

    def fitness(self, candidate: Candidate) -> base.Fitness:
        return APOverCost((candidate.fitness, *self._costs([candidate.genome])))

    def mate(self, population: Sequence[Individual], rng: np.random.Generator) -> tuple[Individual, Individual]:
        """Binary tournaments by dominance, then by crowding distance, which `survivors` left with each fitness."""

        def win() -> Individual:
            first, second = (population[int(index)] for index in rng.integers(len(population), size=2))
            if first.fitness.dominates(second.fitness):
                return first
            if second.fitness.dominates(first.fitness):
                return second
            return first if first.fitness.crowding_dist >= second.fitness.crowding_dist else second

        first, second = win(), win()
        for _ in range(len(population)):
            if second is not first:
                break
            second = win()
        return first, second

    def choose(
        self, children: Sequence[Child], prediction: Prediction, count: int, population: Sequence[Individual]
    ) -> list[int]:
        """Who may extend the front that is known: proposals are worth a deviation above the mean."""
        hopes = prediction.mean + prediction.deviation
        worth = zip(hopes.tolist(), self._costs([genome for genome, _ in children]), strict=True)
        hopeful = [Individual([index], APOverCost(values)) for index, values in enumerate(worth)]
        # Copies, because sorting gives each a new crowding distance, and the parents are drawn by theirs.
        known = [Individual([], APOverCost(individual.fitness.values)) for individual in population]
        fronts = tools.sortNondominated(known + hopeful, len(known) + len(hopeful))
        for front in fronts:
            tools.emo.assignCrowdingDist(front)
        ranked = (one for front in fronts for one in sorted(front, key=lambda one: -one.fitness.crowding_dist))
        return [individual[0] for individual in ranked if individual][:count]

    def _costs(self, genomes: Sequence[Genome]) -> list[float]:
        return self._feasible.costs(np.array(genomes))[self._key].tolist()


def random_search(
    feasible: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    evaluate: Evaluate,
    prior: Sequence[tuple[Genome, float]] = (),
    report: Report | None = None,
) -> Iterator[Candidate]:
    """The baseline: distinct subnets, each drawn evenly from the feasible ones; see `Algorithm`.

    Where hardly any draw is inside the budget, what is outside is repaired, which is no longer quite even.
    """
    breeder = Breeder(feasible, settings)
    order = 0
    for generation in range(settings.generations + 1):
        children = breeder.even(generator(seed, "search", generation), settings.population)
        breeder.take(children)
        if not children:
            return
        for candidate in evaluated(feasible, evaluate, children, generation, order):
            order = candidate.order
            yield candidate


evolve, nsga2 = Generations(HighestAP), Generations(FrontOverCost)
ALGORITHMS: dict[str, Algorithm] = {"evolution": evolve, "nsga2": nsga2, "random": random_search}


def expected_evaluations(feasible: FeasibleSpace, settings: SearchSettings) -> int:
    """How many subnets a search evaluates if it never runs out of new ones."""
    first = 0 if settings.algorithm == "random" else len(starting_genomes(feasible, settings))
    return max(settings.population, first) + settings.population * settings.generations
