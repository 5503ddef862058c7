"""A search in int8: its APs are the exported files', and are never taken for those in float, nor the other way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.inference.evaluate import evaluate, read_inputs
from ofa_pose.models.elastic import Supernet
from ofa_pose.recipe import Recipe
from ofa_pose.searches.archive import Archive
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.searches.job import SearchJob
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json, read_yaml
from tests.networks import hide_package, randomised

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from ofa_pose.backends.onnxruntime import OnnxRunner
from ofa_pose.exports.formats import export_checkpoint

SMALL = ("search.population=2", "search.generations=0", "search.images=3", "search.calibration_images=2")
INT8 = (*SMALL, "search.int8=true")


@pytest.fixture
def checkpoint(tiny_dataset: KeypointDataset, tiny_space: SearchSpace, tmp_path: Path) -> Checkpoint:
    """Of a supernet with outputs large enough to find (wrong) people everywhere."""
    net = randomised(Supernet(tiny_space, joints=14, generator=torch.Generator().manual_seed(0)))
    source = {"annotations": str(tiny_dataset.annotations_path), "images": str(tiny_dataset.images_dir)}
    data = {"train": source, "val": source, "search_share": 0.5}
    files.write_text(tmp_path / "tiny.yaml", files.dump_yaml(tiny_space.to_dict()))
    recipe = {"space": str(tmp_path / "tiny.yaml"), "data": data}
    path = tmp_path / "supernet.pt"
    save_checkpoint(
        path, Checkpoint("supernet", net.spec, net.space, tiny_dataset.skeleton, net.state_dict(), recipe, {}, None)
    )
    return load_checkpoint(path)


def job(checkpoint: Checkpoint, overrides: tuple[str, ...]) -> SearchJob:
    assert checkpoint.space is not None
    feasible = FeasibleSpace(checkpoint.space, 14, Budget(macs=10**9))
    return SearchJob.from_checkpoint(checkpoint, feasible, overrides=overrides, seed=0, device="cpu")


def test_the_ap_is_the_exported_file_s(checkpoint: Checkpoint, tmp_path: Path) -> None:
    search = job(checkpoint, INT8)
    result = search.run(tmp_path / "run")
    assert result.int8 == {"calibration_images": 4, **checkpoint.recipe["data"]["train"]}
    written = read_json(tmp_path / "run" / "result.json")
    assert written["int8"] == result.int8 and read_yaml(tmp_path / "run" / "best.yaml")["precision"] == "int8"
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert best.info["precision"] == "int8"
    report = export_checkpoint(best, ["onnx-int8"], tmp_path / "export").reports["onnx-int8"]
    assert report["calibration"] == result.int8["annotations"] and report["calibration_images"] == 4
    evaluator = SubnetEvaluator.from_checkpoint(checkpoint, search.recipe, "cpu")
    inputs = list(read_inputs(evaluator.images, best.spec.resolution, 4))
    runner = OnnxRunner(tmp_path / "export" / "model.int8.onnx", 1)
    exported = evaluate(runner, evaluator.images, inputs, config=evaluator.decode)
    promised = evaluator.evaluate(result.best.spec)
    assert len(exported.results) > 3
    assert exported.results.entries() == promised.results.entries()
    assert exported.metrics["AP"] == result.best.AP
    floats = SubnetEvaluator.from_checkpoint(checkpoint, job(checkpoint, SMALL).recipe, "cpu")
    assert floats.evaluate(result.best.spec).results.entries() != promised.results.entries()


def test_the_search_s_training_images_go_along(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An export calibrates on them, though the supernet's own recipe holds half of them out."""
    write_dataset(tmp_path / "other", images=4, size=64, joints="crowdpose", seed=4, workers=1)
    named = {"annotations": tmp_path / "other" / "annotations.json", "images": tmp_path / "other" / "images"}
    search = job(checkpoint, (*INT8, *(f"data.search.{key}={path}" for key, path in named.items())))
    result = search.run(tmp_path / "run")
    assert result.int8 is not None and result.int8["calibration_images"] == 8
    report = export_checkpoint(tmp_path / "run" / "best.pt", ["onnx-int8"], tmp_path / "export").reports["onnx-int8"]
    assert report["calibration_images"] == 8


def test_float_and_int8_are_kept_apart(checkpoint: Checkpoint, tmp_path: Path) -> None:
    floats, int8 = job(checkpoint, SMALL), job(checkpoint, INT8)
    assert int8.basis == {**floats.basis, "precision": "int8"} and floats.int8 is None
    first = floats.run(tmp_path / "float")
    shared = int8.run(tmp_path / "int8", archive=tmp_path / "float")
    assert first.judged == shared.judged == shared.evaluations == 2 and shared.archive == first.archive
    assert first.int8 is None and "precision" not in read_yaml(tmp_path / "float" / "best.yaml")
    for basis in (floats.basis, int8.basis):
        with Archive(first.archive, basis) as archive:
            assert len(archive.until(archive.last)) == 2
    with pytest.raises(InputError, match="another precision: precision was float32, is int8"):
        int8.run(tmp_path / "float", resume=True)
    assert int8.run(tmp_path / "int8", resume=True).best == shared.best


def test_without_the_package_it_is_refused(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_package(monkeypatch, "onnxruntime")
    with pytest.raises(InputError, match="ONNX Runtime in int8 needs the package onnxruntime"):
        job(checkpoint, INT8)
    assert Recipe().search.int8 is False
