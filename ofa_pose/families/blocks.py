"""Blocks that several families are built of: conv-BN-activation, residual blocks, HRNet's modules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(
    cin: int, cout: int, kernel: int = 3, stride: int = 1, act: nn.Module | None = None, groups: int = 1
) -> nn.Sequential:
    """A convolution without bias, BatchNorm, and the activation where given: (B, cin, h, w) → (B, cout, h/s, w/s)."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([] if act is None else [act]))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) as large as (B, ·, H, W), by nearest neighbours."""
    return F.interpolate(x, size=like.shape[-2:])


class ResidualBlock(nn.Module):
    """Layers whose output is added to their input (He et al., CVPR 2016), then ReLU.

    A BasicBlock or a Bottleneck, see `basic_block` and `bottleneck`; (B, cin, h, w) → (B, cout, h, w).
    """

    def __init__(self, layers: nn.Sequential, cin: int, cout: int) -> None:
        """Where the widths differ, a 1×1 convolution and BatchNorm go past the layers."""
        super().__init__()
        self.layers = layers
        self.past = nn.Identity() if cin == cout else conv_norm(cin, cout, kernel=1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        result: Tensor = self.act(self.layers(x) + self.past(x))
        return result


def basic_block(cin: int, cout: int) -> ResidualBlock:
    """Two 3×3 convolutions."""
    return ResidualBlock(nn.Sequential(conv_norm(cin, cout, act=nn.ReLU()), conv_norm(cout, cout)), cin, cout)


def bottleneck(cin: int, width: int) -> ResidualBlock:
    """1×1 to `width`, 3×3, 1×1 to 4 × `width`."""
    narrow = conv_norm(cin, width, kernel=1, act=nn.ReLU()), conv_norm(width, width, act=nn.ReLU())
    return ResidualBlock(nn.Sequential(*narrow, conv_norm(width, 4 * width, kernel=1)), cin, 4 * width)


def deconv_step(cin: int, filters: int, blocks: int) -> nn.Sequential:
    """HigherHRNet's step to twice the resolution, then basic blocks: (B, cin, h, w) → (B, filters, 2h, 2w)."""
    deconv = nn.ConvTranspose2d(cin, filters, 4, 2, 1, bias=False)
    return nn.Sequential(
        deconv, nn.BatchNorm2d(filters), nn.ReLU(), *(basic_block(filters, filters) for _ in range(blocks))
    )


class FusedBranches(nn.Module):
    """HRNet's module (Sun et al., CVPR 2019): branches at falling resolution, then each map is the sum of them all.

    From a finer branch go 3×3 convolutions of stride 2, from a coarser one a 1×1 convolution whose map is enlarged.
    """

    def __init__(self, branches: Sequence[nn.Module], widths: Sequence[int], outputs: int) -> None:
        """`widths`: of the branches, from the finest; each has half the resolution of the one before. The finest
        `outputs` maps are made."""
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.ways = nn.ModuleList(
            nn.ModuleList(_way(widths, source, target) for source in range(len(widths))) for target in range(outputs)
        )
        self.act = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(B, widths[i], h/2^i, w/2^i)] of all branches → the same of the finest `outputs`; odd sides are rounded
        up."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self.act(x) for x in sums(maps, self.ways)]


def sums(maps: Sequence[Tensor], ways: nn.ModuleList) -> list[Tensor]:
    """Of maps [(B, ·, h/2^i, w/2^i)] one sum for each row of `ways`, as large as the map of the row's place.

    A row has a module for each map; those of maps further down keep the size, and what they give is enlarged.
    """
    results = []
    for target, row in enumerate(ways):
        parts = [way(x) for way, x in zip(cast(nn.ModuleList, row), maps, strict=True)]
        larger = [resized(part, maps[target]) for part in parts[target + 1 :]]
        results.append(reduce(torch.add, parts[: target + 1] + larger))
    return results


def _way(widths: Sequence[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm(widths[source], widths[target], kernel=1)
    steps = [conv_norm(widths[source], widths[source], stride=2, act=nn.ReLU()) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv_norm(widths[source], widths[target], stride=2))
