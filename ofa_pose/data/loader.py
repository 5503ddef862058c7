"""Batches for training, each a pure function of (seed, step), so that a run resumes at any step to the last bit."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.transforms import Augmentation, Sample, clean_sample, training_sample
from ofa_pose.utils.console import say
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.process import check_shared_memory, end_with, sharers
from ofa_pose.utils.seeding import generator

SHARED_MEMORY = Path("/dev/shm")
READING_S = 600.0  # a process that takes longer for a batch hangs
ENDS_S = 10.0  # in which what works has ended
CHECK_S = 5.0  # how often it is seen whether the processes live, whose death raises an error that may have been lost
AHEAD = 2  # batches that each process has ready
LOOKED_AT = 100  # steps whose resolutions say how large a batch is
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
) -> Generator[Batch, None, None]:
    """The augmented batches of steps first_step … steps - 1.

    Args:
        batch: samples a step of this process.
        resolution_of_step: a pure function of the step, multiples of 2.
        workers: processes that prepare samples; 0 prepares them here. The batches are the same for any number.
        rank, world: this process among those that share each step.
        background: share of the samples that come from `dataset.background`, spread evenly; without such images none.

    Raises:
        InputError: no image has a labelled person; or one is missing, damaged or of another size than annotated.
        OfaPoseError: in `worker_faults`, where a process dies or hangs.
    """
    if not dataset.people:
        raise InputError("no person has a labelled joint", dataset.annotations_path, "label some, or name another file")
    order = lru_cache(maxsize=2)(partial(epoch_order, len(dataset), seed))  # a batch spans two epochs
    empty = None
    if background and (count := len(dataset.background)):
        empty_order = lru_cache(maxsize=2)(partial(epoch_order, count, seed, purpose="background order"))
        empty = BackgroundOrder(background, count, empty_order)

    def keys_of(step: int) -> list[SampleKey]:
        side = resolution_of_step(step)
        return [(*key, side) for key in step_keys(len(dataset), batch, step, order, rank, world, empty)]

    ahead = 0
    if workers and first_step < steps:
        side = max(map(resolution_of_step, range(first_step, min(steps, first_step + LOOKED_AT))))
        ahead = batches_ahead(batch * side * side * 13 // 4, workers)
    keys = map(keys_of, range(first_step, steps))
    yield from _load(_Samples(dataset, seed, augmentation), keys, workers, pin_memory, ahead)


def batches_ahead(size: int, workers: int, free: int | None = None) -> int:
    """How many batches each of some processes may have ready in shared memory; 0: they are sent through pipes.

    What is not as usual is said in a line: a container often has 64 MB, and a write beyond that would end a process.

    Args:
        size: bytes of a batch.
        free: bytes of shared memory; default: this process's share of those that there are.
    """
    if free is None:
        if not SHARED_MEMORY.is_dir():
            return AHEAD
        found = os.statvfs(SHARED_MEMORY)
        free = found.f_bavail * found.f_frsize // sharers()
    for ahead in range(AHEAD, 0, -1):
        if (workers * ahead + 2) * size <= free:  # one is in use, and the one before it may be
            break
    else:
        ahead = 0
    if ahead < AHEAD:
        instead = "fewer are prepared ahead" if ahead else "they come through pipes, which takes longer"
        held = f"{free / 2**20:.0f} MB free, too little for {workers} processes' batches of {size / 2**20:.1f} MB"
        say(f"{SHARED_MEMORY}: {held}: {instead} (docker run --shm-size, or lower train.workers or train.batch)")
    return ahead


def worker_context(workers: int) -> BaseContext | None:
    """What so many processes that read images come from. Raises InputError where they could share no memory."""
    if not workers:
        return None
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)  # see `end_with`
    check_shared_memory(context, "set train.workers=0")
    return context


@contextmanager
def worker_faults(go_on: str = "") -> Iterator[None]:
    """What befalls the processes of `training_batches` raises OfaPoseError in it, whatever is computed just then.

    Args:
        go_on: how to go on, which the message says.
    """
    try:
        yield
    except Exception as error:
        text = str(error).strip()
        if isinstance(error, RuntimeError) and text.startswith("DataLoader timed out"):
            what = f"no batch came from the processes that read images for {READING_S:g} s"
        elif isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
            what = f"a process that reads images died ({text.splitlines()[0].rstrip('. ')}): killed, or out of memory"
        elif isinstance(error, RuntimeError) and "ancdata" in text:
            what = "too many files are open (ulimit -n) for the batches of the processes that read images"
        elif text.startswith("Caught ") and "in DataLoader worker process" in text:
            what = f"a process that reads images failed ({text.splitlines()[-1]})"
        else:
            raise
        hint = go_on or "go on with --resume"
        raise OfaPoseError(f"{what}; lower train.workers or train.batch, then {hint}") from None


def clean_batches(dataset: KeypointDataset, resolution: int, batch: int, indices: Sequence[int]) -> Iterator[Batch]:
    """Batches of the images' centre squares, without augmentation, in the order of `indices`.

    For recalibrating BatchNorm. The last batch may be smaller.
    """
    keys = (
        [(CLEAN, int(index), resolution) for index in indices[first : first + batch]]
        for first in range(0, len(indices), batch)
    )
    yield from _load(_Samples(dataset, 0, Augmentation()), keys)


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


def _load(
    samples: _Samples,
    keys: Iterator[list[SampleKey]],
    workers: int = 0,
    pin_memory: bool = False,
    ahead: int = 0,
) -> Iterator[Batch]:
    loader: DataLoader[Sample | InputError] = DataLoader(
        samples,
        batch_sampler=keys,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=ahead or AHEAD if workers else None,
        collate_fn=_Sender(in_memory=ahead > 0),
        pin_memory=pin_memory,
        timeout=min(CHECK_S, READING_S) if workers else 0,
        multiprocessing_context=worker_context(workers),
        worker_init_fn=partial(_start_worker, os.getpid()),
        generator=torch.Generator(),  # the loader draws a seed that nobody uses; not from the global stream
    )
    with record_function(""):  # its first use imports more, and logs any error then, that of a worker's death too
        batches = iter(loader)
    try:
        while (batch := _awaited(batches)) is not None:
            if isinstance(batch, InputError):
                raise batch
            yield batch.unpacked() if isinstance(batch, _Packed) else batch
    except (ConnectionError, EOFError, FileNotFoundError) as error:  # killed while its batch was fetched
        raise RuntimeError(f"DataLoader worker is gone: {error}") from error
    finally:  # not when the last traceback that knows of it goes
        if workers:
            _end(batches)


def _end(batches: Any) -> None:
    """End a loader's processes. torch only asks them to end, and first waits for its thread that pins, however long.

    That thread never ends where a process was killed in the midst of a batch that it sent.
    """
    if pinning := getattr(batches, "_pin_memory_thread", None):
        pinning.join = partial(pinning.join, ENDS_S)
    try:
        batches._shutdown_workers()
    finally:
        for worker in batches._workers:  # the interpreter would wait for them at its end
            worker.kill()
            worker.join(ENDS_S)


def _awaited(batches: Iterator[Any]) -> Any:
    """The next of a loader's batches; None after the last. Raises RuntimeError where none comes for `READING_S`."""
    until = time.monotonic() + READING_S
    while True:
        try:
            return next(batches, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out") or time.monotonic() >= until:
                raise


def _start_worker(parent: int, _worker: int) -> None:
    end_with(parent)
    sys.excepthook = lambda *_: None  # of a thread whose batch nobody fetches any more; samples' errors are sent
    cv2.setNumThreads(0)  # OpenCV's threads do not outlive a fork
    torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class _Packed:
    """A `Batch` on its way through a pipe; images are (B, R, R, 3) here."""

    images: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    mask: NDArray[np.uint8]

    def unpacked(self) -> Batch:
        images, keypoints, mask = map(torch.from_numpy, (self.images, self.keypoints, self.mask))
        return Batch(images.permute(0, 3, 1, 2), keypoints, mask, images.shape[1])


class _Sender:
    """Makes batches of samples; in another process in shared memory, or packed once that has no room for one."""

    def __init__(self, in_memory: bool) -> None:
        self._in_memory = in_memory

    def __call__(self, samples: Sequence[Sample | InputError]) -> Batch | _Packed | InputError:
        packed = _collate(samples)
        if isinstance(packed, InputError):
            return packed
        batch = packed.unpacked()
        if get_worker_info() is None:
            return batch
        try:  # here: where torch's queue does it, what goes wrong reaches nobody
            for tensor in (batch.images, batch.keypoints, batch.mask) if self._in_memory else ():
                tensor.share_memory_()
        except (RuntimeError, OSError):
            self._in_memory = False
        return batch if self._in_memory else packed


def _collate(samples: Sequence[Sample | InputError]) -> _Packed | InputError:
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
    return _Packed(np.stack([sample.image for sample in valid]), keypoints, np.stack([sample.mask for sample in valid]))
