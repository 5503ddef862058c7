"""BatchNorm recalibration: weight sharing spoils running statistics, so a subnet gets its own before evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import closing

import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.loader import clean_batches, normalise
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.process import map_ahead

CALIBRATION_BATCH = 16
CALIBRATION_IMAGES = 64


def calibration_batches(
    dataset: KeypointDataset, resolution: int, images: int, device: torch.device
) -> Iterator[Tensor]:
    """Normalised batches (B, 3, R, R) of a fixed random choice of `images` training images, not augmented."""
    chosen = dataset.draw(images, "calibrate").tolist()
    for batch in clean_batches(dataset, resolution, CALIBRATION_BATCH, chosen):
        yield normalise(batch.images.to(device)).contiguous(memory_format=torch.channels_last)


def recalibrate(net: nn.Module, batches: Iterable[Tensor], streams: int = 1) -> None:
    """Reset every BatchNorm's statistics and average them over `batches`; the net is left in eval mode.

    Args:
        batches: normalised training images (B, 3, H, W), on the net's device. With no batch nothing changes.
        streams: how many batches are computed at once. The result does not depend on it; it does on torch's number
            of threads, which sum a batch in parts.
    """
    net.eval()
    total: list[tuple[Tensor, Tensor]] = []
    count = 0
    with closing(map_ahead(lambda images: _statistics(net, images), batches, streams, streams)) as found:
        for statistics in found:
            count += 1
            total = [(a + c, b + d) for (a, b), (c, d) in zip(total, statistics, strict=True)] if total else statistics
    for norm, (mean, variance) in zip(_norms(net), total, strict=False):
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.running_mean.copy_(mean / count)
        norm.running_var.copy_(variance / count)
        norm.num_batches_tracked.fill_(count)


def inherit(
    supernet: Supernet, spec: ArchSpec, train: KeypointDataset, device: torch.device, images: int = CALIBRATION_IMAGES
) -> LitePose:
    """The subnet `spec` of a supernet with statistics of its own, from so many training images; in eval mode."""
    net = extract(supernet.to(device), spec)
    recalibrate(net, calibration_batches(train, spec.resolution, images, device))
    return net


@torch.no_grad()
def _statistics(net: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance, in float64, of what reaches each BatchNorm when every one normalises with its own."""
    net = copy.deepcopy(net)  # a net holds room for the statistics of one batch
    norms = _norms(net)
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = 1.0  # the batch alone
    net(images)
    return [(norm.running_mean.double(), norm.running_var.double()) for norm in norms]  # type: ignore[union-attr]


def _norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
