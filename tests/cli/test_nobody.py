"""Images on which nobody can be evaluated are refused before any work, where a figure decides what is best."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.utils.files import dump_yaml, write_text
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

NOBODY = "images to evaluate has a labelled person, crowds aside"


def all_crowds(value: Any) -> None:
    for person in value["annotations"]:
        person["iscrowd"] = 1


def nobody_labelled(value: Any) -> None:
    for person in value["annotations"]:
        person["keypoints"], person["num_keypoints"] = [0] * 51, 0


def none_counted(value: Any) -> None:
    for person in value["annotations"]:
        person["num_keypoints"] = 0


def nobody_at_all(value: Any) -> None:
    value["annotations"] = []


def nobody_among_the_first(value: Any) -> None:
    first = {image["id"] for image in value["images"][:4]}  # train.evaluate_images and search.images are 4
    value["annotations"] = [person for person in value["annotations"] if person["image_id"] not in first]


SPOILS = [all_crowds, nobody_labelled, none_counted, nobody_at_all]


@pytest.fixture
def spoilt(data: Path, tmp_path: Path) -> Callable[[Callable[[Any], None], str], list[str]]:
    """Overrides that put spoilt validation data in the place of a split."""

    def spoiling(spoil: Callable[[Any], None], split: str) -> list[str]:
        folder = tmp_path / "spoilt"
        shutil.copytree(data / "val", folder)
        value = json.loads((folder / "annotations.json").read_text())
        spoil(value)
        write_text(folder / "annotations.json", json.dumps(value))
        named = {"annotations": folder / "annotations.json", "images": folder / "images"}
        return [word for key, path in named.items() for word in ("--set", f"data.{split}.{key}={path}")]

    return spoiling


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_training_has_somebody_to_evaluate(
    call: Call, recipe: Path, supernet: Path, tmp_path: Path, spoilt: Any, spoil: Callable[[Any], None]
) -> None:
    space = load_checkpoint(supernet).space
    assert space is not None
    write_text(tmp_path / "subnet.yaml", dump_yaml({"spec": space.smallest(17).to_dict()}))
    overrides = spoilt(spoil, "val")
    for command, *options in (
        ("pretrain", "--recipe", recipe),
        ("train-supernet", "--recipe", recipe),
        ("finetune", "--subnet", tmp_path / "subnet.yaml", "--supernet", supernet),
    ):
        called = call(command, *options, *overrides, "--out", tmp_path / "run")
        refused(called, "spoilt/annotations.json", NOBODY, "data.val")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_search_and_a_study_have_somebody_to_evaluate(
    call: Call, supernet: Path, tmp_path: Path, spoilt: Any, spoil: Callable[[Any], None]
) -> None:
    overrides = spoilt(spoil, "search")
    for command, *options in (("search", "--params", "1G"), ("table",), ("fidelity", "--steps", 0)):
        words = ("--supernet", supernet, *options, *overrides, "--device", "cpu", "--out", tmp_path / "run")
        refused(call(command, *words), "spoilt/annotations.json", NOBODY, "data.search")
        assert not (tmp_path / "run").exists()


def test_people_beyond_the_first_images_are_evaluated(
    call: Call, recipe: Path, supernet: Path, tmp_path: Path, spoilt: Any
) -> None:
    """The other four of val's eight images hold all people: these are the ones that are taken."""
    overrides = spoilt(nobody_among_the_first, "val")
    assert call("pretrain", "--recipe", recipe, *overrides, "--out", tmp_path / "run").code == 0
    metrics = load_checkpoint(tmp_path / "run").info["metrics"]
    assert metrics["AP"] is not None
    words = [word.replace("data.val", "data.search") for word in overrides]
    searched = call("search", "--supernet", supernet, "--params", "1G", *words, "--out", tmp_path / "search")
    assert searched.code == 0, searched.err


def test_the_check_names_people_whom_no_evaluation_counts(call: Call, tmp_path: Path, spoilt: Any) -> None:
    spoilt(none_counted, "val")
    named = ("--annotations", tmp_path / "spoilt" / "annotations.json", "--images", tmp_path / "spoilt" / "images")
    checked = call("data", "check", *named)
    shown = " ".join(checked.err.replace("│", " ").split())
    assert checked.code == 0 and "people have num_keypoints 0 beside labelled joints" in shown
    assert "num_keypoints 0" in " ".join(call("data", "check", *named, "--json").result["warnings"])


def test_eval_may_find_that_nobody_is_there(call: Call, net: Path, spoilt: Any, tmp_path: Path) -> None:
    spoilt(all_crowds, "val")
    named = ("--annotations", tmp_path / "spoilt" / "annotations.json", "--images", tmp_path / "spoilt" / "images")
    scored = call("eval", "--checkpoint", net, *named, "--device", "cpu", "--json")
    assert scored.code == 0 and "none of the images has a labelled person" in " ".join(scored.err.split()), scored.err
    assert scored.result["metrics"]["AP"] is None


def test_a_count_of_0_beside_labelled_joints_is_named_as_the_cause(
    call: Call, recipe: Path, tmp_path: Path, spoilt: Any
) -> None:
    called = call("pretrain", "--recipe", recipe, *spoilt(none_counted, "val"), "--out", tmp_path / "run")
    refused(called, NOBODY, "with labelled joints num_keypoints says 0", "correct or remove num_keypoints")
