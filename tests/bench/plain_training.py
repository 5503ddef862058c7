"""LitePose's supernet step and its loader, written for reading in the manner of its repository.

One layer after another as PyTorch has them, tensors in the default memory format, Adam with its defaults; losses and
targets in loops over people and joints; images read whole, warped once, and normalised to float32. `bin/bench train`
measures against these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import MEAN, STD, ArchSpec

STRIDES = (2, 2, 2, 1)
SIGMA = 2
PUSH = PULL = 1e-3


class Conv(nn.Module):
    """Convolution, BatchNorm and activation, of which a subnet takes the leading channels."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm, self.act = nn.BatchNorm2d(cout), act

    def forward(self, x: Tensor, width: int) -> Tensor:
        depthwise = self.conv.groups > 1
        weight = self.conv.weight[:width] if depthwise else self.conv.weight[:width, : x.shape[1]]
        x = F.conv2d(x, weight, None, self.conv.stride, self.conv.padding, 1, width if depthwise else 1)
        x = normalised(self.norm, x)
        return self.act(x) if self.act else x


class Block(nn.Module):
    """An MBConv block: expand, depthwise, project."""

    def __init__(self, cin: int, cout: int, expansion: int, kernel: int, stride: int, residual: bool) -> None:
        super().__init__()
        wide = cin * expansion
        self.expand = Conv(cin, wide, 1, act=nn.ReLU6())
        self.depthwise = Conv(wide, wide, kernel, stride, groups=wide, act=nn.ReLU6())
        self.project = Conv(wide, cout, 1)
        self.residual = residual

    def forward(self, x: Tensor, width: int, expansion: int) -> Tensor:
        wide = x.shape[1] * expansion
        y = self.project(self.depthwise(self.expand(x, wide), wide), width)
        return x + y if self.residual else y


class Separable(nn.Module):
    """A 5×5 depthwise convolution with BatchNorm and ReLU, and a 1×1 convolution without bias."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.depthwise = Conv(cin, cin, 5, groups=cin, act=nn.ReLU())
        self.pointwise = nn.Module()
        self.pointwise.conv = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x, x.shape[1])
        weight: Any = self.pointwise.conv.weight
        return F.conv2d(x, weight[:, : x.shape[1]])


class Deconv(nn.Module):
    """The transposed convolutions of the refined and the raw map, their sum normalised."""

    def __init__(self, refined: int, raw: int, cout: int) -> None:
        super().__init__()
        self.refined, self.raw, self.norm = nn.Module(), nn.Module(), nn.Module()
        self.refined.conv = nn.ConvTranspose2d(refined, cout, 4, 2, 1, bias=False)
        self.raw.conv = nn.ConvTranspose2d(raw, cout, 4, 2, 1, bias=False)
        self.norm.norm = nn.BatchNorm2d(cout)

    def forward(self, refined: Tensor, raw: Tensor, width: int) -> Tensor:
        ways: list[tuple[Any, Tensor]] = [(self.refined.conv, refined), (self.raw.conv, raw)]
        parts = [F.conv_transpose2d(x, c.weight[: x.shape[1], :width], None, c.stride, c.padding) for c, x in ways]
        return F.relu(normalised(self.norm.norm, parts[0] + parts[1]))


class PlainSupernet(nn.Module):
    """The supernet of a space; its parameters have the names and shapes of `models.elastic.Supernet`'s."""

    def __init__(self, space: SearchSpace, joints: int) -> None:
        super().__init__()
        spec = space.largest(joints)
        self.stem = nn.ModuleList(
            [Conv(3, 32, 3, 2, act=nn.ReLU6()), Conv(32, 32, 3, groups=32, act=nn.ReLU6()), Conv(32, spec.stem, 1)]
        )
        self.stages = nn.ModuleList()
        widths = [spec.stem, *spec.stages]
        for stage, (expansions, stride) in enumerate(zip(spec.expansions, STRIDES, strict=True)):
            blocks = nn.ModuleList()
            for number, expansion in enumerate(expansions):
                cin, step = (widths[stage + 1], 1) if number else (widths[stage], stride)
                blocks.append(Block(cin, widths[stage + 1], expansion, spec.kernel, step, residual=number > 0))
            self.stages.append(blocks)
        refined = [widths[4], *spec.deconv]
        self.deconv = nn.ModuleList(Deconv(refined[i], widths[3 - i], spec.deconv[i]) for i in range(3))
        self.outputs = nn.ModuleList()
        for i, count in ((1, 2 * joints), (2, joints)):
            ways = {"refined": Separable(spec.deconv[i], count), "raw": Separable(widths[2 - i], count)}
            self.outputs.append(nn.ModuleDict(ways))

    def forward(self, x: Tensor, spec: ArchSpec) -> list[Tensor]:
        """(B, 3, H, W) → (B, 2J, H/4, W/4) and (B, J, H/2, W/2)."""
        for layer, width in zip(self.stem, (32, 32, spec.stem), strict=True):
            x = layer(x, width)
        maps = [x]
        for blocks, width, expansions in zip(self.stages, spec.stages, spec.expansions, strict=True):
            for block, expansion in zip(blocks, expansions, strict=True):
                x = block(x, width, expansion)
            maps.append(x)
        outputs = []
        for i in range(3):
            x = self.deconv[i](x, maps[3 - i], spec.deconv[i])
            if i:
                ways: Any = self.outputs[i - 1]
                outputs.append(ways["refined"](x) + ways["raw"](maps[2 - i]))
        return outputs


