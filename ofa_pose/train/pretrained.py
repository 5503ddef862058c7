"""Starting a network from pretrained weights: of this shape, of other widths, or MobileNetV2's.

Channels are sorted by importance where some will be left out, by a supernet's subnets or by a narrower net.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.arch.plan import Layer
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import FOREIGN, Checkpoint, load_checkpoint
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.skeleton import Skeleton
from ofa_pose.train.mobilenet import MobileNet, read_mobilenet
from ofa_pose.utils.errors import InputError

FIXED_GROUPS = ("image", "stem.0")  # never elastic; 'outputs.*' neither: their order is the joints'
OUTPUT_LAYERS = ".pointwise."


def load_start(name: str | Path) -> Checkpoint | MobileNet:
    """What `--init` names: a checkpoint of ours, or a state dict of MobileNetV2. Raises InputError."""
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        return read_mobilenet(path)
    try:
        return load_checkpoint(name)
    except InputError as error:
        if error.faults[0].what != FOREIGN:
            raise
        return read_mobilenet(path)


def initialise(net: PoseNet, start: Checkpoint | MobileNet, skeleton: Skeleton) -> list[str]:
    """Load pretrained weights into `net`, which is for these joints; returns what to tell the user.

    Networks of a family without a layer plan start from a checkpoint of their own shape. Raises InputError.

    A fixed net's channels are sorted for a supernet and where the widths differ; a supernet's are in order already, and
    its subnets rely on it. With other joints the trunk is kept and the output layers stay as they are, fresh; so do
    layers that the source does not have. See `transplant` for other widths.
    """
    if not isinstance(net, LitePose):
        return _initialise_alike(net, start, skeleton)
    if isinstance(start, Checkpoint) and not isinstance(start.spec, ArchSpec):
        what = f"holds a network of the family '{start.spec.family}', which gives a LitePose no weights"
        raise InputError(what, start.path or "", "start from a checkpoint of a LitePose, or of MobileNetV2")
    notes: list[str] = []
    source = start.build(net.spec) if isinstance(start, MobileNet) else start.build()
    same = (
        isinstance(start, Checkpoint) and source.spec.with_joints(net.spec.joints).at(net.spec.resolution) == net.spec
    )
    assert isinstance(source, LitePose)
    sort = isinstance(net, Supernet) or not same
    if sort and not isinstance(source, Supernet):
        sort_channels(source)  # before output layers start anew: importance comes from trained outputs
        notes.append("channels sorted by importance")
    weights = source.state_dict()
    if isinstance(start, MobileNet):
        weights = {name: weights[name] for name in start.weights}
    elif skeleton.joints != start.skeleton.joints:
        outputs = [name for name in weights if OUTPUT_LAYERS in name]
        weights = {name: value for name, value in weights.items() if name not in outputs}
        there = f"{start.spec.joints} joints there ({start.skeleton.name})"
        here = f"{net.spec.joints} here ({skeleton.name})"
        notes.insert(0, f"{there}, {here}: the trunk is kept, {len(outputs)} output layers start anew")
    coverage = transplant(net, weights)
    return notes if same else [*notes, coverage]


def _initialise_alike(net: PoseNet, start: Checkpoint | MobileNet, skeleton: Skeleton) -> list[str]:
    """Load the weights of a network of the same shape; with other joints the output layers stay as they are, fresh."""
    if isinstance(start, MobileNet):
        what = f"MobileNetV2's weights have no place in a network of the family '{net.spec.family}'"
        raise InputError(what, hint="leave out --init, or name a checkpoint of that network")
    there, here = start.spec.with_joints(net.spec.joints).at(net.spec.resolution), net.spec
    if there != here:
        what = f"holds {start.spec}, which is not of the shape of {here}"
        raise InputError(what, start.path or "", "start from a checkpoint of the same network")
    weights = dict(start.build().state_dict())
    if start.skeleton.joints == skeleton.joints:
        net.load_state_dict(weights)
        return []
    fresh = {f"{name}.{part}" for name in net.output_layers for part in ("weight", "bias")}
    own = net.state_dict()
    net.load_state_dict({name: own[name] if name in fresh else value for name, value in weights.items()})
    change = f"{start.spec.joints} joints there ({start.skeleton.name}), {here.joints} here ({skeleton.name})"
    return [f"{change}: {len(net.output_layers)} output layers start anew, the rest is kept"]


@torch.no_grad()
def transplant(net: LitePose, weights: Mapping[str, Tensor]) -> str:
    """Copy into `net` what it shares with a network of other widths, depths or kernels; returns how much that was.

    Layers of the same name are taken, of them the leading channels. Where `net` is wider, its further channels stay as
    they are, and the channels that were copied read nothing of them; a block that the source lacks adds nothing to what
    goes past it. So a network that is larger in everything begins with the source's outputs, and learns to use the
    rest. A smaller kernel stands in the middle of a larger one, with zeros round it; of a larger one the middle is cut.
    """
    covered = layers = copied = total = 0
    for layer in net.plan.layers():
        unit, taken = net.unit(layer), 0
        if layer.kind != "norm":
            total += unit.conv.weight.numel()
            if (value := weights.get(f"{layer.name}.conv.weight")) is not None:
                taken += _copy_weight(layer, unit.conv.weight, value)
        if layer.norm:
            total += 2 * layer.cout
            for name, target in unit.norm.state_dict(keep_vars=True).items():
                if (value := weights.get(f"{layer.name}.norm.{name}")) is None:
                    continue
                count = min(len(target), len(value)) if target.ndim else None
                target[:count].copy_(value[:count]) if count else target.copy_(value)
                taken += count or 0 if name in ("weight", "bias") else 0
            if not taken and layer.name.endswith(".project") and _is_residual(net, layer):
                unit.norm.weight.zero_()
        layers += 1
        covered += taken > 0
        copied += taken
    if copied == total:
        return "all weights are taken over"
    share = f"{min(100 * copied / total, 99.9):.3g} %"
    return f"{covered} of {layers} layers and {share} of the weights are taken over, the rest starts anew"


def _copy_weight(layer: Layer, target: Tensor, source: Tensor) -> int:
    """Copy the leading channels of a convolution's weights; how many numbers were copied."""
    border = (target.shape[-1] - source.shape[-1]) // 2
    resized = F.pad(source, (border,) * 4)  # a negative border cuts
    rows, columns = (min(a, b) for a, b in zip(target.shape[:2], source.shape[:2], strict=True))
    if layer.kind == "deconv":
        target[rows:, :columns] = 0
    else:
        target[:rows, columns:] = 0
    target[:rows, :columns] = resized[:rows, :columns]
    return rows * columns * min(target.shape[-1], source.shape[-1]) ** 2


def _is_residual(net: LitePose, layer: Layer) -> bool:
    return any(block.residual and block.layers[2] == layer for stage in net.plan.stages for block in stage)


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
