"""What one training step minimises: a fixed net, a supernet's sampled subnet, or a student under a teacher.

The loop knows an objective only by `network`, `resolution(step)` and `loss(batch, step)`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE
from ofa_pose.recipe import LossSettings
from ofa_pose.train.losses import distillation_loss, heatmap_loss, tag_loss
from ofa_pose.train.targets import heatmaps
from ofa_pose.utils.seeding import generator

Losses = dict[str, Tensor]


class Objective(Protocol):
    """A training objective. `loss` returns named parts whose sum is minimised."""

    @property
    def network(self) -> LitePose:
        """The network whose parameters are trained."""

    def resolution(self, step: int) -> int:
        """The input side of step `step`, in pixels; a pure function of the step."""

    def loss(self, batch: Batch, step: int) -> Losses:
        """The parts of the loss on a batch made at `resolution(step)`."""


def label_losses(low: Tensor, high: Tensor, batch: Batch, settings: LossSettings) -> Losses:
    """Heatmap losses at both scales and push and pull of the tags, against the labels.

    Args:
        low: (B, 2J, R/4, R/4); high: (B, J, R/2, R/2).
    """
    joints = high.shape[1]
    low_target = heatmaps(batch.keypoints, (low.shape[2], low.shape[3]), LOW_STRIDE, settings.sigma)
    high_target = heatmaps(batch.keypoints, (high.shape[2], high.shape[3]), HIGH_STRIDE, settings.sigma)
    push, pull = tag_loss(low[:, joints:], batch.keypoints, LOW_STRIDE)
    return {
        "low": heatmap_loss(low[:, :joints], low_target, batch.mask, settings.foreground),
        "high": settings.high * heatmap_loss(high, high_target, batch.mask, settings.foreground),
        "push": settings.push * push,
        "pull": settings.pull * pull,
    }


class FixedNet:
    """A net of fixed shape learns from labels, at one resolution or at several, drawn uniformly each step."""

    def __init__(self, net: LitePose, resolutions: tuple[int, ...], seed: int, settings: LossSettings) -> None:
        self.network, self._resolutions, self._seed, self._settings = net, resolutions, seed, settings

    def resolution(self, step: int) -> int:
        """One of the resolutions, keyed by (seed, step)."""
        return self._resolutions[int(generator(self._seed, "resolution", step).integers(len(self._resolutions)))]

    def loss(self, batch: Batch, step: int) -> Losses:
        """The losses against the labels."""
        low, high = self.network(normalise(batch.images))
        return label_losses(low, high, batch, self._settings)


def subnet_of_step(space: SearchSpace, joints: int, seed: int, step: int) -> ArchSpec:
    """The subnet, resolution included, that a supernet trains at a step: uniform over every choice."""
    return space.decode(space.sample(generator(seed, "subnet", step)), joints)


class UniformSampling:
    """A supernet learns from labels, one uniformly sampled subnet and resolution a step."""

    def __init__(self, supernet: Supernet, seed: int, settings: LossSettings) -> None:
        self.network, self._seed, self._settings = supernet, seed, settings

    def subnet(self, step: int) -> ArchSpec:
        """The subnet of a step."""
        return subnet_of_step(self.network.space, self.network.spec.joints, self._seed, step)

    def resolution(self, step: int) -> int:
        """The resolution of the step's subnet."""
        return self.subnet(step).resolution

    def loss(self, batch: Batch, step: int) -> Losses:
        """The sampled subnet's losses against the labels."""
        low, high = self.network(normalise(batch.images), self.subnet(step))
        return label_losses(low, high, batch, self._settings)


class Distillation:
    """A student learns heatmaps from labels and from a teacher's heatmaps, and tags from labels alone.

    Tags are relative to whoever gives them, so a teacher's say nothing to a student. The teacher sees the same crops
    at its own resolution; its heatmaps are resized to the student's.
    """

    def __init__(
        self, net: LitePose, resolutions: tuple[int, ...], seed: int, settings: LossSettings, teacher: LitePose
    ) -> None:
        self._labels = FixedNet(net, resolutions, seed, settings)
        self.network, self._settings = net, settings
        self._teacher = teacher.eval().requires_grad_(False)

    def resolution(self, step: int) -> int:
        """The student's resolution."""
        return self._labels.resolution(step)

    def loss(self, batch: Batch, step: int) -> Losses:
        """Labels' heatmap losses weighted 1 - distill, the teacher's weighted distill, and the tags' losses."""
        images = normalise(batch.images)
        low, high = self.network(images)
        teacher_low, teacher_high = self._teach(images)
        share, joints = self._settings.distill, high.shape[1]
        losses = label_losses(low, high, batch, self._settings)
        losses["low"] = (1 - share) * losses["low"]
        losses["high"] = (1 - share) * losses["high"]
        foreground = self._settings.foreground
        losses["teacher_low"] = share * distillation_loss(
            low[:, :joints], teacher_low[:, :joints], batch.mask, foreground
        )
        losses["teacher_high"] = (
            share * self._settings.high * distillation_loss(high, teacher_high, batch.mask, foreground)
        )
        return losses

    @torch.no_grad()
    def _teach(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = self._teacher.spec.resolution
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return self._teacher(images)