def normalised(norm: Any, x: Tensor) -> Tensor:
    """BatchNorm with its leading statistics and scales."""
    width = x.shape[1]
    tensors = (norm.running_mean[:width], norm.running_var[:width], norm.weight[:width], norm.bias[:width])
    return F.batch_norm(x, *tensors, norm.training, norm.momentum, norm.eps)


def make_heatmaps(keypoints: np.ndarray, side: int, joints: int) -> np.ndarray:
    """(J, side, side) float32 of one image's keypoints (P, J, 3), x and y in cells: a Gaussian is copied to each."""
    size = 6 * SIGMA + 3
    x = np.arange(0, size, 1, float)
    y = x[:, np.newaxis]
    centre = 3 * SIGMA + 1
    gaussian = np.exp(-((x - centre) ** 2 + (y - centre) ** 2) / (2 * SIGMA**2))
    maps = np.zeros((joints, side, side), dtype=np.float32)
    for person in keypoints:
        for joint, point in enumerate(person):
            if point[2] > 0:
                px, py = int(point[0]), int(point[1])
                if px < 0 or py < 0 or px >= side or py >= side:
                    continue
                left, top = px - 3 * SIGMA - 1, py - 3 * SIGMA - 1
                right, bottom = left + size, top + size
                c, d = max(0, -left), min(right, side) - left
                a, b = max(0, -top), min(bottom, side) - top
                there = maps[joint, max(0, top) : min(bottom, side), max(0, left) : min(right, side)]
                np.maximum(there, gaussian[a:b, c:d], out=there)
    return maps


def make_targets(keypoints: np.ndarray, sides: tuple[int, int], resolution: int) -> tuple[list[Tensor], np.ndarray]:
    """Heatmaps (B, J, side, side) at both sides, and where each joint's tag is read.

    Args:
        keypoints: (B, P, J, 3), x and y in input pixels.

    Returns the maps, and (B, P, J, 2) int64: the index in the flattened tag maps (J, side, side), and 1 or 0.
    """
    joints = keypoints.shape[2]
    maps = []
    for side in sides:
        scaled = keypoints * np.array([side / resolution, side / resolution, 1])
        maps.append(torch.from_numpy(np.stack([make_heatmaps(image, side, joints) for image in scaled])))
    side = sides[0]
    cells = np.zeros((*keypoints.shape[:3], 2), np.int64)
    for image in range(len(keypoints)):
        for person in range(keypoints.shape[1]):
            for joint in range(joints):
                x, y, seen = keypoints[image, person, joint]
                column, row = int(x * side / resolution), int(y * side / resolution)
                if seen > 0 and 0 <= column < side and 0 <= row < side:
                    cells[image, person, joint] = joint * side * side + row * side + column, 1
    return maps, cells


