"""A network as an ONNX graph, written from its layer plan.

torch's exporters take 3 s (TorchScript, deprecated) to 30 s (torch.export) for LitePose-XS and name their nodes after
Python internals. The plan already is a graph, so it is walked once: milliseconds, the same bytes every time, nodes
named after layers, and no dependence on torch's version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.data.loader import MEAN, STD
from ofa_pose.models.litepose import Apply, LitePose, Units, run_plan

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # old enough for the runtimes that devices have
INPUT, OUTPUTS = "images", ("low", "high")


def onnx_model(net: LitePose, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The ONNX model of a network in eval mode, any batch and any sides that are multiples of 16.

    Input 'images': float32 (batch, 3, height, width), RGB from 0 to 255; the normalisation is the graph's first step.
    Outputs 'low': (batch, 2J, height/4, width/4), J heatmaps then J tag maps; 'high': (batch, J, height/2, width/2),
    heatmaps. BatchNorms and the normalisation's scale are folded into the convolutions beside them.

    Args:
        metadata: what the model's metadata_props hold.
    """
    joints = net.spec.joints
    shapes = {"low": (2 * joints, "height/4", "width/4"), "high": (joints, "height/2", "width/2")}

    def walk(apply: Apply, image: Any) -> Any:
        return run_plan(net.plan, image, apply)

    return onnx_part(net, {INPUT: 3}, walk, shapes, metadata)


def onnx_part(
    units: Units,
    inputs: Mapping[str, int],
    walk: Callable[..., Iterable[Any]],
    outputs: Mapping[str, tuple[int | str, int | str, int | str]],
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The ONNX model of any part of a network in eval mode, made as `onnx_model` makes a whole one.

    Args:
        units: has the modules of the part's layers.
        inputs: the name of every input, float32 (batch, channels, height, width), and its channels. What is called
            'images' is RGB from 0 to 255 and normalised first.
        walk: `walk(apply, *inputs)` computes the part with `apply(layer, input)`; its results, in the order of outputs.
        outputs: the name of every output, and its channels, height and width, the latter two a number or a name.
        metadata: what the model's metadata_props hold.
    """
    from onnx import TensorProto, helper

    graph = _Graph()

    def apply(layer: Layer, value: Any) -> Any:
        return _add_layer(graph, layer, units, value)

    values = [_normalised(graph, name) if name == INPUT else _Value(graph, name) for name in inputs]
    for result, name in zip(walk(cast(Apply, apply), *values), outputs, strict=True):
        graph.rename(result.name, name)
    read: dict[str, tuple[int | str, ...]] = {name: (channels, "height", "width") for name, channels in inputs.items()}
    reads, writes = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in shapes.items()]
        for shapes in (read, outputs)
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, "LitePose", reads, writes, list(graph.initialisers.values())),
        producer_name="ofa-pose",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def _normalised(graph: _Graph, image: str) -> _Value:
    """The image centred; what scales it is in the first convolution."""
    mean = graph.constant("mean", np.array(MEAN).reshape(1, 3, 1, 1) * 255)
    return _Value(graph, graph.add("Sub", "normalise", [image, mean]))


@dataclass
class _Graph:
    """Nodes in the order of execution, and the constants they read."""

    nodes: list[Any] = field(default_factory=list)
    initialisers: dict[str, Any] = field(default_factory=dict)

    def add(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; the name of its one output, which is the node's own."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store a float32 constant; its name."""
        from onnx import numpy_helper

        self.initialisers[name] = numpy_helper.from_array(value.astype(np.float32), name)
        return name

    def rename(self, old: str, new: str) -> None:
        """Rename the output of a node that no other node reads."""
        for node in self.nodes:
            if node.output[0] == old:
                node.output[0] = new


@dataclass(frozen=True)
class _Value:
    """What stands for a tensor while the plan is walked: the name of a node's output; `+` adds a node."""

    graph: _Graph
    name: str

    def __add__(self, other: _Value) -> _Value:
        name = f"{other.name}.sum"
        return _Value(self.graph, self.graph.add("Add", name, [self.name, other.name]))


@dataclass(frozen=True)
class _Deconvs:
    """A sum of transposed convolutions that waits for its BatchNorm: the layers, and the names of what they read.

    The sum over the refined and the raw map is one over both maps' channels: a third faster, and the norm folds.
    """

    layers: tuple[Layer, ...]
    reads: tuple[str, ...]

    def __add__(self, other: _Deconvs) -> _Deconvs:
        return _Deconvs(self.layers + other.layers, self.reads + other.reads)


def _add_layer(graph: _Graph, layer: Layer, units: Units, x: _Value | _Deconvs) -> _Value | _Deconvs:
    if layer.kind == "deconv":
        assert isinstance(x, _Value)
        return _Deconvs((layer,), (x.name,))
    y = _add_deconvs(graph, layer, units, x) if isinstance(x, _Deconvs) else _add_conv(graph, layer, units, x.name)
    if layer.act == "relu6":
        limits = [graph.constant("zero", np.array(0)), graph.constant("six", np.array(6))]
        y = graph.add("Clip", f"{layer.name}.relu6", [y, *limits])
    elif layer.act:
        y = graph.add("Relu", f"{layer.name}.relu", [y])
    return _Value(graph, y)


def _add_conv(graph: _Graph, layer: Layer, units: Units, x: str) -> str:
    weight = _weight(units, layer)
    if layer.reads == "image":
        weight = weight / (np.array(STD).reshape(1, 3, 1, 1) * 255)  # the image is centred, not scaled
    if not layer.norm:
        constants = [graph.constant(f"{layer.name}.weight", weight)]
    else:
        scale, shift = _affine(units, layer)
        weight = weight * scale[:, None, None, None]
        constants = [graph.constant(f"{layer.name}.weight", weight), graph.constant(f"{layer.name}.bias", shift)]
    return graph.add("Conv", layer.name, [x, *constants], group=layer.groups, **_shape(layer))


def _add_deconvs(graph: _Graph, norm: Layer, units: Units, x: _Deconvs) -> str:
    scale, shift = _affine(units, norm)
    weight = np.concatenate([_weight(units, layer) for layer in x.layers]) * scale[:, None, None]
    constants = [graph.constant(f"{norm.name}.weight", weight), graph.constant(f"{norm.name}.bias", shift)]
    maps = graph.add("Concat", f"{norm.name}.maps", list(x.reads), axis=1) if len(x.reads) > 1 else x.reads[0]
    return graph.add("ConvTranspose", norm.name, [maps, *constants], **_shape(x.layers[0]))


def _shape(layer: Layer) -> dict[str, Any]:
    return {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}


def _weight(units: Units, layer: Layer) -> np.ndarray:
    return units.unit(layer).conv.weight.detach().cpu().double().numpy()


def _affine(units: Units, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """What a layer's BatchNorm does in eval mode: scale (C,), then shift (C,)."""
    norm = units.unit(layer).norm
    assert norm.running_mean is not None and norm.running_var is not None
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (part.detach().cpu().double().numpy() for part in parts)
    scale = weight / np.sqrt(variance + norm.eps)
    return scale, bias - mean * scale
