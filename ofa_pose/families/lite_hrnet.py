"""Lite-HRNet (Yu et al., CVPR 2021): HRNet of units that weigh channels in place of 1×1 convolutions; top-down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_pose.arch.spec import NetSpec, exceeded
from ofa_pose.families.blocks import conv_norm, resized, sums
from ofa_pose.families.family import Family
from ofa_pose.models.pose_net import Network

STAGES = 3  # of two, three and four branches
CROSS_RATIO, SPATIAL_RATIO = 8, 4  # channels to values between the two convolutions that weigh them


@dataclass(frozen=True)
class LiteHRNetSpec(NetSpec):
    """One Lite-HRNet (Yu et al., 'Lite-HRNet: A lightweight high-resolution network', CVPR 2021).

    Attributes:
        resolution: height of the input, the image of one person, in pixels; a multiple of 64. The width is 3/4 of it.
        width: channels of the branch at 1/4, a multiple of 8; each next branch has half the resolution and twice the
            channels.
        modules: how many modules the stages of two, three and four branches have.
        stem: channels of the stem, a multiple of 2.
        units: units of each module before its branches are fused.
        joints: number of keypoints J.
    """

    resolution: int
    width: int
    modules: tuple[int, ...]
    stem: int = 32
    units: int = 2
    joints: int = 17
    family: ClassVar[str] = "lite-hrnet"
    multiple: ClassVar[int] = 64  # of the height, so that the width, three quarters of it, is one of 16

    def problem(self) -> str:
        """Why no network has this shape; "" where one has."""
        if len(self.modules) != STAGES:
            return f"it needs {STAGES} counts of modules"
        if min(self.width, self.stem, self.units, self.joints, *self.modules) < 1:
            return "widths, counts of modules and units, and joints must be at least 1"
        if self.width % 8 or self.stem % 2:
            return f"width {self.width} is not a multiple of 8, or stem {self.stem} not of 2"
        return exceeded({"width": max(self.width, self.stem), "modules": max(*self.modules, self.units)})

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input, in pixels: a person is higher than wide."""
        return self.resolution, self.resolution // 4 * 3

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four branches, at 1/4, 1/8, 1/16 and 1/32."""
        return tuple(self.width * 2**branch for branch in range(STAGES + 1))


def _separable(cin: int, cout: int, stride: int = 1, act: bool = True) -> nn.Sequential:
    """A depthwise 3×3 and a 1×1 convolution, each with BatchNorm, and a ReLU if wanted."""
    return nn.Sequential(
        conv_norm(cin, cin, stride=stride, groups=cin), conv_norm(cin, cout, 1, act=nn.ReLU() if act else None)
    )


def _shuffled(first: Tensor, second: Tensor) -> Tensor:
    """(B, C, h, w) twice → (B, 2C, h, w), their channels in turns (Zhang et al., CVPR 2018)."""
    return torch.stack((first, second), dim=2).flatten(1, 2)


class ShuffledStem(nn.Module):
    """A convolution of stride 2, then one half of the channels by each of two paths of stride 2, shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv = conv_norm(3, width, stride=2, act=nn.ReLU())
        self.short = _separable(half, half, stride=2)
        self.long = nn.Sequential(conv_norm(half, width, 1, act=nn.ReLU()), _separable(width, half, stride=2))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, width, H/4, W/4)."""
        first, second = self.conv(image).chunk(2, dim=1)
        return _shuffled(self.short(first), self.long(second))


class CrossResolutionWeighting(nn.Module):
    """Weighs the channels of all branches at each cell of the coarsest map, by all of them."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths, total = list(widths), sum(widths)
        squeezed = total // CROSS_RATIO
        self.weigh = nn.Sequential(
            conv_norm(total, squeezed, 1, act=nn.ReLU()), conv_norm(squeezed, total, 1, act=nn.Sigmoid())
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, widths[i], h/2^i, w/2^i)] of all branches → the same; odd sides are rounded up."""
        steps = range(len(maps) - 1, 0, -1)
        means = [F.avg_pool2d(x, 2**step, ceil_mode=True) for x, step in zip(maps, steps, strict=False)]
        weights = self.weigh(torch.cat([*means, maps[-1]], dim=1)).split(self.widths, dim=1)
        return [x * resized(weight, x) for x, weight in zip(maps, weights, strict=True)]


class SpatialWeighting(nn.Module):
    """Weighs a map's channels by what their means over the cells say (Hu et al., CVPR 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = width // SPATIAL_RATIO
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → the same."""
        return x * self.weigh(x)


class WeightingUnit(nn.Module):
    """Half of every branch's channels are weighed over all branches, convolved depthwise and weighed; then shuffled."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        halves = tuple(width // 2 for width in widths)
        self.across = CrossResolutionWeighting(halves)
        self.branches = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, groups=half), SpatialWeighting(half)) for half in halves
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, widths[i], h/2^i, w/2^i)] of all branches → the same."""
        kept, changed = zip(*(x.chunk(2, dim=1) for x in maps), strict=True)
        changed = self.across(list(changed))
        parts = zip(kept, self.branches, changed, strict=True)
        return [_shuffled(first, branch(second)) for first, branch, second in parts]


class LiteModule(nn.Module):
    """Units, then each map becomes the sum of all maps, brought to its resolution and width.

    As the paper has it, each map is added once; its published code adds the finest one twice.
    """

    def __init__(self, widths: tuple[int, ...], units: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*(WeightingUnit(widths) for _ in range(units)))
        branches = range(len(widths))
        self.ways = nn.ModuleList(nn.ModuleList(_way(widths, source, to) for source in branches) for to in branches)
        self.act = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, widths[i], h/2^i, w/2^i)] of all branches → the same."""
        return [self.act(x) for x in sums(self.units(maps), self.ways)]


