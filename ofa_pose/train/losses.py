"""Training losses: weighted heatmap errors, associative embedding of the tags, distillation from a teacher.

All are computed in float32 whatever the maps' type, and give one number, the mean over the batch's images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.train.targets import tag_cells

FOREGROUND = 30.0


def heatmap_loss(prediction: Tensor, target: Tensor, mask: Tensor, foreground: float = FOREGROUND) -> Tensor:
    """Mean squared error of heatmaps with weight 1 + foreground × target under a mask.

    A plain mean is dominated by the empty background, and nothing is learnt for thousands of steps.

    Args:
        prediction, target: (B, J, h, w).
        mask: (B, H, W) of 0 and 1, of any size; a cell counts by the share of it that is 1 (average pooling).
        foreground: the extra weight at a target's peak.
    """
    target = target.detach().float()
    weight = target.clamp(0, 1).mul_(foreground).add_(1).mul_(_mask_like(mask, prediction))
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
        tags: (B, J, h, w).
        keypoints: (B, P, J, 3) x, y in input pixels, visibility.
        stride: input pixels a cell of the tag map.

    Returns:
        (push, pull), scalars.
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


def _mask_like(mask: Tensor, maps: Tensor) -> Tensor:
    """(B, H, W) as (B, 1, h, w) float32: the share of each cell that counts."""
    shares = mask[:, None].float()
    if shares.shape[-2:] != maps.shape[-2:]:
        shares = F.adaptive_avg_pool2d(shares, (maps.shape[-2], maps.shape[-1]))
    return shares
