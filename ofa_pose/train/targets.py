"""What a network should say about labelled people: Gaussian heatmaps, and the cells where tags are read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CUT = 4.0  # in sigmas: beyond it a Gaussian is below 3.4e-4 and is left at zero


def heatmaps(keypoints: Tensor, size: tuple[int, int], stride: float, sigma: float = 2.0) -> Tensor:
    """Target heatmaps: at each cell the largest of the people's Gaussians, exact to the joints' sub-cell positions.

    Args:
        keypoints: (B, P, J, 3) x, y in input pixels, visibility (0: gives nothing).
        size: (h, w) of the map in cells.
        stride: input pixels a cell.
        sigma: in cells.

    Returns:
        (B, J, h, w) float32: exp(-d² / 2 sigma²) for a cell centre d cells off the joint, 0 beyond `CUT` sigmas in
        x or in y.
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
    """The cell of the tag map that holds each joint.

    Args:
        keypoints: (B, P, J, 3) x, y in input pixels, visibility.
        size: (h, w) of the tag map in cells.
        stride: input pixels a cell.

    Returns:
        cells: (B, P, J) int64, row × w + column; 0 where invalid.
        valid: (B, P, J) bool: labelled and on the map.
    """
    height, width = size
    column, row = (keypoints[..., :2].float() / stride).floor().long().unbind(-1)
    valid = (keypoints[..., 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return (row * width + column) * valid, valid
