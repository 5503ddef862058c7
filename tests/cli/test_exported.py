"""`eval` and `predict` with an exported model where a checkpoint could be: the same figures, the same people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ofa_pose.exports.formats import export_checkpoint
from ofa_pose.synthetic.dataset import write_dataset
from tests.cli.conftest import Call

NANO = "litepose-nano-coco"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(export_checkpoint(NANO, ["onnx"], tmp_path_factory.mktemp("exported")).files["onnx"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "scenes"
    write_dataset(out, images=3, size=192, joints="coco", seed=6, workers=1)
    return out


def truth(scenes: Path) -> tuple[object, ...]:
    return ("--annotations", scenes / "annotations.json", "--images", scenes / "images")


def people(path: Path) -> list[tuple[object, np.ndarray]]:
    return [(entry["image_id"], np.array(entry["keypoints"])) for entry in json.loads(path.read_text())]


def test_eval(call: Call, exported: str, scenes: Path, tmp_path: Path) -> None:
    found = {}
    for name, checkpoint in (("net", NANO), ("model", exported)):
        called = call("eval", "--checkpoint", checkpoint, *truth(scenes), "--out", tmp_path / name, "--json")
        assert called.code == 0, called.err
        found[name] = called.result
    assert found["model"]["metrics"] == pytest.approx(found["net"]["metrics"], abs=1e-3)
    assert found["model"]["metrics"]["AP"] > 0.3
    pairs = list(zip(*(people(tmp_path / name / "results.json") for name in found), strict=True))
    assert pairs
    for (image, ours), (expected_image, expected) in pairs:
        assert image == expected_image
        np.testing.assert_allclose(ours, expected, atol=0.1)


def test_eval_says_how_it_ran(call: Call, exported: str, scenes: Path) -> None:
    words = ("eval", "--checkpoint", exported, *truth(scenes))
    ran = call(*words, "--json", "--no-flip").result
    assert (ran["resolutions"], ran["flip"]) == ([192], False)
    ran = call(*words, "--json", "--resolution", 128, "--scales", "0.75,1.5").result
    assert (ran["resolutions"], ran["flip"]) == ([128, 96, 192], True)
    ran = call(*words, "--json", "--resolution", 96, "--decoding", "reference").result
    assert ran["resolutions"] == [128]  # LitePose's code takes multiples of 64
    shown = call(*words, "--resolution", 128, "--scales", "0.75")
    assert "128, 96" in shown.err and shown.out == ""


def test_predict(call: Call, exported: str, scenes: Path, tmp_path: Path) -> None:
    for name, checkpoint in (("net", NANO), ("model", exported)):
        called = call("predict", scenes / "images", "--checkpoint", checkpoint, "--out", tmp_path / name, "--json")
        assert called.code == 0, called.err
    pairs = list(zip(*(people(tmp_path / name / "predictions.json") for name in ("net", "model")), strict=True))
    assert len(pairs) >= 3
    for (image, expected), (our_image, ours) in pairs:
        assert image == our_image
        np.testing.assert_allclose(ours, expected, atol=0.1)
    assert len(list((tmp_path / "model" / "overlays").iterdir())) == 3


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_what_an_exported_model_cannot(command: str, call: Call, exported: str, scenes: Path, tmp_path: Path) -> None:
    words: tuple[object, ...] = truth(scenes) if command == "eval" else (scenes / "images", "--out", tmp_path)
    called = call(command, *words, "--checkpoint", exported, "--device", "cpu")
    message = "model.onnx: an exported model runs on the CPU; name no device, or a checkpoint"
    assert called.code == 2 and called.err.count("error:") == 1 and message in called.err
    called = call(command, *words, "--checkpoint", tmp_path / "gone.onnx")
    assert called.code == 2 and "gone.onnx: no such file" in called.err


def test_eval_needs_ground_truth(call: Call, exported: str, scenes: Path, tmp_path: Path) -> None:
    called = call("eval", "--checkpoint", exported)
    assert called.code == 2
    assert "eval of an exported model needs ground truth; add --annotations FILE" in called.err
    write_dataset(tmp_path / "crowd", images=1, size=64, joints="crowdpose", seed=6, workers=1)
    called = call("eval", "--checkpoint", exported, *truth(tmp_path / "crowd"))
    assert called.code == 2 and "the network has 17 joints (coco), the data 14 (crowdpose)" in called.err


def test_export_int8(call: Call, scenes: Path, tmp_path: Path) -> None:
    words = ("export", NANO, "--format", "onnx-int8", "--out", tmp_path / "out")
    calibration = ("--calibration-annotations", scenes / "annotations.json", "--calibration-images", scenes / "images")
    called = call(*words, *calibration, *truth(scenes))
    assert called.code == 0, called.err
    for shown in ("float32", "int8", "AP", "size", "in one thread"):
        assert shown in called.err
    made = tmp_path / "out" / "model.int8.onnx"
    assert {path.name for path in made.parent.iterdir()} == {made.name, "export.json"}
    scored = call("eval", "--checkpoint", made, *truth(scenes), "--no-flip", "--json").result
    report = call(*words, *calibration, *truth(scenes), "--json").result["onnx-int8"]
    assert report["AP"]["int8"] == pytest.approx(scored["metrics"]["AP"], abs=1e-9)
    assert report["AP"]["images"] == report["calibration_images"] == 3 and report["max_difference"] > 1e-3


def test_export_int8_is_refused(call: Call, scenes: Path, tmp_path: Path) -> None:
    out, images = ("--out", tmp_path / "out"), ("--images", scenes / "images")
    for words, message in (
        (("--format", "onnx-int8", *out), "int8 needs images to calibrate on"),
        (("--format", "onnx-int8", *out, *images), "--images says nothing without --annotations; give both"),
        (("--format", "onnx", *out, *truth(scenes)), "are for int8; add --format onnx-int8, or leave them out"),
    ):
        called = call("export", NANO, *words)
        assert called.code == 2 and message in called.err and not (tmp_path / "out").exists()
