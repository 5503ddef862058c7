"""Bringing genomes inside a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.macs import Genomes, canonical_rows

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
