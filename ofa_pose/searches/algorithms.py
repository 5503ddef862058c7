"""The search algorithms by name, all with one interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe.settings import SearchSettings
from ofa_pose.searches.candidates import Algorithm, Candidate, Judge, Report, judged
from ofa_pose.searches.evolution import evolve
from ofa_pose.searches.nsga2 import nsga2
from ofa_pose.searches.operators import Breeder, starting_genomes
from ofa_pose.utils.seeding import generator


def random_search(
    part: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    judge: Judge,
    prior: Sequence[tuple[Genome, float]] = (),
    report: Report | None = None,
) -> Iterator[Candidate]:
    """The baseline: distinct subnets, each drawn evenly from the feasible ones; see `Algorithm`.

    Where hardly any draw is inside the budget, what is outside is repaired, which is no longer quite even.
    """
    breeder = Breeder(part, settings)
    order = 0
    for generation in range(settings.generations + 1):
        children = breeder.even(generator(seed, "search", generation), settings.population)
        breeder.take(children)
        if not children:
            return
        for candidate in judged(part, judge, children, generation, order):
            order = candidate.order
            yield candidate


ALGORITHMS: dict[str, Algorithm] = {"evolution": evolve, "nsga2": nsga2, "random": random_search}


def expected_evaluations(part: FeasibleSpace, settings: SearchSettings) -> int:
    """How many subnets a search judges if it never runs out of new ones."""
    first = 0 if settings.algorithm == "random" else len(starting_genomes(part, settings))
    return max(settings.population, first) + settings.population * settings.generations