def heatmap_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Masked mean squared error, a value an image."""
    loss = ((prediction - target) ** 2) * mask[:, None, :, :].expand_as(prediction)
    return loss.mean(dim=3).mean(dim=2).mean(dim=1)


def tag_loss(tags: Tensor, cells: np.ndarray) -> tuple[Tensor, Tensor]:
    """Push and pull of one image: (J × side × side) tags, (P, J, 2) cells; person by person."""
    means = []
    pull: Any = 0
    for person in cells:
        own = []
        for joint in person:
            if joint[1] > 0:
                own.append(tags[joint[0]])
        if len(own) == 0:
            continue
        values = torch.stack(own)
        means.append(torch.mean(values, dim=0))
        pull = pull + torch.mean((values - means[-1].expand_as(values)) ** 2)
    count = len(means)
    if count == 0:
        return tags.new_zeros(()), tags.new_zeros(())
    if count == 1:
        return tags.new_zeros(()), pull
    people = torch.stack(means).expand(count, count)
    push = torch.exp(-torch.pow(people - people.permute(1, 0), 2))
    push = torch.sum(push) - count
    return push / ((count - 1) * count) * 0.5, pull / count


def plain_losses(outputs: Sequence[Tensor], keypoints: np.ndarray, mask: Tensor, resolution: int) -> Tensor:
    """Heatmap losses at 1/4 and 1/2, push and pull of the tags at 1/4, summed."""
    low, high = outputs
    joints = high.shape[1]
    targets, cells = make_targets(keypoints, (low.shape[2], high.shape[2]), resolution)
    masks = [F.interpolate(mask[:, None].float(), size=(one.shape[2], one.shape[3]))[:, 0] for one in outputs]
    heat = heatmap_loss(low[:, :joints], targets[0], masks[0]) + heatmap_loss(high, targets[1], masks[1])
    pushes, pulls = [], []
    for tags, own in zip(low[:, joints:].contiguous().view(len(low), -1), cells, strict=True):
        push, pull = tag_loss(tags, own)
        pushes.append(push)
        pulls.append(pull)
    return heat.mean() + PUSH * torch.stack(pushes).mean() + PULL * torch.stack(pulls).mean()


def plain_step(
    net: PlainSupernet,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    keypoints: np.ndarray,
    mask: Tensor,
    spec: ArchSpec,
) -> float:
    """One step of training on normalised images (B, 3, R, R); returns the loss."""
    net.train()
    loss = plain_losses(net(images, spec), keypoints, mask, images.shape[-1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def plain_sample(path: str, matrix: np.ndarray, side: int, keypoints: np.ndarray, joints: int, targets: bool) -> Any:
    """One training sample: the image read whole, warped once and normalised, and, where asked for, its heatmaps."""
    image: Any = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    warped = cv2.warpAffine(image, matrix, (side, side))
    moved = keypoints.copy()
    for person in moved:
        for point in person:
            point[:2] = matrix[:, :2] @ point[:2] + matrix[:, 2]
    normal = (torch.from_numpy(warped.transpose(2, 0, 1).copy()).float() / 255).sub_(mean_of(MEAN)).div_(mean_of(STD))
    if not targets:
        return normal, moved
    maps = []
    for size in (side // 4, side // 2):
        scaled = moved * np.array([size / side, size / side, 1])
        maps.append(make_heatmaps(scaled, size, joints))
    return normal, moved, maps


def mean_of(values: Sequence[float]) -> Tensor:
    """Three numbers as a tensor (3, 1, 1)."""
    return torch.tensor(values).view(3, 1, 1)
