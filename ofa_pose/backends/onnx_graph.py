"""A network as an ONNX graph, written from its layer plan (see `folding`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.arch.walk import Apply, Units, run_plan
from ofa_pose.backends import INPUT
from ofa_pose.backends.folding import Walk, write_part
from ofa_pose.models.litepose import LitePose

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
    joints = net.spec.joints
    shapes = {"low": (2 * joints, "height/4", "width/4"), "high": (joints, "height/2", "width/2")}

    def walk(apply: Apply, image: Any) -> Any:
        return run_plan(net.plan, image, apply)

    return onnx_part(net, {INPUT: 3}, walk, shapes, metadata)


def onnx_part(
    units: Units,
    inputs: Mapping[str, int],
    walk: Walk,
    outputs: Mapping[str, tuple[int | str, int | str, int | str]],
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The ONNX model of any part of a network in eval mode, made as `onnx_model` makes a whole one.

    Args:
        units: has the weights of the part's layers.
        inputs: the name of every input, float32 (batch, channels, height, width), and its channels. What is called
            'images' is RGB from 0 to 255 and normalised first.
        walk: `walk(apply, *inputs)` computes the part with `apply(layer, input)`; its results, in the order of outputs.
        outputs: the name of every output, and its channels, height and width, the latter two a number or a name.
        metadata: what the model's metadata_props hold.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    write_part(graph, units, inputs, walk, outputs)
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


@dataclass
class _Graph:
    """Nodes in the order of execution, and the constants they read."""

    nodes: list[Any] = field(default_factory=list)
    initialisers: dict[str, Any] = field(default_factory=dict)

    def add_node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; the name of its one output, which is the node's own."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store a float32 constant; its name."""
        from onnx import numpy_helper

        self.initialisers[name] = numpy_helper.from_array(value.astype(np.float32), name)
        return name

    def centre(self, image: str, mean: np.ndarray) -> str:
        return self.add_node("Sub", "normalise", [image, self.constant("mean", mean.reshape(1, 3, 1, 1))])

    def conv(self, layer: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        constants = [self.constant(f"{layer.name}.weight", weight)]
        if bias is not None:
            constants.append(self.constant(f"{layer.name}.bias", bias))
        y = self.add_node("Conv", layer.name, [x, *constants], group=layer.groups, **_shape(layer))
        return self._activate(layer, y)

    def deconv(self, layer: Layer, norm: Layer, reads: tuple[str, ...], weight: np.ndarray, bias: np.ndarray) -> str:
        constants = [self.constant(f"{norm.name}.weight", weight), self.constant(f"{norm.name}.bias", bias)]
        maps = self.add_node("Concat", f"{norm.name}.maps", list(reads), axis=1) if len(reads) > 1 else reads[0]
        return self._activate(norm, self.add_node("ConvTranspose", norm.name, [maps, *constants], **_shape(layer)))

    def add(self, name: str, one: str, other: str) -> str:
        return self.add_node("Add", name, [one, other])

    def _activate(self, layer: Layer, y: str) -> str:
        if layer.act == "relu6":
            limits = [self.constant("zero", np.array(0)), self.constant("six", np.array(6))]
            return self.add_node("Clip", f"{layer.name}.relu6", [y, *limits])
        return self.add_node("Relu", f"{layer.name}.relu", [y]) if layer.act else y

    def rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            if node.output[0] == old:
                node.output[0] = new


def _shape(layer: Layer) -> dict[str, Any]:
    return {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
