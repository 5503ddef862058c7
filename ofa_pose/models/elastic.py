"""The supernet: one set of weights from which every subnet of a search space takes the leading slices.

Cai et al., Once-for-All (ICLR 2020); fusion by sum keeps LitePose sliceable (Wang et al., CVPR 2022, section 4). Weight
sharing spoils BatchNorm's running statistics, so a subnet gets its own before it is evaluated.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.loader import clean_batches, normalise
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.threads import map_ahead

CALIBRATION_BATCH = 16
CALIBRATION_IMAGES = 64


class Supernet(LitePose):
    """The largest net of a search space, of which forward runs any subnet.

    The active subnet is an argument of forward, never a state of the module. BatchNorm's running statistics are those
    of whatever mixture of subnets was trained: recalibrate them before a subnet is evaluated.
    """

    def __init__(self, space: SearchSpace, joints: int, generator: torch.Generator | None = None) -> None:
        super().__init__(space.largest(joints), generator)
        self.space = space

    def forward(self, image: Tensor, spec: ArchSpec | None = None) -> tuple[Tensor, Tensor]:
        """The subnet `spec` (default: the largest) on (B, 3, H, W) normalised images: low and high of `LitePose`.

        A net of a depth that no subnet has runs on the leading blocks, with a `UserWarning`. Raises InputError where
        the space does not hold `spec`.
        """
        if spec is not None and (warning := self.space.check_subnet(spec)):
            warnings.warn(warning, stacklevel=2)
        plan = self.plan if spec is None else make_plan(spec)
        return plan.run(image, self.apply_layer)

    def apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
        """Compute one layer of a subnet's plan with the slices of this layer's weights."""
        unit = self.unit(layer)
        if layer.kind != "norm":
            weight = leading_slice(unit.conv.weight, layer.weight_shape)
            if layer.kind == "conv":
                x = F.conv2d(x, weight, None, layer.stride, layer.padding, 1, layer.groups)
            else:
                x = F.conv_transpose2d(x, weight, None, layer.stride, layer.padding)
        if layer.norm:
            norm, width = unit.norm, (layer.cout,)
            assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
            tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            mean, variance, scale, shift = (leading_slice(tensor, width) for tensor in tensors)
            x = F.batch_norm(x, mean, variance, scale, shift, norm.training, norm.momentum, norm.eps)
        return unit.act(x) if layer.act else x


def leading_slice(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """What a subnet whose tensor has this shape takes of a supernet's tensor, as a view."""
    return tensor[tuple(slice(0, size) for size in shape)]


@torch.no_grad()
def extract(supernet: Supernet, spec: ArchSpec) -> LitePose:
    """The subnet `spec` as a network of stock layers with memory of its own, on the supernet's device.

    In eval mode its output equals the supernet's to the last bit. A net of a depth that no subnet has gets the leading
    blocks, with a warning. Raises InputError where the supernet's space does not hold `spec`, or it has other joints.
    """
    if warning := supernet.space.check_subnet(spec):
        warn(warning)
    if spec.joints != supernet.spec.joints:
        raise InputError(f"the supernet has {supernet.spec.joints} joints, the net {spec.joints}")
    net = LitePose(spec).to(next(supernet.parameters()).device)
    source = supernet.state_dict()
    net.load_state_dict({name: leading_slice(source[name], value.shape) for name, value in net.state_dict().items()})
    return net.train(supernet.training)


def calibration_batches(
    dataset: KeypointDataset, resolution: int, images: int, device: torch.device
) -> Iterator[Tensor]:
    """Normalised batches (B, 3, R, R) of a fixed random choice of `images` training images, not augmented."""
    chosen = dataset.draw(images, "calibrate").tolist()
    for batch in clean_batches(dataset, resolution, CALIBRATION_BATCH, chosen):
        yield normalise(batch.images.to(device)).contiguous(memory_format=torch.channels_last)


def recalibrate(net: nn.Module, batches: Iterable[Tensor], streams: int = 1) -> None:
    """Reset every BatchNorm's statistics and average them over `batches`; the net is left in eval mode.

    Args:
        batches: normalised training images (B, 3, H, W), on the net's device. With no batch nothing changes.
        streams: how many batches are computed at once. The result does not depend on it; it does on torch's number
            of threads, which sum a batch in parts.
    """
    net.eval()
    total: list[tuple[Tensor, Tensor]] = []
    count = 0
    with closing(map_ahead(lambda images: _statistics(net, images), batches, streams, streams)) as found:
        for statistics in found:
            count += 1
            total = [(a + c, b + d) for (a, b), (c, d) in zip(total, statistics, strict=True)] if total else statistics
    for norm, (mean, variance) in zip(_norms(net), total, strict=False):
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.running_mean.copy_(mean / count)
        norm.running_var.copy_(variance / count)
        norm.num_batches_tracked.fill_(count)


def inherit(
    supernet: Supernet, spec: ArchSpec, train: KeypointDataset, device: torch.device, images: int = CALIBRATION_IMAGES
) -> LitePose:
    """The subnet `spec` of a supernet with statistics of its own, from so many training images; in eval mode."""
    net = extract(supernet.to(device), spec)
    recalibrate(net, calibration_batches(train, spec.resolution, images, device))
    return net


@torch.no_grad()
def _statistics(net: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance, in float64, of what reaches each BatchNorm when every one normalises with its own."""
    net = copy.deepcopy(net)  # a net holds room for the statistics of one batch
    norms = _norms(net)
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = 1.0  # the batch alone
    net(images)
    return [(norm.running_mean.double(), norm.running_var.double()) for norm in norms]  # type: ignore[union-attr]


def _norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
