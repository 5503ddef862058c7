"""A subnet inside a budget, if there is one: where repairs lead to, and what an impossible budget is refused by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.limits import LATENCY, Budget, Limit
from ofa_pose.costs.population import Genomes
from ofa_pose.costs.repair import cheapest_rows, single_choices
from ofa_pose.utils.errors import Fault, InputError


def find_feasible_start(space: SearchSpace, joints: int, budget: Budget) -> Genome:
    """The smallest subnet's genome, or where only others keep a latency (runtimes pad channels), the fastest found.

    No subnet has fewer MACs or parameters than the smallest. Latencies are descended step by step from it and from its
    neighbours; without `Budget.predict_many` it is taken to be the fastest.

    Raises:
        InputError: one fault for each limit that none keeps, with the least that would do.
    """
    smallest = space.smallest(joints)
    feasible_start = (0,) * len(space.choices)
    exceeded = [limit for limit in budget.limits if limit.cost(smallest) > limit.maximum]
    if not exceeded:
        return feasible_start
    faults = [_fault(space, "smallest", one, one.cost(smallest)) for one in exceeded]
    slow = exceeded[-1]
    if slow.key != LATENCY or budget.predict_many is None:
        raise InputError.of(faults)
    starts, kept = single_choices(space)

    def slowness(genomes: Genomes) -> NDArray[np.float64]:
        """(N, 1): above 0 everywhere, so that a descent ends at the bottom only."""
        return np.log1p(budget.latencies(space, joints, genomes))[:, None]

    fast = cheapest_rows(space, slowness, starts, kept)
    latencies = budget.latencies(space, joints, fast)
    least = float(latencies.min())
    if least > slow.maximum:
        raise InputError.of([*faults[:-1], _fault(space, "fastest", slow, least)])
    if len(exceeded) > 1:
        raise InputError.of(faults[:-1])

    def excess(genomes: Genomes) -> NDArray[np.float64]:
        return budget.excess(space, joints, genomes)

    rows = np.concatenate([fast, cheapest_rows(space, excess, starts, kept)])
    over = excess(rows).max(axis=1)
    if over.min() > 0:
        hint = f"raise {' or '.join(limit.option for limit in budget.limits)}"
        raise InputError(f"no subnet of {space.name} is found that keeps {budget} at once", hint=hint)
    return tuple(rows[int(over.argmin())].tolist())


def _fault(space: SearchSpace, which: str, limit: Limit, cost: float) -> Fault:
    what = f"the {which} subnet of {space.name} needs {limit.show(cost)} {limit.quantity}"
    return Fault(what, hint=f"raise {limit.option} to at least {limit.enough(cost)}")
