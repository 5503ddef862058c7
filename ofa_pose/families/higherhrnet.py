"""HigherHRNet (Cheng et al., CVPR 2020), and the scaled one that LitePose's paper shrinks towards a single branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import NetSpec, exceeded
from ofa_pose.families.blocks import FusedBranches, basic_block, bottleneck, conv_norm, deconv_step
from ofa_pose.families.family import Family
from ofa_pose.models.pose_net import PoseNet

STAGES = 3  # of fused branches: two, three and four of them
STEM = 64  # in all published networks
BOTTLENECKS = 4
MODULES = (1, 4, 3)


@dataclass(frozen=True)
class HigherHRNetSpec(NetSpec):
    """One HigherHRNet (Cheng et al., CVPR 2020; scaled and shrunk: Wang et al., CVPR 2022, section 3.1).

    Attributes:
        resolution: side of the square input it is counted for, in pixels; a multiple of 16.
        width: channels of the branch at 1/4; each next branch has half the resolution and twice the channels.
        blocks: basic blocks of each branch in the modules of the three stages, from the finest branch: A2 (two
            branches), A3 (three) and A4 (four). A branch of 0 blocks is one 3×3 convolution, BN and ReLU6.
        modules: how many modules each of the three stages has.
        stem: channels of the two 3×3 convolutions of stride 2 at the start.
        bottleneck: narrow channels of the four bottlenecks before the branches, whose output has four times as many.
        deconv: filters of the transposed 4×4 convolution from 1/4 to 1/2, which reads the finest map and the outputs
            at 1/4, concatenated.
        deconv_blocks: basic blocks after it.
        joints: number of keypoints J; the outputs have 2J and J channels.
    """

    resolution: int
    width: int
    blocks: tuple[tuple[int, ...], ...]
    modules: tuple[int, ...]
    stem: int
    bottleneck: int
    deconv: int
    deconv_blocks: int
    joints: int = 17
    family: ClassVar[str] = "higherhrnet"

    def problem(self) -> str:
        """Why no network has this shape; "" where one has."""
        if [len(branches) for branches in self.blocks] != [2, 3, 4] or len(self.modules) != STAGES:
            return "it needs blocks of 2, 3 and 4 branches and 3 counts of modules"
        widths = (self.width, self.stem, self.bottleneck, self.deconv)
        if min(*widths, self.joints, *self.modules) < 1:
            return "widths, counts of modules and joints must be at least 1"
        counts = [*(count for branches in self.blocks for count in branches), self.deconv_blocks]
        if min(counts) < 0:
            return "counts of blocks must be at least 0"
        return exceeded({"width": max(widths), "blocks": max(counts), "modules": max(self.modules)})

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four branches, at 1/4, 1/8, 1/16 and 1/32."""
        return tuple(self.width * 2**branch for branch in range(STAGES + 1))


class HigherHRNet(PoseNet):
    """The network of a spec, of stock layers, its weights as torch's modules begin with them."""

    def __init__(self, spec: HigherHRNetSpec) -> None:
        super().__init__()
        self.spec = spec
        widths, wide = spec.widths, 4 * spec.bottleneck
        self.stem = nn.Sequential(
            conv_norm(3, spec.stem, stride=2, act=nn.ReLU()),
            conv_norm(spec.stem, spec.stem, stride=2, act=nn.ReLU()),
            bottleneck(spec.stem, spec.bottleneck),
            *(bottleneck(wide, spec.bottleneck) for _ in range(BOTTLENECKS - 1)),
        )
        self.first = conv_norm(wide, widths[0], act=nn.ReLU()) if wide != widths[0] else nn.Identity()
        coarsest = (wide, *widths[1:])
        self.coarser = nn.ModuleList(
            conv_norm(coarsest[stage], widths[stage + 1], stride=2, act=nn.ReLU()) for stage in range(STAGES)
        )
        self.stages = nn.ModuleList(_stage(spec, stage) for stage in range(STAGES))
        self.low = nn.Conv2d(spec.width, 2 * spec.joints, 1)
        self.deconv = deconv_step(spec.width + 2 * spec.joints, spec.deconv, spec.deconv_blocks)
        self.high = nn.Conv2d(spec.deconv, spec.joints, 1)
        self.output_layers = ("low", "deconv.0", "high")  # deconv.0 reads the outputs at 1/4

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → low (B, 2J, H/4, W/4), high (B, J, H/2, W/2)."""
        x = self.stem(image)
        maps = [self.first(x)]
        for coarser, stage in zip(self.coarser, self.stages, strict=True):
            maps = stage([*maps, coarser(x)])
            x = maps[-1]
        low = self.low(maps[0])
        return low, self.high(self.deconv(torch.cat((maps[0], low), dim=1)))


def _stage(spec: HigherHRNetSpec, stage: int) -> nn.Sequential:
    """The modules of a stage; the network's last makes the finest map alone."""
    counts, modules = spec.blocks[stage], spec.modules[stage]
    made = []
    for module in range(modules):
        branches = [_branch(width, count) for width, count in zip(spec.widths, counts, strict=False)]
        last = stage == STAGES - 1 and module == modules - 1
        made.append(FusedBranches(branches, spec.widths[: len(counts)], outputs=1 if last else len(counts)))
    return nn.Sequential(*made)


def _branch(width: int, count: int) -> nn.Module:
    if count == 0:
        return conv_norm(width, width, act=nn.ReLU6())
    return nn.Sequential(*(basic_block(width, width) for _ in range(count)))


FULL = ((4, 4), (4, 4, 4), (4, 4, 4, 4))


def _published(width: int, resolution: int) -> HigherHRNetSpec:
    return HigherHRNetSpec(resolution, width, FULL, MODULES, stem=STEM, bottleneck=64, deconv=width, deconv_blocks=4)


def _scaled(width: int, blocks: tuple[tuple[int, ...], ...] = FULL) -> HigherHRNetSpec:
    return HigherHRNetSpec(512, width, blocks, MODULES, stem=STEM, bottleneck=2 * width, deconv=32, deconv_blocks=0)


# The LitePose repository holds the last of the shrinking series; the counts of the other two are those whose costs are
# the published ones.
FAMILY = Family(
    name=HigherHRNetSpec.family,
    title="HigherHRNet (Cheng et al., CVPR 2020)",
    spec=HigherHRNetSpec,
    build=HigherHRNet,
    presets={
        "higherhrnet-w32": _published(32, 512),
        "higherhrnet-w48": _published(48, 640),
        "scaled-higherhrnet-w16": _scaled(16),
        "scaled-higherhrnet-shrink1": _scaled(16, ((3, 4), (2, 3, 4), (1, 2, 3, 4))),
        "scaled-higherhrnet-shrink2": _scaled(18, ((1, 4), (1, 1, 4), (1, 1, 1, 4))),
        "scaled-higherhrnet-shrink3": _scaled(18, ((0, 4), (0, 0, 4), (0, 0, 0, 4))),
        "scaled-higherhrnet-w24": _scaled(24),
    },
)
