"""Training targets and losses of heatmaps, tags and distillation: float32 means over a batch's images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FOREGROUND = 30.0
CUT = 4.0  # in sigmas: beyond it a Gaussian is below 3.4e-4 and is left at zero


def heatmaps(keypoints: Tensor, size: tuple[int, int], stride: float, sigma: float = 2.0) -> Tensor:
    """Target heatmaps: the largest of the people's Gaussians around the joints' sub-cell positions.

    Args:
        keypoints: (B, P, J, 3) x, y in input pixels, visibility (0: gives nothing).
        size: (h, w) in cells of `stride` input pixels; sigma: in cells.

    Returns:
        (B, J, h, w) float32: exp(-d² / 2 sigma²) for a cell centre d cells off the joint, 0 beyond `CUT`
        sigmas in x or in y.
    """
    count, _, joints, _ = keypoints.shape
    height, width = size
    maps = keypoints.new_zeros(count * joints * height * width, dtype=torch.float32)
    labelled = (keypoints[..., 2] > 0).nonzero()
    image, person, joint = labelled.unbind(1)
    position = keypoints[image, person, joint, :2].float() / stride
    radius = math.ceil(CUT * sigma)
    window = torch.arange(-radius, radius + 1, device=keypoints.device)
    cells = position.floor().long()[:, :, None] + window  # (N, 2, window)
    offset = cells + 0.5 - position[:, :, None]
    limits = torch.tensor([width, height], device=keypoints.device).view(2, 1)
    inside = (cells >= 0) & (cells < limits) & (offset.abs() <= CUT * sigma)
    values = torch.exp(offset.square() / (-2 * sigma**2)) * inside
    cells = torch.minimum(cells.clamp(min=0), limits - 1)  # cells outside carry zero, which never is the largest
    row = (image * joints + joint)[:, None] * height + cells[:, 1]
    flat = row[:, :, None] * width + cells[:, None, 0]
    peaks = values[:, 1, :, None] * values[:, 0, None, :]
    maps.scatter_reduce_(0, flat.flatten(), peaks.flatten(), "amax")
    return maps.view(count, joints, height, width)


def tag_cells(keypoints: Tensor, size: tuple[int, int], stride: float = 4) -> tuple[Tensor, Tensor]:
    """The cell of the tag map that holds each joint, and whether there is one; arguments as of `heatmaps`.

    Cells are (B, P, J) int64, row × w + column, 0 where invalid; valid are (B, P, J) bool: labelled and on the map.
    """
    height, width = size
    column, row = (keypoints[..., :2].float() / stride).floor().long().unbind(-1)
    valid = (keypoints[..., 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return (row * width + column) * valid, valid


def heatmap_loss(prediction: Tensor, target: Tensor, mask: Tensor, foreground: float = FOREGROUND) -> Tensor:
    """Mean squared error of heatmaps (B, J, h, w) with weight 1 + foreground × target.

    In a plain mean the empty background outweighs the joints, and nothing is learnt for thousands of steps. A cell
    counts by the share of the mask's, (B, H, W) of 0 and 1 and of any size, that is 1.
    """
    target, shares = target.detach().float(), mask[:, None].float()
    if shares.shape[-2:] != prediction.shape[-2:]:
        shares = F.adaptive_avg_pool2d(shares, (prediction.shape[-2], prediction.shape[-1]))
    weight = target.clamp(0, 1).mul_(foreground).add_(1).mul_(shares)
    return (weight * (prediction.float() - target).square()).mean()


def distillation_loss(prediction: Tensor, teacher: Tensor, mask: Tensor, foreground: float = FOREGROUND) -> Tensor:
    """`heatmap_loss` with a teacher's heatmaps (B, J, h', w') as target, resized bilinearly to the prediction."""
    teacher = teacher.detach().float()
    if teacher.shape[-2:] != prediction.shape[-2:]:
        teacher = F.interpolate(teacher, size=prediction.shape[-2:], mode="bilinear", align_corners=False)
    return heatmap_loss(prediction, teacher, mask, foreground)


def tag_loss(tags: Tensor, keypoints: Tensor, stride: float = 4) -> tuple[Tensor, Tensor]:
    """Push and pull of associative embedding (Newell et al., 2017, as HigherHRNet weighs them).

    A person's reference is the mean of the tags at its labelled joints. Pull: the mean over people of the mean squared
    deviation from it. Push: half the mean over ordered pairs of different people of exp(-(difference of references)²).
    Images without people give 0 and count in the mean over the batch.

    Args:
        tags: (B, J, h, w), cells of `stride` input pixels.
        keypoints: (B, P, J, 3) x, y in input pixels, visibility.

    Returns (push, pull), scalars.
    """
    count, joints, height, width = tags.shape
    people = keypoints.shape[1]
    cells, valid = tag_cells(keypoints, (height, width), stride)
    flat = tags.reshape(count, joints, height * width)
    read = flat.gather(2, cells.transpose(1, 2)).transpose(1, 2).float().masked_fill(~valid, 0)  # (B, P, J)
    labelled = valid.sum(2).clamp(min=1)
    mean = read.sum(2) / labelled  # (B, P)
    spread = ((read - mean[..., None]).square() * valid).sum(2) / labelled
    present = valid.any(2)
    number = present.sum(1)  # (B,)
    pull = (spread.sum(1) / number.clamp(min=1)).mean()
    closeness = torch.exp(-(mean[:, :, None] - mean[:, None, :]).square())
    different = ~torch.eye(people, dtype=torch.bool, device=tags.device)
    pairs = present[:, :, None] & present[:, None, :] & different
    push = 0.5 * ((closeness * pairs).sum((1, 2)) / (number * (number - 1)).clamp(min=1)).mean()
    return push, pull
