"""EfficientHRNet (Neff et al., 2020): an EfficientNet whose maps at four resolutions are fused as HRNet's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import NetSpec, exceeded
from ofa_pose.families.blocks import FusedBranches, basic_block, conv_norm, deconv_step
from ofa_pose.families.family import Family
from ofa_pose.models.pose_net import PoseNet

# EfficientNet-B0's groups of blocks (Tan and Le, ICML 2019): expansion, channels, blocks, stride, side of the kernel.
GROUPS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
READ = (1, 2, 4, 6)  # the last groups at 1/4, 1/8, 1/16 and 1/32
SQUEEZE = 4  # channels are weighed by a quarter as many values as the block has input channels
STAGES = 3  # of fused branches: two, three and four of them
STEM, BRANCHES = 32, (32, 64, 128, 256)  # of H0


@dataclass(frozen=True)
class EfficientHRNetSpec(NetSpec):
    """One EfficientHRNet (Neff et al., 'EfficientHRNet: Efficient and scalable high-resolution networks', 2020).

    Attributes:
        resolution: side of the square input it is counted for, in pixels; a multiple of 16.
        stem: channels of EfficientNet's first convolution.
        widths, depths: of EfficientNet's seven groups of blocks, the channels and the number of blocks.
        branches: channels of the branches at 1/4, 1/8, 1/16 and 1/32.
        modules: how many modules the stages of two, three and four branches have.
        blocks: basic blocks of each branch in a module, before the branches are fused.
        deconv: filters of the transposed 4×4 convolution from 1/4 to 1/2, which reads the finest map and the outputs
            at 1/4, concatenated.
        deconv_blocks: basic blocks after it.
        joints: number of keypoints J; the outputs have 2J and J channels.
    """

    resolution: int
    stem: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    branches: tuple[int, ...]
    modules: tuple[int, ...]
    blocks: int = 2
    deconv: int = 32
    deconv_blocks: int = 2
    joints: int = 17
    family: ClassVar[str] = "efficienthrnet"

    def problem(self) -> str:
        """Why no network has this shape; "" where one has."""
        if [len(self.widths), len(self.depths), len(self.branches), len(self.modules)] != [7, 7, 4, 3]:
            return "it needs 7 widths, 7 depths, 4 branches and 3 counts of modules"
        widths = (self.stem, *self.widths, *self.branches, self.deconv)
        counts = (*self.depths, *self.modules, self.blocks)
        if min(*widths, *counts, self.joints) < 1:
            return "widths, depths, counts of modules and blocks, and joints must be at least 1"
        if self.deconv_blocks < 0:
            return f"deconv_blocks {self.deconv_blocks} is less than 0"
        blocks = max(*self.depths, self.blocks, self.deconv_blocks)
        return exceeded({"width": max(widths), "blocks": blocks, "modules": max(self.modules)})


class SqueezeExcitation(nn.Module):
    """Weights a map's channels by what their means over the pixels say (Hu et al., CVPR 2018)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) → the same."""
        return x * self.weigh(x)


