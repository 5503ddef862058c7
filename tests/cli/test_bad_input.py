"""Whatever is wrong with the input: exit code 2, one line that names the place and the hint, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Call, Called


def refused(called: Called, *words: str, lines: int = 1) -> None:
    """Assert that a call was refused in so many lines, each of the words among them."""
    assert called.code == 2, called.err
    errors = [line for line in called.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == lines, called.err
    assert "Traceback" not in called.err
    for word in words:
        assert word in called.err, f"'{word}' is not in: {called.err}"
    assert not called.out


@pytest.fixture
def broken(data: Path, tmp_path: Path) -> Callable[[Callable[[Any], None]], Path]:
    """A copy of the validation data whose annotations a function has spoilt."""

    def breaking(spoil: Callable[[Any], None]) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(data / "val", folder)
        value = json.loads((folder / "annotations.json").read_text())
        spoil(value)
        (folder / "annotations.json").write_text(json.dumps(value))
        return folder

    return breaking


def check(call: Call, folder: Path) -> Called:
    """Call `data check` on a folder."""
    return call("data", "check", "--annotations", folder / "annotations.json", "--images", folder / "images", "--json")


def test_missing_image(call: Call, broken: Any) -> None:
    folder = broken(lambda value: None)
    (folder / "images" / "000003.jpg").unlink()
    refused(check(call, folder), "000003.jpg")


def test_truncated_image(call: Call, broken: Any) -> None:
    folder = broken(lambda value: None)
    image = folder / "images" / "000003.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    refused(check(call, folder), "000003.jpg")


def test_truncated_image_stops_training_too(call: Call, recipe: Path, broken: Any, tmp_path: Path) -> None:
    folder = broken(lambda value: None)
    for image in (folder / "images").iterdir():
        image.write_bytes(image.read_bytes()[:-200])
    source = ("--set", f"data.train.annotations={folder / 'annotations.json'}", "--set")
    called = call("pretrain", "--recipe", recipe, *source, f"data.train.images={folder / 'images'}", "--out", tmp_path)
    assert called.code == 2
    assert ".jpg" in called.err
    assert "Traceback" not in called.err


def test_no_json(call: Call, broken: Any) -> None:
    folder = broken(lambda value: None)
    text = (folder / "annotations.json").read_text()
    (folder / "annotations.json").write_text(text[: len(text) // 2])
    refused(check(call, folder), "annotations.json:", "JSON")


def test_wrong_number_of_keypoints(call: Call, broken: Any) -> None:
    def spoil(value: Any) -> None:
        value["annotations"][2]["keypoints"] = value["annotations"][2]["keypoints"][:-3]

    refused(check(call, broken(spoil)), "annotation 3", "48", "51")


def test_nan_keypoint(call: Call, broken: Any) -> None:
    def spoil(value: Any) -> None:
        value["annotations"][1]["keypoints"][4] = float("nan")

    refused(check(call, broken(spoil)), "annotation 2")


def test_annotation_of_an_unlisted_image(call: Call, broken: Any) -> None:
    def spoil(value: Any) -> None:
        value["annotations"][0]["image_id"] = 4711

    refused(check(call, broken(spoil)), "annotation 1", "4711")


def test_unknown_joint(call: Call, data: Path, tmp_path: Path) -> None:
    from ofa_pose.skeleton import COCO

    value = COCO.to_dict()
    value["joints"][0] = "nase"
    (tmp_path / "skeleton.yaml").write_text(json.dumps({**value, "limbs": [], "flip_pairs": []}))
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    called = call("data", "check", *where, "--skeleton", tmp_path / "skeleton.yaml", "--json")
    refused(called, "nase")


def test_empty_dataset(call: Call, broken: Any) -> None:
    refused(check(call, broken(lambda value: value.update(images=[], annotations=[]))), "annotations.json")


def test_many_faults_are_counted(call: Call, broken: Any) -> None:
    def spoil(value: Any) -> None:
        value["annotations"] = [dict(value["annotations"][0], id=i + 1, image_id=99) for i in range(30)]

    called = check(call, broken(spoil))
    refused(called, "30", lines=21)
    assert "10 more" in called.err


def test_joint_outside_is_a_warning(call: Call, broken: Any) -> None:
    def spoil(value: Any) -> None:
        value["annotations"][0]["keypoints"][:3] = [500, 10, 2]

    called = check(call, broken(spoil))
    assert called.code == 0
    assert called.result["warnings"]


def test_unknown_recipe_key_names_the_nearest(call: Call, recipe: Path, tmp_path: Path) -> None:
    called = call("pretrain", "--recipe", recipe, "--set", "train.stepz=3", "--out", tmp_path / "run")
    refused(called, "train.stepz", "train.steps")
    assert not (tmp_path / "run").exists()


def test_a_setting_that_was_split(call: Call, recipe: Path, tmp_path: Path) -> None:
    given = ("pretrain", "--recipe", recipe, "--out", tmp_path / "run", "--set")
    refused(call(*given, "train.steps", "8"), "(8); write --set train.steps=8")
    refused(call(*given, "augment.scale=[0.8,", "1.2]"), "(1.2]); write --set 'augment.scale=[0.8, 1.2]'")
    refused(call(*given, "a=1", "train.steps=8"), "(train.steps=8); write --set a=1 --set train.steps=8")
    refused(call(*given, "train.steps"), "'--set train.steps' has no '='; write --set train.steps=VALUE")
    refused(call(*given, "a=1", "--seed", "1", "8"), "extra argument(s) (8)")


def test_wrong_recipe_value(call: Call, recipe: Path, tmp_path: Path) -> None:
    called = call("pretrain", "--recipe", recipe, "--set", "train.lr=fast", "--out", tmp_path / "run")
    refused(called, "train.lr", "fast")


def test_unknown_recipe_preset_and_space(call: Call, recipe: Path, tmp_path: Path) -> None:
    refused(call("pretrain", "--recipe", "nanno", "--out", tmp_path / "run"), "nanno", "nano")
    refused(call("profile", "litepose-sx"), "litepose-sx", "litepose-s")
    called = call("pretrain", "--recipe", recipe, "--set", "space=litepose-nanu", "--out", tmp_path / "run")
    refused(called, "litepose-nano")


def test_no_checkpoint(call: Call, data: Path, supernet: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"not a checkpoint at all")
    refused(call("export", tmp_path / "noise.pt", "--out", tmp_path / "out"), "noise.pt")
    whole = (supernet / "checkpoints" / "best.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    refused(call("export", tmp_path / "cut.pt", "--out", tmp_path / "out"), "cut.pt")
    torch.save({"weights": {}}, tmp_path / "foreign.pt")
    refused(call("export", tmp_path / "foreign.pt", "--out", tmp_path / "out"), "foreign.pt")
    refused(call("export", tmp_path / "none.pt", "--out", tmp_path / "out"), "none.pt")
    assert not (tmp_path / "out").exists()


def test_supernet_where_a_net_is_needed(call: Call, supernet: Path, tmp_path: Path) -> None:
    refused(call("export", supernet, "--out", tmp_path / "out"), "supernet")


def test_net_where_a_supernet_is_needed(call: Call, net: Path, tmp_path: Path) -> None:
    refused(call("search", "--supernet", net, "--macs", "1G", "--out", tmp_path / "out"), "supernet")


def test_a_start_that_is_not_a_network_of_a_known_kind(call: Call, recipe: Path, tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    for command in ("pretrain", "train-supernet"):
        called = call(command, "--recipe", recipe, "--init", tmp_path / "resnet.pth", "--out", tmp_path / "run")
        refused(called, "holds no weights that are known", "MobileNetV2", str(tmp_path / "resnet.pth"))
        assert not (tmp_path / "run").exists()


def test_subnet_of_another_space(call: Call, supernet: Path, tmp_path: Path) -> None:
    called = call("finetune", "--subnet", "litepose-xs", "--supernet", supernet, "--out", tmp_path / "run")
    refused(called, "tiny")


def test_a_supernet_whose_training_was_cut_off(call: Call, supernet: Path, tmp_path: Path) -> None:
    cut = tmp_path / "supernet"
    shutil.copytree(supernet, cut)
    (cut / "provenance.jsonl").unlink()  # which says that it ended
    (cut / "recipe.yaml").write_text((cut / "recipe.yaml").read_text().replace("steps: 4", "steps: 9"))
    calls = {"search": ["--macs", "1K"], "table": ["--limit", 1], "fidelity": ["--macs", "1K"]}
    for name, more in {**calls, "finetune": ["--subnet", "litepose-xs"]}.items():  # which all are refused soon after
        for folder, told in ((cut, True), (supernet, False)):
            called = call(name, "--supernet", folder, *more, "--out", tmp_path / "run")
            warned = f"warning: {folder}: its training was cut off after 4 of 9 steps; go on with: ofa-pose train-super"
            assert called.code == 2 and (warned in called.err) is told, called.err


def test_infeasible_budget_names_the_least(call: Call, supernet: Path, tmp_path: Path) -> None:
    called = call("search", "--supernet", supernet, "--macs", "1K", "--out", tmp_path / "run")
    refused(called, "smallest subnet", "--macs")
    assert not (tmp_path / "run").exists()


def test_budget_that_is_no_number(call: Call, supernet: Path, tmp_path: Path) -> None:
    refused(call("search", "--supernet", supernet, "--macs", "1.2Q", "--out", tmp_path / "run"), "1.2Q", "1.2G")
    refused(call("search", "--supernet", supernet, "--out", tmp_path / "run"), "--macs")
    refused(call("search", "--supernet", supernet, "--macs", "", "--out", tmp_path / "run"), "'' is not a count")


def test_other_joints(call: Call, net: Path, tmp_path: Path) -> None:
    from ofa_pose.synthetic.dataset import write_dataset

    write_dataset(tmp_path / "crowd", images=2, size=64, joints="crowdpose", seed=1, workers=1)
    where = ("--annotations", tmp_path / "crowd" / "annotations.json", "--images", tmp_path / "crowd" / "images")
    refused(call("eval", "--checkpoint", net, *where), "17", "14")


def test_other_joints_in_val_or_teacher_stop_before_the_run(
    call: Call, recipe: Path, supernet: Path, tmp_path: Path
) -> None:
    from ofa_pose.synthetic.dataset import write_dataset

    write_dataset(tmp_path / "crowd", images=4, size=64, joints="crowdpose", seed=1, workers=1)
    crowd = {"annotations": tmp_path / "crowd" / "annotations.json", "images": tmp_path / "crowd" / "images"}
    val = [word for key, path in crowd.items() for word in ("--set", f"data.val.{key}={path}")]
    refused(call("pretrain", "--recipe", recipe, *val, "--out", tmp_path / "run"), "data.train", "17", "14")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("pretrain", "--step", "10"), "did you mean --set train.steps=10?"),
        (("pretrain", "--lr=0.1"), "did you mean --set train.lr=0.1?"),
        (("search", "--batch"), "did you mean --set train.batch=… or --set search.batch=…?"),
        (("search", "--worker", "2"), "did you mean --workers?"),
        (("profile", "litepose-xs", "--steps", "3"), "--help lists them"),
        (("pretrain", "--hlep"), "did you mean --help?"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_option_or_key(
    call: Call, words: tuple[str, ...], hint: str
) -> None:
    called = call(*words)
    option = next(word for word in words if word.startswith("-")).partition("=")[0]
    assert (called.code, called.err) == (2, f"error: No such option: {option}; {hint}\n")


def test_values_out_of_range(call: Call, recipe: Path, net: Path, data: Path, tmp_path: Path) -> None:
    photo, out = data / "val" / "images" / "000001.jpg", tmp_path / "out"
    for words in (
        ("pretrain", "--recipe", recipe, "--seed", "-1"),
        ("pretrain", "--recipe", recipe, "--set", "seed=-1"),
        ("predict", photo, "--checkpoint", net, "--threshold", "5"),
        ("predict", photo, "--checkpoint", net, "--resolution", "100000"),
    ):
        refused(call(*words, "--out", out))
    refused(call("data", "synth", out, "--seed", "-1"), "seed")
    assert not out.exists()


def test_an_out_that_is_a_file(call: Call, data: Path, net: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    for words in (
        ("eval", "--checkpoint", net, *where),
        ("export", net),
        ("predict", data / "val" / "images", "--checkpoint", net),
    ):
        refused(call(*words, "--out", tmp_path / "file"), "is a file, not a folder")
    refused(call("data", "synth", tmp_path / "file", "--images", 2), "is a file, not a folder")
    refused(call("data", "check", *where, "--write-skeleton", tmp_path / "file"), "exists already")
    assert (tmp_path / "file").read_text() == "mine"


def test_eval_without_ground_truth(call: Call, net: Path, data: Path, tmp_path: Path) -> None:
    refused(call("eval", "--checkpoint", net), "data.test", "--annotations")
    alone = shutil.copy(data / "val" / "annotations.json", tmp_path)
    refused(call("eval", "--checkpoint", net, "--annotations", alone), "annotations.json", "--images")
    refused(call("eval", "--results", data / "none.json"), "--annotations")
    refused(call("eval", "--results", data / "none.json", "--decoding", "reference"), "--decoding")
    refused(call("eval", "--checkpoint", net, "--decoding", "refernce"), "reference")
    truth = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    refused(call("eval", "--checkpoint", net, *truth, "--scales", "0.5,x"), "0.75,1.5")
    refused(call("eval", "--checkpoint", net, *truth, "--scales", "1e308"), "0.75,1.5")
    refused(call("eval", "--checkpoint", net, *truth, "--scales", "1.01"), "differ by 32 pixels")
    refused(call("eval", "--checkpoint", net, *truth, "--scales", "2", "--decoding", "reference"), "--scales")


def test_results_that_do_not_fit(call: Call, data: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps([{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}]))
    called = call("eval", "--results", tmp_path / "results.json", "--annotations", data / "val" / "annotations.json")
    refused(called, "result 0", "51")


def test_wrong_words(call: Call, tmp_path: Path) -> None:
    refused(call("trian-supernet"), "train-supernet")
    refused(call("profile", "litepose-xs", "--jointz", "3"), "--jointz")
    refused(call("data", "synth", tmp_path / "x", "--images", "many"), "images")
    refused(call("data", "synth", tmp_path / "x", "--images", 2, "--joints", "cocoa"), "coco")
    assert not (tmp_path / "x").exists()


def test_broken_photo_among_good_ones(call: Call, data: Path, net: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(data / "val" / "images", photos)
    (photos / "000001.jpg").write_bytes(b"no image")
    called = call("predict", photos, "--checkpoint", net, "--out", tmp_path / "out", "--json")
    assert called.code == 1
    assert "000001.jpg" in called.err
    assert called.result["images"] == 7
    assert called.result["failed"] == 1


def test_a_name_too_long_is_shortened(call: Call, tmp_path: Path) -> None:
    called = call("pretrain", "--recipe", "(" * 3000, "--out", tmp_path / "run")
    assert called.code in (1, 2) and len(called.err) < 2000, called.err


@pytest.mark.parametrize("command", ["pretrain", "train-supernet", "finetune", "search", "table", "fidelity"])
def test_a_recipe_is_checked_before_what_takes_seconds(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "bad.yaml").write_text("trian: 3\n")
    source = {"pretrain": "--init", "train-supernet": "--init"}.get(command, "--supernet")
    more = {"finetune": ["--subnet", "nowhere"], "search": ["--macs", "1G"]}.get(command, [])
    words = [command, source, tmp_path / "nowhere.pt", *more, "--out", tmp_path / "run"]
    refused(call(*words, "--recipe", tmp_path / "bad.yaml"), "bad.yaml", "did you mean 'train'")
    refused(call(*words, "--set", "train.steps"), "has no '='")
    if command == "search":
        refused(call("search", "--supernet", "nowhere.pt", "--out", tmp_path / "run"), "needs a budget")
