"""What one training step minimises: a fixed net, a supernet's sampled subnet, or a student under a teacher."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE
from ofa_pose.recipe import LossSettings
from ofa_pose.train.losses import distillation_loss, heatmap_loss, heatmaps, tag_loss
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
    """Heatmap losses of low (B, 2J, R/4, R/4) and high (B, J, R/2, R/2), and push and pull of the tags."""
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
        low, high = self.network(normalise(batch.images, self.network.dtype))
        return label_losses(low, high, batch, self._settings)


class UniformSampling:
    """A supernet learns from labels, one uniformly sampled subnet and resolution a step."""

    def __init__(self, supernet: Supernet, seed: int, settings: LossSettings) -> None:
        self.network, self._seed, self._settings = supernet, seed, settings

    def subnet(self, step: int) -> ArchSpec:
        """The subnet of a step, resolution included: uniform over every choice."""
        space = self.network.space
        return space.decode(space.sample(generator(self._seed, "subnet", step)), self.network.spec.joints)

    def resolution(self, step: int) -> int:
        """The resolution of the step's subnet."""
        return self.subnet(step).resolution

    def loss(self, batch: Batch, step: int) -> Losses:
        """The sampled subnet's losses against the labels."""
        low, high = self.network(normalise(batch.images, self.network.dtype), self.subnet(step))
        return label_losses(low, high, batch, self._settings)


class Distillation(FixedNet):
    """A student learns heatmaps from labels and a teacher's heatmaps, and tags, which are relative, from labels alone.

    The teacher sees the same crops at its own resolution; its heatmaps are resized to the student's.
    """

    def __init__(
        self, net: LitePose, resolutions: tuple[int, ...], seed: int, settings: LossSettings, teacher: LitePose
    ) -> None:
        super().__init__(net, resolutions, seed, settings)
        self._teacher = teacher.eval().requires_grad_(False)

    def loss(self, batch: Batch, step: int) -> Losses:
        """Labels' heatmap losses weighted 1 - distill, the teacher's weighted distill, and the tags' losses."""
        images, settings = normalise(batch.images, self.network.dtype), self._settings
        low, high = self.network(images)
        teacher_low, teacher_high = self._teach(images)
        losses, joints = label_losses(low, high, batch, settings), high.shape[1]
        pairs = {"low": (low[:, :joints], teacher_low[:, :joints]), "high": (high, teacher_high)}
        for name, (own, taught) in pairs.items():
            weight = settings.distill * (settings.high if name == "high" else 1.0)
            losses[name] = (1 - settings.distill) * losses[name]
            losses[f"teacher_{name}"] = weight * distillation_loss(own, taught, batch.mask, settings.foreground)
        return losses

    @torch.no_grad()
    def _teach(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = self._teacher.spec.resolution
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return self._teacher(images)
