"""torch: a network computed eagerly on any device, and as a TorchScript file, which libtorch runs in C++.

torch.jit.trace is deprecated for torch.export, but takes a tenth of its time on LitePose-XS, and its files are two
thirds the size and load in tenths of a second instead of many seconds.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.backends.folding import NetPart
from ofa_pose.backends.on_device import Run, random_inputs
from ofa_pose.backends.runners import check_sides, not_loaded, planes
from ofa_pose.backends.runtimes import Backend
from ofa_pose.data.loader import normalise
from ofa_pose.models.pose_net import TRACED, PoseNet
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import DAMAGED_ZIP

METADATA = "metadata.json"  # among a file's extra files


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or the GPU if there is one, else the CPU. Raises InputError where it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        there = torch.zeros(1).to(device).item() == 0 and not (device.type == "cpu" and device.index)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError):
        there = False  # 'meta' holds no numbers
    if not there:
        raise InputError(f"there is no device '{name}'", hint="use --device cpu, or leave it out")
    return device


class TorchRunner:
    """A `Runner` over a private copy of `net`, in eval mode and channels_last (twice as fast on CPUs)."""

    def __init__(
        self, net: nn.Module, device: torch.device | str = "cpu", streams: int | None = None, threads: int = 0
    ) -> None:
        """`streams` calls are meant to be made at once (default: as is best), each in `threads` on a CPU (0: torch's).

        Torch has one number of threads for all calls: runners with numbers of their own are not to be called at once.
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


class _Deployed(nn.Module):
    """A network with its normalisation: takes RGB from 0 to 255, float32 (B, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: PoseNet) -> None:
        super().__init__()
        self.net = net
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.net((images - self.mean) / self.std)
        return low, high


def _write(net: PoseNet, path: Path, metadata: Mapping[str, str]) -> None:
    """Any batch, any sides that are multiples of 16; it returns (low, high) as the net does."""
    module = _Deployed(net).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        traced = torch.jit.trace(module, torch.zeros(TRACED), check_trace=False)
        frozen = torch.jit.freeze(traced)  # folds BatchNorms too
        values = {key: json.loads(value) for key, value in metadata.items()}
        # Not straight into the file: on a full disk torch ends the process.
        content = io.BytesIO()
        torch.jit.save(frozen, content, _extra_files={METADATA: json.dumps(values)})
    path.write_bytes(content.getbuffer())


class TorchscriptRunner:
    """An `ExportedRunner` over an exported file, on the CPU."""

    def __init__(self, path: str | Path, threads: int = 0, streams: int = 1) -> None:
        """Load a file; it computes in as many threads as torch has. Raises InputError where it cannot be loaded."""
        self.streams = streams
        extra, content = {METADATA: ""}, io.BytesIO(Path(path).read_bytes())
        try:
            with zipfile.ZipFile(content) as archive:
                if archive.testzip() is not None:  # torch reads on where a part is not what its check sum says
                    raise InputError("is damaged", path, "export it again, or copy it again")
            content.seek(0)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                self._module = torch.jit.load(content, "cpu", _extra_files=extra)
        except (*DAMAGED_ZIP, OSError) as error:
            raise not_loaded("TorchScript", error, path) from None
        self.metadata = {key: json.dumps(value) for key, value in json.loads(extra[METADATA] or "{}").items()}

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_sides(images)
        low, high = self._module(torch.from_numpy(planes(images)))
        return low.numpy(), high.numpy()


BACKEND = Backend(
    title="TorchScript",
    packages=("torch",),
    files=(".torchscript.pt",),
    write=_write,
    open=TorchscriptRunner,
    run=lambda net, threads: TorchRunner(net, threads=threads),
    prepare=_prepare,
)
