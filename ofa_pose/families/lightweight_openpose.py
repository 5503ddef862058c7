"""Lightweight OpenPose (Osokin, 2018): MobileNetV1 with heatmaps and part-affinity fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import NetSpec, exceeded
from ofa_pose.families.family import Family
from ofa_pose.models.pose_net import Network

STEM = 32
# MobileNetV1's blocks up to conv5_5 (Howard et al., 2017): channels, stride, dilation; one is dilated in place of the
# last stride, so that the maps stay at 1/8.
TRUNK = (
    (64, 1, 1),
    (128, 2, 1),
    (128, 1, 1),
    (256, 2, 1),
    (256, 1, 1),
    (512, 1, 1),
    (512, 1, 2),
    *[(512, 1, 1)] * 4,
)
HIDDEN = 512  # of the initial stage's two outputs
REFINEMENT_BLOCKS = 5


@dataclass(frozen=True)
class LightweightOpenPoseSpec(NetSpec):
    """One Lightweight OpenPose (Osokin, 'Real-time 2D multi-person pose estimation on CPU', 2018).

    Attributes:
        resolution: side of the square input it is counted for, in pixels; a multiple of 16.
        joints: number of keypoints J; there are J + 1 heatmaps, the last one the background's. The published network
            has COCO's 17 and the neck.
        limbs: number of pairs of joints L that are joined; there are 2L part-affinity maps.
        width: channels of the features that all stages read.
        refinements: stages after the initial one.
    """

    resolution: int = 368
    joints: int = 18
    limbs: int = 19
    width: int = 128
    refinements: int = 1
    family: ClassVar[str] = "lightweight-openpose"

    def problem(self) -> str:
        """Why no network has this shape; "" where one has."""
        if min(self.joints, self.limbs, self.width) < 1:
            return "joints, limbs and width must be at least 1"
        if self.refinements < 0:
            return f"refinements {self.refinements} is less than 0"
        return exceeded({"joints": self.limbs, "width": self.width, "blocks": self.refinements})


def _conv(cin: int, cout: int, kernel: int = 1, dilation: int = 1, norm: bool = False) -> nn.Sequential:
    """A convolution with a bias that keeps the size, a BatchNorm if wanted, and a ReLU."""
    conv = nn.Conv2d(cin, cout, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    return nn.Sequential(conv, *[nn.BatchNorm2d(cout)] * norm, nn.ReLU())


def _separable(cin: int, cout: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """MobileNetV1's block: a depthwise 3×3 and a 1×1 convolution, each with BatchNorm and ReLU."""
    depthwise = nn.Conv2d(cin, cin, 3, stride, dilation, dilation, groups=cin, bias=False)
    pointwise = nn.Conv2d(cin, cout, 1, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(cin), nn.ReLU(), pointwise, nn.BatchNorm2d(cout), nn.ReLU())


def _separable_elu(width: int) -> nn.Sequential:
    """A depthwise 3×3 and a 1×1 convolution, each with ELU and no BatchNorm."""
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(depthwise, nn.ELU(), nn.Conv2d(width, width, 1, bias=False), nn.ELU())


class Features(nn.Module):
    """What all stages read."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.align = _conv(cin, width)
        self.trunk = nn.Sequential(*(_separable_elu(width) for _ in range(3)))
        self.conv = _conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) of the trunk → (B, width, h, w)."""
        x = self.align(x)
        return self.conv(x + self.trunk(x))


class RefinementBlock(nn.Module):
    """A 1×1 convolution, and two of 3×3 with a residual past them, the second one dilated."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.initial = _conv(cin, width)
        self.trunk = nn.Sequential(_conv(width, width, 3, norm=True), _conv(width, width, 3, dilation=2, norm=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, width, h, w)."""
        x = self.initial(x)
        return x + self.trunk(x)


class Stage(nn.Module):
    """A trunk, and heatmaps and part-affinity maps of what it gives."""

    def __init__(self, trunk: nn.Module, width: int, hidden: int, spec: LightweightOpenPoseSpec) -> None:
        super().__init__()
        self.trunk = trunk
        self.heatmaps = nn.Sequential(_conv(width, hidden), nn.Conv2d(hidden, spec.joints + 1, 1))
        self.affinities = nn.Sequential(_conv(width, hidden), nn.Conv2d(hidden, 2 * spec.limbs, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) → heatmaps (B, J + 1, h, w), part-affinity maps (B, 2L, h, w)."""
        x = self.trunk(x)
        return self.heatmaps(x), self.affinities(x)


class LightweightOpenPose(Network):
    """The network of a spec, of stock layers, its weights as torch's modules begin with them."""

    spec: LightweightOpenPoseSpec

    def __init__(self, spec: LightweightOpenPoseSpec) -> None:
        super().__init__()
        self.spec = spec
        stem = nn.Conv2d(3, STEM, 3, 2, 1, bias=False)
        trunk: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(STEM), nn.ReLU())]
        cin = STEM
        for cout, stride, dilation in TRUNK:
            trunk.append(_separable(cin, cout, stride, dilation))
            cin = cout
        self.trunk = nn.Sequential(*trunk)
        self.features = Features(cin, spec.width)
        width = spec.width
        self.initial = Stage(nn.Sequential(*(_conv(width, width, 3) for _ in range(3))), width, HIDDEN, spec)
        cins = [width + spec.joints + 1 + 2 * spec.limbs] + [width] * (REFINEMENT_BLOCKS - 1)
        self.refinements = nn.ModuleList(
            Stage(nn.Sequential(*(RefinementBlock(cin, width) for cin in cins)), width, width, spec)
            for _ in range(spec.refinements)
        )

    @property
    def map_channels(self) -> dict[str, int]:
        """Names of the maps that forward gives, and their channels."""
        return {"heatmaps": self.spec.joints + 1, "affinities": 2 * self.spec.limbs}

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → heatmaps (B, J + 1, H/8, W/8), part-affinity maps (B, 2L, H/8, W/8).

        They are the last stage's. A limb's two maps are the x and the y of the unit vector along it.
        """
        features = self.features(self.trunk(image))
        heatmaps, affinities = self.initial(features)
        for stage in self.refinements:
            heatmaps, affinities = stage(torch.cat((features, heatmaps, affinities), dim=1))
        return heatmaps, affinities


FAMILY = Family(
    name=LightweightOpenPoseSpec.family,
    title="Lightweight OpenPose (Osokin, 2018)",
    spec=LightweightOpenPoseSpec,
    build=LightweightOpenPose,
    presets={"lightweight-openpose": LightweightOpenPoseSpec()},
    why_costs_only="its part-affinity fields need losses and a grouping of their own, where ours are heatmaps and tags",
)
