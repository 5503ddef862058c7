"""Evolution over genomes that never leaves the budget and never judges a genome twice.

After Cai et al., Once-for-All (ICLR 2020), section 3.4, and Wang et al., LitePose (CVPR 2022): truncation selection,
uniform crossover and mutation over every gene, the resolution included; (mu + lambda). Built on DEAP's fitness,
toolbox and selection; the operators draw from the generator they are given, never from a global stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from deap import base, tools

from ofa_pose.arch.space import Genome
from ofa_pose.search.budget import FeasibleSpace, uniform_candidates
from ofa_pose.search.candidates import Candidate, Judge, Origin, Report, judged
from ofa_pose.search.settings import SearchSettings
from ofa_pose.seeding import generator

OFFSPRING_TRIES = 30  # to find a new child of two parents, or of one
SAMPLE_TRIES = 500  # to find any new genome at all


class HighestFirst(base.Fitness):
    """(fitness, MACs), compared in that order, as `Candidate.rank` does."""

    weights = (1.0, -1.0)


class Individual(list[int]):
    """A genome as DEAP handles it."""

    def __init__(self, genome: Sequence[int], origin: Origin) -> None:
        super().__init__(genome)
        self.fitness = HighestFirst()
        self.origin = origin

    @property
    def genome(self) -> Genome:
        """The genes, hashable."""
        return tuple(self)


def expected_evaluations(part: FeasibleSpace, settings: SearchSettings) -> int:
    """How many subnets `evolve` judges if it never runs out of new ones."""
    return max(settings.population, len(_uniform(part, settings))) + settings.population * settings.generations


def evolve(
    part: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    judge: Judge,
    prior: Sequence[tuple[Genome, float]] = (),
    report: Report | None = None,
) -> Iterator[Candidate]:
    """Search `part` of a space, yielding every candidate as soon as it is judged.

    Each generation's parents are the best share of all that was judged before. It ends after the last generation, or
    when no new genome can be found: then fewer than `expected_evaluations` were judged. The same seed and fitness
    give the same candidates in the same order.

    Args:
        judge: asked for a whole generation at a time.
    """
    toolbox = _toolbox(part, settings)
    seen: set[Genome] = set()
    population: list[Individual] = []
    order = 0
    for generation in range(settings.generations + 1):
        rng = generator(seed, "search", generation)
        if generation == 0:
            children = _first_population(toolbox, part, settings, rng, seen)
        else:
            children = _offspring(toolbox, population, settings, rng, seen)
        if not children:
            return
        asked: list[tuple[Genome, Origin]] = [(child.genome, child.origin) for child in children]
        for child, candidate in zip(children, judged(part, judge, asked, generation, order), strict=True):
            child.fitness.values = (candidate.fitness, candidate.macs)
            yield candidate
        order += len(children)
        population = toolbox.select(population + children, settings.population)


def uniform_crossover(rng: np.random.Generator, first: Sequence[int], second: Sequence[int]) -> Genome:
    """A genome with every gene from either parent, at equal odds."""
    takes = rng.random(len(first)) < 0.5
    return tuple(a if take else b for a, b, take in zip(first, second, takes, strict=True))


def mutate(rng: np.random.Generator, genome: Sequence[int], top: Sequence[int], chance: float) -> Genome:
    """`genome` with each gene changed at this chance to another of its choices 0 … top, at least one gene in any case.

    Genes with one choice stay; where all have one, the genome comes back as it is.
    """
    elastic = np.flatnonzero(np.asarray(top))
    if not len(elastic):
        return tuple(genome)
    changed = elastic[rng.random(len(elastic)) < chance]
    if not len(changed):
        changed = rng.choice(elastic, 1)
    genes = list(genome)
    for index in changed:
        other = int(rng.integers(top[index]))  # one fewer than the choices: the present one is stepped over
        genes[index] = other + (other >= genes[index])
    return tuple(genes)


def _toolbox(
    part: FeasibleSpace,
    settings: SearchSettings,
) -> base.Toolbox:
    toolbox = base.Toolbox()
    toolbox.register("sample", part.sample)
    toolbox.register("repair", part.repair)
    toolbox.register("mate", uniform_crossover)
    toolbox.register("mutate", mutate, top=part.top, chance=settings.mutation)
    toolbox.register("select", tools.selBest)
    return toolbox


def _uniform(part: FeasibleSpace, settings: SearchSettings) -> list[Genome]:
    if not settings.uniform_start:
        return []
    return [part.space.encode(spec) for spec in uniform_candidates(part.space, part.joints, part.budget)]


def _first_population(
    toolbox: base.Toolbox,
    part: FeasibleSpace,
    settings: SearchSettings,
    rng: np.random.Generator,
    seen: set[Genome],
) -> list[Individual]:
    population = [Individual(genome, "uniform") for genome in _uniform(part, settings)]
    seen.update(individual.genome for individual in population)
    while len(population) < settings.population:
        individual = _new_sample(toolbox, rng, seen)
        if individual is None:
            break
        population.append(individual)
    return population


def _offspring(
    toolbox: base.Toolbox,
    population: Sequence[Individual],
    settings: SearchSettings,
    rng: np.random.Generator,
    seen: set[Genome],
) -> list[Individual]:
    parents = toolbox.select(population, max(2, round(settings.parents * settings.population)))
    crossed = round(settings.crossover * settings.population)
    children: list[Individual] = []
    for number in range(settings.population):
        child = _new_child(toolbox, parents, number < crossed, rng, seen) or _new_sample(toolbox, rng, seen)
        if child is None:
            break
        children.append(child)
    return children


def _new_child(
    toolbox: base.Toolbox, parents: Sequence[Individual], cross: bool, rng: np.random.Generator, seen: set[Genome]
) -> Individual | None:
    # Parents that have become alike have no new children by crossover: mutation follows it.
    for origin in ("crossover", "mutation") if cross and len(parents) > 1 else ("mutation",):
        for _ in range(OFFSPRING_TRIES):
            if origin == "crossover":
                first, second = rng.choice(len(parents), 2, replace=False)
                genome = toolbox.mate(rng, parents[first], parents[second])
            else:
                genome = toolbox.mutate(rng, parents[int(rng.integers(len(parents)))])
            genome = toolbox.repair(genome, rng)
            if genome not in seen:
                seen.add(genome)
                return Individual(genome, origin)
    return None


def _new_sample(toolbox: base.Toolbox, rng: np.random.Generator, seen: set[Genome]) -> Individual | None:
    for _ in range(SAMPLE_TRIES):
        genome = toolbox.sample(rng)
        if genome not in seen:
            seen.add(genome)
            return Individual(genome, "sample")
    return None
