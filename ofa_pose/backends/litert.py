"""LiteRT (TensorFlow Lite): a network as a .tflite file, written from the layer plan, and computed on the CPU.

The format: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs. Converters of torch's
modules write graphs that are right and slow here, for two reasons (the shipped net at 192 pixels, one thread): XNNPACK,
which computes the graph, has fast depthwise kernels of at most 25 weights a channel (13 GMAC/s; 1.2 with the 49 of a
7×7), and a TRANSPOSE_CONV names its output's size, so that the graph takes one size of images. So larger depthwise
kernels are summed of smaller, dilated ones, and deconvolutions are convolutions whose channels become cells.
"""

from __future__ import annotations

import gzip
import importlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.backends.folding import NetPart, check_plan, whole, write_part
from ofa_pose.backends.on_device import Run, litert_interpreter, litert_run, random_inputs
from ofa_pose.backends.runners import OUTPUTS, check_names, check_sides, metadata_values, not_loaded, parse_metadata
from ofa_pose.backends.runtimes import Backend

if TYPE_CHECKING:
    from ofa_pose.models.pose_net import PoseNet

IDENTIFIER = b"TFL3"  # of the file's format
VERSION = 3
METADATA = "ofa_pose"  # the entry of the file's metadata that is ours, a JSON
SIGNATURE = "serving_default"  # as TensorFlow calls the first
MOST_WEIGHTS = 25  # of a depthwise kernel that XNNPACK is fast with
PHASE_TAPS = [[2, 0], [3, 1]]  # which of a deconvolution's four taps make even cells, which odd ones
ACTIVATIONS = {None: "NONE", "relu": "RELU", "relu6": "RELU6"}
VERSIONS = {"DEPTHWISE_CONV_2D": 2, "DEQUANTIZE": 3}  # of operators, where not 1: those with dilation, with float16


def litert_model(
    part: NetPart, metadata: Mapping[str, str] | None = None, half: bool = False, blank: bool = False
) -> bytes:
    """The .tflite of a part, which its interpreter can resize to any sides (of a network multiples of 16), any batch.

    Inputs and outputs are float32 (1, height, width, channels); an image is RGB from 0 to 255, normalised in the graph.

    Args:
        half: store weights as float16; they are computed in float32 where the device has nothing else.
        blank: a model to be timed, of zeros, its inputs small until they are resized.
    """
    graph = _LitertGraph(half, blank)
    for name, (channels, side) in part.inputs.items():
        graph.add_map(name, (1, *[TOTAL_STRIDE if blank else side] * 2, channels))
    write_part(graph, part)
    return graph.content(list(part.inputs), list(part.outputs), metadata or {})


