"""The decoder in the graph finds what the one in Python finds, on maps of every kind and on drawn scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ofa_pose import runtime
from ofa_pose.backends.onnxruntime import IR_VERSION, OPSET
from ofa_pose.backends.runners import JointRunner
from ofa_pose.cli import run
from ofa_pose.exports import formats
from ofa_pose.exports.formats import export_checkpoint
from ofa_pose.exports.in_graph import COLUMNS, add_decoder, check_candidates, compare_joints, find_joints
from ofa_pose.inference.pose_model import PoseModel, load_exported
from ofa_pose.pose.decode import DecodeConfig, decode, group_joints
from ofa_pose.pose.peaks import FAR_TAG
from ofa_pose.skeleton import COCO
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.synthetic.scenes import draw_scene
from ofa_pose.utils.errors import InputError, OfaPoseError

ort = pytest.importorskip("onnxruntime")
NANO = "litepose-nano-coco"
JOINTS = 3
CONFIGS = tuple(
    DecodeConfig(candidates=candidates, threshold=threshold)
    for candidates, threshold in ((30, 0.2), (1, 0.2), (5, 0.1), (64, 0.5))
)


@cache
def decoder_alone(config: DecodeConfig) -> Any:
    """A session of the decoder's graph alone: it takes the maps as they are."""
    sizes = {"low": (2 * JOINTS, "h", "w"), "high": (JOINTS, "2h", "2w")}
    takes = [helper.make_tensor_value_info(f"{name}.in", TensorProto.FLOAT, ("n", *sizes[name])) for name in sizes]
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", *sizes[name])) for name in sizes]
    nodes = [helper.make_node("Identity", [f"{name}.in"], [name]) for name in sizes]
    graph, versions = helper.make_graph(nodes, "maps", takes, gives), [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)
    add_decoder(model, JOINTS, config)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_equal(low: np.ndarray, high: np.ndarray, config: DecodeConfig) -> np.ndarray:
    (found,) = decoder_alone(config).run(None, {"low.in": low, "high.in": high})
    expected = find_joints(low, high, config)
    assert found.dtype == np.float32 and found.shape == expected.shape and np.isfinite(found).all()
    there = found[..., 2] > 0
    assert not found[~there].any(), "rows without a peak are zero"
    np.testing.assert_array_equal(there.sum(axis=2), (expected[..., 2] > 0).sum(axis=2))
    ours, theirs = found[there], expected[expected[..., 2] > 0]
    np.testing.assert_array_equal(ours[:, 2:], theirs[:, 2:].astype(np.float32))
    np.testing.assert_allclose(ours[:, :2], theirs[:, :2], atol=0.05, rtol=0)
    return found


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(CONFIGS),
    st.sampled_from((1, 2, 3, 6)),  # bits of a heat: sums and halves stay exact, coarse ones make plateaus
    st.sampled_from((0.0, 0.01, 0.3)),
    st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_on_maps_of_every_kind(seed: int, config: DecodeConfig, bits: int, broken: float, peaked: bool) -> None:
    rng = np.random.default_rng(seed)
    batch, *size = (int(side) for side in rng.integers((1, 1, 1), (4, 7, 7)))
    height, width = 4 * np.array(size)

    def draw(*shape: int) -> np.ndarray:
        values = rng.uniform(-0.3, 1.2, shape) ** (3 if peaked else 1)
        values = (np.round(values * 2**bits) / 2**bits).astype(np.float32)
        wrong = rng.random(shape) < broken
        values[wrong] = rng.choice(np.array([np.nan, np.inf, -np.inf, 2048, -8]), wrong.sum())
        return values

    heat, tags, high = (draw(batch, JOINTS, side * height, side * width) for side in (1, 1, 2))
    heat = np.where(np.isfinite(heat), heat, 0)  # between cells of inf and NaN OpenCV and ONNX Runtime differ
    tags = np.where(np.isfinite(tags), rng.normal(0, 3, tags.shape), tags)
    low = np.concatenate([heat, tags], axis=1).astype(np.float32)
    check_equal(low, high, config)


