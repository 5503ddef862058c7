"""The demo without its trainings: which commands it runs, what it writes, and which folders it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import ofa_pose
from ofa_pose.studies import demo as module
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.run_dir import alone_in


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_command", lambda _: pytest.fail("a command was run"))
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="holds what no demo wrote; name another folder with --out"):
        ofa_pose.demo(out=tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_a_step_that_fails_ends_the_demo_and_the_next_one_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(words: list[str]) -> SimpleNamespace:
        commands.append(words[:-1])
        return SimpleNamespace(returncode=int(len(commands) == 2), stdout=json.dumps({}))

    monkeypatch.setattr(module, "run_command", run)
    with pytest.raises(OfaPoseError, match=r"the demo ended with exit code 1 of: ofa-pose data synth .*val"):
        ofa_pose.demo(out=tmp_path / "demo", seed=7, train_images=5)
    drawn = ["--images", "5", "--size", "192", "--seed", "70001"]
    assert commands[0] == ["data", "synth", str(tmp_path / "demo" / "data" / "train"), *drawn]
    (tmp_path / "demo" / "left.txt").touch()
    commands.clear()
    with pytest.raises(OfaPoseError):
        ofa_pose.demo(out=tmp_path / "demo")
    assert not (tmp_path / "demo" / "left.txt").exists()


def test_a_demo_that_was_killed_while_it_emptied_its_folder_can_be_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, ignore_errors: bool) -> None:
        raise KeyboardInterrupt

    def run(words: list[str]) -> SimpleNamespace:
        assert sorted(one.name for one in out.iterdir()) == [module.MARK, module.atomic.LOCK]
        return SimpleNamespace(returncode=1)

    out = tmp_path / "demo"
    (out / "data").mkdir(parents=True)
    (out / "summary.json").touch()
    (out / module.MARK).touch()
    monkeypatch.setattr(module, "run_command", run)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module.shutil, "rmtree", killed)
        ofa_pose.demo(out=out)
    with pytest.raises(OfaPoseError, match="the demo ended with exit code 1"):
        ofa_pose.demo(out=out)


def test_two_demos_keep_out_of_each_others_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_pose.utils.run_dir.FREED_S", 0.0)
    monkeypatch.setattr(module, "run_command", lambda _: pytest.fail("a command was run"))
    (tmp_path / module.MARK).touch()
    (tmp_path / "poses.jpg").touch()
    with alone_in(tmp_path), pytest.raises(InputError, match="another process runs there"):
        ofa_pose.demo(out=tmp_path)
    assert (tmp_path / "poses.jpg").exists()


@pytest.mark.slow
def test_a_small_demo_goes_the_whole_way(tmp_path: Path) -> None:
    few = ["train.steps=4", "train.evaluate_every=2", "search.images=16", "search.population=4", "search.generations=1"]
    sets = [word for override in few for word in ("--set", override)]
    words = ["--train-images", "40", "--test-images", "12", "--out", str(tmp_path / "demo"), *sets, "--json"]
    call = [sys.executable, "-m", "ofa_pose", "demo", *words]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert Path(summary["searched"]["onnx"]).is_file() and (tmp_path / "demo" / "report.html").is_file()
    assert summary["searched"]["macs"] <= 250e6 and summary["test"]["count"] == 12
