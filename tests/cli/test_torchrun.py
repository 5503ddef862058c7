"""Commands that do not share their work refuse to be started many times at once by torchrun."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ofa_pose
from ofa_pose.utils.errors import InputError
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

ALONE = sorted(set(ofa_pose.__all__) - {"__version__", "load"})


def test_every_command_is_checked() -> None:
    assert {"search", "pretrain", "train_supernet", "finetune", "evaluate", "predict", "import_litepose"} <= set(ALONE)


@pytest.mark.parametrize("name", ALONE)
def test_many_processes_are_refused_before_anything_else(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    function = getattr(ofa_pose, name)
    needed = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="does not share its work, and 2 processes were started; start it without"):
        function(**dict.fromkeys(needed, tmp_path / "none"))
    assert not list(tmp_path.iterdir())


def test_the_shell_says_so(call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    called = call("train-supernet", "--recipe", recipe, "--out", tmp_path / "run")
    refused(called, "train-supernet does not share its work", "without torchrun", "search --workers N")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("world", ["", "1"])
def test_one_process_is_welcome(call: Call, data: Path, monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    assert call("data", "check", *where, "--json").code == 0


@pytest.mark.slow
def test_torchrun_itself_is_refused(recipe: Path, tmp_path: Path) -> None:
    command = ("-m", "ofa_pose", "train-supernet", "--recipe", str(recipe), "--out", str(tmp_path / "run"))
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [*launcher, *command], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode and "train-supernet does not share its work, and 2 processes were started" in done.stderr
    assert "exitcode  : 2" in done.stderr
    assert not (tmp_path / "run").exists()
