"""Batches for training, each a pure function of (seed, step), so that a run resumes at any step to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.transforms import Augmentation, Sample, clean_sample, training_sample
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.seeding import generator

CLEAN = -1  # the epoch of a sample without augmentation

SampleKey: TypeAlias = tuple[int, int, int]
"""(epoch, image index, resolution): with the seed, all that decides a sample."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one resolution R.

    Attributes:
        images: (B, 3, R, R) uint8 RGB, channels last in memory.
        keypoints: (B, P, J, 3) float32: x, y in input pixels, visibility; padded with people that are all zeros.
        mask: (B, R/2, R/2) uint8: 1 where the loss counts.
        resolution: R.
    """

    images: Tensor
    keypoints: Tensor
    mask: Tensor
    resolution: int

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; asynchronous where it is pinned."""
        images, keypoints, mask = (
            tensor.to(device, non_blocking=True) for tensor in (self.images, self.keypoints, self.mask)
        )
        return Batch(images, keypoints, mask, self.resolution)

    def parts(self, count: int) -> list[Batch]:
        """The samples in their order, in so many equal parts. `count` divides B."""
        images, keypoints, masks = (tensor.chunk(count) for tensor in (self.images, self.keypoints, self.mask))
        return [Batch(*part, self.resolution) for part in zip(images, keypoints, masks, strict=True)]

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory (the DataLoader calls this)."""
        return Batch(self.images.pin_memory(), self.keypoints.pin_memory(), self.mask.pin_memory(), self.resolution)


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 RGB (B, 3, H, W) as network input: ImageNet's mean taken off, over its deviation; keeps memory format."""
    mean, std = _colours(images.device)
    return ((images - mean) / std).to(dtype)


@lru_cache
def _colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of 0 to 255, (3, 1, 1); kept, as each copy to a device would wait for its work."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (MEAN, STD))
        return mean.mul_(255).view(3, 1, 1), std.mul_(255).view(3, 1, 1)


def epoch_order(images: int, seed: int, epoch: int, purpose: str = "order") -> NDArray[np.int64]:
    """The order in which an epoch goes through the images, each once."""
    return generator(seed, purpose, epoch).permutation(images)


@dataclass(frozen=True)
class BackgroundOrder:
    """Images without people among the samples of a training.

    Attributes:
        share: of all samples; below 1.
        images: how many there are.
        order: that in which an epoch goes through them.
    """

    share: float
    images: int
    order: Callable[[int], NDArray[np.int64]]

    def before(self, number: int) -> int:
        """How many of the first `number` samples they are."""
        return int(number * self.share)


def step_keys(
    images: int,
    batch: int,
    step: int,
    order: Callable[[int], NDArray[np.int64]],
    rank: int = 0,
    world: int = 1,
    background: BackgroundOrder | None = None,
) -> list[tuple[int, int]]:
    """(epoch, image index) of each sample that process `rank` of `world` takes at a step.

    Each epoch goes through the images in its `order`; a batch may span two epochs. The processes' parts of a step, in
    the order of rank, are what one process with a batch of batch × world would take.

    Args:
        background: puts images of its own among them, evenly, whose indices follow those of `images`.
    """
    first, keys = (step * world + rank) * batch, []
    for number in range(first, first + batch):
        before, after = (background.before(number), background.before(number + 1)) if background else (0, 0)
        if background and after > before:
            epoch, place = divmod(before, background.images)
            keys.append((epoch, images + int(background.order(epoch)[place])))
        else:
            epoch, place = divmod(number - before, images)
            keys.append((epoch, int(order(epoch)[place])))
    return keys


def training_batches(
    dataset: KeypointDataset,
    batch: int,
    seed: int,
    resolution_of_step: Callable[[int], int],
    first_step: int,
    steps: int,
    augmentation: Augmentation,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    background: float = 0.0,
) -> Iterator[Batch]:
    """The augmented batches of steps first_step … steps - 1.

    Args:
        batch: samples a step of this process.
        resolution_of_step: a pure function of the step, multiples of 2.
        workers: processes that prepare samples; 0 prepares them here. The batches are the same for any number.
        rank, world: this process among those that share each step.
        background: share of the samples that come from `dataset.background`, spread evenly; without such images none.

    Raises:
        InputError: no image has a labelled person; or one is missing, damaged or of another size than annotated.
    """
    if not dataset.people:
        raise InputError("no person has a labelled joint", dataset.annotations_path, "label some, or name another file")
    order = lru_cache(maxsize=2)(partial(epoch_order, len(dataset), seed))  # a batch spans two epochs
    empty = None
    if background and (count := len(dataset.background)):
        empty_order = lru_cache(maxsize=2)(partial(epoch_order, count, seed, purpose="background order"))
        empty = BackgroundOrder(background, count, empty_order)
    keys = (
        [
            (epoch, index, resolution_of_step(step))
            for epoch, index in step_keys(len(dataset), batch, step, order, rank, world, empty)
        ]
        for step in range(first_step, steps)
    )
    yield from _load(_Samples(dataset, seed, augmentation), keys, workers, pin_memory)


def clean_batches(
    dataset: KeypointDataset, resolution: int, batch: int, indices: Sequence[int], workers: int = 0
) -> Iterator[Batch]:
    """Batches of the images' centre squares, without augmentation, in the order of `indices`.

    For recalibrating BatchNorm. The last batch may be smaller.
    """
    keys = (
        [(CLEAN, int(index), resolution) for index in indices[first : first + batch]]
        for first in range(0, len(indices), batch)
    )
    yield from _load(_Samples(dataset, 0, Augmentation()), keys, workers, False)


class _Samples(Dataset[Sample | InputError]):
    """Samples by key. Holds only records, so that worker processes share no more than they read."""

    def __init__(self, dataset: KeypointDataset, seed: int, augmentation: Augmentation) -> None:
        self._images, self._skeleton = dataset.images + dataset.background, dataset.skeleton
        self._seed, self._augmentation = seed, augmentation

    def __getitem__(self, key: SampleKey) -> Sample | InputError:
        epoch, index, resolution = key
        try:
            if epoch == CLEAN:
                return clean_sample(self._images[index], resolution, self._skeleton)
            how = (resolution, self._skeleton, self._augmentation)
            return training_sample(self._seed, epoch, index, self._images[index], *how)
        except InputError as error:  # for the main process as it is, not as a worker's traceback
            return error


def _load(samples: _Samples, keys: Iterator[list[SampleKey]], workers: int, pin_memory: bool) -> Iterator[Batch]:
    loader: DataLoader[Sample | InputError] = DataLoader(
        samples,
        batch_sampler=keys,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_single_threaded,
        generator=torch.Generator(),  # the loader draws a seed that nobody uses; not from the global stream
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _single_threaded(_worker: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's threads do not outlive a fork
    torch.set_num_threads(1)


def _collate(samples: Sequence[Sample | InputError]) -> Batch | InputError:
    valid: list[Sample] = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        valid.append(sample)
    people = max(len(sample.keypoints) for sample in valid)
    joints = valid[0].keypoints.shape[1]
    keypoints = np.zeros((len(valid), people, joints, 3), np.float32)
    for row, sample in zip(keypoints, valid, strict=True):
        row[: len(sample.keypoints)] = sample.keypoints
    images = torch.from_numpy(np.stack([sample.image for sample in valid]))
    mask = torch.from_numpy(np.stack([sample.mask for sample in valid]))
    return Batch(images.permute(0, 3, 1, 2), torch.from_numpy(keypoints), mask, images.shape[1])
