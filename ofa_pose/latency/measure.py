"""Pieces and whole networks, made runnable on the backends of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ofa_pose.arch.plan import Block, DeconvStep, Layer, Output, Plan, make_plan
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.arch.walk import Apply, run_block, run_layers, run_output, run_plan, run_step
from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.factory import check_backend
from ofa_pose.backends.ncnn_graph import ncnn_part
from ofa_pose.backends.on_device import (
    Run,
    keep_memory,
    ncnn_run,
    onnx_run,
    processors,
    random_inputs,
    runtime_module,
)
from ofa_pose.backends.onnx_graph import onnx_part
from ofa_pose.backends.openvino_runner import compile_options
from ofa_pose.latency.pieces import Part, part_layers, piece_part
from ofa_pose.latency.subjects import Subject
from ofa_pose.models.litepose import LitePose, Unit, make_layer
from ofa_pose.utils.errors import InputError


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
        self.shapes: dict[str, Sequence[int]] = _shapes(self.part)
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
            return (run_layers(part, first, apply),)
        if isinstance(part, Block):
            return (run_block(part, first, apply),)
        if isinstance(part, DeconvStep):
            return (run_step(part, first, last, apply),)
        if isinstance(part, Output):
            return (run_output(part, first, last, apply),)
        return run_plan(part, first, apply)

    def inputs(self) -> dict[str, np.ndarray]:
        """Random inputs by name, float32 (1, channels, side, side)."""
        return random_inputs(self.shapes)

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


def _shapes(part: Part | Plan) -> dict[str, Sequence[int]]:
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
        part = PartNet(subject)
        return onnx_run(part.onnx(), part.inputs(), self.threads)


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
        compiled = self._core.compile_model(model, "CPU", compile_options(self.threads))
        request = compiled.create_infer_request()
        return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)


class NcnnDevice:
    """ncnn on the CPU, in full precision."""

    def __init__(self, threads: int) -> None:
        self.runtime, self.threads = f"ncnn {runtime_module('ncnn').__version__}", threads

    def load(self, subject: Subject) -> Run:
        part = PartNet(subject)
        outputs = list(part.ends)
        param, weights = ncnn_part(part, list(part.shapes), part.walk, outputs)
        return ncnn_run(param, weights, part.inputs(), outputs, self.threads)


DEVICES: dict[str, Callable[[int], Device]] = {
    "torch": TorchDevice,
    "onnxruntime": OnnxRuntimeDevice,
    "openvino": OpenVinoDevice,
    "ncnn": NcnnDevice,
}


def open_device(backend: str, threads: int) -> Device:
    """The backend of that name.

    Raises:
        InputError: there is none, its package is missing, or there are more threads than processors, which would
            measure how they wait for each other.
    """
    check_backend(backend)
    if threads > processors():
        raise InputError(f"{threads} threads on {processors()} processors", hint=f"measure at most {processors()}")
    keep_memory()
    return DEVICES[backend](threads)
