"""Run a network with eager torch on any device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import nn

from ofa_pose.backends.folding import NetPart
from ofa_pose.backends.inputs import check_sides
from ofa_pose.backends.on_device import Run, random_inputs
from ofa_pose.backends.runtimes import Backend
from ofa_pose.data.loader import normalise
from ofa_pose.utils.errors import InputError


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or the GPU if there is one, else the CPU. Raises InputError where it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"there is no device '{name}'", hint="use --device cpu, or leave it out") from None
    return device


class TorchRunner:
    """A `Runner` over a private copy of `net`, in eval mode and channels_last (twice as fast on CPUs)."""

    def __init__(
        self, net: nn.Module, device: torch.device | str = "cpu", streams: int | None = None, threads: int = 0
    ) -> None:
        """
        Args:
            streams: how many calls are meant to be made at once; default: as is best.
            threads: of one call on a CPU; 0: as many as torch has. Torch has one number of threads for all calls, so
                two runners with numbers of their own are not to be called at once.
        """
        self._device, self._threads = torch.device(device), threads
        # On a CPU one call keeps all cores busy, unless torch may use but one thread.
        self.streams = streams or (2 if self._device.type == "cuda" else 1)
        copied = copy.deepcopy(net).eval().to(self._device)
        self._net = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_sides(images)
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2)
        with _threads(self._threads):
            low, high = self._net(normalise(batch))
        return low.float().cpu().contiguous().numpy(), high.float().cpu().contiguous().numpy()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Have torch use so many threads, if any are named, then as many as before."""
    before = torch.get_num_threads()
    if number in (0, before):
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(part: NetPart, threads: int) -> Run:
    torch.set_num_threads(threads)
    net = cast(nn.Module, part.net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    arrays = random_inputs(part.inputs).values()
    inputs = [torch.from_numpy(x).to(memory_format=torch.channels_last) for x in arrays]

    @torch.inference_mode()
    def run() -> object:
        return net(*inputs)

    return run


BACKEND = Backend(
    title="torch",
    packages=("torch",),
    run=lambda net, threads: TorchRunner(net, threads=threads),
    prepare=_prepare,
)
