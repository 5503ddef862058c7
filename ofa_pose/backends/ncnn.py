"""ncnn: a network as its graph, written from the layer plan (see `folding`) without pnnx, and computed on the CPU.

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.backends.folding import NetPart, check_plan, whole, write_part
from ofa_pose.backends.on_device import Run, ncnn_net, ncnn_run, random_inputs, runtime_module
from ofa_pose.backends.runners import INPUT, OUTPUTS, check_names, check_sides, read_metadata, write_metadata
from ofa_pose.backends.runtimes import Backend
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    from ofa_pose.models.pose_net import PoseNet

MAGIC = 7767517  # the first line of every .param
FLOAT32 = b"\0" * 4  # stands before weights that are not compressed
SUMS = "sha256"  # of the two other files, in the .json
RELU, CLIP = 1, 3  # activation types


def ncnn_model(part: NetPart) -> tuple[str, bytes]:
    """The .param and the .bin of a part, of any sides (of a network multiples of 16); one image at a time.

    Inputs are (channels, height, width); an image is RGB from 0 to 255, normalised in the graph.
    """
    graph = _NcnnGraph()
    for name in part.inputs:
        graph.add_node("Input", name, [], {})
    write_part(graph, part)
    return graph.param(), b"".join(graph.weights)


@dataclass
class _Node:
    operator: str
    name: str
    reads: list[str]
    parameters: Mapping[int, object]
    writes: list[str]

    def __str__(self) -> str:
        """A line of the .param."""
        parts = (f"{key}={value}" for key, value in self.parameters.items())
        counts = (str(len(self.reads)), str(len(self.writes)))
        return " ".join((self.operator, self.name, *counts, *self.reads, *self.writes, *parts))


@dataclass
class _NcnnGraph:
    """Nodes in the order of execution, and the weights in the same order."""

    nodes: list[_Node] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)

    def param(self) -> str:
        """The text of the .param. A value that is read more than once goes through a Split."""
        readers = Counter(name for node in self.nodes for name in node.reads)
        copies: dict[str, list[str]] = {}
        nodes = []
        for node in self.nodes:
            reads = [copies[name].pop(0) if name in copies else name for name in node.reads]
            nodes.append(replace(node, reads=reads))
            (written,) = node.writes
            if readers[written] > 1:
                names = [f"{written}.{number}" for number in range(readers[written])]
                nodes.append(_Node("Split", f"{written}.split", [written], {}, names))
                copies[written] = list(names)
        blobs = sum(len(node.writes) for node in nodes)
        return "\n".join((str(MAGIC), f"{len(nodes)} {blobs}", *map(str, nodes))) + "\n"

    def add_node(self, operator: str, name: str, reads: list[str], parameters: Mapping[int, object]) -> str:
        """Append a node; the name of its one output, which is the node's own."""
        self.nodes.append(_Node(operator, name, reads, parameters, [name]))
        return name

    def centre(self, image: str, mean: np.ndarray) -> str:
        self.weights.append((-mean).astype("<f4").tobytes())
        return self.add_node("Bias", "normalise", [image], {0: len(mean)})

    def concat(self, name: str, maps: list[str]) -> str:
        return self.add_node("Concat", name, maps, {0: 0})

    def conv(self, layer: Layer, named: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        parameters: dict[int, object] = {0: layer.cout, 1: layer.kernel, 3: layer.stride, 4: layer.padding}
        parameters |= {6: weight.size, 5: int(bias is not None)}
        operator = "Convolution"
        if layer.kind == "deconv":
            operator, weight = "Deconvolution", weight.swapaxes(0, 1)
        elif layer.groups > 1:
            operator, parameters[7] = "ConvolutionDepthWise", layer.groups
        if named.act:
            parameters |= {9: CLIP, -23310: "2,0.0,6.0"} if named.act == "relu6" else {9: RELU}
        self.weights += [FLOAT32, *(array.astype("<f4").tobytes() for array in (weight, bias) if array is not None)]
        return self.add_node(operator, named.name, [x], parameters)

    def add(self, name: str, one: str, other: str) -> str:
        return self.add_node("BinaryOp", name, [one, other], {0: 0})

    def rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            if node.writes == [old]:
                node.writes = [new]


class NcnnRunner:
    """An `ExportedRunner` over an ncnn model; `metadata` are those of the .json beside its .param, if there is one."""

    def __init__(self, path: str | Path, threads: int = 0, streams: int = 1) -> None:
        """Load a .param file with its .bin beside it. Raises InputError where it is not an ncnn model of ours."""
        path = Path(path)
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise InputError(f"has no {weights.name} beside it", path, "copy that too, or export the model again")
        metadata = read_metadata(path.with_suffix(".json"))
        stated = json.loads(metadata.pop(SUMS, "{}"))  # earlier versions wrote none
        for file in (path, weights):
            if isinstance(stated, dict) and stated and stated.get(file.suffix) != files.sha256(file):
                what = f"is not the {file.suffix} that was exported with {path.with_suffix('.json').name}"
                raise InputError(what, file, "copy the three files of one export again")
        try:
            with files.in_utf8(path, weights) as (graph, numbers):
                self._net = ncnn_net(Path(graph), Path(numbers), threads)
        except RuntimeError as error:
            raise InputError(str(error), path, "export it again") from None
        check_names(self._net.input_names(), self._net.output_names(), str(path))
        self.streams, self.metadata = streams, metadata
        ncnn = runtime_module("ncnn")
        self._mat, self._rgb = ncnn.Mat, ncnn.Mat.PixelType.PIXEL_RGB

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_sides(images)
        low, high = (np.stack(maps) for maps in zip(*map(self._run, images), strict=True))
        return low, high

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._mat.from_pixels(np.ascontiguousarray(image), self._rgb, width, height))
        return [np.array(extractor.extract(name)[1]) for name in OUTPUTS]


def _write(net: PoseNet, path: Path, metadata: Mapping[str, str]) -> None:
    """A .param and a .bin, and the metadata as .json beside them."""
    param, weights = ncnn_model(whole(net))
    files.write_text(path, param)
    path.with_suffix(".bin").write_bytes(weights)
    sums = {file.suffix: files.sha256(file) for file in (path, path.with_suffix(".bin"))}
    write_metadata(path.with_suffix(".json"), {**metadata, SUMS: json.dumps(sums)})


def _prepare(part: NetPart, threads: int) -> Run:
    return ncnn_run(*ncnn_model(part), random_inputs(part.inputs), list(part.outputs), threads)


def _bundle(part: NetPart) -> tuple[bytes, dict[str, Any]]:
    """The .param; of the weights only how many bytes they are: zeros take as long."""
    param, weights = ncnn_model(part)
    return param.encode(), {"outputs": list(part.outputs), "weights": len(weights)}


BACKEND = Backend(
    title="ncnn",
    packages=("ncnn",),
    extra="ncnn",
    files=(".ncnn.param", ".ncnn.bin", ".ncnn.json"),  # 'model.bin' is OpenVINO's
    write=_write,
    check=check_plan,
    open=NcnnRunner,
    prepare=_prepare,
    bundle=_bundle,
)
