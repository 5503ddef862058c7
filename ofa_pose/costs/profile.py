"""What a network, or the networks of a search space, cost: MACs in each convention, parameters, a row per layer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace, describe_feasible, format_subnets
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import CONVENTIONS, layer_macs, layer_params, spec_macs, spec_params
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count


def profile(spec: ArchSpec, name: str = "") -> dict[str, Any]:
    """The figures of a network: {'name', 'resolution', 'joints', 'params', 'macs': {'thop', 'exact', 'paper'}}.

    Args:
        name: what to call it; by default the name of the preset with this shape, else the shape itself.
    """
    presets = {preset.with_joints(spec.joints): key for key, preset in PRESETS.items()}
    return {
        "name": name or presets.get(spec, str(spec)),
        "resolution": spec.resolution,
        "joints": spec.joints,
        "params": spec_params(spec),
        "macs": spec_macs(spec).to_dict(),
    }


def profile_space(space: SearchSpace, joints: int, budget: Budget | None = None) -> dict[str, Any]:
    """The figures of a search space, from its smallest and its largest subnet.

    Keys: name; joints; subnets; macs: by convention least and most; params: least and most; resolutions: by side in
    pixels subnets and macs; and with a budget, 'budget': limits, subnets (how many keep it), exact (whether they were
    counted or estimated), macs and params of the cheapest and the largest found, largest (its spec) and text; of each
    resolution 'admitted', how many keep it.

    Raises InputError where no subnet keeps the budget.
    """
    feasible = FeasibleSpace(space, joints, budget) if budget else None
    figures: dict[str, Any] = {"name": space.name, "joints": joints, "subnets": space.size, **_range(space, joints)}
    figures["resolutions"] = {}
    for side in space.resolution:
        alone = replace(space, resolution=(side,))
        row = {"subnets": alone.size, "macs": _range(alone, joints)["macs"]}
        if budget:
            row["admitted"] = 0
            with suppress(InputError):  # none of this resolution keeps it
                row["admitted"] = round(FeasibleSpace(alone, joints, budget).count().number)
        figures["resolutions"][str(side)] = row
    if feasible and budget:
        count, ends = feasible.count(), (feasible.cheapest.costs, feasible.largest.costs)
        macs = {name: {"least": ends[0][f"macs_{name}"], "most": ends[1][f"macs_{name}"]} for name in CONVENTIONS}
        figures["budget"] = {
            **budget.to_dict(),
            "convention": budget.convention,
            "subnets": round(count.number),
            "exact": count.exact,
            "macs": macs,
            "params": {"least": ends[0]["params"], "most": ends[1]["params"]},
            "largest": feasible.largest.spec.to_dict(),
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


def _range(space: SearchSpace, joints: int) -> dict[str, Any]:
    """What the smallest and the largest subnet cost: no other costs less or more."""
    specs = {"least": space.smallest(joints), "most": space.largest(joints)}
    macs = {end: spec_macs(spec).to_dict() for end, spec in specs.items()}
    return {
        "macs": {name: {end: macs[end][name] for end in specs} for name in CONVENTIONS},
        "params": {end: spec_params(spec) for end, spec in specs.items()},
    }


def layer_rows(spec: ArchSpec) -> list[dict[str, Any]]:
    """The per-layer table as JSON values, in the order of execution; `side` is the output's, in cells.

    A layer's MACs are with its norm and activation; the columns add up to `profile`'s figures.
    """
    rows = []
    for layer in make_plan(spec).layers():
        shape = {"cin": layer.cin, "cout": layer.cout, "side": layer.side_out}
        row = {"name": layer.name, "operator": _operator(layer), **shape}
        rows.append(row | {"params": layer_params(layer), "macs": layer_macs(layer).to_dict()})
    return rows


def _operator(layer: Layer) -> str:
    """A layer's operator in words, such as 'depthwise conv 7×7 /2' or 'deconv 4×4 ×2'."""
    if layer.kind == "norm":
        return "norm"
    step = f" {'×' if layer.kind == 'deconv' else '/'}{layer.stride}" if layer.stride > 1 else ""
    return f"{'depthwise ' * layer.depthwise}{layer.kind} {layer.kernel}×{layer.kernel}{step}"
