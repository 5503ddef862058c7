"""What changes while a command runs does not make its files say what is not so."""

from __future__ import annotations

import errno
import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.api import evaluating
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.inference import evaluate
from ofa_pose.utils import files, run_dir
from tests.cli.conftest import Call


def test_a_checkpoint_that_is_replaced_meanwhile_is_not_the_one_that_was_evaluated_or_exported(
    call: Call, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "net.pt", load_checkpoint(net)
    shutil.copy(net / "checkpoints" / "best.pt", path)
    before = files.sha256(path)
    build, number = Checkpoint.build, itertools.count()

    def replaced(self: Checkpoint, *given: Any) -> Any:
        save_checkpoint(path, replace(other, info={"written": next(number)}))
        return build(self, *given)

    monkeypatch.setattr(Checkpoint, "build", replaced)
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    assert call("eval", "--checkpoint", path, *where, "--device", "cpu", "--out", tmp_path / "eval").code == 0
    assert files.sha256(path) != before == files.read_json(tmp_path / "eval" / "metrics.json")["network"]["sha256"]
    before = files.sha256(path)
    assert call("export", path, "--format", "yaml", "--out", tmp_path / "export").code == 0
    assert files.sha256(path) != before == files.read_json(tmp_path / "export" / "export.json")["sha256"]


def test_an_evaluation_that_is_cut_off_leaves_no_figures_beside_the_poses_of_another(
    call: Call, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    words = ("eval", "--checkpoint", net, *where, "--device", "cpu", "--out", tmp_path)
    assert call(*words).code == 0
    write = files.write_json

    def cut_off(path: Path, value: Any) -> None:
        write(path, value)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_json", cut_off)
    assert call(*words).code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_labels_that_are_replaced_meanwhile_are_not_those_of_an_evaluation(
    call: Call, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "labels.json", (data / "val" / "annotations.json").read_text()
    words = ("eval", "--checkpoint", net, "--annotations", path, "--images", data / "val" / "images", "--device", "cpu")
    for function, code in (("read_inputs", 0), ("make_evaluator", 2)):  # after the truth was read, and before
        path.write_text(whole)
        before, called = files.sha256(path), getattr(evaluate, function)

        def replaced(*given: Any, called: Any = called, **more: Any) -> Any:
            path.write_text(whole + "\n")
            return called(*given, **more)

        with monkeypatch.context() as patched:
            patched.setattr(evaluate, function, replaced)
            done = call(*words, "--out", tmp_path / function)
        assert done.code == code, done.err
    assert files.read_json(tmp_path / "read_inputs" / "metrics.json")["data"]["sha256"] == before
    assert "labels.json: was changed while it was used; start again" in done.err


def test_two_evaluations_do_not_write_into_one_folder_at_a_time(
    call: Call, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    words = ("eval", "--checkpoint", net, *where, "--device", "cpu", "--out", tmp_path)
    monkeypatch.setattr(evaluating, "WRITING_S", 0.0)
    with run_dir.alone_in(tmp_path):
        done = call(*words)
        assert done.code == 2 and "another process runs there" in done.err
        assert not (tmp_path / "results.json").exists()
    assert call(*words).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "results.json"]
