"""LiteRT's graphs: operators that are fast, any sides, and what stands in the file besides."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.folding import whole
from ofa_pose.backends.litert import MOST_WEIGHTS, LitertRunner, litert_model, row_groups, with_metadata
from ofa_pose.backends.runtimes import make_runner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError
from tests.networks import randomised

pytest.importorskip("ai_edge_litert")
SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=7, joints=5)
METADATA = {"spec": '{"a": [1, "×"]}', "input_multiple": "16"}


def network(kernel: int = 7) -> LitePose:
    spec = replace(SPEC, kernel=kernel)
    return randomised(LitePose(spec, torch.Generator().manual_seed(0))).eval()


def read(content: bytes) -> Any:
    return importlib.import_module("ai_edge_litert.tools.flatbuffer_utils").read_model_from_bytearray(content)


def operators(content: bytes) -> list[tuple[str, Any]]:
    """The name and the object of each operator."""
    schema, model = importlib.import_module("ai_edge_litert.schema_py_generated"), read(content)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [(codes[one.opcodeIndex], one) for one in model.subgraphs[0].operators]


@given(st.integers(1, 40))
def test_rows_that_are_computed_together(side: int) -> None:
    groups = row_groups(side)
    assert sorted(row for rows in groups for row in rows) == list(range(side))
    for rows in groups:
        assert {rows[0] + rows[-1]} == {side - 1}  # around the kernel's centre
        assert len({after - before for before, after in pairwise(rows)}) <= 1  # one dilation
        assert len(rows) * side <= MOST_WEIGHTS or groups == [list(range(side))]
    assert len(groups) == 1 or 2 * side <= MOST_WEIGHTS < side * side


@settings(max_examples=4, deadline=None)
@given(st.sampled_from([1, 3, 5, 9, 11, 13]), st.integers(1, 3), st.integers(1, 3))
def test_other_kernels(kernel: int, rows: int, columns: int) -> None:
    net = network(kernel)
    images = np.random.default_rng(kernel).integers(0, 256, (1, 16 * rows, 16 * columns, 3), np.uint8)
    for found, expected in zip(make_runner(net, "litert", 1)(images), TorchRunner(net)(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_operators_are_fast_and_take_any_sides() -> None:
    content = litert_model(whole(network()))
    counts = Counter(name for name, _ in operators(content))
    assert not {"TRANSPOSE_CONV", "TRANSPOSE", "RESHAPE", "DEQUANTIZE"} & set(counts)
    assert counts["DEPTH_TO_SPACE"] == counts["STRIDED_SLICE"] == 3  # one a deconvolution
    (graph,) = read(content).subgraphs
    for name, one in operators(content):
        shape = graph.tensors[one.inputs[1]].shape if len(one.inputs) > 1 else []
        assert name != "DEPTHWISE_CONV_2D" or shape[1] * shape[2] <= MOST_WEIGHTS
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(model_content=content)
    (images,) = interpreter.get_input_details()
    assert images["shape"].tolist() == [1, 64, 64, 3] and images["shape_signature"].tolist() == [-1, -1, -1, 3]
    (signature,) = interpreter.get_signature_list().values()
    assert (signature["inputs"], sorted(signature["outputs"])) == (["images"], ["high", "low"])
    interpreter.allocate_tensors()
    assert [one["op_name"] for one in interpreter._get_ops_details()].count("DELEGATE") == 1  # XNNPACK's, of them all


def test_plain_kernels_compute_it_too() -> None:
    """A device's own, without XNNPACK."""
    module, net = importlib.import_module("ai_edge_litert.interpreter"), network()
    plain = module.OpResolverType.BUILTIN_REF
    interpreter = module.Interpreter(
        model_content=litert_model(whole(net)), experimental_op_resolver_type=plain, num_threads=1
    )
    interpreter.allocate_tensors()
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.astype(np.float32))
    interpreter.invoke()
    for part, expected in zip(interpreter.get_output_details(), TorchRunner(net)(image), strict=True):
        found = interpreter.get_tensor(part["index"]).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def test_weights_as_float16(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "model.tflite"
    single, half = (litert_model(whole(net), METADATA, half=half) for half in (False, True))
    assert Counter(name for name, _ in operators(half))["DEQUANTIZE"] > 0
    weights = sum(layer.weight_shape[0] * np.prod(layer.weight_shape[1:]) for layer in net.plan.layers())
    assert len(single) - len(half) > weights
    path.write_bytes(half)
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 80, 3), np.uint8)
    for found, expected in zip(LitertRunner(path, 1)(images), TorchRunner(net)(images), strict=True):
        most = float(np.abs(expected).max())
        assert 1e-5 < float(np.abs(found - expected).max()) / most < 0.02


def test_metadata_travel_in_the_file(tmp_path: Path) -> None:
    content = litert_model(whole(network()), METADATA)
    for name, written in (("a", content), ("b", with_metadata(content, {**METADATA, "more": "[1]"}))):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(written)
        runner = LitertRunner(path, 1)
        values = {key: json.loads(value) for key, value in runner.metadata.items()}
        assert values == {"spec": {"a": [1, "×"]}, "input_multiple": 16} | ({"more": [1]} if name == "b" else {})
    tools = importlib.import_module("ai_edge_litert.tools.flatbuffer_utils")
    model = read(content)
    model.buffers[model.metadata[0].buffer].data = np.frombuffer(b"{", np.uint8)
    (tmp_path / "c.tflite").write_bytes(tools.convert_object_to_bytearray(model))
    with pytest.raises(InputError, match=r"c\.tflite: holds no metadata; export the model again"):
        LitertRunner(tmp_path / "c.tflite", 1)
    entry = model.metadata[0]
    for buffer in (0, len(model.buffers), 2**32 - 1):  # which holds nothing, or is not there
        entry.buffer = buffer
        (tmp_path / "c.tflite").write_bytes(tools.convert_object_to_bytearray(model))
        with pytest.raises(InputError, match=r"holds no metadata|cannot be loaded"):
            LitertRunner(tmp_path / "c.tflite", 1)
    model.metadata = []
    (tmp_path / "c.tflite").write_bytes(tools.convert_object_to_bytearray(model))
    assert LitertRunner(tmp_path / "c.tflite", 1).metadata == {}
    model.subgraphs[0].tensors[0].name = "pixels"
    (tmp_path / "c.tflite").write_bytes(tools.convert_object_to_bytearray(model))
    with pytest.raises(InputError, match="is not a model that ofa-pose exported"):
        LitertRunner(tmp_path / "c.tflite", 1)
