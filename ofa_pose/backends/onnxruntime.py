"""ONNX Runtime: a network as an ONNX graph, written from its layer plan (see `folding`), and computed on the CPU.

Networks of other families have no plan; torch's exporter writes theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.backends.folding import NetPart, whole, write_part
from ofa_pose.backends.on_device import Run, onnx_run, onnx_session, random_inputs
from ofa_pose.backends.runners import (
    INPUT,
    JOINTS,
    OUTPUTS,
    ExportedRunner,
    JointRunner,
    check_names,
    in_chunks,
    not_loaded,
)
from ofa_pose.backends.runtimes import Backend
from ofa_pose.utils import files
from ofa_pose.utils.atomic import scratch_folder
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    import onnx

    from ofa_pose.models.pose_net import PoseNet

OPSET, IR_VERSION = 17, 8  # old enough for the runtimes that devices have
WEIGHT = 0.01  # of models that are only timed
NORMALISED = "normalised"  # what a network without a layer plan takes, inside its graph
INPUT_AXES = {0: "batch", 2: "height", 3: "width"}


def onnx_model(part: NetPart, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The ONNX model of a part, with metadata as its metadata_props; of a network, sides are multiples of 16.

    Inputs are float32 (batch, channels, height, width); an image is RGB from 0 to 255, normalised in the graph.
    """
    from onnx import helper

    cells = {name: f"/{OUTPUTS[name]}" if name in OUTPUTS else f".{name}" for name in part.outputs}
    axes = {name: {0: "batch", 2: f"height{scale}", 3: f"width{scale}"} for name, scale in cells.items()}
    model = _written(part, axes) if part.walk else _traced(part, axes)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def _written(part: NetPart, axes: Mapping[str, Mapping[int, str]]) -> onnx.ModelProto:
    """The model of a layer plan; axes: of each output, names of those that may have any size."""
    from onnx import TensorProto, helper

    graph = _OnnxGraph()
    write_part(graph, part)

    def described(name: str, channels: int, names: Mapping[int, str]) -> onnx.ValueInfoProto:
        shape = (names[0], channels, names[2], names[3])
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    reads = [described(name, channels, INPUT_AXES) for name, (channels, _) in part.inputs.items()]
    writes = [described(name, channels, axes[name]) for name, channels in part.outputs.items()]
    return helper.make_model(
        helper.make_graph(graph.nodes, "LitePose", reads, writes, list(graph.initialisers.values())),
        producer_name="ofa-pose",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def _traced(part: NetPart, axes: Mapping[str, Mapping[int, str]]) -> onnx.ModelProto:
    """The model of a network without a layer plan, as torch exports it, behind the normalisation."""
    import onnx
    from onnx import helper, numpy_helper

    with scratch_folder() as folder:
        path = folder / "model.onnx"
        part.net.save_onnx(path, OPSET, {NORMALISED: INPUT_AXES}, axes)
        model = onnx.load(str(path))
    graph = model.graph
    graph.input[0].name = INPUT
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) * np.float32(255) for values in (MEAN, STD))
    graph.initializer.extend([numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(std, "std")])
    graph.node.insert(0, helper.make_node("Sub", [INPUT, "mean"], ["centred"], "centre"))
    graph.node.insert(1, helper.make_node("Div", ["centred", "std"], [NORMALISED], "normalise"))
    model.producer_name, model.producer_version, model.ir_version = "ofa-pose", "", IR_VERSION
    return model


