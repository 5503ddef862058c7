"""int8 models: what is quantised and what is not, that the people stay, and what is said of it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ofa_pose import runtime
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.litert import LitertRunner
from ofa_pose.backends.onnxruntime import OnnxRunner
from ofa_pose.backends.onnxruntime_int8 import float_nodes
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset, Source, load_dataset
from ofa_pose.exports import int8
from ofa_pose.exports.formats import export_checkpoint
from ofa_pose.exports.int8 import Int8Data, export_int8, int8_data, quantise_onnx
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import COCO, CROWDPOSE
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.errors import InputError
from tests.limits import no_more_files


def scenes(folder: Path, images: int, seed: int) -> KeypointDataset:
    write_dataset(folder, images=images, size=96, joints="coco", seed=seed, workers=1)
    return load_dataset(folder / "annotations.json", folder / "images")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Int8Data:
    folder = tmp_path_factory.mktemp("int8")
    return Int8Data(scenes(folder / "train", 10, seed=3), scenes(folder / "val", 12, seed=4))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float")
    return Path(export_checkpoint("litepose-nano-coco", ["onnx"], folder).files["onnx"])


@pytest.fixture
def tiny_source(tiny_spec: ArchSpec, tmp_path: Path) -> Path:
    """A small network that finds nobody: quantised in no time."""
    spec = tiny_spec.with_joints(17)
    net = LitePose(spec, torch.Generator().manual_seed(0))
    checkpoint = Checkpoint("net", spec, None, COCO, net.state_dict())
    return Path(export_checkpoint(checkpoint, ["onnx"], tmp_path / "float").files["onnx"])


@pytest.fixture(scope="module")
def report(source: Path, data: Int8Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("quantised") / "model.int8.onnx"
    return {"path": path, **export_int8(source, path, data, 96, runtime.load(source).config)}


def test_what_it_costs(source: Path, report: dict[str, Any]) -> None:
    assert report["calibration_images"] == 10 and report["AP"]["images"] == 12
    assert report["AP"]["float"] > 0.2
    assert report["AP"]["lost"] == report["AP"]["float"] - report["AP"]["int8"] < 0.05  # 12 images: AP is coarse
    assert report["float_bytes"] == source.stat().st_size > 2.5 * report["bytes"]
    assert report["bytes"] == report["path"].stat().st_size
    assert report["ms"] > 0 and report["float_ms"] > 0


def test_the_maps_stay_close(source: Path, report: dict[str, Any], data: Int8Data) -> None:
    assert data.evaluation is not None
    images = np.stack([record.read() for record in data.evaluation.images])
    for found, expected in zip(OnnxRunner(report["path"])(images), OnnxRunner(source)(images), strict=True):
        assert np.abs(found - expected).max() > 1e-4  # something was rounded
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.15 * expected.std()
    low, high = OnnxRunner(report["path"])(np.zeros((3, 64, 96, 3), np.uint8))  # still of any size
    assert low.shape == (3, 34, 16, 24) and high.shape == (3, 17, 32, 48)


def test_which_weights_are_int8(report: dict[str, Any]) -> None:
    graph = onnx.load(report["path"]).graph
    weights = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    big = {name: value for name, value in weights.items() if value.ndim == 4 and value.size > 3}
    assert {str(value.dtype) for name, value in big.items() if name.startswith(("stem", "outputs"))} == {"float32"}
    inner = {str(value.dtype) for name, value in big.items() if name.startswith(("stages", "deconv"))}
    assert inner == {"int8"}
    scales = weights["stages.0.0.expand.weight_scale"]
    assert scales.shape == (len(weights["stages.0.0.expand.weight_quantized"]),)  # one a channel
    assert not weights["stages.0.0.expand.weight_zero_point"].any()  # symmetric
    names = ("normalise", "stem.0", "stages.0.0.expand", "deconv.0.norm", "outputs.0.raw.pointwise")
    nodes = [onnx.helper.make_node("Conv", [], [], name) for name in names]
    nodes.append(onnx.helper.make_node("BatchNormalization", [], [], "net/deconv/norm"))
    assert float_nodes(nodes) == ["normalise", "stem.0", "outputs.0.raw.pointwise", "net/deconv/norm"]


def test_it_explains_itself(source: Path, report: dict[str, Any]) -> None:
    before, after = OnnxRunner(source).metadata, OnnxRunner(report["path"]).metadata
    assert (
        after.items() - before.items() == {("quantisation", after["quantisation"])} and before.items() < after.items()
    )
    assert json.loads(after["quantisation"])["calibration_images"] == 10
    ours, theirs = runtime.load(report["path"]), runtime.load(source)
    assert (ours.spec, ours.skeleton, ours.config) == (theirs.spec, theirs.skeleton, theirs.config)


def test_the_same_images_give_the_same_bytes(tiny_source: Path, data: Int8Data, tmp_path: Path) -> None:
    for name in ("a", "b"):
        chosen = export_int8(tiny_source, tmp_path / name, Int8Data(data.calibration), 64, calibration_images=3)
        assert chosen["calibration_images"] == 3 and "AP" not in chosen
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loss_is_reported(
    tiny_source: Path, data: Int8Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: dict[str, Any]
) -> None:
    assert "warning" not in report
    monkeypatch.setattr(int8, "TOLERATED_AP", -1.0)
    monkeypatch.setattr(int8, "EVALUATION_IMAGES", 2)
    worse = export_int8(tiny_source, tmp_path / "model.onnx", data, 64, calibration_images=1)
    assert worse["AP"]["images"] == 2 and "AP, more than -1.0; calibrate on images like those" in worse["warning"]


def test_without_anybody_to_find_there_is_no_comparison(tiny_source: Path, data: Int8Data, tmp_path: Path) -> None:
    assert data.evaluation is not None
    value = json.loads(data.evaluation.annotations_path.read_text())
    for person in value["annotations"]:
        person["iscrowd"] = 1
    (tmp_path / "crowds.json").write_text(json.dumps(value))
    crowds = Int8Data(data.calibration, load_dataset(tmp_path / "crowds.json", data.evaluation.images_dir))
    done = export_int8(tiny_source, tmp_path / "model.onnx", crowds, 64, calibration_images=1)
    assert "AP" not in done and done["ms"] > 0 and (tmp_path / "model.onnx").exists()
    assert "not compared with float32" in done["warning"] and "crowds.json has a labelled person" in done["warning"]


def test_the_litert_form(data: Int8Data, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    exact = Path(export_checkpoint("litepose-nano-coco", ["litert"], tmp_path).files["litert"])
    config, path = runtime.load(exact).config, tmp_path / "int8.tflite"
    report = export_int8(exact, path, data, 96, config, calibration_images=6, form="litert")
    assert report["calibration_images"] == 6 and report["AP"]["float"] > 0.2
    assert report["AP"]["lost"] == report["AP"]["float"] - report["AP"]["int8"] < 0.05  # 12 images: AP is coarse
    assert report["float_bytes"] == exact.stat().st_size > 2.2 * report["bytes"] and report["ms"] > 0
    assert data.evaluation is not None
    images = np.stack([record.read() for record in data.evaluation.images])
    ours, theirs = LitertRunner(path, 1), LitertRunner(exact, 1)
    for found, expected in zip(ours(images), theirs(images), strict=True):
        assert np.abs(found - expected).max() > 1e-4  # something was rounded
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.2 * expected.std()
    assert ours(np.zeros((3, 64, 96, 3), np.uint8))[0].shape == (3, 34, 16, 24)  # still of any size
    assert ours.metadata.items() - theirs.metadata.items() == {("quantisation", ours.metadata["quantisation"])}
    tools = importlib.import_module("ai_edge_litert.tools.flatbuffer_utils")
    kind, model = tools.schema_fb.TensorType, tools.convert_bytearray_to_object(path.read_bytes())
    kinds = {tensor.name.decode(): tensor.type for tensor in model.subgraphs[0].tensors}
    assert kinds["stem.0"] == kinds["outputs.1.raw.depthwise"] == kinds["stem.0.weight"] == kind.FLOAT32
    assert kinds["stages.0.0.expand"] == kinds["deconv.0.norm"] == kinds["stages.0.0.expand.weight"] == kind.INT8
    assert not any(buffer.offset for buffer in model.buffers)  # old runtimes know no weights outside the structure


def source_of(dataset: KeypointDataset | None) -> Source:
    assert dataset is not None
    folder = Path(dataset.annotations_path).parent
    return Source(annotations=str(folder / "annotations.json"), images=str(folder / "images"))


def recipe_of(**splits: Source) -> dict[str, Any]:
    return {"data": {split: where.model_dump() for split, where in splits.items()}}


def names(dataset: KeypointDataset | None) -> list[Path]:
    return sorted(Path(record.path) for record in dataset.images) if dataset else []


def test_which_images_are_taken(data: Int8Data, tmp_path: Path) -> None:
    train, val = source_of(data.calibration), source_of(data.evaluation)
    all_train = names(data.calibration.with_people())
    of_call = int8_data({}, COCO, train, val)
    assert (names(of_call.calibration), names(of_call.evaluation)) == (all_train, names(data.evaluation))
    of_recipe = int8_data(recipe_of(train=train, val=val), COCO)
    assert names(of_recipe.evaluation) == names(data.evaluation)
    assert set(names(of_recipe.calibration)) < set(all_train)  # the search's share of them is not trained on
    tested = int8_data(recipe_of(train=val, val=val, test=train), COCO)
    assert names(tested.evaluation) == names(data.calibration)
    gone = Source(annotations=str(tmp_path / "gone.json"), images=str(tmp_path))
    assert int8_data(recipe_of(train=gone, val=gone), COCO, train).evaluation is None


def test_images_that_do_not_do(data: Int8Data, tmp_path: Path) -> None:
    train, gone = source_of(data.calibration), Source(annotations=str(tmp_path / "gone.json"))
    with pytest.raises(InputError, match="names none; add --calibration-annotations FILE --calibration-images DIR"):
        int8_data({}, COCO)
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        int8_data(recipe_of(train=gone), COCO)
    with pytest.raises(InputError, match="the network has 14 joints \\(crowdpose\\), the data 17 \\(coco\\)"):
        int8_data({}, CROWDPOSE, train, train)


def test_a_broken_calibration_image(tiny_source: Path, tmp_path: Path) -> None:
    broken = scenes(tmp_path / "scenes", 2, seed=3)
    path = Path(broken.images[1].path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{path.name}: is cut short"):
        export_int8(tiny_source, tmp_path / "model.onnx", Int8Data(broken), 64)
    assert not (tmp_path / "model.onnx").exists()


def test_what_cannot_be_quantised(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"broken\.onnx: is not an ONNX model"):
        quantise_onnx(tmp_path / "broken.onnx", tmp_path / "model.onnx", [], 0)
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        quantise_onnx(tmp_path / "none.onnx", tmp_path / "model.onnx", [], 0)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


def test_what_the_machine_has_too_little_of_is_no_damage(tiny_source: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Too many open files"), no_more_files():
        quantise_onnx(tiny_source, tmp_path / "model.onnx", [], 0)
    with pytest.raises(MemoryError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "load", _without_memory)
        quantise_onnx(tiny_source, tmp_path / "model.onnx", [], 0)


def _without_memory(*_: Any) -> None:
    raise MemoryError
