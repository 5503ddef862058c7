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
from torch import nn

from ofa_pose.arch.plan import Layer
from ofa_pose.data.loader import MEAN, STD
from ofa_pose.models.litepose import LitePose, run_plan

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # old enough for the runtimes that devices have
INPUT, OUTPUTS = "images", ("low", "high")


def onnx_model(net: LitePose, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The ONNX model of a network in eval mode, any batch and any sides that are multiples of 16.

    Input 'images': float32 (batch, 3, height, width), RGB from 0 to 255; the normalisation is the graph's first step.
    Outputs 'low': (batch, 2J, height/4, width/4), J heatmaps then J tag maps; 'high': (batch, J, height/2, width/2),
    heatmaps. BatchNorms are folded into the convolutions before them.

    Args:
        metadata: what the model's metadata_props hold.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    mean, std = (np.array(value, np.float32).reshape(1, 3, 1, 1) * 255 for value in (MEAN, STD))
    centred = graph.add("Sub", "normalise.mean", [INPUT, graph.constant("mean", mean)])
    image = graph.add("Div", "normalise.std", [centred, graph.constant("std", std)])

    def apply(layer: Layer, value: Any) -> Any:
        return _Value(graph, _add_layer(graph, layer, net, value.name))

    results = run_plan(net.plan, cast(Any, _Value(graph, image)), apply)
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


def _add_layer(graph: _Graph, layer: Layer, net: LitePose, x: str) -> str:
    unit, name = net.unit(layer), layer.name
    if layer.kind == "norm":
        constants = [graph.constant(f"{name}.{part}", value) for part, value in _statistics(unit.norm).items()]
        x = graph.add("BatchNormalization", name, [x, *constants], epsilon=unit.norm.eps)
    else:
        weight = unit.conv.weight.detach().cpu().double().numpy()
        constants = (
            _folded(graph, name, weight, unit.norm) if layer.norm else [graph.constant(f"{name}.weight", weight)]
        )
        x = graph.add(
            {"conv": "Conv", "deconv": "ConvTranspose"}[layer.kind],
            name,
            [x, *constants],
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=layer.groups,
        )
    if layer.act == "relu6":
        limits = [graph.constant("zero", np.array(0)), graph.constant("six", np.array(6))]
        return graph.add("Clip", f"{name}.relu6", [x, *limits])
    return graph.add("Relu", f"{name}.relu", [x]) if layer.act else x


def _statistics(norm: nn.BatchNorm2d) -> dict[str, np.ndarray]:
    assert norm.running_mean is not None and norm.running_var is not None
    parts = {"scale": norm.weight, "shift": norm.bias, "mean": norm.running_mean, "var": norm.running_var}
    return {part: value.detach().cpu().double().numpy() for part, value in parts.items()}


def _folded(graph: _Graph, name: str, weight: np.ndarray, norm: nn.BatchNorm2d) -> list[str]:
    """Constants of a convolution (weight's first axis: output channels) that does the BatchNorm after it as well."""
    statistics = _statistics(norm)
    scale = statistics["scale"] / np.sqrt(statistics["var"] + norm.eps)
    folded = weight * scale[:, None, None, None]
    bias = statistics["shift"] - statistics["mean"] * scale
    return [graph.constant(f"{name}.weight", folded), graph.constant(f"{name}.bias", bias)]
