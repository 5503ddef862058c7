"""int8 models: that they are what ONNX Runtime's own tool makes, and parts of them what is inside of a whole one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.folding import whole
from ofa_pose.families.lightweight_openpose import LightweightOpenPoseSpec
from ofa_pose.families.table import build_net
from ofa_pose.latency.measure import net_part, open_device
from ofa_pose.latency.pieces import Piece, plan_pieces
from ofa_pose.models.litepose import LitePose
from tests.networks import randomised

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from ofa_pose.backends.onnxruntime import onnx_model  # noqa: E402
from ofa_pose.backends.onnxruntime_int8 import (  # noqa: E402
    float_nodes,
    measure_ranges,
    quantised,
    quantised_maps,
    timed_model,
    with_constant_weights,
)

SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


def model_of(head: str = "fusion", seed: int = 0) -> onnx.ModelProto:
    spec = ArchSpec.from_dict({**SPEC.to_dict(), "head": head})
    return onnx_model(whole(randomised(LitePose(spec, torch.Generator().manual_seed(seed)), seed).eval()))


def batches(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (2, 3, 64, 64 + 16 * number)).astype(np.float32) for number in range(count)]


@pytest.mark.parametrize("head", ["fusion", "plain"])
def test_it_is_what_the_runtime_s_own_tool_makes(head: str, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = model_of(head)
    inputs = ({"images": images} for images in batches())
    quantize_static(
        model_of(head),
        str(tmp_path / "model.onnx"),
        SimpleNamespace(get_next=partial(next, inputs, None)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=float_nodes(model.graph.node),
        calibrate_method=CalibrationMethod.MinMax,
    )
    theirs, ours = onnx.load(str(tmp_path / "model.onnx")), quantised(model, measure_ranges(model, batches()))
    assert _nodes(ours) == _nodes(theirs)
    found, expected = _constants(ours), _constants(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        if value.dtype == np.float32:
            np.testing.assert_allclose(found[name], value, rtol=1e-5)
        else:
            np.testing.assert_allclose(found[name].astype(float), value, atol=1 if value.dtype != np.int32 else 5)


def _nodes(model: onnx.ModelProto) -> set[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    return {(node.op_type, node.name, tuple(node.input), tuple(node.output)) for node in model.graph.node}


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}


@pytest.mark.slow
def test_a_network_of_another_family_too() -> None:
    """torch's exporter writes it, with nodes that compute sizes."""
    model = onnx_model(whole(build_net(LightweightOpenPoseSpec(joints=5, width=16)).eval()))
    ranges = measure_ranges(model, batches(1))
    assert all(least <= greatest for least, greatest in ranges.values())
    made = quantised(model, ranges)
    assert {"QuantizeLinear", "DequantizeLinear"} < {node.op_type for node in made.graph.node}


def test_ranges_are_those_of_all_batches() -> None:
    model, (one, other, _) = model_of(), batches()
    both, first, second = (measure_ranges(model, given) for given in ([one, other], [one], [other]))
    for name in quantised_maps(model):
        assert both[name] == (min(first[name][0], second[name][0]), max(first[name][1], second[name][1]))
    assert both != first and both != second


def test_parts_are_as_they_are_inside() -> None:
    """What a piece computes in integers, what in floats, and what it takes and gives, is so in the whole network too.

    Joined, the pieces have the nodes of the network: only the halves at the borders are shared by several readers.
    """
    inside = _operators(timed_model(net_part(SPEC)))
    pieces = plan_pieces(make_plan(SPEC))
    apart = [_operators(timed_model(net_part(piece))) for piece in pieces]
    for operator in ("Conv", "ConvTranspose", "Add", "Concat", "Relu", "Clip", "QuantizeLinear"):
        assert sum(one.count(operator) for one in apart) == inside.count(operator), operator


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", ["stem", "block", "deconv", "output"])
def test_the_borders_of_a_part(kind: str) -> None:
    piece = next(piece for piece in plan_pieces(make_plan(SPEC)) if piece.kind == kind)
    model = timed_model(net_part(piece))
    onnx.checker.check_model(model, full_check=True)
    integers = [value.type.tensor_type.elem_type == onnx.TensorProto.UINT8 for value in model.graph.input]
    assert integers == [kind != "stem"] * len(integers)
    (result,) = model.graph.output
    assert (result.type.tensor_type.elem_type == onnx.TensorProto.UINT8) == (kind != "output")


def test_parts_and_networks_run() -> None:
    device = open_device("onnxruntime-int8", 1)
    assert device.runtime.startswith("onnxruntime-int8 ")
    for subject in (*dict.fromkeys(plan_pieces(make_plan(SPEC))), SPEC):
        (first, *_) = device.load(subject)()  # type: ignore[misc]
        assert first.dtype == (np.uint8 if isinstance(subject, Piece) and subject.kind != "output" else np.float32)


def test_light_models_are_integers_too() -> None:
    part = net_part(SPEC)
    model = with_constant_weights(timed_model(part))
    assert model.ByteSize() < 0.8 * timed_model(part).ByteSize()
    weights = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    kinds = {node.attribute[0].t.data_type for node in weights}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8}
