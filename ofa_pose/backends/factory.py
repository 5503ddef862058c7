"""Runners by the names of their runtimes."""

from __future__ import annotations

from ofa_pose.backends import Runner
from ofa_pose.backends.ncnn_graph import ncnn_model
from ofa_pose.backends.ncnn_runner import NcnnRunner
from ofa_pose.backends.onnx_graph import onnx_model
from ofa_pose.backends.onnx_runner import OnnxRunner
from ofa_pose.backends.openvino_runner import OpenvinoRunner
from ofa_pose.backends.packages import require_packages
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError, nearest

PACKAGES = {"torch": (), "onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino", "onnx"), "ncnn": ("ncnn",)}
BACKENDS = tuple(PACKAGES)


def check_backend(backend: str) -> None:
    """Raise InputError where there is no such runtime, or it is not installed."""
    if backend not in PACKAGES:
        raise InputError(f"no such backend: '{backend}'", hint=nearest(backend, BACKENDS))
    require_packages(*PACKAGES[backend])


def make_runner(net: LitePose, backend: str, threads: int = 0) -> Runner:
    """A runner over a copy of `net` as it is now, on the CPU.

    Args:
        backend: one of BACKENDS.
        threads: of one call; 0: the runtime chooses.

    Raises:
        InputError: there is no such runtime, or it is not installed.
    """
    check_backend(backend)
    if backend == "torch":
        return TorchRunner(net, threads=threads)
    if backend == "ncnn":
        return NcnnRunner(ncnn_model(net), threads)
    model = onnx_model(net, {}).SerializeToString()
    return OnnxRunner(model, threads) if backend == "onnxruntime" else OpenvinoRunner(model, threads)
