"""The supernet: one set of weights from which every subnet of a search space takes the leading slices.

Cai et al., Once-for-All (ICLR 2020); fusion by sum keeps LitePose sliceable (Wang et al., CVPR 2022, section 4).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.sync_norm import SyncNorm
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError


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
            if isinstance(norm, SyncNorm):
                x = norm.normalise(x, mean, variance, scale, shift)
            else:
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
