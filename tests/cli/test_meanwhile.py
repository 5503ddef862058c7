"""What changes while a command runs does not make its files say what is not so."""

from __future__ import annotations

import errno
import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.utils import files
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
