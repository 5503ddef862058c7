"""The journey through the command line on tiny data: every command, what it leaves, and that it starts again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest

import ofa_pose
from ofa_pose.arch.presets import load_spec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import spec_macs
from ofa_pose.utils.files import read_json, read_yaml
from tests.cli.conftest import Call


def test_run_directory_holds_what_is_promised(supernet: Path) -> None:
    assert read_yaml(supernet / "recipe.yaml")["train"]["steps"] == 4
    assert (supernet / "command.txt").read_text().startswith("ofa-pose train-supernet --recipe ")
    records = [json.loads(line) for line in (supernet / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4]
    assert [r["step"] for r in records if "val" in r] == [2, 4]
    for name in ("last", "best"):
        assert load_checkpoint(supernet / "checkpoints" / f"{name}.pt").kind == "supernet"


def test_train_search_finetune_eval_export_predict(
    call: Call, data: Path, recipe: Path, supernet: Path, net: Path, tmp_path: Path
) -> None:
    space = load_checkpoint(supernet).space
    assert space is not None
    budget = spec_macs(space.largest(17)).thop // 2
    found = call("search", "--supernet", supernet, "--macs", budget, "--out", tmp_path / "search", "--json")
    assert found.code == 0, found.err
    best = found.result["best"]
    chosen = load_spec(tmp_path / "search" / "best.yaml")
    assert chosen.to_dict() == best["spec"]
    assert best["macs"] == spec_macs(chosen).to_dict()
    assert best["macs"]["thop"] <= budget
    with (tmp_path / "search" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.result["evaluations"] == len({row["genome"] for row in rows})
    assert all(int(row["macs_thop"]) <= budget for row in rows)
    assert cv2.imread(str(tmp_path / "search" / "pareto.png")) is not None
    assert load_checkpoint(tmp_path / "search" / "best.pt").spec == chosen

    subnet = ("--subnet", tmp_path / "search" / "best.yaml", "--supernet", supernet)
    tuned = call("finetune", *subnet, "--teacher", net, "--out", tmp_path / "tuned", "--json")
    assert tuned.code == 0, tuned.err
    assert tuned.result["steps"] == 2, "the recipe's finetune section counts"
    checkpoint = tuned.result["checkpoint"]
    assert load_checkpoint(checkpoint).spec == chosen

    truth = ("--annotations", data / "val" / "annotations.json")
    scored = call("eval", "--checkpoint", checkpoint, *truth, "--images", data / "val" / "images", "--json")
    assert scored.code == 0, scored.err
    assert scored.result["images"] == 8
    assert {"AP", "AP50", "AP75", "AR", "AR50", "AR75"} <= scored.result["metrics"].keys()
    assert {"read", "network", "decode"} <= scored.result["seconds"].keys()

    exported = call("export", checkpoint, "--out", tmp_path / "export", "--json")
    assert exported.code == 0, exported.err
    assert set(exported.result["files"]) == {"yaml", "litepose", "safetensors", "onnx"}
    assert exported.result["onnx"]["max_difference"] <= 1e-4
    assert load_spec(exported.result["files"]["yaml"]) == chosen
    assert load_spec(exported.result["files"]["litepose"], 17) == chosen

    poses = call("predict", data / "val" / "images", "--checkpoint", checkpoint, "--out", tmp_path / "poses", "--json")
    assert poses.code == 0, poses.err
    assert poses.result["images"] == 8
    assert len(list((tmp_path / "poses" / "overlays").glob("*.jpg"))) == 8
    predictions = read_json(tmp_path / "poses" / "predictions.json")
    assert all(len(entry["keypoints"]) == 51 for entry in predictions)

    reported = call("report", tmp_path / "tuned", "--json")
    assert reported.code == 0, reported.err
    page = (tmp_path / "tuned" / "report.html").read_text()
    assert reported.result == {"out": str(tmp_path / "tuned" / "report.html"), "bytes": len(page.encode())}
    for title in (
        "The network",
        "The search",
        "The Pareto front",
        "Training: pretrain in net/ (teacher)",
        "recipe.yaml",
    ):
        assert title in page


def test_supernet_starts_from_pretrained_weights(call: Call, recipe: Path, net: Path, tmp_path: Path) -> None:
    done = call("train-supernet", "--recipe", recipe, "--init", net, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert "channels sorted by importance" in done.err


def test_supernet_takes_the_recipe_of_its_start(call: Call, net: Path, tmp_path: Path) -> None:
    done = call("train-supernet", "--init", net, "--out", tmp_path / "run", "--set", "train.steps=1", "--json")
    assert done.code == 0, done.err
    assert done.result["steps"] == 1


def test_a_resumed_run_goes_on(call: Call, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("pretrain", "--recipe", recipe, "--out", out).code == 0
    again = call("pretrain", "--recipe", recipe, "--out", out)
    assert again.code == 2
    assert "--resume" in again.err
    more = call("pretrain", "--recipe", recipe, "--out", out, "--resume", "--set", "train.steps=6", "--json")
    assert more.code == 0, more.err
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert len((out / "command.txt").read_text().splitlines()) == 2


def test_the_version(call: Call) -> None:
    shown = call("--version")
    assert shown.code == 0, shown.err
    assert shown.out.split() == ["ofa-pose", ofa_pose.__version__]


def test_results_are_tables_that_name_the_next_command(call: Call, recipe: Path, data: Path, tmp_path: Path) -> None:
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    shown = " ".join(call("data", "check", *where).err.split())
    assert "left_wrist" in shown and "{" not in shown and "labelled" in shown
    out = tmp_path / "a [b] run"
    trained = call("pretrain", "--recipe", recipe, "--set", "train.steps=1", "--out", out)
    assert trained.code == 0, trained.err
    assert f"next: ofa-pose train-supernet --init '{out}' --out …" in " ".join(trained.err.split())


def test_eval_takes_the_test_split_of_the_checkpoint(call: Call, recipe: Path, data: Path, tmp_path: Path) -> None:
    test = ("annotations", data / "val" / "annotations.json"), ("images", data / "val" / "images")
    split = [word for key, path in test for word in ("--set", f"data.test.{key}={path}")]
    trained = call("pretrain", "--recipe", recipe, *split, "--set", "train.steps=1", "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    scored = call("eval", "--checkpoint", tmp_path / "run", "--json")
    assert scored.code == 0, scored.err
    assert scored.result["images"] == 8


def test_eval_scores_a_results_file(call: Call, data: Path, tmp_path: Path) -> None:
    truth = read_json(data / "val" / "annotations.json")
    perfect = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
        for a in truth["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(perfect))
    scored = call(
        "eval", "--results", tmp_path / "results.json", "--annotations", data / "val" / "annotations.json", "--json"
    )
    assert scored.code == 0, scored.err
    assert scored.result["metrics"]["AP"] > 0.99


def test_profile_prints_the_published_figures(call: Call) -> None:
    shown = call("profile", "litepose-s", "--joints", 14, "--json").result
    assert shown["resolution"] == 448
    assert shown["joints"] == 14
    assert round(shown["macs"]["thop"] / 1e9, 4) == 5.0411
    assert round(shown["macs"]["exact"] / 1e9, 4) == 3.6141
    assert round(shown["params"] / 1e6, 3) == 2.731


def test_profile_knows_shipped_weights(call: Call) -> None:
    assert call("profile", "litepose-nano-coco", "--json").result["params"] == 594600


def test_profile_reads_checkpoints_and_recounts(call: Call, net: Path) -> None:
    shown = call("profile", net, "--check", "--json")
    assert shown.code == 0, shown.err
    assert shown.result["thop_recount"] == shown.result["macs"]["thop"]


def test_data_check_prints_statistics_and_drafts_a_skeleton(call: Call, data: Path, tmp_path: Path) -> None:
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    done = call("data", "check", *where, "--write-skeleton", tmp_path / "skeleton.yaml", "--json")
    assert done.code == 0, done.err
    assert done.result["images"] == 8
    assert read_yaml(tmp_path / "skeleton.yaml")["name"] == "coco"
    assert call("data", "check", *where, "--skeleton", tmp_path / "skeleton.yaml", "--json").code == 0


@pytest.mark.parametrize(
    "command", ["pretrain", "train-supernet", "search", "finetune", "eval", "predict", "export", "report"]
)
def test_help_holds_an_example(call: Call, command: str) -> None:
    shown = call(command, "--help")
    assert shown.code == 0
    assert "Example: ofa-pose" in " ".join(shown.out.split())
