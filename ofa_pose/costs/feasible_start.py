"""A subnet inside a budget, if there is one: where repairs lead to, and what an impossible budget is refused by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.limits import LATENCY, Budget, Limit
from ofa_pose.costs.population import Genomes, canonical_rows
from ofa_pose.utils.errors import Fault, InputError


def find_feasible_start(space: SearchSpace, joints: int, budget: Budget) -> Genome:
    """The smallest subnet's genome, or where only others keep a latency (runtimes pad channels), the fastest found.

    No subnet has fewer MACs or parameters than the smallest. The fastest is sought from there, one gene after the
    other; without `Budget.predict_many` the smallest is taken to be the fastest.

    Raises:
        InputError: one fault for each limit that none keeps, with the least that would do.
    """
    smallest = space.smallest(joints)
    start = (0,) * len(space.choices)
    exceeded = [limit for limit in budget.limits if limit.cost(smallest) > limit.maximum]
    if not exceeded:
        return start
    faults = [_fault(space, "smallest", limit, limit.cost(smallest)) for limit in exceeded]
    slow = exceeded[-1]
    if slow.key != LATENCY or budget.predict_many is None:
        raise InputError.of(faults)
    fastest, least = _descend(space, lambda rows: budget.latencies(space, joints, rows), start)
    if least > slow.maximum:
        raise InputError.of([*faults[:-1], _fault(space, "fastest", slow, least)])
    if len(exceeded) > 1:
        raise InputError.of(faults[:-1])

    def excess(rows: Genomes) -> NDArray[np.float64]:
        return np.asarray(budget.excess(space, joints, rows).max(axis=1))

    for genome in (fastest, _descend(space, excess, start)[0]):
        if excess(np.array([genome])).item() <= 0:
            return genome
    hint = f"raise {' or '.join(limit.option for limit in budget.limits)}"
    raise InputError(f"no subnet of {space.name} is found that keeps {budget} at once", hint=hint)


def single_changes(space: SearchSpace, genome: Genome) -> NDArray[np.int64]:
    """(N, G): a genome with each choice of each gene; not canonical where the depth is elastic."""
    places = [(gene, choice) for gene, choices in enumerate(space.choices) for choice in range(len(choices))]
    genes, choices = np.array(places).T
    rows = np.tile(np.array(genome, np.int64), (len(places), 1))
    rows[np.arange(len(places)), genes] = choices
    return rows


def _descend(space: SearchSpace, cost: Callable[[Genomes], NDArray[np.float64]], start: Genome) -> tuple[Genome, float]:
    """Where single changes lead, each time the one that lowers a genome's cost most, and the cost there."""
    genome, lowest = start, math.inf
    while True:
        rows = canonical_rows(space, single_changes(space, genome))
        costs = cost(rows)
        best = int(costs.argmin())
        if costs[best] >= lowest:
            return genome, lowest
        genome, lowest = tuple(rows[best].tolist()), float(costs[best])


def _fault(space: SearchSpace, which: str, limit: Limit, cost: float) -> Fault:
    what = f"the {which} subnet of {space.name} needs {limit.show(cost)} {limit.quantity}"
    return Fault(what, hint=f"raise {limit.option} to at least {limit.enough(cost)}")
