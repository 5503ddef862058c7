"""What a network costs: MACs in each convention, parameters, a row per layer."""

from __future__ import annotations

from typing import Any

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import layer_macs, layer_params, spec_macs, spec_params


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
