"""A network as an ncnn graph, written from its layer plan (see `folding`); pnnx, ncnn's converter, is not needed.

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.arch.walk import Apply, Units, run_plan
from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.folding import Walk, write_part
from ofa_pose.models.litepose import LitePose

MAGIC = 7767517  # the first line of every .param
FLOAT32 = b"\0" * 4  # stands before weights that are not compressed
RELU, CLIP = 1, 3  # activation types


def ncnn_model(net: LitePose) -> tuple[str, bytes]:
    """The .param and the .bin of a network in eval mode, any sides that are multiples of 16; one image at a time.

    Input 'images': (3, height, width), RGB from 0 to 255; the normalisation is the graph's first step. Outputs 'low':
    (2J, height/4, width/4), J heatmaps then J tag maps; 'high': (J, height/2, width/2), heatmaps. BatchNorms and
    activations are parts of the convolutions before them.
    """

    def walk(apply: Apply, image: Any) -> Any:
        return run_plan(net.plan, image, apply)

    return ncnn_part(net, [INPUT], walk, OUTPUTS)


def ncnn_part(units: Units, inputs: Iterable[str], walk: Walk, outputs: Iterable[str]) -> tuple[str, bytes]:
    """The .param and the .bin of any part of a network in eval mode, made as `ncnn_model` makes a whole one.

    Args:
        units: has the weights of the part's layers.
        inputs: the name of every input, (channels, height, width). What is called 'images' is RGB from 0 to 255 and
            normalised first.
        walk: `walk(apply, *inputs)` computes the part with `apply(layer, input)`; its results, in the order of outputs.
        outputs: the name of every output.
    """
    graph = _Graph()
    for name in inputs:
        graph.add_node("Input", name, [], {})
    write_part(graph, units, inputs, walk, outputs)
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
class _Graph:
    """Nodes in the order of execution, and the weights in the same order."""

    nodes: list[_Node] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)

    def param(self) -> str:
        """The text of the .param. A value that is read more than once goes through a Split."""
        nodes = self._split()
        blobs = sum(len(node.writes) for node in nodes)
        return "\n".join((str(MAGIC), f"{len(nodes)} {blobs}", *map(str, nodes))) + "\n"

    def _split(self) -> list[_Node]:
        readers = Counter(name for node in self.nodes for name in node.reads)
        copies: dict[str, list[str]] = {}
        nodes = []
        for node in self.nodes:
            reads = [copies[name].pop(0) if name in copies else name for name in node.reads]
            nodes.append(_Node(node.operator, node.name, reads, node.parameters, node.writes))
            (written,) = node.writes
            if readers[written] > 1:
                names = [f"{written}.{number}" for number in range(readers[written])]
                nodes.append(_Node("Split", f"{written}.split", [written], {}, names))
                copies[written] = list(names)
        return nodes

    def add_node(self, operator: str, name: str, reads: list[str], parameters: Mapping[int, object]) -> str:
        """Append a node; the name of its one output, which is the node's own."""
        self.nodes.append(_Node(operator, name, reads, parameters, [name]))
        return name

    def _store(self, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
        self.weights += [FLOAT32, weight.astype("<f4").tobytes()]
        if bias is not None:
            self.weights.append(bias.astype("<f4").tobytes())

    def centre(self, image: str, mean: np.ndarray) -> str:
        self.weights.append((-mean).astype("<f4").tobytes())
        return self.add_node("Bias", "normalise", [image], {0: len(mean)})

    def conv(self, layer: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        self._store(weight, bias)
        operator, groups = ("ConvolutionDepthWise", {7: layer.groups}) if layer.groups > 1 else ("Convolution", {})
        parameters = _shape(layer, weight) | {5: int(bias is not None)} | groups | _activation(layer)
        return self.add_node(operator, layer.name, [x], parameters)

    def deconv(self, layer: Layer, norm: Layer, reads: tuple[str, ...], weight: np.ndarray, bias: np.ndarray) -> str:
        self._store(weight.swapaxes(0, 1), bias)
        maps = self.add_node("Concat", f"{norm.name}.maps", list(reads), {0: 0}) if len(reads) > 1 else reads[0]
        return self.add_node("Deconvolution", norm.name, [maps], _shape(layer, weight) | {5: 1} | _activation(norm))

    def add(self, name: str, one: str, other: str) -> str:
        return self.add_node("BinaryOp", name, [one, other], {0: 0})

    def rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            if node.writes == [old]:
                node.writes = [new]


def _shape(layer: Layer, weight: np.ndarray) -> dict[int, object]:
    return {0: layer.cout, 1: layer.kernel, 3: layer.stride, 4: layer.padding, 6: weight.size}


def _activation(layer: Layer) -> dict[int, object]:
    if layer.act == "relu6":
        return {9: CLIP, -23310: "2,0.0,6.0"}
    return {9: RELU} if layer.act else {}
