"""`--resume` with a run's folder and nothing else: what was said when it was begun is not said again."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import ofa_pose
from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.cli import app
from ofa_pose.cli.resuming import completed
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, read_yaml, write_text
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

CPU = ("--device", "cpu")


def last_command(out: Path) -> list[str]:
    return shlex.split((out / "command.txt").read_text().splitlines()[-1])


def trained(out: Path) -> int:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return max(record["step"] for record in map(json.loads, lines) if "loss" in record)


def test_a_training_goes_on_by_its_folder_alone(call: Call, recipe: Path, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    own, start = tmp_path / "own.yaml", tmp_path / "start.pt"
    shutil.copy(recipe, own)
    shutil.copy(net / "checkpoints" / "best.pt", start)
    words = ("train-supernet", "--recipe", own, "--init", start, "--set", "train.lr=0.01", "--seed", "3", *CPU)
    assert call(*words, "--out", out).code == 0
    before = load_checkpoint(out)
    own.unlink()  # the run has its recipe, and its weights
    start.unlink()
    again = call("train-supernet", "--resume", "--out", out, "--set", "train.steps=6", "--json")
    assert again.code == 0 and "goes on with this one: train.steps was 4, is 6" in " ".join(again.err.split())
    assert trained(out) == 6 == again.result["steps"]
    kept = read_yaml(out / "recipe.yaml")
    assert (kept["train"]["lr"], kept["seed"], kept["train"]["steps"]) == (0.01, 3, 6)
    assert last_command(out) == ["ofa-pose", "train-supernet", "--init", str(start), *CPU, "--resume"] + [
        "--out",
        str(out),
        "--set",
        "train.steps=6",
        "--json",
    ]
    carried = load_checkpoint(out / "checkpoints" / "last.pt").recipe
    assert carried["commands"] == before.recipe["commands"] == {"finetune": {"train": {"steps": 2}}}
    assert carried["train"]["steps"] == 6 and carried["train"]["lr"] == 0.01
    third = call("train-supernet", "--resume", "--out", out)
    assert third.code == 0 and trained(out) == 6 and "goes on with this one" not in third.err


def test_a_fine_tuning_and_a_search_go_on_by_their_folder_alone(
    call: Call, supernet: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    space = load_checkpoint(supernet).space
    assert space is not None
    write_text(place / "subnet.yaml", dump_yaml({"spec": space.smallest(17).to_dict()}))
    monkeypatch.chdir(place)
    shutil.copy(supernet / "checkpoints" / "best.pt", "supernet.pt")
    words = ("finetune", "--subnet", "subnet.yaml", "--supernet=supernet.pt", "--teacher", net, *CPU)
    assert call(*words, "--out", "runs/tuned").code == 0
    Path("supernet.pt").unlink()  # the run has its weights
    words = ("search", "--supernet", supernet, "--params", "1M", "--set", "search.population=3", "--seed", "2", *CPU)
    found = call(*words, "--out", "runs/search", "--json", "--algorithm", "random", "--no-surrogate")
    assert found.code == 0, found.err
    before = (place / "runs" / "search" / "result.json").read_bytes()
    monkeypatch.chdir(tmp_path)  # paths of the call are found from another folder, too
    again = call("finetune", "--resume", "--out", "place/runs/tuned", "--set", "train.steps=3", "--json")
    assert again.code == 0, again.err
    assert again.result["steps"] == 3
    option = last_command(place / "runs" / "tuned")
    assert option[option.index("--subnet") + 1] == str(place / "subnet.yaml")
    write_text(place / "subnet.yaml", dump_yaml({"spec": space.largest(17).to_dict()}))
    refused(call("finetune", "--resume", "--out", "place/runs/tuned"), "holds a run of another net")
    again = call("search", "--resume", "--out", "place/runs/search", "--json")
    assert again.code == 0, again.err
    monkeypatch.chdir(place)
    assert call("search", "--resume", "--out", "runs/search", "--json").result == found.result
    assert (place / "runs" / "search" / "result.json").read_bytes() == before
    refused(call("search", "--resume", "--out", "runs/search", "--seed", "5"), "another algorithm: algorithm.seed")
    refused(call("table", "--resume", "--out", "runs/search"), "was begun by 'search', not by 'table'")


@pytest.mark.parametrize("out", [("--out", "place/runs/lr=0.1"), ("--out=place/runs/lr=0.1",)])
def test_names_may_hold_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: tuple[str, ...]) -> None:
    run = tmp_path / "place" / "runs" / "lr=0.1"
    run.mkdir(parents=True)
    for name in ("net=a.pt", "b.json"):
        (tmp_path / "place" / name).touch()
    words = ["--supernet", "net=a.pt", "--archive=net=a.pt", "--set", "data.search.annotations=b.json"]
    write_text(run / "command.txt", shlex.join(["ofa-pose", "search", *words, "--out", "runs/lr=0.1"]) + "\n")
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "place"
    expected = ["--supernet", f"{place}/net=a.pt", f"--archive={place}/net=a.pt", "--set"]
    expected += [f"data.search.annotations={place}/b.json", "--resume", *out]
    assert completed(["search", "--resume", *out], get_command(app)) == ["search", *expected]


def test_studies_go_on_by_their_folder_alone(call: Call, recipe: Path, tmp_path: Path, data: Path) -> None:
    few = {**read_yaml(data / "tiny.yaml"), "name": "few", "resolution": [32], "stem": [4, 8], "expansion": [1]}
    few |= {"stages": [[4], [4], [8], [8]], "deconv": [[4], [4], [4]]}
    write_text(tmp_path / "few.yaml", dump_yaml(few))
    assert SearchSpace.from_dict(few).size == 2
    words = ("train-supernet", "--recipe", recipe, "--set", f"space={tmp_path / 'few.yaml'}", *CPU)
    assert call(*words, "--out", tmp_path / "supernet").code == 0
    first = call("table", "--supernet", tmp_path / "supernet", "--out", tmp_path / "table", *CPU, "--json")
    assert first.code == 0, first.err
    again = call("table", "--resume", "--out", tmp_path / "table", "--json")
    assert again.code == 0, again.err
    assert again.result["best"] == first.result["best"] and again.result["judged"] == 0


def test_resuming_begins_where_nothing_is_and_enough_is_said(
    call: Call, recipe: Path, supernet: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    begun = call("pretrain", "--recipe", recipe, "--resume", "--out", out, *CPU)
    assert begun.code == 0, begun.err
    assert "holds no checkpoints/last.pt to go on from yet; it begins" in " ".join(begun.err.split())
    assert trained(out) == 4
    none = tmp_path / "none"
    refused(call("pretrain", "--resume", "--out", none), "holds no run to go on with", "--recipe")
    refused(call("finetune", "--resume", "--out", none), "beginning one needs --subnet, --supernet", "--out")
    refused(call("search", "--resume", "--out", none), "beginning one needs --supernet", "--out")
    refused(call("finetune", "--resume"), "--subnet")
    assert not none.exists()
    (out / "checkpoints" / "last.pt").unlink()
    for older in (out / "checkpoints").glob("last-*.pt"):
        older.unlink()
    refused(call("pretrain", "--resume", "--out", out), "best.pt of a run whose checkpoints/last.pt is gone", "--init")
    refused(call("pretrain", "--recipe", recipe, "--out", out), "best.pt of a run whose checkpoints/last.pt is gone")


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_by_its_folder_alone(
    call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, words = tmp_path / "run", ("pretrain", "--recipe", recipe, "--set", "train.steps=3", *CPU)

    def killed(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("ofa_pose.train.kept.save_checkpoint", killed)
        with pytest.raises(ZeroDivisionError):
            call(*words, "--out", out)
    assert (out / "command.txt").exists() and not (out / "checkpoints").exists()
    again = call("pretrain", "--resume", "--out", out, "--json")
    assert again.code == 0 and again.result["steps"] == 3


def test_what_python_began_with_a_function_is_resumed_there(call: Call, recipe: Path, tmp_path: Path) -> None:
    def objective(net: Any, training: Any) -> Any:
        return training.objective(net)

    out = tmp_path / "run"
    ofa_pose.pretrain(out, recipe=recipe, device="cpu", objective=objective)
    refused(call("pretrain", "--resume", "--out", out), "begun from Python with --objective", "resume=True")
    assert ofa_pose.pretrain(out, resume=True, overrides=["train.steps=5"], device="cpu").steps == 5
    with pytest.raises(InputError, match="holds no run to go on with, and no recipe says how to begin one"):
        ofa_pose.pretrain(tmp_path / "none", resume=True)
