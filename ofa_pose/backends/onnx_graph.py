"""A network as an ONNX graph, written from its layer plan.

torch's exporters take 3 s (TorchScript, deprecated) to 30 s (torch.export) for LitePose-XS and name their nodes after
Python internals. The plan already is a graph, so it is walked once: milliseconds, the same bytes every time, nodes
named after layers, and no dependence on torch's version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.data.loader import MEAN, STD
from ofa_pose.models.litepose import LitePose, run_plan

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # old enough for the runtimes that devices have


def onnx_model(net: LitePose, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The ONNX model of a network in eval mode, any batch and any sides that are multiples of 16.

    Input 'images': float32 (batch, 3, height, width), RGB from 0 to 255; the normalisation is the graph's first step.
    Outputs 'low': (batch, 2J, height/4, width/4), J heatmaps then J tag maps; 'high': (batch, J, height/2, width/2),
    heatmaps. BatchNorms and the normalisation's scale are folded into the convolutions beside them.

    Args:
        metadata: what the model's metadata_props hold.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    mean = graph.constant("mean", np.array(MEAN).reshape(1, 3, 1, 1) * 255)
    image = _Value(graph, graph.add("Sub", "normalise", [INPUT, mean]))

    def apply(layer: Layer, value: Any) -> Any:
        return _add_layer(graph, layer, net, value)

    results = run_plan(net.plan, cast(Any, image), apply)
    for result, name in zip(cast(Any, results), OUTPUTS, strict=True):
        graph.rename(result.name, name)
    joints = net.spec.joints
    shapes = {"low": (2 * joints, "height/4", "width/4"), "high": (joints, "height/2", "width/2")}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "LitePose",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, "height", "width"])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shapes[name]]) for name in OUTPUTS],
            list(graph.initialisers.values()),
        ),
        producer_name="ofa-pose",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    return model


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


def _add_layer(graph: _Graph, layer: Layer, net: LitePose, x: _Value | _Deconvs) -> _Value | _Deconvs:
    if layer.kind == "deconv":
        assert isinstance(x, _Value)
        return _Deconvs((layer,), (x.name,))
    y = _add_deconvs(graph, layer, net, x) if isinstance(x, _Deconvs) else _add_conv(graph, layer, net, x.name)
    if layer.act == "relu6":
        limits = [graph.constant("zero", np.array(0)), graph.constant("six", np.array(6))]
        y = graph.add("Clip", f"{layer.name}.relu6", [y, *limits])
    elif layer.act:
        y = graph.add("Relu", f"{layer.name}.relu", [y])
    return _Value(graph, y)


def _add_conv(graph: _Graph, layer: Layer, net: LitePose, x: str) -> str:
    weight = _weight(net, layer)
    if layer is net.plan.stem[0]:
        weight = weight / (np.array(STD).reshape(1, 3, 1, 1) * 255)  # the image is centred, not scaled
    if not layer.norm:
        constants = [graph.constant(f"{layer.name}.weight", weight)]
    else:
        scale, shift = _affine(net, layer)
        weight = weight * scale[:, None, None, None]
        constants = [graph.constant(f"{layer.name}.weight", weight), graph.constant(f"{layer.name}.bias", shift)]
    return graph.add("Conv", layer.name, [x, *constants], group=layer.groups, **_shape(layer))


def _add_deconvs(graph: _Graph, norm: Layer, net: LitePose, x: _Deconvs) -> str:
    scale, shift = _affine(net, norm)
    weight = np.concatenate([_weight(net, layer) for layer in x.layers]) * scale[:, None, None]
    constants = [graph.constant(f"{norm.name}.weight", weight), graph.constant(f"{norm.name}.bias", shift)]
    maps = graph.add("Concat", f"{norm.name}.maps", list(x.reads), axis=1) if len(x.reads) > 1 else x.reads[0]
    return graph.add("ConvTranspose", norm.name, [maps, *constants], **_shape(x.layers[0]))


def _shape(layer: Layer) -> dict[str, Any]:
    return {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}


def _weight(net: LitePose, layer: Layer) -> np.ndarray:
    return net.unit(layer).conv.weight.detach().cpu().double().numpy()


def _affine(net: LitePose, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """What a layer's BatchNorm does in eval mode: scale (C,), then shift (C,)."""
    norm = net.unit(layer).norm
    assert norm.running_mean is not None and norm.running_var is not None
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (part.detach().cpu().double().numpy() for part in parts)
    scale = weight / np.sqrt(variance + norm.eps)
    return scale, bias - mean * scale