class MBConv(nn.Module):
    """EfficientNet's block: an inverted bottleneck that weighs its channels; in training no sample skips it."""

    def __init__(self, cin: int, cout: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = cin * expansion
        self.layers = nn.Sequential(
            *([conv_norm(cin, hidden, 1, act=nn.SiLU())] if expansion > 1 else []),
            conv_norm(hidden, hidden, kernel, stride, act=nn.SiLU(), groups=hidden),
            SqueezeExcitation(hidden, max(1, cin // SQUEEZE)),
            conv_norm(hidden, cout, 1),
        )
        self.residual = cin == cout and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h/stride, w/stride)."""
        result: Tensor = self.layers(x)
        return x + result if self.residual else result


class EfficientHRNet(PoseNet):
    """The network of a spec, of stock layers, its weights as torch's modules begin with them.

    Convolutions pad all sides alike, where EfficientNet's of stride 2 pad the lower right more: maps of odd sides then
    meet those of the branches.
    """

    output_layers = ("low", "deconv.0", "high")  # deconv.0 reads the outputs at 1/4

    def __init__(self, spec: EfficientHRNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = conv_norm(3, spec.stem, stride=2, act=nn.SiLU())
        cins = (spec.stem, *spec.widths[:-1])
        self.groups = nn.ModuleList(map(_group, GROUPS, cins, spec.widths, spec.depths))
        branches = spec.branches
        read = [spec.widths[index] for index in READ]
        # A stage reads the outputs of the one before, and of EfficientNet what comes in addition: two maps, then one.
        inputs = [read[:2], [*branches[:2], read[2]], [*branches[:3], read[3]]]
        self.transitions = nn.ModuleList(nn.ModuleList(map(_transition, cins, branches)) for cins in inputs)
        self.stages = nn.ModuleList(_stage(spec, stage) for stage in range(STAGES))
        self.low = nn.Conv2d(branches[0], 2 * spec.joints, 1)
        self.deconv = deconv_step(branches[0] + 2 * spec.joints, spec.deconv, spec.deconv_blocks)
        self.high = nn.Conv2d(spec.deconv, spec.joints, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → low (B, 2J, H/4, W/4), high (B, J, H/2, W/2)."""
        x, read = self.stem(image), []
        for index, group in enumerate(self.groups):
            x = group(x)
            if index in READ:
                read.append(x)
        maps: list[Tensor] = []
        for transitions, stage in zip(self.transitions, self.stages, strict=True):
            paths = list(cast(nn.ModuleList, transitions))
            maps = stage([path(x) for path, x in zip(paths, maps + read[len(maps) : len(paths)], strict=True)])
        low = self.low(maps[0])
        return low, self.high(self.deconv(torch.cat((maps[0], low), dim=1)))


def _group(group: tuple[int, ...], cin: int, cout: int, depth: int) -> nn.Sequential:
    expansion, _, _, stride, kernel = group
    first = MBConv(cin, cout, expansion, kernel, stride)
    return nn.Sequential(first, *(MBConv(cout, cout, expansion, kernel, 1) for _ in range(depth - 1)))


def _transition(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU())


def _stage(spec: EfficientHRNetSpec, stage: int) -> nn.Sequential:
    """The modules of a stage; the network's last makes the finest map alone."""
    widths, modules = spec.branches[: stage + 2], []
    for module in range(spec.modules[stage]):
        branches = [nn.Sequential(*(basic_block(width, width) for _ in range(spec.blocks))) for width in widths]
        last = stage == STAGES - 1 and module == spec.modules[stage] - 1
        modules.append(FusedBranches(branches, widths, outputs=1 if last else len(widths)))
    return nn.Sequential(*modules)


def _scaled(resolution: int, scale: int, width: float, depth: float, modules: tuple[int, ...]) -> EfficientHRNetSpec:
    """The paper's compound scaling: EfficientNet's multipliers, and branches that widen by 1.2455 a step of scale."""
    factor = 1.2455**scale
    return EfficientHRNetSpec(
        resolution=resolution,
        stem=_multiple_of_8(STEM * width),
        widths=tuple(_multiple_of_8(group[1] * width) for group in GROUPS),
        depths=tuple(math.ceil(group[2] * depth) for group in GROUPS),
        branches=tuple(math.ceil(branch * factor) for branch in BRANCHES),
        modules=modules,
        deconv=math.ceil(BRANCHES[0] * factor),
    )


def _multiple_of_8(value: float) -> int:
    """The nearest multiple of 8, and never less than nine tenths of the value (Tan and Le's rule)."""
    nearest = max(8, int(value + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * value else nearest


FAMILY = Family(
    name=EfficientHRNetSpec.family,
    title="EfficientHRNet (Neff et al., 2020)",
    spec=EfficientHRNetSpec,
    build=EfficientHRNet,
    presets={
        "efficienthrnet-h0": _scaled(512, 0, 1.0, 1.0, (1, 4, 3)),
        "efficienthrnet-h-1": _scaled(480, -1, 0.909, 0.833, (1, 3, 3)),
        "efficienthrnet-h-2": _scaled(448, -2, 0.826, 0.694, (1, 2, 3)),
        "efficienthrnet-h-3": _scaled(416, -3, 0.751, 0.578, (1, 1, 3)),
        "efficienthrnet-h-4": _scaled(384, -4, 0.684, 0.483, (1, 1, 2)),
    },
)
