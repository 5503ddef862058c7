"""Time pieces and whole networks on a backend of this machine."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ofa_pose.arch.plan import Block, DeconvStep, Layer, Output, Plan, make_plan
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.factory import check_backend
from ofa_pose.backends.ncnn_graph import ncnn_part
from ofa_pose.backends.ncnn_runner import REDUCED
from ofa_pose.backends.onnx_graph import onnx_part
from ofa_pose.latency.pieces import Part, part_layers, piece_part
from ofa_pose.latency.table import Subject
from ofa_pose.models.litepose import (
    Apply,
    LitePose,
    Unit,
    make_layer,
    run_block,
    run_output,
    run_plan,
    run_stem,
    run_step,
)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
WARM_UP = 2  # runs of a visit that do not count: the first ones choose kernels and allocate
LEAST_RUNS, MOST_RUNS, VISIT_S = 5, 20, 0.02

Run = Callable[[], object]


class Device(Protocol):
    """Makes what is measured runnable: `load(subject)()` computes it once, at batch 1, and returns when it is done.

    Attributes:
        runtime: name and version of the runtime.
        threads: of one run.
    """

    runtime: str
    threads: int

    def load(self, subject: Subject) -> Run: ...


class PartNet(nn.Module):
    """A piece or a whole network as a module with random weights; its inputs are those of `shapes`, in order.

    Attributes:
        shapes: the name of every input, and its (channels, side).
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.part: Part | Plan = make_plan(subject) if isinstance(subject, ArchSpec) else piece_part(subject)
        self.shapes = _shapes(self.part)
        generator = torch.Generator().manual_seed(0)
        layers = list(self.layers())
        self._names = {layer.name: f"layer{index}" for index, layer in enumerate(layers)}
        for layer in layers:
            unit = make_layer(layer)
            self.add_module(self._names[layer.name], unit)
            if layer.kind != "norm":
                LitePose.init_conv(layer, unit.conv.weight, generator)
        self.eval().requires_grad_(False)

    def layers(self) -> Iterator[Layer]:
        """The layers, in the order of execution."""
        return self.part.layers() if isinstance(self.part, Plan) else part_layers(self.part)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for inputs (B, channels, side, side); an image is normalised already."""
        return self.walk(lambda layer, x: self.unit(layer)(x), *inputs)

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""
        return getattr(self, self._names[layer.name])

    def walk(self, apply: Apply, *inputs: Any) -> tuple[Any, ...]:
        """Compute the part with `apply(layer, input)`."""
        part, first, last = self.part, inputs[0], inputs[-1]
        if isinstance(part, tuple):
            return (run_stem(part, first, apply),)
        if isinstance(part, Block):
            return (run_block(part, first, apply),)
        if isinstance(part, DeconvStep):
            return (run_step(part, first, last, apply),)
        if isinstance(part, Output):
            return (run_output(part, first, last, apply),)
        return run_plan(part, first, apply)

    def inputs(self) -> dict[str, np.ndarray]:
        """Random inputs by name, float32 (1, channels, side, side); images from 0 to 255."""
        rng = np.random.default_rng(0)
        arrays = {name: rng.standard_normal((1, c, side, side), np.float32) for name, (c, side) in self.shapes.items()}
        return {name: np.clip(x * 64 + 128, 0, 255) if name == INPUT else x for name, x in arrays.items()}

    @property
    def ends(self) -> dict[str, int]:
        """The name of every output, and its channels."""
        if isinstance(self.part, Plan):
            joints = self.part.spec.joints
            return dict(zip(OUTPUTS, (2 * joints, joints), strict=True))
        return {"y": list(self.layers())[-1].cout}

    def onnx(self) -> bytes:
        """The subject as an ONNX model, of any sides as exported networks are."""
        channels = {name: count for name, (count, _) in self.shapes.items()}
        outputs = {name: (count, f"height.{name}", f"width.{name}") for name, count in self.ends.items()}
        return onnx_part(self, channels, self.walk, outputs).SerializeToString()


def _shapes(part: Part | Plan) -> dict[str, tuple[int, int]]:
    if isinstance(part, Plan):
        part = part.stem
    if isinstance(part, tuple):
        return {INPUT: (3, part[0].side_in)}
    if isinstance(part, Block):
        return {"x": (part.layers[0].cin, part.layers[0].side_in)}
    refined, raw = (part.refined[0], part.raw and part.raw[0]) if isinstance(part, Output) else (part.refined, part.raw)
    return {f"x.{index}": (layer.cin, layer.side_in) for index, layer in enumerate((refined, raw)) if layer}


class TorchDevice:
    """Eager torch in channels_last, which is twice as fast on CPUs."""

    def __init__(self, threads: int) -> None:
        self.runtime, self.threads = f"torch {torch.__version__}", threads
        torch.set_num_threads(threads)
        keep_memory()

    def load(self, subject: Subject) -> Run:
        net = PartNet(subject)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        arrays = net.inputs().values()
        inputs = [torch.from_numpy(x).to(memory_format=torch.channels_last) for x in arrays]

        @torch.inference_mode()
        def run() -> object:
            return net(*inputs)

        return run


class OnnxRuntimeDevice:
    """ONNX Runtime on the CPU."""

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self.runtime, self.threads = f"onnxruntime {onnxruntime.__version__}", threads

    def load(self, subject: Subject) -> Run:
        import onnxruntime

        net = PartNet(subject)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(net.onnx(), options, providers=["CPUExecutionProvider"])
        feeds = net.inputs()
        return lambda: session.run(None, feeds)


class OpenVinoDevice:
    """OpenVINO on the CPU, in full precision."""

    def __init__(self, threads: int) -> None:
        import openvino

        self.runtime, self.threads = f"openvino {openvino.__version__.split('-')[0]}", threads
        self._core = openvino.Core()

    def load(self, subject: Subject) -> Run:
        net = PartNet(subject)
        model = self._core.read_model(net.onnx())
        arrays = list(net.inputs().values())
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": self.threads}
        compiled = self._core.compile_model(model, "CPU", options)
        request = compiled.create_infer_request()
        return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)


class NcnnDevice:
    """ncnn on the CPU, in full precision."""

    def __init__(self, threads: int) -> None:
        import ncnn

        self.runtime, self.threads = f"ncnn {ncnn.__version__}", threads

    def load(self, subject: Subject) -> Run:
        import ncnn

        part = PartNet(subject)
        ends = list(part.ends)
        net = ncnn.Net()
        for name in REDUCED:
            setattr(net.opt, f"use_{name}", False)
        net.opt.num_threads = self.threads
        param, weights = ncnn_part(part, list(part.shapes), part.walk, ends)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "part.param").write_text(param, encoding="ascii")
            Path(folder, "part.bin").write_bytes(weights)
            net.load_param(str(Path(folder, "part.param")))
            net.load_model(str(Path(folder, "part.bin")))
        mats = {name: ncnn.Mat(np.ascontiguousarray(x[0])).clone() for name, x in part.inputs().items()}

        def run() -> object:
            extractor = net.create_extractor()
            for name, mat in mats.items():
                extractor.input(name, mat)
            return [extractor.extract(name)[1] for name in ends]

        return run


DEVICES: dict[str, Callable[[int], Device]] = {
    "torch": TorchDevice,
    "onnxruntime": OnnxRuntimeDevice,
    "openvino": OpenVinoDevice,
    "ncnn": NcnnDevice,
}


def open_device(backend: str, threads: int) -> Device:
    """The backend of that name. Raises InputError where there is none, or its package is missing."""
    check_backend(backend)
    return DEVICES[backend](threads)


def keep_memory() -> None:
    """Let the C library keep memory that is freed, where it can be told so (glibc).

    By default it gives large tensors back after each layer and takes them anew, page by page, by a rule that depends on
    what the process did before: the same network in eager torch takes up to twice as long in one process as in another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def visit(run: Run, threads: int) -> float:
    """Milliseconds of the fastest of a few runs one after another, after a warm-up: what disturbs, only delays.

    Where a run has one thread, time that the system gives to other processes is not counted.
    """
    for _ in range(WARM_UP):
        run()
    fastest, total = np.inf, 0.0
    for count in range(MOST_RUNS):
        wall, used = time.perf_counter(), time.process_time()
        run()
        wall, used = time.perf_counter() - wall, time.process_time() - used
        took = min(wall, used) if threads == 1 else wall
        fastest, total = min(fastest, took), total + took
        if count + 1 >= LEAST_RUNS and total > VISIT_S:
            break
    return fastest * 1e3
