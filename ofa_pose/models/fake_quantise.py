"""Networks that round as their int8 form does, with gradients: training that is aware of quantisation.

Jacob et al., CVPR 2018. What is rounded, and how, is as in `backends.onnxruntime_int8`: weights symmetrically to int8
with a scale for each output channel, maps to uint8 between the least and the greatest value, 0 included; the stem and
the outputs stay float, but read rounded maps. Rounding has the gradient of the identity inside the range and none
outside (straight-through).

With a scale a channel it makes no difference whether a weight is rounded before or after its BatchNorm is folded into
it, which multiplies whole output channels: so norms train as ever, and nothing has to be frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.arch.plan import Layer
from ofa_pose.models.depthwise import depthwise_conv
from ofa_pose.models.litepose import LitePose, Unit

FLOAT = ("stem.", "outputs.")
"""What the names of layers begin with that stay float: the largest maps are theirs."""
LEAST_SCALE = 1e-12

Ranges = Mapping[str, tuple[float, float]]
"""The least and the greatest value of maps, by the names of nodes in the network's ONNX graph."""


def round_weight(weight: Tensor, axis: int = 0) -> Tensor:
    """A weight as int8 holds it, -127 to 127 times a scale for each index of `axis`."""
    others = [dim for dim in range(weight.ndim) if dim != axis]
    scale = (weight.detach().abs().amax(others) / 127).clamp_min(LEAST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -127, 127)


def round_map(x: Tensor, span: tuple[float, float] | None = None) -> Tensor:
    """A map (B, C, H, W) as uint8 holds it, between the ends of a span that 0 is brought into; default: its own."""
    x = x.float()  # bfloat16 is too coarse for scales
    least, greatest = torch.aminmax(x.detach()) if span is None else x.new_tensor(span)
    least, greatest = least.clamp_max(0), greatest.clamp_min(0)
    scale = ((greatest - least) / 255).clamp_min(LEAST_SCALE)
    zero = (-least / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)


class QuantisedLitePose(LitePose):
    """A LitePose that rounds while it is trained; in eval mode it is the float network that is to be exported.

    Parameters and their names are LitePose's. Each batch's maps have ranges of their own.
    """

    @classmethod
    def of(cls, net: LitePose) -> QuantisedLitePose:
        """A copy of a network, on its device."""
        copied = cls(net.spec).to(next(net.parameters()).device)
        copied.load_state_dict(net.state_dict())
        return copied.train(net.training)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → low (B, 2J, H/4, W/4), high (B, J, H/2, W/2)."""
        return self.rounded(image) if self.training else super().forward(image)

    def rounded(self, image: Tensor, ranges: Ranges | None = None) -> tuple[Tensor, Tensor]:
        """The network as int8 computes it, in either mode, with these ranges; default: those of the images given."""
        return self.plan.run(image, _Rounding(self.unit, self.plan.stem[-1], ranges).apply)


@dataclass(frozen=True)
class _Rounding:
    """Computes layers as int8 does; what it gives is a tensor where maps stay float."""

    unit: Callable[[Layer], Unit]
    stem: Layer  # the last one of the stem: what it gives is rounded
    ranges: Ranges | None

    def apply(self, layer: Layer, x: Any) -> Tensor | _Rounded | _RoundedSum:
        unit = self.unit(layer)
        if layer.kind == "deconv":
            return _RoundedSum(self, [layer], [x])
        if isinstance(x, _RoundedSum):
            return self.map(f"{layer.name}.{layer.act}", unit(x.sum(layer.name)))
        x = x.tensor if isinstance(x, _Rounded) else x
        left = layer.name.startswith(FLOAT)
        weight = unit.conv.weight if left else round_weight(unit.conv.weight)
        if layer.depthwise:
            y = depthwise_conv(x, weight, layer.stride, layer.padding)
        else:
            y = F.conv2d(x, weight, None, layer.stride, layer.padding)
        y = unit.norm(y) if layer.norm else y
        y = unit.act(y) if layer.act else y
        if left and layer != self.stem:
            return y
        return self.map(f"{layer.name}.{layer.act}" if layer.act else layer.name, y)

    def map(self, name: str, x: Tensor) -> _Rounded:
        """A map as it goes on: rounded."""
        return _Rounded(self, name, round_map(x, self.ranges[name] if self.ranges is not None else None))


@dataclass(frozen=True)
class _Rounded:
    """A rounded map; the sum of two is rounded too."""

    rounding: _Rounding
    name: str
    tensor: Tensor

    def __add__(self, other: _Rounded) -> _Rounded:
        return self.rounding.map(f"{other.name}.sum", self.tensor + other.tensor)


@dataclass(frozen=True)
class _RoundedSum:
    """A sum of deconvolutions that int8 computes as one over all channels: they share ranges and scales."""

    rounding: _Rounding
    layers: list[Layer]
    reads: list[_Rounded]

    def __add__(self, other: _RoundedSum) -> _RoundedSum:
        return _RoundedSum(self.rounding, self.layers + other.layers, self.reads + other.reads)

    def sum(self, norm: str) -> Tensor:
        """Before the BatchNorm of that name."""
        weight = torch.cat([self.rounding.unit(layer).conv.weight for layer in self.layers])
        maps = torch.cat([one.tensor for one in self.reads], 1)
        if len(self.reads) > 1:
            maps = self.rounding.map(f"{norm}.maps", maps).tensor
        layer = self.layers[0]
        return F.conv_transpose2d(maps, round_weight(weight, 1), None, layer.stride, layer.padding)
