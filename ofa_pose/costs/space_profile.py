"""What the subnets of a search space cost, from the smallest to the largest, and which of them keep a budget."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace, describe_feasible, format_subnets
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import CONVENTIONS, spec_macs, spec_params
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count


def profile_space(space: SearchSpace, joints: int, budget: Budget | None = None) -> dict[str, Any]:
    """The figures of a search space, from its smallest and its largest subnet.

    Keys: name; joints; subnets; macs: by convention least and most; params: least and most; resolutions: by side in
    pixels subnets and macs; and with a budget, 'budget': limits, subnets (how many keep it), exact (whether they were
    counted or estimated), macs and params of the cheapest and the largest found, largest (its spec) and text; of each
    resolution 'admitted', how many keep it.

    Raises InputError where no subnet keeps the budget.
    """
    feasible = FeasibleSpace(space, joints, budget) if budget else None
    figures: dict[str, Any] = {"name": space.name, "joints": joints, "subnets": space.size, **_ends(space, joints)}
    figures["resolutions"] = {}
    for side in space.resolution:
        alone = replace(space, resolution=(side,))
        row = {"subnets": alone.size, "macs": _ends(alone, joints)["macs"]}
        if budget:
            row["admitted"] = 0
            with suppress(InputError):  # none of this resolution keeps it
                row["admitted"] = round(FeasibleSpace(alone, joints, budget).count().number)
        figures["resolutions"][str(side)] = row
    if feasible and budget:
        count, largest = feasible.count(), feasible.decode(feasible.largest)
        figures["budget"] = {
            **budget.to_dict(),
            "convention": budget.convention,
            "subnets": round(count.number),
            "exact": count.exact,
            **_range(feasible.decode(feasible.cheapest), largest),
            "largest": largest.to_dict(),
            "text": describe_feasible(feasible),
        }
    return figures


def describe_space(space: SearchSpace, joints: int) -> str:
    """A line on which budgets a search in this space can keep."""
    low, high = spec_macs(space.smallest(joints)).thop, spec_macs(space.largest(joints)).thop
    limit = Budget(macs=low).limits[0]
    parameters = (spec_params(space.smallest(joints)), spec_params(space.largest(joints)))
    least, most = limit.enough(low), limit.enough(high)
    costs = f"{limit.show(low)} to {limit.show(high)} {limit.quantity}"
    sizes = " to ".join(map(format_count, parameters))
    subnets = f"{format_subnets(space.size)} subnets of {costs} and {sizes} parameters"
    return f"{space.name}: {subnets}; a search can keep --macs {least} and more, {most} admits all"


def _ends(space: SearchSpace, joints: int) -> dict[str, Any]:
    """What the smallest and the largest subnet cost: no other costs less or more."""
    return _range(space.smallest(joints), space.largest(joints))


def _range(least: ArchSpec, most: ArchSpec) -> dict[str, Any]:
    macs = {"least": spec_macs(least).to_dict(), "most": spec_macs(most).to_dict()}
    return {
        "macs": {name: {end: counts[name] for end, counts in macs.items()} for name in CONVENTIONS},
        "params": {"least": spec_params(least), "most": spec_params(most)},
    }