@dataclass
class _LitertGraph:
    """Operators in the order of execution, the tensors that they read and write, and the tensors' constant contents."""

    half: bool
    blank: bool
    operators: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    buffers: list[bytes] = field(default_factory=lambda: [b""])  # the first one stands for none
    codes: dict[str, int] = field(default_factory=dict)  # operator -> its number in the file
    numbers: dict[str, int] = field(default_factory=dict)  # tensor -> its number

    @cached_property
    def schema(self) -> Any:
        """The classes of the format."""
        return importlib.import_module("ai_edge_litert.schema_py_generated")

    def make(self, kind: str, **values: Any) -> Any:
        """An object of the format."""
        made = getattr(self.schema, f"{kind}T")()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    def add_tensor(self, name: str, shape: Sequence[int], kind: str, content: bytes = b"") -> str:
        """Append a tensor, a constant one with its content; its name."""
        tensor = self.make("Tensor", name=name, shape=list(shape), buffer=self.add_buffer(content) if content else 0)
        tensor.type = getattr(self.schema.TensorType, kind)
        self.numbers[name] = len(self.tensors)
        self.tensors.append(tensor)
        return name

    def add_buffer(self, content: bytes) -> int:
        """Store a content; its number."""
        self.buffers.append(content)
        return len(self.buffers) - 1

    def add_map(self, name: str, shape: Sequence[int]) -> str:
        """A tensor (1, height, width, channels) that is computed; its sides may be others."""
        self.add_tensor(name, shape, "FLOAT32")
        self.tensors[-1].shapeSignature = [-1, -1, -1, shape[3]]
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store a constant, int32 or float32; weights of four axes perhaps as float16."""
        if value.dtype.kind == "i":
            return self.add_tensor(name, value.shape, "INT32", value.astype("<i4").tobytes())
        value = np.zeros_like(value) if self.blank else value
        if not self.half or value.ndim < 4:
            return self.add_tensor(name, value.shape, "FLOAT32", value.astype("<f4").tobytes())
        stored = self.add_tensor(f"{name}.half", value.shape, "FLOAT16", value.astype("<f2").tobytes())
        self.add_tensor(name, value.shape, "FLOAT32")
        return self.add_operator("DEQUANTIZE", name, [stored])

    def add_operator(self, operator: str, writes: str, reads: Sequence[str], kind: str = "", **options: Any) -> str:
        """Append an operator between tensors that are there; `kind` is that of its options."""
        made = self.make("Operator", opcodeIndex=self.codes.setdefault(operator, len(self.codes)))
        made.inputs, made.outputs = [self.numbers[name] for name in reads], [self.numbers[writes]]
        if kind:
            made.builtinOptions = self.make(kind, **options)
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        self.operators.append(made)
        return writes

    def shape(self, name: str) -> list[int]:
        """(1, height, width, channels) of a tensor."""
        shape: list[int] = self.tensors[self.numbers[name]].shape
        return shape

    def centre(self, image: str, mean: np.ndarray) -> str:
        self.add_map("normalise", self.shape(image))
        return self.add_operator("SUB", "normalise", [image, self.constant("mean", mean)], "SubOptions")

    def concat(self, name: str, maps: list[str]) -> str:
        batch, height, width, _ = self.shape(maps[0])
        self.add_map(name, (batch, height, width, sum(self.shape(one)[3] for one in maps)))
        return self.add_operator("CONCATENATION", name, maps, "ConcatenationOptions", axis=3)

    def add(self, name: str, one: str, other: str) -> str:
        self.add_map(name, self.shape(one))
        return self.add_operator("ADD", name, [one, other], "AddOptions")

    def conv(self, layer: Layer, named: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        bias = np.zeros(layer.cout) if bias is None else bias
        if layer.kind == "deconv":
            return self._deconv(named, x, weight, bias)
        # At stride 2 with a row and a column of zeros: of such a kernel SAME pads as much before as torch does.
        weight = np.pad(weight, ((0, 0), (0, 0), *[(0, layer.stride - 1)] * 2))
        if layer.groups == 1:
            return self._add_conv(named.name, x, weight.transpose(0, 2, 3, 1), bias, layer.stride, named.act)
        weight, groups = weight.transpose(1, 2, 3, 0), row_groups(weight.shape[2])
        total = ""
        for number, rows in enumerate(groups):
            last = number == len(groups) - 1
            name = named.name if len(groups) == 1 else f"{named.name}.{number}"
            dilation = rows[1] - rows[0] if len(groups) > 1 and len(rows) > 1 else 1
            act = named.act if len(groups) == 1 else None
            y = self._add_conv(name, x, weight[:, rows], bias, layer.stride, act, dilation)
            total, bias = y if not total else self.add(named.name if last else f"{name}.sum", total, y), 0 * bias
        if len(groups) > 1:
            self.operators[-1].builtinOptions.fusedActivationFunction = self._activation(named.act)
        return total

    def _add_conv(
        self,
        name: str,
        x: str,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int,
        act: str | None,
        dilation: int | None = None,
        padding: str = "SAME",
    ) -> str:
        """A convolution; weight (cout, k, k, cin), or with a dilation (of rows), depthwise, (1, k, k, cout)."""
        batch, height, width, _ = self.shape(x)
        reads = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        lost = 0 if padding == "SAME" else weight.shape[1] - 1
        self.add_map(name, (batch, (height - lost) // stride, (width - lost) // stride, len(bias)))
        options = {"padding": getattr(self.schema.Padding, padding), "fusedActivationFunction": self._activation(act)}
        options |= {"strideH": stride, "strideW": stride, "dilationHFactor": dilation or 1, "dilationWFactor": 1}
        if dilation:
            options["depthMultiplier"] = 1
        operator, kind = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if dilation else ("CONV_2D", "Conv2DOptions")
        return self.add_operator(operator, name, reads, kind, **options)

    def _deconv(self, named: Layer, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """A deconvolution 4×4 of stride 2, weight (cin, cout, 4, 4).

        Each 2×2 cells of its output, an odd one and the next even one on each axis, are weighted sums of 2×2 cells of
        its input: four times the channels, which become cells; a border of one cell is too much.
        """
        name, (batch, height, width, _), (cin, cout, *_) = named.name, self.shape(x), weight.shape
        pads = self.constant(f"{name}.pads", np.array([[0, 0], [1, 1], [1, 1], [0, 0]]))
        self.add_map(f"{name}.padded", (batch, height + 2, width + 2, cin))
        self.add_operator("PAD", f"{name}.padded", [x, pads], "PadOptions")
        taps = weight[:, :, PHASE_TAPS][..., PHASE_TAPS]  # (cin, cout, 2 phases, 2 taps, 2 phases, 2 taps)
        phases = taps.transpose(2, 4, 1, 3, 5, 0).reshape(4 * cout, 2, 2, cin)
        y = self._add_conv(f"{name}.phases", f"{name}.padded", phases, np.tile(bias, 4), 1, named.act, padding="VALID")
        self.add_map(f"{name}.cells", (batch, 2 * height + 2, 2 * width + 2, cout))
        self.add_operator("DEPTH_TO_SPACE", f"{name}.cells", [y], "DepthToSpaceOptions", blockSize=2)
        bounds = {"begin": [0, 1, 1, 0], "end": [0, -1, -1, 0], "steps": [1] * 4}
        reads = [self.constant(f"{name}.{key}", np.array(value)) for key, value in bounds.items()]
        self.add_map(name, (batch, 2 * height, 2 * width, cout))
        all_of = 0b1001  # batch and channels
        reads = [f"{name}.cells", *reads]
        return self.add_operator("STRIDED_SLICE", name, reads, "StridedSliceOptions", beginMask=all_of, endMask=all_of)

    def _activation(self, act: str | None) -> int:
        number: int = getattr(self.schema.ActivationFunctionType, ACTIVATIONS[act])
        return number

    def rename(self, old: str, new: str) -> None:
        self.numbers[new] = self.numbers.pop(old)
        self.tensors[self.numbers[new]].name = new

    def content(self, reads: Sequence[str], writes: Sequence[str], metadata: Mapping[str, str]) -> bytes:
        """The file."""
        inputs, outputs = ([self.numbers[name] for name in names] for names in (reads, writes))
        graph = self.make("SubGraph", name="LitePose", tensors=self.tensors, operators=self.operators)
        graph.inputs, graph.outputs = inputs, outputs
        maps = [
            [self.make("TensorMap", name=name, tensorIndex=self.numbers[name]) for name in names]
            for names in (reads, writes)
        ]
        signature = self.make("SignatureDef", signatureKey=SIGNATURE, inputs=maps[0], outputs=maps[1])
        entry = self.make("Metadata", name=METADATA, buffer=self.add_buffer(_metadata_bytes(metadata)))
        codes = []
        for operator in self.codes:
            code = getattr(self.schema.BuiltinOperator, operator)
            made = self.make("OperatorCode", builtinCode=code, deprecatedBuiltinCode=code)
            made.version = VERSIONS.get(operator, 1)
            codes.append(made)
        model = self.make("Model", version=VERSION, description="ofa-pose", operatorCodes=codes, subgraphs=[graph])
        data = (np.frombuffer(content, np.uint8) if content else None for content in self.buffers)
        model.buffers = [self.make("Buffer", data=one) for one in data]
        model.metadata, model.signatureDefs = [entry], [signature]
        return _packed(model)


def row_groups(side: int) -> list[list[int]]:
    """Which rows of a depthwise kernel, with as many rows as columns, are computed together: all, if it is small.

    Else each row with the one that mirrors it, the middle one with the outermost if three rows are few enough weights:
    rows at equal distances around the kernel's centre, a dilated kernel that SAME pads as it does the whole.
    """
    if side * side <= MOST_WEIGHTS or 2 * side > MOST_WEIGHTS:
        return [list(range(side))]
    pairs = [[row, side - 1 - row] for row in range(side // 2)]
    if side % 2 == 0:
        return pairs
    middle = side // 2
    return [[0, middle, side - 1], *pairs[1:]] if 3 * side <= MOST_WEIGHTS else [[middle], *pairs]


class LitertRunner:
    """An `ExportedRunner` over a .tflite file; `metadata` stand among the file's own."""

    def __init__(self, path: str | Path, threads: int = 0, streams: int = 1) -> None:
        """Load a file. Raises InputError where it is not such a model."""
        self._content, self._threads, self.streams = Path(path).read_bytes(), threads, streams
        self._own = threading.local()  # an interpreter computes one call at a time
        try:
            interpreter = self._interpreter()
        except (ValueError, RuntimeError) as error:
            raise not_loaded("LiteRT", error, path) from None
        reads, writes = interpreter.get_input_details(), interpreter.get_output_details()
        check_names([part["name"] for part in reads], [part["name"] for part in writes], str(path))
        self.metadata = _read_metadata(self._content, str(path))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_sides(images)
        low, high = (np.concatenate(maps) for maps in zip(*map(self._run, images), strict=True))
        return low, high

    def _interpreter(self) -> Any:
        """This thread's own."""
        if not hasattr(self._own, "interpreter"):
            self._own.interpreter = litert_interpreter(self._content, self._threads)
            self._own.shape = None
        return self._own.interpreter

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        interpreter = self._interpreter()
        (place,) = (part["index"] for part in interpreter.get_input_details())
        if self._own.shape != image.shape:
            interpreter.resize_tensor_input(place, (1, *image.shape))
            interpreter.allocate_tensors()
            self._own.shape = image.shape
        interpreter.set_tensor(place, image[None].astype(np.float32))
        interpreter.invoke()
        places = {part["name"]: part["index"] for part in interpreter.get_output_details()}
        maps = [interpreter.get_tensor(places[name]) for name in OUTPUTS]
        return [np.ascontiguousarray(map_.transpose(0, 3, 1, 2)) for map_ in maps]


