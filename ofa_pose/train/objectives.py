"""What one training step minimises: a fixed net, a supernet's sampled subnet, or a student under a teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE
from ofa_pose.recipe import LossSettings
from ofa_pose.train.losses import distillation_loss, heatmap_loss, heatmaps, tag_loss
from ofa_pose.utils.seeding import generator

Losses = dict[str, Tensor]


class Objective(Protocol):
    """A training objective. `loss` gives named parts whose sum is minimised."""

    @property
    def network(self) -> PoseNet:
        """The network whose parameters are trained."""

    def resolution(self, step: int) -> int:
        """The input side of step `step`, in pixels; a pure function of the step."""

    def loss(self, batch: Batch, step: int) -> Losses | Iterable[Losses]:
        """The parts of the loss on a batch made at `resolution(step)`.

        Several dicts, of as many forward passes, are minimised in sum: each is backpropagated before the next is asked
        for, so that a generator never holds more than one pass in memory.
        """


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


def student_losses(
    maps: tuple[Tensor, Tensor], taught: tuple[Tensor, Tensor], batch: Batch, settings: LossSettings
) -> Losses:
    """Heatmap losses of (low, high) against labels, weighted 1 - distill, and a teacher's, distill; tags from labels.

    Tags are relative: a teacher's say nothing. Shapes as of `label_losses`; the teacher's maps may have another size,
    and learn nothing.
    """
    losses, joints = label_losses(*maps, batch, settings), maps[1].shape[1]
    for name, weight, own, theirs in zip(("low", "high"), (1.0, settings.high), maps, taught, strict=True):
        loss = distillation_loss(own[:, :joints], theirs[:, :joints], batch.mask, settings.foreground)
        losses[name] = (1 - settings.distill) * losses[name]
        losses[f"teacher_{name}"] = settings.distill * weight * loss
    return losses


class FixedNet:
    """A net of fixed shape learns from labels, at one resolution or at several, drawn uniformly each step."""

    def __init__(self, net: PoseNet, resolutions: tuple[int, ...], seed: int, settings: LossSettings) -> None:
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


class SandwichSampling(UniformSampling):
    """Each step trains the largest net, the smallest and `count` random subnets, at one resolution on one batch.

    The sandwich rule with in-place distillation (Yu and Huang, Universally Slimmable Networks, ICCV 2019; Yu et al.,
    BigNAS, ECCV 2020), but that the others, which are its slices, learn heatmaps from labels as well as from the
    largest's: while those are weak, to learn from them alone draws all of them down. Their losses are added up.
    """

    def __init__(self, supernet: Supernet, seed: int, settings: LossSettings, count: int) -> None:
        super().__init__(supernet, seed, settings)
        self._count = count

    def subnets(self, step: int) -> list[ArchSpec]:
        """The subnets of a step: largest, smallest, then the random ones, the first of which is uniform sampling's.

        All have the resolution of that one.
        """
        space, joints = self.network.space, self.network.spec.joints
        rng = generator(self._seed, "subnet", step)
        drawn = [space.decode(space.sample(rng), joints) for _ in range(self._count)]
        ends = [space.largest(joints), space.smallest(joints)]
        return [replace(spec, resolution=drawn[0].resolution) for spec in (*ends, *drawn)]

    def loss(self, batch: Batch, step: int) -> Iterator[Losses]:  # type: ignore[override]
        """The losses of one subnet after another, the largest's first."""
        images, settings = normalise(batch.images, self.network.dtype), self._settings
        largest, *others = self.subnets(step)
        low, high = self.network(images, largest)
        taught = low.detach(), high.detach()
        yield label_losses(low, high, batch, settings)
        for spec in others:
            yield student_losses(self.network(images, spec), taught, batch, settings)


class Distillation(FixedNet):
    """A student learns heatmaps from labels and a teacher's heatmaps, and tags, which are relative, from labels alone.

    The teacher sees the same crops at its own resolution; its heatmaps are resized to the student's.
    """

    def __init__(
        self, net: PoseNet, resolutions: tuple[int, ...], seed: int, settings: LossSettings, teacher: PoseNet
    ) -> None:
        super().__init__(net, resolutions, seed, settings)
        self._teacher = teacher.eval().requires_grad_(False)

    def loss(self, batch: Batch, step: int) -> Losses:
        """Labels' heatmap losses weighted 1 - distill, the teacher's weighted distill, and the tags' losses."""
        images, settings = normalise(batch.images, self.network.dtype), self._settings
        return student_losses(self.network(images), self._teach(images), batch, settings)

    @torch.no_grad()
    def _teach(self, images: Tensor) -> tuple[Tensor, Tensor]:
        side = self._teacher.spec.resolution
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return self._teacher(images)