def test_plateaus_edges_and_broken_cells() -> None:
    low, high = np.zeros((1, 2 * JOINTS, 8, 8), np.float32), np.zeros((1, JOINTS, 16, 16), np.float32)
    high[0, 0, 5:7, 5:7] = 1  # a plateau is one peak
    high[0, 0, 0, 0] = high[0, 0, 15, 15] = 2  # corners
    high[0, 1, 4, 4], high[0, 1, 4, 6] = np.inf, 3  # what is broken is not a peak, nor is what lies beside it
    high[0, 2, 8, 8], high[0, 2, 8, 9], low[0, JOINTS + 2, 4, 4] = 1, np.nan, np.nan
    found = check_equal(low, high, DecodeConfig())[0]
    assert (found[..., 2] > 0).sum(axis=1).tolist() == [3, 0, 1]
    np.testing.assert_allclose(found[0, :2, :2], [[1, 1], [31, 31]], atol=1)
    assert found[2, 0, 3] == FAR_TAG
    assert not check_equal(np.zeros_like(low), np.zeros_like(high), DecodeConfig()).any()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped net with its decoder inside, as ONNX and OpenVINO, and without ('maps')."""
    out = tmp_path_factory.mktemp("exported")
    made = export_checkpoint(NANO, ["onnx", "openvino"], out, decoder_in_graph=True)
    assert made.reports["onnx"]["max_difference"] < 1e-4
    return {**made.files, "maps": export_checkpoint(NANO, ["onnx"], out).files["onnx"]}


def draw(count: int) -> np.ndarray:
    """Drawn scenes, RGB uint8 (count, 128, 128, 3)."""
    return np.stack([draw_scene(11, index, 128, COCO).image for index in range(count)])


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return draw(24)


def joint_runner(model: PoseModel) -> JointRunner:
    assert isinstance(model.runner, JointRunner)
    return model.runner


@pytest.mark.parametrize("number", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_on_drawn_scenes(number: int, exported: dict[str, Path]) -> None:
    """Joints of ONNX Runtime's and OpenVINO's graph, and the people that grouping makes of them."""
    scenes = draw(number)
    maps, (config, order) = load_exported(exported["maps"], 1), (DecodeConfig(), COCO.grouping_order)
    config = maps.config or config
    alone, people = replace(config, recover=False), 0
    for name, count in (("onnx", number), ("openvino", number // 3)):
        inside = joint_runner(load_exported(exported[name], 1))
        for start in range(0, count, 8):
            images = scenes[start : min(start + 8, count)]
            low, high = maps.runner(images)
            joints = inside.find_joints(images)
            compare_joints(joints, low, high, config, name)
            for ours, theirs in zip(
                group_joints(joints, order, config, 128), decode(low, high, order, alone), strict=True
            ):
                assert len(ours) == len(theirs)
                np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=0.05)
                np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
                people += len(ours)
    assert people > 2 * number


def test_any_size_and_batch(exported: dict[str, Path], scenes: np.ndarray) -> None:
    maps, inside = load_exported(exported["maps"], 1), joint_runner(load_exported(exported["onnx"], 1))
    for batch, height, width in ((1, 16, 16), (3, 48, 80), (2, 112, 64)):
        images = scenes[:batch, :height, :width]
        joints = inside.find_joints(images)
        assert joints.shape == (batch, 17, 30, 4)
        compare_joints(joints, *maps.runner(images), maps.config or DecodeConfig(), "onnx")
    with pytest.raises(InputError, match="cannot take an input of 40×32"):
        inside.find_joints(scenes[:1, :32, :40])


def test_a_difference_would_be_seen(scenes: np.ndarray, exported: dict[str, Path]) -> None:
    maps, inside = load_exported(exported["maps"], 1), joint_runner(load_exported(exported["onnx"], 1))
    config, outputs, joints = maps.config or DecodeConfig(), maps.runner(scenes[:2]), inside.find_joints(scenes[:2])
    first = np.argwhere(joints[..., 2] > config.threshold + 0.05)[0]
    for column, change in enumerate((1.0, 1.0, 0.01, 0.1)):
        changed = joints.copy()
        changed[(*first, column)] += change
        with pytest.raises(OfaPoseError, match="onnx's decoder in the graph does not find"):
            compare_joints(changed, *outputs, config, "onnx")
    with pytest.raises(OfaPoseError, match="does not find"):
        compare_joints(joints * 0, *outputs, config, "onnx")


def test_a_wrong_decoder_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(model: Any, joints: int, config: DecodeConfig) -> None:
        add_decoder(model, joints, replace(config, threshold=config.threshold + 0.2))

    monkeypatch.setattr(formats, "add_decoder", other)
    with pytest.raises(OfaPoseError, match="does not find the joints"):
        export_checkpoint(NANO, ["onnx"], tmp_path, decoder_in_graph=True)
    assert not [*tmp_path.iterdir()]


def test_the_file_says_what_it_gives(exported: dict[str, Path]) -> None:
    said = json.loads(exported["onnx"].with_suffix(".json").read_text(encoding="utf-8"))
    inside = {key: json.loads(text) for key, text in joint_runner(load_exported(exported["onnx"])).metadata.items()}
    assert said == inside
    assert said["outputs"] == {"joints": list(COLUMNS)} and "strides" not in said
    assert said["grouping_order"] == list(COCO.grouping_order)
    (output,) = onnx.load(str(exported["onnx"])).graph.output
    assert [axis.dim_value or axis.dim_param for axis in output.type.tensor_type.shape.dim] == ["batch", 17, 30, 4]


def test_the_runtime_and_predict_open_it(exported: dict[str, Path], scenes: np.ndarray, tmp_path: Path) -> None:
    poses, whole = runtime.load(exported["onnx"])(scenes[0]), runtime.load(exported["maps"])(scenes[0])
    assert len(poses) == len(whole) > 0
    found = poses.keypoints[..., 2] > 0
    np.testing.assert_allclose(poses.keypoints[found], whole.keypoints[found], atol=0.05)
    assert found.sum() <= (whole.keypoints[..., 2] > 0).sum()


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_flip_tests_and_scales_are_refused(
    name: str, exported: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "data", images=2, size=64, joints="coco", seed=1, workers=1)
    data = ["--annotations", str(tmp_path / "data/annotations.json"), "--images", str(tmp_path / "data/images")]
    call = ["eval", "--checkpoint", str(exported[name]), *data]
    for more in ([], ["--flip"], ["--no-flip", "--scales", "0.5"], ["--no-flip", "--decoding", "reference"]):
        assert run([*call, *more]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert "there are no maps for a flip test, scales or another decoding; use --no-flip and one scale" in line
    assert run([*call, "--no-flip", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["flip"] is False
    with pytest.raises(InputError, match="there are no maps for a flip test"):
        runtime.load(exported[name], flip=True)


def test_what_cannot_be_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--format", "ncnn", "--decoder", "in-graph"], "a decoder in the graph is of onnx and openvino"),
        (["--decoder", "in-graph"], "a decoder in the graph is of onnx and openvino"),
        (["--format", "onnx", "--decoder", "ingraph"], "no such decoder: 'ingraph'"),
    ):
        assert run(["export", NANO, *words, "--out", str(tmp_path)]) == 2
        assert message in capfd.readouterr().err
    for count in (0, 65):
        with pytest.raises(InputError, match=f"1 to 64 candidates a joint, not {count}"):
            check_candidates(DecodeConfig(candidates=count))
    assert not [*tmp_path.iterdir()]


def test_export_says_what_groups_the_joints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["export", NANO, "--format", "onnx", "--decoder", "in-graph", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.glob("model.*")} == {"model.joints.onnx", "model.joints.json"}
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("next: ")]
    named = [Path(word) for word in line.split() if word.startswith("/")]
    assert [path.name for path in named if path.is_file()] == ["grouping.js", "grouping.hpp"]
