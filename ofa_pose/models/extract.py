"""Cutting a subnet out of a supernet: a plain network whose weights are the leading slices."""

from __future__ import annotations

import torch
from torch import Tensor

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError


def leading_slice(tensor: Tensor, shape: torch.Size) -> Tensor:
    """The leading slice of `tensor` with the given shape, as contiguous memory of its own."""
    return tensor[tuple(slice(0, size) for size in shape)].clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def extract(supernet: Supernet, spec: ArchSpec) -> LitePose:
    """The subnet `spec` as a network of stock layers with memory of its own, on the supernet's device.

    In eval mode its output equals the supernet's to the last bit. A warning tells of a net of a depth that no
    subnet has: it gets the leading blocks.

    Raises:
        InputError: the supernet's space does not hold `spec`, or it has other joints.
    """
    warning = supernet.space.check_subnet(spec)
    if warning:
        warn(warning)
    if spec.joints != supernet.spec.joints:
        raise InputError(f"the supernet has {supernet.spec.joints} joints, the net {spec.joints}")
    net = LitePose(spec).to(next(supernet.parameters()).device)
    source = supernet.state_dict()
    net.load_state_dict({name: leading_slice(source[name], value.shape) for name, value in net.state_dict().items()})
    return net.train(supernet.training)
