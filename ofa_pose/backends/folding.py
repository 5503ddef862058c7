"""Writing a part of a layer plan into another runtime's graph, BatchNorms and normalisation folded into convolutions.

torch's exporters take seconds for LitePose-XS and name nodes after Python internals. Walking the plan takes
milliseconds and gives the same bytes whatever torch's version, nodes named after layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ofa_pose.arch.plan import Layer, Plan
from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.backends.runners import INPUT
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    from ofa_pose.models.litepose import Unit
    from ofa_pose.models.pose_net import Network, PoseNet


class Units(Protocol):
    """What holds the weights of plan layers: a network, or a lone part of one."""

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""


@dataclass(frozen=True)
class NetPart:
    """A network, or a part of one, that runtimes compute.

    Attributes:
        net: a module in eval mode that computes the part, of images that are normalised already; it holds its weights.
        inputs: name -> (channels, side) of every input (B, channels, side, side). In a graph sides are any, and what is
            called 'images' is RGB from 0 to 255 and normalised first.
        outputs: name -> channels of every output.
        walk: `walk(apply, *inputs)` computes the part with `apply(layer, input)`; it gives the outputs in their order.
            None of a network without a layer plan: runtimes take what torch's exporter makes of the module.
        inner: of inputs and outputs those that other layers write and read inside a network.
    """

    net: Any
    inputs: Mapping[str, tuple[int, int]]
    outputs: Mapping[str, int]
    walk: Callable[..., Iterable[Any]] | None
    inner: frozenset[str] = frozenset()


def whole(net: Network) -> NetPart:
    """A network as a part; its outputs are those of `Network.map_channels`."""
    plan: Plan | None = getattr(net, "plan", None)
    walk = None if plan is None else lambda apply, image: plan.run(image, apply)
    return NetPart(net, {INPUT: (3, net.spec.resolution)}, net.map_channels, walk)


def check_plan(net: PoseNet) -> None:
    """Raise InputError where a network has no layer plan for a runtime's graph to be written from."""
    if not hasattr(net, "plan"):
        what = f"this runtime's models are written from a layer plan, and the family '{net.spec.family}' has none"
        raise InputError(what, hint="use ONNX Runtime: the format onnx, the backend onnxruntime")


class Graph(Protocol):
    """A runtime's graph that grows; values are names of nodes' outputs. Weights and biases are float64."""

    def centre(self, image: str, mean: np.ndarray) -> str:
        """The image less `mean` (3,)."""

    def concat(self, name: str, maps: list[str]) -> str:
        """Several maps' channels, one after another."""

    def conv(self, layer: Layer, named: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """A convolution of `layer`'s shape and `weight_shape`, with the name and the activation of `named`."""

    def add(self, name: str, one: str, other: str) -> str:
        """The sum of two values."""

    def rename(self, old: str, new: str) -> None:
        """Rename a value that no node reads."""


def write_part(graph: Graph, part: NetPart) -> None:
    """Append a part of a network, which has a walk, to a graph that has the part's inputs."""
    if part.walk is None:
        check_plan(part.net)
    assert part.walk
    apply = partial(_add_layer, graph, part.net)
    mean = np.array(MEAN) * 255
    values = [_Value(graph, graph.centre(name, mean) if name == INPUT else name) for name in part.inputs]
    for result, name in zip(part.walk(apply, *values), part.outputs, strict=True):
        graph.rename(result.name, name)


@dataclass(frozen=True)
class _Value:
    """What stands for a tensor while the plan is walked: the name of a node's output; `+` adds a node."""

    graph: Graph
    name: str

    def __add__(self, other: _Value) -> _Value:
        return _Value(self.graph, self.graph.add(f"{other.name}.sum", self.name, other.name))


@dataclass(frozen=True)
class _Deconvs:
    """A sum of deconvolutions that waits for its BatchNorm; computed as one over all channels, it is a third faster."""

    layers: list[Layer]
    reads: list[str]

    def __add__(self, other: _Deconvs) -> _Deconvs:
        return _Deconvs(self.layers + other.layers, self.reads + other.reads)


def _add_layer(graph: Graph, units: Units, layer: Layer, x: _Value | _Deconvs) -> _Value | _Deconvs:
    if layer.kind == "deconv":
        assert isinstance(x, _Value)
        return _Deconvs([layer], [x.name])
    if isinstance(x, _Deconvs):
        scale, shift = units.unit(layer).affine()
        weight = np.concatenate([units.unit(one).weight() for one in x.layers]) * scale[:, None, None]
        maps = graph.concat(f"{layer.name}.maps", x.reads) if len(x.reads) > 1 else x.reads[0]
        return _Value(graph, graph.conv(x.layers[0], layer, maps, weight, shift))
    weight, bias = units.unit(layer).weight(), None
    if layer.reads == "image":
        weight = weight / (np.array(STD).reshape(1, 3, 1, 1) * 255)  # the image is centred, not scaled
    if layer.norm:
        scale, bias = units.unit(layer).affine()
        weight = weight * scale[:, None, None, None]
    return _Value(graph, graph.conv(layer, layer, x.name, weight, bias))
