"""The fastest runtime at hand for a network: ONNX Runtime on a CPU where it is installed, else torch."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch

from ofa_pose.backends.folding import whole
from ofa_pose.backends.runners import Runner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.utils.console import warn

TOLERANCE = 1e-3  # of outputs within ±1; float32 and folded BatchNorms stay below 1e-5
PROBE_SIDE = 64


class FastestRunner:
    """Makes runners; where torch and ONNX Runtime differ on the first network, torch runs them all."""

    def __init__(self, device: torch.device | str, latency: bool = False, streams: int | None = None) -> None:
        """`latency`: each call as soon as possible, instead of as many images a second as possible.

        `streams` calls are made at once, each in one of torch's threads; default: as is best.
        """
        self._device = torch.device(device)
        self._latency, self._streams = latency, streams
        packages = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
        self._use_onnx = packages and self._device.type == "cpu"
        self._compared = False

    def __call__(self, net: PoseNet) -> Runner:
        """A runner over a copy of `net` as it is now."""
        if not self._use_onnx:
            return TorchRunner(net, self._device, self._streams)
        from ofa_pose.backends.onnxruntime import OnnxRunner, onnx_model

        cores = self._streams or torch.get_num_threads()
        threads, streams = (cores, 1) if self._latency else (1, cores)
        runner = OnnxRunner(onnx_model(whole(net.eval())).SerializeToString(), threads, streams)
        if not self._compared:
            self._compared = True
            reference = TorchRunner(net, self._device, self._streams)
            if not (difference := _difference(runner, reference)) <= TOLERANCE:
                warn(f"ONNX Runtime differs from torch by {difference:.2g}; torch is used, which is slower")
                self._use_onnx = False
                return reference
        return runner


def _difference(one: Runner, other: Runner) -> float:
    """The largest difference of two runners' outputs on one picture, relative to outputs above 1."""
    picture = np.random.default_rng(0).integers(0, 256, (1, PROBE_SIDE, PROBE_SIDE, 3), np.uint8)
    pairs = zip(one(picture), other(picture), strict=True)
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in pairs)
