"""Bringing genomes inside a budget, and finding how little a subnet with some choice can cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.population import Genomes, canonical_rows

Excess = Callable[[Genomes], NDArray[np.float64]]  # (N, G) -> (N, limits): up to 0 keeps a limit


def repair_rows(
    space: SearchSpace, excess: Excess, genomes: Genomes, feasible_start: Sequence[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(N, G) canonical genomes, each with random genes moved towards `feasible_start` until it keeps every limit.

    Rows that keep them are left as they are. Each next gene is uniformly one of those whose step towards the start
    eases an exceeded limit; a gene that eases none (the resolution, for parameters) is given up only as a last resort.
    All the ways are costed at once, so that a population takes a few evaluations, not one for every step.

    Args:
        feasible_start: a canonical genome that keeps every limit, the smallest subnet's as a rule; so it ends.
    """
    rows = canonical_rows(space, genomes)
    over = excess(rows)
    while (todo := np.flatnonzero((over > 0).any(axis=1))).size:
        eases = _eases(space, excess, rows[todo], over[todo], feasible_start)
        ways = [_way_to(space, rows[row], feasible_start, easing, rng) for row, easing in zip(todo, eases, strict=True)]
        along = excess(np.concatenate(ways))
        start = 0
        for row, way in zip(todo, ways, strict=True):
            costs = along[start : start + len(way)]
            start += len(way)
            # Up to where another set of limits is exceeded: then other genes ease it.
            changed = ((costs > 0) != (over[row] > 0)).any(axis=1)
            last = int(np.argmax(changed)) if changed.any() else len(way) - 1
            rows[row], over[row] = way[last], costs[last]
    return rows


def _eases(
    space: SearchSpace,
    excess: Excess,
    rows: NDArray[np.int64],
    over: NDArray[np.float64],
    feasible_start: Sequence[int],
) -> NDArray[np.bool_]:
    """(n, G): whether a gene's step towards the feasible_start lowers an exceeded limit's cost."""
    steps = np.sign(np.array(feasible_start) - rows)
    row, gene = np.nonzero(steps)
    moved = rows[row]
    moved[np.arange(len(row)), gene] += steps[row, gene]
    less = (excess(canonical_rows(space, moved)) < over[row]) & (over[row] > 0)
    eases = np.zeros(rows.shape, bool)
    eases[row, gene] = less.any(axis=1)
    return eases


def _way_to(
    space: SearchSpace,
    genome: NDArray[np.int64],
    feasible_start: Sequence[int],
    eases: Sequence[bool],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """(steps, G): the genome after each of a random sequence of single steps that ends at the feasible_start."""
    genes: list[int] = genome.tolist()
    way: list[list[int]] = []
    for wanted in (True, False):
        while far := [
            gene for gene, goal in enumerate(feasible_start) if genes[gene] != goal and (eases[gene] or not wanted)
        ]:
            gene = far[int(rng.integers(len(far)))]
            genes[gene] += 1 if genes[gene] < feasible_start[gene] else -1
            genes = list(space.canonical(genes))
            if not way or genes != way[-1]:  # a gene of an absent block stays as it is
                way.append(genes.copy())
    return np.array(way)


def single_choices(space: SearchSpace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The smallest subnet with each choice of each gene, and the gene: (N, G) and (N,)."""
    places = [(gene, choice) for gene, choices in enumerate(space.choices) for choice in range(len(choices))]
    genomes = np.zeros((len(places), len(space.choices)), np.int64)
    for row, (gene, choice) in zip(genomes, places, strict=True):
        row[gene] = choice
    return genomes, np.array([gene for gene, _ in places])


def cheapest_rows(space: SearchSpace, excess: Excess, genomes: Genomes, kept: NDArray[np.integer]) -> NDArray[np.int64]:
    """(N, G) genomes after those steps of single genes that most lower the excess, as long as it is over and one does.

    Args:
        kept: (N,), the gene of each that stays as it is.
    """
    rows, genes = np.array(genomes, np.int64), np.shape(genomes)[1]
    highest = np.array([len(choices) - 1 for choices in space.choices])
    moves = np.concatenate([np.eye(genes, dtype=np.int64), -np.eye(genes, dtype=np.int64)])
    over = excess(rows).max(axis=1)
    todo = np.flatnonzero(over > 0)
    while todo.size:
        each, held = np.arange(len(todo)), kept[todo]
        near = np.clip(rows[todo, None] + moves, 0, highest)
        near[each, :, held] = rows[todo, held, None]
        near = canonical_rows(space, near.reshape(-1, genes))
        reached = excess(near).max(axis=1).reshape(len(todo), -1)
        best = reached.argmin(axis=1)
        lower = reached[each, best] < over[todo]
        rows[todo[lower]] = near.reshape(len(todo), -1, genes)[each, best][lower]
        over[todo[lower]] = reached[each, best][lower]
        todo = todo[lower & (over[todo] > 0)]
    return rows
