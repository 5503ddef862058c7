"""BatchNorm recalibration: weight sharing spoils running statistics, so a subnet gets its own before it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ofa_pose.data.coco import KeypointDataset
from ofa_pose.data.loader import clean_batches, normalise
from ofa_pose.seeding import generator

CALIBRATION_BATCH = 16


def calibration_batches(
    dataset: KeypointDataset, resolution: int, images: int, device: torch.device
) -> Iterator[Tensor]:
    """Normalised batches (B, 3, R, R) of a fixed random choice of `images` training images, not augmented."""
    order = generator("calibrate").permutation(len(dataset))[:images]
    for batch in clean_batches(dataset, resolution, CALIBRATION_BATCH, order.tolist()):
        yield normalise(batch.images.to(device)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def recalibrate(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Reset every BatchNorm's statistics and average them over `batches`; the net is left in eval mode.

    Args:
        batches: normalised training images (B, 3, H, W), on the net's device. With no batch nothing changes.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    first = True
    net.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # a plain average over the batches
    try:
        for images in batches:
            if first:
                for norm in norms:
                    norm.reset_running_stats()
            first = False
            net(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
