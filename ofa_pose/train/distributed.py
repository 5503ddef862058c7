"""The processes that share a training, as torchrun starts them: who they are, and what they exchange."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ofa_pose.recipe import TrainSettings
from ofa_pose.utils.errors import FailedElsewhere, InputError, OfaPoseError
from ofa_pose.utils.process import exchange, place

LONGEST_WAIT = timedelta(hours=2)  # of processes for each other: the first calibrates while the others wait
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # the first process has one for the others, new at each start
BUCKET = 1 << 25  # bytes that are exchanged at once

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and this one among them; a single one exchanges nothing.

    What they exchange fails with OfaPoseError where one of them has ended.

    Attributes:
        rank: which this is, from 0; the first one logs, writes and speaks.
        world: how many there are.
        local_rank: which this is on its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def here(cls) -> Processes:
        """Those of which torchrun started this one. Raises InputError as `place`."""
        return cls(*place())

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def own_device(self, device: torch.device) -> torch.device:
        """The device of this process: of a machine's GPUs each process takes its own.

        Raises InputError where a GPU is named, which all would share, or there are too few.
        """
        if self.world == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            what = f"all processes would share the device '{device}'"
            raise InputError(what, hint="write --device cuda, or leave it out: each process takes a GPU of its own")
        if self.local_rank >= (count := torch.cuda.device_count()):
            what = f"more processes were started than there are GPUs here ({count})"
            raise InputError(what, hint=f"start {count} (torchrun --nproc-per-node), or add --device cpu")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def share_of_batch(self, settings: TrainSettings) -> int:
        """Images of a step that this process takes. Raises InputError where the batch has no such equal parts."""
        parts = self.world * settings.accumulate
        if settings.batch % parts:
            below, ways = settings.batch // parts * parts, f"{self.world} processes × train.accumulate"
            what = f"train.batch {settings.batch} has no {parts} equal parts ({ways} {settings.accumulate})"
            raise InputError(what, hint=f"make it {f'{below} or ' if below else ''}{below + parts}")
        return settings.batch // self.world

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place; all must give the same shapes, in order."""
        if self.world > 1:
            _in_buckets(tensors, self._average_flat)

    def _average_flat(self, flat: Tensor) -> None:
        dist.all_reduce(flat)
        flat.div_(self.world)

    @torch.no_grad()
    def take_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the first process's, in place."""
        if self.world > 1:
            _in_buckets(tensors, lambda flat: dist.broadcast(flat, 0))

    def interleave(self, items: list[T]) -> list[T]:
        """All processes' items: the first of each, in the order of rank, then the second of each, and so on."""
        if self.world == 1:
            return items
        gathered: list[list[tuple[T]]] = [[] for _ in range(self.world)]
        with exchange():
            dist.all_gather_object(gathered, [(item,) for item in items])
        return [found[0] for found in chain.from_iterable(zip_longest(*gathered)) if found]

    def highest(self, number: int) -> int:
        """The highest of all processes' numbers; no device is waited for."""
        if self.world == 1:
            return number
        found = torch.tensor([number])
        with exchange():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def agree(self, number: int) -> bool:
        """Whether all processes have the same number; none goes on before all have come here."""
        return self.highest(number) == -self.highest(-number)

    def of_first(self, value: T) -> T:
        """The first process's value; the others wait for it."""
        if self.world == 1:
            return value
        values = [value]
        with exchange():
            dist.broadcast_object_list(values, 0)
        return values[0]


def _in_buckets(tensors: Sequence[Tensor], change: Callable[[Tensor], object]) -> None:
    """Let `change` exchange the tensors' values in place, those of a bucket (N,) at once."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        with exchange():
            change(flat)
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, neighbours of one type together, up to `BUCKET` bytes."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and (held >= BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.nbytes
    if bucket:
        yield bucket


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, as long as the work goes on.

    Where it fails, the process that does so first raises its error, the others `FailedElsewhere`.

    Raises:
        InputError: the processes do not meet where the environment says.
    """
    processes = Processes.here()
    if processes.world == 1 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, world = next(dist.rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        hint = "start them with torchrun"
        if _restarts() != "0":  # its own store still holds the addresses of processes that have ended
            hint = f"torchrun's --max-restarts takes {OWN_STORE}=1 in its environment"
        raise InputError(f"the processes cannot meet ({error})", hint=hint) from None
    try:
        yield
    except (OfaPoseError, OSError, KeyboardInterrupt) as error:
        if _is_first_to_fail(store, processes.rank):
            raise
        raise FailedElsewhere(getattr(error, "exit_code", 1)) from None
    finally:
        dist.destroy_process_group()


def _restarts() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _is_first_to_fail(store: dist.Store, rank: int) -> bool:
    """Whether no other process of this attempt has failed before. The store is gone where the first one is."""
    key, own = f"ofa-pose failed {_restarts()}", str(rank)
    try:
        return bool(store.compare_set(key, "", own).decode() == own)
    except RuntimeError:
        return True