@dataclass
class _OnnxGraph:
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

    def concat(self, name: str, maps: list[str]) -> str:
        return self.add_node("Concat", name, maps, axis=1)

    def conv(self, layer: Layer, named: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        inputs = [x, self.constant(f"{named.name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{named.name}.bias", bias))
        operator, groups = ("ConvTranspose", {}) if layer.kind == "deconv" else ("Conv", {"group": layer.groups})
        shape = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
        y = self.add_node(operator, named.name, inputs, **groups, **shape)
        if named.act == "relu6":
            limits = [self.constant("zero", np.array(0)), self.constant("six", np.array(6))]
            return self.add_node("Clip", f"{named.name}.relu6", [y, *limits])
        return self.add_node("Relu", f"{named.name}.relu", [y]) if named.act else y

    def add(self, name: str, one: str, other: str) -> str:
        return self.add_node("Add", name, [one, other])

    def rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            if node.output[0] == old:
                node.output[0] = new


class OnnxRunner:
    """An `ExportedRunner` over the ONNX model of a network; `metadata` are its metadata_props."""

    def __init__(self, source: str | Path | bytes, threads: int = 0, streams: int = 1) -> None:
        """Load a file, or its content. Raises InputError where it is not such a model."""
        self.streams = streams
        where = "the model" if isinstance(source, bytes) else str(source)
        try:
            if isinstance(source, bytes):
                self._session = onnx_session(source, threads)
            else:
                with files.in_utf8(Path(source)) as (name,):
                    self._session = onnx_session(name, threads)
        except Exception as error:  # its errors share no base class but Exception
            raise not_loaded("ONNX Runtime", error, where) from None
        try:
            reads, writes = self._session.get_inputs(), self._session.get_outputs()
            self.holds_decoder = check_names([part.name for part in reads], [part.name for part in writes], where)
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise InputError("is damaged: it holds text that is not UTF-8", where, "export it again") from None

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return in_chunks(lambda planes: self.run(list(OUTPUTS), planes), images)

    def run(self, outputs: list[str], planes: np.ndarray) -> list[np.ndarray]:
        """Outputs by name, for float32 images (B, 3, H, W) from 0 to 255."""
        found: list[np.ndarray] = self._session.run(outputs, {INPUT: planes})
        return found


def _open(path: Path, threads: int, streams: int) -> ExportedRunner:
    runner = OnnxRunner(path, threads, streams)
    if runner.holds_decoder:
        return JointRunner(partial(runner.run, [JOINTS]), runner.metadata, streams)
    return runner


def _write(net: PoseNet, path: Path, metadata: Mapping[str, str]) -> None:
    _save(onnx_model(whole(net), metadata), path, metadata)


def _save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _write_half(net: PoseNet, path: Path, metadata: Mapping[str, str]) -> None:
    """Images and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(onnx_model(whole(net), metadata), keep_io_types=True)
    OnnxModel(model).topological_sort()  # it puts its casts at the end
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _prepare(part: NetPart, threads: int) -> Run:
    return onnx_run(onnx_model(part).SerializeToString(), random_inputs(part.inputs), threads)


def with_constant_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, with all weights alike, made when it is loaded: small, and as fast."""
    from onnx import TensorProto, helper, numpy_helper

    graph, nodes = model.graph, []
    for weight in [tensor for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.name != "mean"]:
        shape = f"{weight.name}.shape"
        constant = WEIGHT if weight.data_type == TensorProto.FLOAT else 1
        value = helper.make_tensor("value", weight.data_type, [1], [constant])
        nodes.append(helper.make_node("ConstantOfShape", [shape], [weight.name], name=weight.name, value=value))
        sizes = numpy_helper.from_array(np.array(weight.dims, np.int64), shape)
        graph.initializer.remove(weight)
        graph.initializer.append(sizes)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _bundle(part: NetPart) -> tuple[bytes, dict[str, Any]]:
    """A thousandth of the size."""
    return with_constant_weights(onnx_model(part)).SerializeToString(), {}


BACKEND = Backend(
    title="ONNX Runtime",
    packages=("onnxruntime",),
    to_write=("onnx",),
    extra="onnx",
    files=(".onnx",),
    write=_write,
    write_half=_write_half,
    save=_save,
    open=_open,
    prepare=_prepare,
    bundle=_bundle,
)
