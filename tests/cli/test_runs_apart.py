"""Runs keep out of each other's folders, and what a run rests on cannot change on its way: exit code 2 otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ofa_pose
from ofa_pose.arch.space import load_space
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.recipe import load_recipe
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, write_text
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused
from tests.train.test_mobilenet import make, written


def test_a_start_of_another_net_is_taken_as_far_as_it_goes(call: Call, recipe: Path, tmp_path: Path) -> None:
    words = (
        "train-supernet",
        "--recipe",
        recipe,
        "--set",
        "train.steps=1",
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
    )
    called = call(*words, "--init", "litepose-nano-coco")
    assert called.code == 0 and "init: channels sorted by importance" in called.err, called.err
    assert "init: all weights are taken over" in called.err
    assert " ".join(called.err.split()).count("a search can keep --macs ") == 1
    assert load_checkpoint(tmp_path / "run").space == load_space(load_recipe("train-supernet", recipe)[0].space)


def test_a_resumed_run_of_another_net_is_left_as_it_was(call: Call, recipe: Path, supernet: Path) -> None:
    before = (supernet / "recipe.yaml").read_text(), (supernet / "command.txt").read_text()
    other = ("--set", "space=litepose-nano", "--out", supernet, "--resume")
    refused(call("train-supernet", "--recipe", recipe, *other), "another net", "--out")
    assert before == ((supernet / "recipe.yaml").read_text(), (supernet / "command.txt").read_text())


def test_a_run_is_resumed_by_its_own_command(call: Call, recipe: Path, supernet: Path, net: Path) -> None:
    before = [(run / "checkpoints" / "last.pt").read_bytes() for run in (supernet, net)]
    other = call("pretrain", "--recipe", recipe, "--out", supernet, "--resume")
    refused(other, "was begun by 'train-supernet', not by 'pretrain'")
    with pytest.raises(InputError, match=r"another command: .*was train-supernet, is pretrain"):
        ofa_pose.pretrain(supernet, recipe=recipe, resume=True)
    less = call("pretrain", "--recipe", recipe, "--set", "train.steps=1", "--out", net, "--resume")
    refused(less, "has gone 4 steps already", "train.steps")
    assert before == [(run / "checkpoints" / "last.pt").read_bytes() for run in (supernet, net)]


def test_a_teacher_cannot_change_on_the_way(call: Call, supernet: Path, net: Path, tmp_path: Path) -> None:
    space = load_checkpoint(supernet).space
    assert space is not None
    write_text(tmp_path / "subnet.yaml", dump_yaml({"spec": space.smallest(17).to_dict()}))
    words = ("finetune", "--subnet", tmp_path / "subnet.yaml", "--supernet", supernet, "--out", tmp_path / "run")
    assert call(*words, "--teacher", net).code == 0
    refused(call(*words, "--resume", "--teacher", "litepose-nano-coco"), "another teacher")
    assert call(*words, "--resume").code == 0, "with that of the run"


def test_a_search_is_resumed_under_its_own_budget(
    call: Call, supernet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("search", "--supernet", supernet, "--out", tmp_path / "run")
    assert call(*words, "--params", "1G").code == 0
    before = (tmp_path / "run" / "history.csv").read_text(), (tmp_path / "run" / "recipe.yaml").read_text()
    refused(call(*words, "--params", "2G", "--resume"), "another budget", "--out")
    refused(call(*words, "--params", "1G", "--seed", 3, "--resume"), "another algorithm", "--out")
    for name, number in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, number)
    refused(call(*words, "--params", "1G"), "search does not share its work", "without torchrun", "--workers")
    assert before == ((tmp_path / "run" / "history.csv").read_text(), (tmp_path / "run" / "recipe.yaml").read_text())


def test_data_may_move_between_commands(call: Call, data: Path, supernet: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "train", tmp_path / "moved")
    moved = ("annotations", tmp_path / "moved" / "annotations.json"), ("images", tmp_path / "moved" / "images")
    words = [word for key, path in moved for word in ("--set", f"data.train.{key}={path}")]
    search = ("search", "--supernet", supernet, "--params", "1G", "--set", "search.generations=0")
    assert call(*search, "--out", tmp_path / "run").code == 0
    resumed = call(*search, "--out", tmp_path / "run", *words, "--resume")
    assert resumed.code == 0, resumed.err
    annotations = tmp_path / "moved" / "annotations.json"
    annotations.write_text(annotations.read_text() + " ")
    refused(call(*search, "--out", tmp_path / "other", *words), "data.train", "may have seen")


def test_a_supernet_stays_in_its_space(call: Call, supernet: Path, tmp_path: Path) -> None:
    words = ("--supernet", supernet, "--set", "space=litepose-nano", "--out", tmp_path / "run")
    refused(call("search", "--macs", "1G", *words), "was trained in the space", "not litepose-nano")
    assert not (tmp_path / "run").exists()


def test_images_that_the_supernet_may_have_seen(call: Call, supernet: Path, tmp_path: Path) -> None:
    words = ("search", "--supernet", supernet, "--macs", "1G", "--out", tmp_path / "run")
    refused(call(*words, "--set", "data.search_share=0.5"), "data.search_share", "data.search")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_out_of_the_folder_of_another(call: Call, supernet: Path) -> None:
    before = (supernet / "metrics.jsonl").read_text(), (supernet / "recipe.yaml").read_text()
    refused(call("search", "--supernet", supernet, "--macs", "1G", "--out", supernet), "holds a run already")
    assert before == ((supernet / "metrics.jsonl").read_text(), (supernet / "recipe.yaml").read_text())


def test_a_training_starts_from_mobilenets_file_and_keeps_its_own_recipe(
    call: Call, recipe: Path, tmp_path: Path
) -> None:
    words = ("--recipe", recipe, "--set", "train.steps=1", "--init", written(tmp_path, make("timm"), ".safetensors"))
    called = call("train-supernet", *words, "--out", tmp_path / "run", "--device", "cpu")
    assert called.code == 0 and "of the weights are taken over" in called.err, called.err
    assert "starts from random weights" not in called.err
    refused(call("pretrain", *words[2:], "--out", tmp_path / "other"), "no recipe")
