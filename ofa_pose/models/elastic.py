"""The supernet: one set of weights from which every subnet of a search space takes the leading slices.

Cai et al., Once-for-All (ICLR 2020); fusion by sum keeps LitePose sliceable (Wang et al., CVPR 2022, section 4).
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.arch.walk import run_plan
from ofa_pose.models.litepose import LitePose


class Supernet(LitePose):
    """The largest net of a search space, of which forward runs any subnet.

    The active subnet is an argument of forward, never a state of the module. BatchNorm's running statistics are those
    of whatever mixture of subnets was trained: recalibrate them before a subnet is judged.
    """

    def __init__(self, space: SearchSpace, joints: int, generator: torch.Generator | None = None) -> None:
        super().__init__(space.largest(joints), generator)
        self.space = space

    def forward(self, image: Tensor, spec: ArchSpec | None = None) -> tuple[Tensor, Tensor]:
        """Run the subnet `spec` (default: the largest) on (B, 3, H, W) normalised images.

        Returns:
            low (B, 2J, H/4, W/4) and high (B, J, H/2, W/2).

        Raises:
            InputError: the space does not hold `spec`.

        A `UserWarning` tells of a net of a depth that no subnet has: it runs on the leading blocks.
        """
        if spec is not None and (warning := self.space.check_subnet(spec)):
            warnings.warn(warning, stacklevel=2)
        plan = self.plan if spec is None else make_plan(spec)
        return run_plan(plan, image, self.apply_layer)

    def apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
        """Compute one layer of a subnet's plan with the leading slices of this layer's weights."""
        unit = self.unit(layer)
        if layer.kind == "conv":
            weight = unit.conv.weight[: layer.cout, : layer.cin // layer.groups]
            x = F.conv2d(x, weight, None, layer.stride, layer.padding, 1, layer.groups)
        elif layer.kind == "deconv":
            weight = unit.conv.weight[: layer.cin, : layer.cout]
            x = F.conv_transpose2d(x, weight, None, layer.stride, layer.padding)
        if layer.norm:
            x = _batch_norm(unit.norm, x, layer.cout)
        return unit.act(x) if layer.act else x


def _batch_norm(norm: nn.BatchNorm2d, x: Tensor, width: int) -> Tensor:
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    statistics = (norm.running_mean[:width], norm.running_var[:width])
    return F.batch_norm(x, *statistics, norm.weight[:width], norm.bias[:width], norm.training, norm.momentum, norm.eps)
