"""What a network of any family costs, as `ofa-pose profile` shows it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch

from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.costs import macs
from ofa_pose.families.counting import count_layers, count_net
from ofa_pose.families.table import all_presets, shape_of
from ofa_pose.utils.errors import OfaPoseError


def profile_net(spec: NetSpec, name: str = "") -> dict[str, Any]:
    """`costs.macs.profile` of a network of any family; one without a layer plan is counted by its modules."""
    if isinstance(spec, ArchSpec):
        return macs.profile(spec, name)
    presets = {preset.with_joints(spec.joints): key for key, preset in all_presets().items()}
    return {"name": name or presets.get(spec, str(spec)), **count_net(spec, shape_of(spec))}


def net_rows(spec: NetSpec) -> list[dict[str, Any]]:
    """`costs.macs.layer_rows` of a network of any family."""
    if isinstance(spec, ArchSpec):
        return macs.layer_rows(spec)
    rows = []
    for row in count_layers(shape_of(spec), *spec.input_size):
        shape = {"cin": row.cin, "cout": row.cout, "side": max(row.size)}
        figures = {"params": row.params, "macs": row.macs.to_dict()}
        rows.append({"name": row.name, "operator": row.operator, **shape, **figures})
    return rows


def check_with_thop(spec: NetSpec) -> int:
    """The MACs as `thop.profile` counts them. Raises OfaPoseError where we count these or the parameters otherwise."""
    import thop

    # thop leaves buffers and hooks behind, so it gets a throwaway net; on the meta device that has shapes only
    net, image = shape_of(spec), torch.empty(1, 3, *spec.input_size, device="meta")
    with contextlib.redirect_stdout(io.StringIO()):
        found, params = thop.profile(net, inputs=(image,), verbose=False)
    figures = profile_net(spec)
    counted = (figures["macs"]["thop"], figures["params"])
    if (found, params) != counted:
        raise OfaPoseError(f"{spec}: thop counts {found:.0f} MACs and {params:.0f} parameters, we count {counted}")
    return int(found)
