"""A checkpoint's own skeleton (flip pairs, sigmas, limbs) counts wherever it meets data whose joints have its names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ofa_pose
from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ofa_pose.data.keypoint_dataset import Source
from ofa_pose.exports.int8 import int8_data
from ofa_pose.skeleton import COCO, Skeleton
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import dump_yaml, write_text
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

NAMES = tuple(f"point{number}" for number in range(17))  # which say nothing of left and right
OWN = replace(COCO, name="points", joints=NAMES)
OURS, GUESSED = "are those that the network was trained with, not guessed", "flip pairs are guessed"


def renamed(folder: Path, **category: Any) -> tuple[str, Path, str, Path]:
    """Drawn scenes with other names for COCO's joints: the options that name them."""
    write_dataset(folder, images=6, size=128, joints="coco", seed=5, workers=1)
    value = json.loads((folder / "annotations.json").read_text())
    value["categories"][0].update(keypoints=list(NAMES), **category)
    write_text(folder / "annotations.json", json.dumps(value))
    return "--annotations", folder / "annotations.json", "--images", folder / "images"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str, Path]:
    return renamed(tmp_path_factory.mktemp("points") / "data")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped net, as if it had been trained on joints of those names."""
    path = tmp_path_factory.mktemp("checkpoint") / "points.pt"
    save_checkpoint(path, replace(load_checkpoint("litepose-nano-coco"), skeleton=OWN))
    return path


@pytest.fixture(scope="module")
def expected(where: tuple[str, Path, str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The metrics on the same scenes with COCO's names."""
    folder = tmp_path_factory.mktemp("coco") / "data"
    write_dataset(folder, images=6, size=128, joints="coco", seed=5, workers=1)
    named = {"annotations": folder / "annotations.json", "images": folder / "images"}
    return ofa_pose.evaluate("litepose-nano-coco", **named, device="cpu").metrics


def yaml_of(skeleton: Skeleton, path: Path) -> Path:
    write_text(path, dump_yaml(skeleton.to_dict()))
    return path


def test_eval_takes_the_checkpoints_skeleton(
    call: Call, where: tuple[str, Path, str, Path], checkpoint: Path, expected: dict[str, Any]
) -> None:
    scored = call("eval", "--checkpoint", checkpoint, *where, "--device", "cpu", "--json")
    assert scored.code == 0, scored.err
    assert scored.result["metrics"] == expected and expected["AP"] > 0.3
    assert "annotations.json: its flip pairs and sigmas " + OURS in scored.err and GUESSED not in scored.err