def _way(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm(widths[source], widths[target], 1)
    cin, cout = widths[source], widths[target]
    steps = [_separable(cin, cin, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, _separable(cin, cout, stride=2, act=False))


class LiteHRNet(Network):
    """The network of a spec, of stock layers, its weights as torch's modules begin with them."""

    def __init__(self, spec: LiteHRNetSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.widths
        self.stem = ShuffledStem(spec.stem)
        self.first = _separable(spec.stem, widths[0])
        # Each stage adds a branch, made of the coarsest map there is: the first one's of the stem's.
        cins = (spec.stem, *widths[1:-1])
        self.coarser = nn.ModuleList(
            _separable(cin, cout, stride=2) for cin, cout in zip(cins, widths[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(LiteModule(widths[: stage + 2], spec.units) for _ in range(count)))
            for stage, count in enumerate(spec.modules)
        )
        self.finer = nn.ModuleList(
            _separable(cin, cout) for cin, cout in zip(widths, (widths[0], *widths[:-1]), strict=True)
        )
        self.heatmaps = nn.Conv2d(widths[0], spec.joints, 1)

    @property
    def map_channels(self) -> dict[str, int]:
        """Names of the maps that forward gives, and their channels."""
        return {"heatmaps": self.spec.joints}

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """(B, 3, H, W) normalised images of one person each → heatmaps (B, J, H/4, W/4), alone in a tuple."""
        x = self.stem(image)
        maps = [self.first(x)]
        for coarser, stage in zip(self.coarser, self.stages, strict=True):
            maps = stage([*maps, coarser(x)])
            x = maps[-1]
        x = self.finer[-1](maps[-1])
        for finer, finest in zip(self.finer[-2::-1], maps[-2::-1], strict=True):
            x = finer(finest + F.interpolate(x, size=finest.shape[-2:], mode="bilinear", align_corners=True))
        return (self.heatmaps(x),)


FAMILY = Family(
    name=LiteHRNetSpec.family,
    title="Lite-HRNet (Yu et al., CVPR 2021)",
    spec=LiteHRNetSpec,
    build=LiteHRNet,
    presets={
        "lite-hrnet-18": LiteHRNetSpec(resolution=256, width=40, modules=(2, 4, 2)),
        "lite-hrnet-30": LiteHRNetSpec(resolution=256, width=40, modules=(3, 8, 3)),
    },
    why_costs_only="it finds the joints of one person, top-down, in an image that a detector has cut out",
)
