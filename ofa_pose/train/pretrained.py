"""Starting a supernet from pretrained weights: channels sorted by importance, so that subnets get the best ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError

FIXED_GROUPS = ("image", "stem.0")  # never elastic; 'outputs.*' neither: their order is the joints'


def initialise(net: LitePose, checkpoint: Checkpoint, skeleton: Skeleton) -> list[str]:
    """Load a checkpoint into `net`, which is for these joints; returns what to tell the user.

    A fixed net's channels are sorted for a supernet; a supernet's are in order already, and its subnets rely on it.
    With other joints output layers stay as they are, fresh. Raises InputError where the nets have other widths.
    """
    source = checkpoint.spec.with_joints(net.spec.joints).at(net.spec.resolution)
    if source != net.spec:
        what = f"the checkpoint holds another net ({checkpoint.spec}), this one is ({net.spec})"
        raise InputError(what, hint="name a checkpoint of this space's largest net, or the space it was trained in")
    notes, fresh = [], net.state_dict()
    weights, sort = checkpoint.weights, isinstance(net, Supernet) and checkpoint.kind == "net"
    if sort:  # before output layers start anew: importance comes from trained outputs, not from random ones
        whole = LitePose(checkpoint.spec)
        whole.load_state_dict(weights)
        sort_channels(whole)
        weights = whole.state_dict()
    if skeleton.joints != checkpoint.skeleton.joints:
        outputs = {name: value for name, value in fresh.items() if ".pointwise." in name}
        weights = weights | outputs
        there = f"{checkpoint.spec.joints} joints there ({checkpoint.skeleton.name})"
        here = f"{net.spec.joints} here ({skeleton.name})"
        notes.append(f"{there}, {here}: the trunk is kept, {len(outputs)} output layers start anew")
    net.load_state_dict({name: weights[name] for name in fresh})
    return [*notes, "channels sorted by importance"] if sort else notes


@torch.no_grad()
def sort_channels(net: LitePose) -> None:
    """Order the channels of every elastic group by importance, most important first, keeping the net's function."""
    found = importances(net)
    for group in sorted({layer.writes for layer in net.plan.layers()}):
        if group not in FIXED_GROUPS and not group.startswith("outputs."):
            _permute(net, group, torch.argsort(found[group], descending=True, stable=True))


@torch.no_grad()
def importances(net: LitePose) -> dict[str, Tensor]:
    """How much each channel of a group weighs in the net's outputs: group -> (channels,).

    Once-for-All (Cai et al., ICLR 2020, section 3.4) takes the L1 norm of the weights that read a channel, which drops
    the few channels of the tags, as they have few readers. Here the norm counts as a share of all that the layer reads
    for one output, and weighs as much as that output: importance flows from the net's outputs, 1 each, back to the
    image (as in NISP, Yu et al., CVPR 2018). BatchNorms cancel the scale of depthwise weights, which are left out.
    """
    found: dict[str, Tensor] = {}
    for layer in reversed(list(net.plan.layers())):
        if layer.kind == "norm" or layer.depthwise:
            continue
        weight = net.unit(layer).conv.weight.abs().flatten(2).sum(2)
        weight = weight if layer.kind == "deconv" else weight.T  # (cin, cout)
        shares = weight / weight.sum(0).clamp_min(torch.finfo(weight.dtype).tiny)
        outputs = found.get(layer.writes, weight.new_ones(layer.cout))
        found[layer.reads] = found.get(layer.reads, weight.new_zeros(layer.cin)) + shares @ outputs
    return found


def _permute(net: LitePose, group: str, order: Tensor) -> None:
    for layer in net.plan.layers():
        unit = net.unit(layer)
        if layer.kind != "norm":
            weight, reads = unit.conv.weight, 0 if layer.kind == "deconv" else 1  # the axis of what it reads
            if layer.reads == group and not layer.depthwise:
                weight.copy_(weight.index_select(reads, order))
            if layer.writes == group:
                weight.copy_(weight.index_select(1 - reads, order))
        if layer.norm and layer.writes == group:
            for tensor in (*unit.norm.parameters(), *unit.norm.buffers()):
                if tensor.ndim:  # not the count of batches
                    tensor.copy_(tensor[order])
