"""Constrained evolution: the genomes of the highest AP inside a budget breed.

After Cai et al., Once-for-All (ICLR 2020), section 3.4, and Wang et al., LitePose (CVPR 2022): truncation selection,
uniform crossover and mutation over every gene, the resolution included; (mu + lambda). Ours besides: since the best
subnet mostly lies at the edge of the budget, a share of the offspring are grown until they reach it.
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

BOLDEST = 4.0  # standard deviations that the most daring choice of a round gives an unsure forecast


class HighestFirst(base.Fitness):
    """(fitness, MACs), compared in that order, as `Candidate.rank` does."""

    weights = (1.0, -1.0)


def evolve(
    part: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    judge: Judge,
    prior: Sequence[tuple[Genome, float]] = (),
    report: Report | None = None,
) -> Iterator[Candidate]:
    """Search for the highest AP; see `Algorithm`.

    Each generation's parents are the best share of all that was judged before.
    """
    count = max(2, round(settings.parents * settings.population))
    strategy = Strategy(
        fitness=lambda candidate: HighestFirst((candidate.fitness, candidate.macs)),
        survivors=tools.selBest,
        parents=lambda population: _truncation(population[:count]),
        choose=_highest,
        fill=settings.fill,
    )
    return breed(part, settings, seed, judge, prior, report, strategy)


def _truncation(best: Sequence[Individual]) -> Parents:
    def draw(rng: np.random.Generator) -> tuple[Sequence[int], Sequence[int]]:
        first, second = rng.choice(len(best), 2, replace=False) if len(best) > 1 else (0, 0)
        return best[first], best[second]

    return draw


def _highest(children: Sequence[Child], forecast: Forecast, count: int, population: Sequence[Individual]) -> list[int]:
    """The highest upper confidence bounds, the first by the mean alone, each next one bolder."""
    chosen: list[int] = []
    for boldness in np.linspace(0, BOLDEST, count):
        score = forecast.mean + boldness * forecast.deviation
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
    return chosen
