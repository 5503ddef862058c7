"""ONNX Runtime in 8-bit integers: static quantisation of an ONNX model (Jacob et al., CVPR 2018).

Weights become int8 with a scale a channel, activations uint8 with a scale and a zero point a map, from the least and
the greatest value that calibration sees. The graph holds QuantizeLinear and DequantizeLinear nodes (QDQ), which ONNX
Runtime fuses into integer kernels; other runtimes read them too.

What is what, measured on the shipped net (192 pixels, 200 drawn scenes, AP .5608 in float32): all of it in int8 .5560,
all but the outputs' last convolutions .5594, with one scale a tensor instead of one a channel .0132. ONNX Runtime's
integer kernels are slower than its float ones for the stem and for the outputs' depthwise convolutions, which see the
largest maps, so these stay float: 4.9 ms with them in int8, 3.9 ms without, 4.2 ms in float32 (one thread with VNNI;
LitePose-S at 448: 46, 42 and 53 ms). Deconvolutions have no integer kernel there and are computed in float; their
weights are int8 for the file's sake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.backends.folding import NetPart, whole
from ofa_pose.backends.on_device import Run, onnx_run, onnx_session, random_inputs
from ofa_pose.backends.onnxruntime import OnnxRunner, onnx_model, with_constant_weights
from ofa_pose.backends.runners import INPUT
from ofa_pose.backends.runtimes import Backend

if TYPE_CHECKING:
    import onnx

FLOAT = ("normalise", "stem.", "outputs.")
"""What names of LitePose's nodes, and of its layers, begin with that stay float: the largest maps are theirs."""
ANY_RANGE = (-1.0, 1.0)  # of models that are only timed
ACTIVATIONS = ("Clip", "Relu")

Ranges = Mapping[str, tuple[float, float]]
"""The least and the greatest value of maps, by the name of the node's output."""


def float_nodes(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """Which nodes stay float: LitePose's normalisation, stem and outputs; norms that are not folded in other nets."""
    return [node.name for node in nodes if node.name.startswith(FLOAT) or node.op_type == "BatchNormalization"]


def quantised_maps(model: onnx.ModelProto) -> list[str]:
    """The maps of a model of ours that its int8 form rounds: what quantised nodes read and write.

    What a Clip or a Relu alone reads is not among them: that node becomes the end of the range of what it gives.
    """
    from onnx import TensorProto, shape_inference

    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    known = [*inferred.value_info, *graph.input, *graph.output]
    floats = {one.name for one in known if one.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants, left = {one.name for one in graph.initializer}, set(float_nodes(graph.node))
    nodes = [node for node in graph.node if node.op_type in _quantisable() and node.name not in left]
    readers = Counter(name for node in graph.node for name in node.input)
    inner = {node.input[0] for node in nodes if node.op_type in ACTIVATIONS and readers[node.input[0]] == 1}
    inner -= {one.name for one in graph.output}
    names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))
    return [name for name in names if name in floats and name not in constants and name not in inner]


def measure_ranges(model: onnx.ModelProto, batches: Iterable[np.ndarray], threads: int = 0) -> Ranges:
    """What `quantised_maps` reach over batches of `planes`, computed in float, in so many threads (0: any)."""
    import onnx
    from onnx import TensorProto, helper

    names = quantised_maps(model)
    reducing = onnx.ModelProto()
    reducing.CopyFrom(model)
    graph = reducing.graph
    del graph.output[:]
    for name in names:
        for operator in ("ReduceMin", "ReduceMax"):
            result = f"{name}/{operator}"
            graph.node.append(helper.make_node(operator, [name], [result], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, ()))
    session = onnx_session(reducing.SerializeToString(), threads)
    least, greatest = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for images in batches:
        found = np.array(session.run(None, {INPUT: images}))
        least, greatest = np.minimum(least, found[::2]), np.maximum(greatest, found[1::2])
    return dict(zip(names, zip(least.tolist(), greatest.tolist(), strict=True), strict=True))


def quantised(model: onnx.ModelProto, ranges: Ranges, per_channel: bool = True) -> onnx.ModelProto:
    """The int8 form of a model of ours, given what its maps reach; the model stays as it is.

    Without a scale a channel, one a weight, it is made in a third of the time, as fast, and no good but to be timed.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    seen = {name: (np.float32(least), np.float32(greatest)) for name, (least, greatest) in ranges.items()}
    for node in model.graph.node:
        if node.op_type in ACTIVATIONS and node.output[0] in seen:  # asked for, and not used where the node goes
            seen.setdefault(node.input[0], seen[node.output[0]])
    quantizer = QDQQuantizer(
        model,
        per_channel,
        False,  # all of a byte's values
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, seen),
        [],
        float_nodes(model.graph.node),
        sorted(_quantisable()),
        {},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    return result


def _quantisable() -> set[str]:
    """The operators that ONNX Runtime's quantiser takes by default."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return {*QDQRegistry, *QLinearOpsRegistry}


def timed_model(part: NetPart) -> onnx.ModelProto:
    """The int8 form of a network, or of a part as it is inside of one, with ranges that serve for timing alone.

    Inside a network what reaches a part was rounded already, and what leaves it goes on as integers: these maps,
    `NetPart.inner`, are uint8, though the part itself may stay float.
    """
    model = onnx_model(part)
    model = quantised(model, dict.fromkeys(quantised_maps(model), ANY_RANGE), per_channel=False)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in part.inner:
            _make_integer(model.graph, value)
    return model


def _make_integer(graph: onnx.GraphProto, border: onnx.ValueInfoProto) -> None:
    """Let a graph take an input, or give an output, as integers: of a pair of QDQ nodes half is outside."""
    from onnx import TensorProto, helper, numpy_helper

    outward, inward = "QuantizeLinear", "DequantizeLinear"
    name, is_input = border.name, border in graph.input
    border.type.tensor_type.elem_type = TensorProto.UINT8
    at = next(i for i, node in enumerate(graph.node) if name in (node.input if is_input else node.output))
    if graph.node[at].op_type == (outward if is_input else inward):  # the half outside goes
        other = graph.node[at].output[0] if is_input else graph.node[at].input[0]
        del graph.node[at]
        for node in graph.node:
            names = node.input if is_input else node.output
            names[:] = [name if one == other else one for one in names]
        return
    scale, zero, inner = f"{name}_scale", f"{name}_zero_point", f"{name}_inner"
    graph.initializer.append(numpy_helper.from_array(np.array(1 / 128, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), zero))
    for node in graph.node:
        names = node.input if is_input else node.output
        names[:] = [inner if one == name else one for one in names]
    if is_input:
        graph.node.insert(at, helper.make_node(inward, [name, scale, zero], [inner], f"{name}.inward"))
    else:
        graph.node.append(helper.make_node(outward, [inner, scale, zero], [name], f"{name}.outward"))


def _prepare(part: NetPart, threads: int) -> Run:
    return onnx_run(timed_model(part).SerializeToString(), random_inputs(part.inputs), threads)


def _bundle(part: NetPart) -> tuple[bytes, dict[str, Any]]:
    return with_constant_weights(timed_model(part)).SerializeToString(), {}


BACKEND = Backend(  # of networks to be timed; a model of real ranges is made by `measure_ranges` and `quantised`
    title="ONNX Runtime in int8",
    packages=("onnxruntime",),
    to_write=("onnx",),
    extra="onnx",
    run=lambda net, threads: OnnxRunner(timed_model(whole(net)).SerializeToString(), threads),
    prepare=_prepare,
    bundle=_bundle,
)