def test_an_exported_model_has_it_too(
    call: Call, where: tuple[str, Path, str, Path], checkpoint: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    assert call("export", checkpoint, "--format", "onnx", "--out", tmp_path).code == 0
    scored = call("eval", "--checkpoint", tmp_path / "model.onnx", *where, "--json")
    assert scored.code == 0, scored.err
    assert scored.result["metrics"]["AP"] == pytest.approx(expected["AP"], abs=1e-3)
    assert OURS in scored.err


def test_a_skeleton_that_is_given_counts_and_its_difference_is_reported(
    call: Call, where: tuple[str, Path, str, Path], checkpoint: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    words = ("eval", "--checkpoint", checkpoint, *where, "--device", "cpu", "--json", "--skeleton")
    same = call(*words, yaml_of(replace(OWN, name="other"), tmp_path / "same.yaml"))
    assert same.result["metrics"] == expected and OURS not in same.err and "given skeleton's" not in same.err
    strict = call(*words, yaml_of(replace(OWN, sigmas=(0.02,) * 17, limbs=OWN.limbs[1:]), tmp_path / "strict.yaml"))
    assert strict.result["metrics"]["AP"] < expected["AP"]
    assert "its sigmas and limbs are the given skeleton's, not those that the network was trained with" in strict.err


def test_results_have_no_network_to_ask(
    call: Call, where: tuple[str, Path, str, Path], checkpoint: Path, tmp_path: Path
) -> None:
    found = call("eval", "--checkpoint", checkpoint, *where, "--device", "cpu", "--out", tmp_path, "--json")
    scored = call("eval", "--results", tmp_path / "results.json", *where[:2], "--json")
    assert scored.code == 0 and GUESSED in scored.err
    assert scored.result["metrics"]["AP"] != found.result["metrics"]["AP"]


def test_a_nets_skeleton_is_no_guess_even_where_it_equals_one(
    call: Call, where: tuple[str, Path, str, Path], checkpoint: Path, tmp_path: Path
) -> None:
    guess = replace(OWN, sigmas=(0.079,) * 17, flip_pairs=(), mirror=False)  # no joint's name says a side
    save_checkpoint(tmp_path / "guess.pt", replace(load_checkpoint(checkpoint), skeleton=guess))
    scored = call("eval", "--checkpoint", tmp_path / "guess.pt", *where, "--device", "cpu", "--json")
    assert scored.code == 0 and GUESSED not in scored.err and OURS not in scored.err
    assert "images are not mirrored" in scored.err


def test_a_built_in_skeleton_is_named(call: Call, data: Path, tmp_path: Path) -> None:
    ours = replace(load_checkpoint("litepose-nano-coco"), skeleton=replace(COCO, flip_pairs=COCO.flip_pairs[1:]))
    save_checkpoint(tmp_path / "ours.pt", ours)
    named = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    scored = call("eval", "--checkpoint", tmp_path / "ours.pt", *named, "--device", "cpu", "--json")
    assert "its flip pairs are those that the network was trained with, not those of skeleton coco" in scored.err


def test_int8_is_made_and_evaluated_with_it(where: tuple[str, Path, str, Path], checkpoint: Path) -> None:
    named = Source(annotations=str(where[1]), images=str(where[3]))
    found = int8_data({}, OWN, calibration=named, evaluation=named)
    assert found.evaluation is not None
    assert found.calibration.skeleton == found.evaluation.skeleton == OWN


@pytest.fixture(scope="module")
def supernet(checkpoint: Path, where: tuple[str, Path, str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supernet of two subnets, as if imported: its recipe names no data."""
    net = load_checkpoint(checkpoint)
    widths = {"stem": (net.spec.stem,), "deconv": tuple((width,) for width in net.spec.deconv)}
    space = SearchSpace(
        "two",
        resolution=(96, 128),
        stages=tuple((width,) for width in net.spec.stages),
        expansion=(6,),
        blocks=(2, 3, 4, 3),
        kernel=7,
        **widths,  # type: ignore[arg-type]
    )
    spec = space.largest(17)
    assert spec == net.spec.at(spec.resolution)
    folder = tmp_path_factory.mktemp("supernet")
    whole = replace(net, kind="supernet", spec=spec, space=space, recipe={}, info={"imported_from": "theirs.pt"})
    save_checkpoint(folder / "supernet.pt", whole)
    write_text(folder / "two.yaml", dump_yaml(space.to_dict()))
    source = {"annotations": str(where[1]), "images": str(where[3])}
    data = {"train": source, "val": source, "search": source}
    search = {"population": 2, "generations": 0, "images": 4, "calibration_images": 2}
    train = {"steps": 1, "batch": 2, "workers": 0, "evaluate_images": 2}
    recipe = {"space": str(folder / "two.yaml"), "data": data, "search": search, "train": train}
    write_text(folder / "recipe.yaml", dump_yaml(recipe))
    return folder / "supernet.pt"


def test_search_table_and_fidelity_take_it(call: Call, supernet: Path, tmp_path: Path) -> None:
    words = ("--supernet", supernet, "--recipe", supernet.parent / "recipe.yaml", "--device", "cpu", "--json")
    for command, *options in (
        ("search", "--params", "1G"),
        ("table",),
        ("finetune", "--subnet", tmp_path / "search" / "best.yaml"),
    ):
        done = call(command, *options, *words, "--out", tmp_path / command)
        assert done.code == 0, done.err
        assert OURS in done.err and GUESSED not in done.err, command
    assert load_checkpoint(tmp_path / "finetune").skeleton == OWN
    study = call("fidelity", "--subnets", 3, "--steps", 0, *words, "--out", tmp_path / "fidelity")
    refused(study, "2 subnets cannot be ranked")
    assert OURS in study.err


def test_training_goes_on_with_it(call: Call, checkpoint: Path, supernet: Path, tmp_path: Path) -> None:
    words = ("--recipe", supernet.parent / "recipe.yaml", "--device", "cpu")
    done = call("train-supernet", "--init", checkpoint, *words, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert OURS in done.err and load_checkpoint(tmp_path / "run").skeleton == OWN


def test_other_joints_are_refused_as_ever(call: Call, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "val", tmp_path / "data")
    named = ("--annotations", tmp_path / "data" / "annotations.json", "--images", tmp_path / "data" / "images")
    refused(call("eval", "--checkpoint", checkpoint, *named), "the network has 17 joints (points), the data 17 (coco)")
