"""Training targets and losses of heatmaps, tags and distillation: means over a batch's images, in float32 at least."""

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
    labelled = (keypoints[..., 2] > 0).flatten()
    number = torch.arange(len(labelled), device=keypoints.device)
    if keypoints.device.type == "cpu":  # elsewhere who asks how many are labelled waits for the device
        number = number[labelled]
    image, joint = number // (keypoints.shape[1] * joints), number % joints
    position = keypoints.reshape(-1, 3)[number, :2].float() / stride
    radius = math.ceil(CUT * sigma)
    window = torch.arange(-radius, radius + 1, device=keypoints.device)
    cells = position.floor().long()[:, :, None] + window  # (N, 2, window)
    offset = cells + 0.5 - position[:, :, None]
    nearest = torch.stack([cells[:, 0].clamp(0, width - 1), cells[:, 1].clamp(0, height - 1)], 1)
    inside = (cells == nearest) & (offset.abs() <= CUT * sigma) & labelled[number, None, None]
    values = torch.exp(offset.square() / (-2 * sigma**2))
    values = values.masked_fill(~inside, 0)  # zero never is the largest
    row = (image * joints + joint)[:, None] * height + nearest[:, 1]
    flat = row[:, :, None] * width + nearest[:, None, 0]
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
    return (weight * (_exact(prediction) - target).square()).mean()


def _exact(values: Tensor) -> Tensor:
    """In float32 at least, whatever the network computes in."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


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
    read = _exact(flat.gather(2, cells.transpose(1, 2))).transpose(1, 2).masked_fill(~valid, 0)  # (B, P, J)
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