def _read_metadata(content: bytes, where: str) -> dict[str, str]:
    """Ours of a file that the interpreter has opened, each value as JSON. Raises InputError where they are not JSON."""
    model = importlib.import_module("ai_edge_litert.schema_py_generated").Model.GetRootAs(content)
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == METADATA.encode():
            number = entry.Buffer()
            data = model.Buffers(number).DataAsNumpy() if number < model.BuffersLength() else 0
            return parse_metadata(b"" if isinstance(data, int) else data.tobytes(), where)  # 0: there is none
    return {}


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """A file of ours, or one that was quantised, with other metadata, and with its weights where old runtimes look."""
    tools = importlib.import_module("ai_edge_litert.tools.flatbuffer_utils")
    model = tools.read_model_from_bytearray(content)
    (number,) = [entry.buffer for entry in model.metadata if entry.name == METADATA.encode()]
    model.buffers[number].data = _metadata_bytes(metadata)
    for buffer in model.buffers:
        buffer.data = None if buffer.data is None else np.frombuffer(buffer.data, np.uint8)
    return _packed(model)


def _metadata_bytes(metadata: Mapping[str, str]) -> bytes:
    return json.dumps(metadata_values(metadata)).encode()


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _write(net: PoseNet, path: Path, metadata: Mapping[str, str], half: bool = False) -> None:
    path.write_bytes(litert_model(whole(net), metadata, half))


def _prepare(part: NetPart, threads: int) -> Run:
    return litert_run(litert_model(part), random_inputs(part.inputs), threads)


def _bundle(part: NetPart) -> tuple[bytes, dict[str, Any]]:
    """The model of zeros, which take as long, compressed: a few kB. It is resized where it is timed."""
    return gzip.compress(litert_model(part, blank=True), mtime=0), {}


BACKEND = Backend(
    title="LiteRT",
    packages=("ai_edge_litert",),
    extra="litert",
    files=(".tflite",),
    write=_write,
    write_half=partial(_write, half=True),
    check=check_plan,
    open=LitertRunner,
    prepare=_prepare,
    bundle=_bundle,
)
