"""A network as a TorchScript file, which libtorch runs in C++ and torch without our code.

torch.jit.trace is deprecated for torch.export, but on LitePose-XS it takes a tenth of its time, and its files are two
thirds the size and load in tenths of a second instead of many seconds.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.backends.inputs import check_sides, planes
from ofa_pose.backends.runtimes import Backend
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError

METADATA = "metadata.json"  # among the file's extra files
TRACED = (2, 3, 64, 96)  # no size stays in the graph


class _Deployed(nn.Module):
    """A network with its normalisation: takes RGB from 0 to 255, float32 (B, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: LitePose) -> None:
        super().__init__()
        self.net = net
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.net((images - self.mean) / self.std)
        return low, high


def _write(net: LitePose, path: Path, metadata: Mapping[str, str]) -> None:
    """Any batch, any sides that are multiples of 16; it returns (low, high) as the net does."""
    module = _Deployed(net).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        traced = torch.jit.trace(module, torch.zeros(TRACED), check_trace=False)
        frozen = torch.jit.freeze(traced)  # folds BatchNorms too
        values = {key: json.loads(value) for key, value in metadata.items()}
        torch.jit.save(frozen, str(path), _extra_files={METADATA: json.dumps(values)})


class TorchscriptRunner:
    """An `ExportedRunner` over an exported file, on the CPU."""

    def __init__(self, path: str | Path, threads: int = 0, streams: int = 1) -> None:
        """Load a file; it computes in as many threads as torch has. Raises InputError where it cannot be loaded."""
        self.streams = streams
        extra = {METADATA: ""}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                self._module = torch.jit.load(str(path), "cpu", _extra_files=extra)
        except (RuntimeError, ValueError):
            raise InputError("cannot be loaded by TorchScript", path, "export it again") from None
        self.metadata = {key: json.dumps(value) for key, value in json.loads(extra[METADATA] or "{}").items()}

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_sides(images)
        low, high = self._module(torch.from_numpy(planes(images)))
        return low.numpy(), high.numpy()


BACKEND = Backend(
    title="TorchScript", packages=("torch",), files=(".torchscript.pt",), write=_write, open=TorchscriptRunner
)
