"""NSGA-II: the whole front of AP over cost in one run, of which a budget is then only a cut.

Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II (IEEE Trans. Evol. Comput. 2002). DEAP's
non-dominated sorting and crowding distance; its tournament draws from a global stream, so ours is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from deap import base, tools

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe.settings import SearchSettings
from ofa_pose.searches.candidates import Candidate, Judge, Report
from ofa_pose.searches.generations import Individual, Strategy, breed
from ofa_pose.searches.operators import Child, Parents
from ofa_pose.searches.surrogate import Forecast


class ApOverCost(base.Fitness):
    """(AP, cost): neither is bought with the other."""

    weights = (1.0, -1.0)


def nsga2(
    part: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    judge: Judge,
    prior: Sequence[tuple[Genome, float]] = (),
    report: Report | None = None,
) -> Iterator[Candidate]:
    """Search for the front of AP over the cost that the budget names first; see `Algorithm`."""
    key = part.budget.limits[0].key

    def costs(genomes: Sequence[Genome]) -> list[float]:
        return part.costs(np.array(genomes))[key].tolist()

    def choose(children: Sequence[Child], forecast: Forecast, count: int, population: list[Individual]) -> list[int]:
        """Who may extend the front that is known: proposals are worth a deviation above the mean."""
        hopes = forecast.mean + forecast.deviation
        worth = zip(hopes.tolist(), costs([genome for genome, _ in children]), strict=True)
        hopeful = [Individual([index], ApOverCost(values)) for index, values in enumerate(worth)]
        # Copies, because sorting gives each a new crowding distance, and the parents are drawn by theirs.
        known = [Individual([], ApOverCost(individual.fitness.values)) for individual in population]
        fronts = tools.sortNondominated(known + hopeful, len(known) + len(hopeful))
        for front in fronts:
            tools.emo.assignCrowdingDist(front)
        ranked = (one for front in fronts for one in sorted(front, key=lambda one: -one.fitness.crowding_dist))
        return [individual[0] for individual in ranked if individual][:count]

    strategy = Strategy(
        fitness=lambda candidate: ApOverCost((candidate.fitness, *costs([candidate.genome]))),
        survivors=tools.selNSGA2,
        parents=_tournaments,
        choose=choose,
    )
    return breed(part, settings, seed, judge, prior, report, strategy)


def _tournaments(population: Sequence[Individual]) -> Parents:
    """Binary tournaments by dominance, then by crowding distance, which `selNSGA2` left with each fitness."""

    def win(rng: np.random.Generator) -> Individual:
        first, second = (population[int(index)] for index in rng.integers(len(population), size=2))
        if first.fitness.dominates(second.fitness):
            return first
        if second.fitness.dominates(first.fitness):
            return second
        return first if first.fitness.crowding_dist >= second.fitness.crowding_dist else second

    def draw(rng: np.random.Generator) -> tuple[Sequence[int], Sequence[int]]:
        first, second = win(rng), win(rng)
        for _ in range(len(population)):
            if second is not first:
                break
            second = win(rng)
        return first, second

    return draw
