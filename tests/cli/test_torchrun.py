"""Trainings share their work among the processes that torchrun starts; other commands refuse to be started so."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ofa_pose
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.cli import HEARD_S
from ofa_pose.utils.errors import InputError
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

SHARED = {"pretrain", "train_supernet", "finetune"}
ALONE = sorted(set(ofa_pose.__all__) - {"__version__", "load", "quiet"} - SHARED)


def test_every_command_is_checked() -> None:
    assert {"search", "evaluate", "predict", "import_litepose"} <= set(ALONE) and set(ofa_pose.__all__) >= SHARED


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("name", ALONE)
def test_many_processes_are_refused_before_anything_else(name: str, tmp_path: Path) -> None:
    function = getattr(ofa_pose, name)
    none = tmp_path / "none"
    needed = {
        parameter.name: [none] if str(parameter.annotation).startswith("Sequence") else none
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
    }
    with pytest.raises(InputError, match="does not share its work, and 2 processes were started; start it without"):
        function(**needed)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that processes wait whose fault another one says; nothing is waited for."""
    waits: list[float] = []
    monkeypatch.setattr("ofa_pose.cli.time", SimpleNamespace(sleep=waits.append))
    return waits


@pytest.mark.usefixtures("two_processes")
def test_the_shell_says_so(
    call: Call, supernet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unheard: list[float]
) -> None:
    called = call("search", "--supernet", supernet, "--macs", "1M", "--out", tmp_path / "run")
    refused(called, "search does not share its work", "without torchrun", "search --workers N")
    monkeypatch.setenv("RANK", "1")
    called = call("search", "--supernet", supernet, "--macs", "1M", "--out", tmp_path / "run")
    assert (called.code, called.out, called.err) == (2, "", ""), "one process says so"
    assert unheard == [HEARD_S] and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("pretrain", "--stepz", "3"), "No such option: --stepz"),
        (("pretrain",), "Missing option '--out'"),
        (("trian",), "No such command 'trian'"),
        (("finetune", "--resume", "--out", "none"), "holds no run to go on with"),
    ],
)
def test_of_a_wrong_call_one_process_speaks(
    call: Call, words: tuple[str, ...], fault: str, monkeypatch: pytest.MonkeyPatch, unheard: list[float]
) -> None:
    refused(call(*words), fault)
    assert not unheard
    monkeypatch.setenv("RANK", "1")
    called = call(*words)
    assert (called.code, called.out, called.err, unheard) == (2, "", "", [HEARD_S])
    monkeypatch.delenv("RANK")
    refused(call(*words), "RANK and LOCAL_RANK do not say which one this is")


def test_processes_that_cannot_meet_are_refused(
    call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train-supernet", "--recipe", recipe, "--out", tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(call(*train), "RANK and LOCAL_RANK do not say which one this is", "start them with torchrun")
    for rank, local, world in (("2", "0", "2"), ("-1", "0", "2"), ("0", "-1", "2"), ("0", "1", "2"), ("0", "0", "x")):
        for name, value in (("RANK", rank), ("LOCAL_RANK", local), ("WORLD_SIZE", world)):
            monkeypatch.setenv(name, value)
        refused(call(*train), "RANK and LOCAL_RANK do not say which one this is")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    refused(call(*train), "the processes cannot meet", "MASTER_ADDR", "start them with torchrun")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("world", ["", "1"])
def test_one_process_is_welcome(call: Call, data: Path, monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    assert call("data", "check", *where, "--json").code == 0


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def by_torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, "-m", "ofa_pose", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
def test_a_supernet_is_trained_by_two_processes(recipe: Path, supernet: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    where = ("--set", "train.sync_norm=true", "--device", "cpu", "--out", out)
    done = by_torchrun("train-supernet", "--recipe", recipe, *where, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 4 and result["out"] == str(out)
    assert done.stderr.count("cpu, float32, 2 processes of 1 thread") == 1
    assert done.stderr.count("AP ") == 2, "evaluated after steps 2 and 4, said once each"
    lines, before = (records_of(run) for run in (out, supernet))
    assert [(line["step"], line.keys()) for line in lines] == [(line["step"], line.keys()) for line in before]
    for one, other in zip(lines, before, strict=True):
        if "loss" in one:
            assert one["side"] == other["side"] and one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert load_checkpoint(out / "checkpoints" / "last.pt").training["step"] == 4  # type: ignore[index]
    assert len((out / "command.txt").read_text().splitlines()) == 1


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_of_many_processes_one_says_what_is_wrong(recipe: Path, tmp_path: Path) -> None:
    odd = ("--set", "train.batch=3", "--device", "cpu", "--out", tmp_path / "run")
    done = by_torchrun("pretrain", "--recipe", recipe, *odd)
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    words = "train.batch 3 has no 2 equal parts (2 processes × train.accumulate 1); make it 2 or 4"
    assert said == [f"error: {words}"]
    assert done.returncode and "exitcode  : 2" in done.stderr and not (tmp_path / "run").exists()
    done = by_torchrun("pretrain", "--recipe", recipe, "--steps", 3)
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "No such option: --steps" in said[0]


KILLED = """
import os, signal, sys
import ofa_pose

class Killed:
    def __init__(self, net, training):
        made = training.objective(net)
        self.network, self.resolution, self._loss = net, made.resolution, made.loss

    def loss(self, batch, step):
        if (step, os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == (3, "1", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._loss(batch, step)

if __name__ == "__main__":
    ofa_pose.pretrain(sys.argv[1], recipe=sys.argv[2], resume=True, device="cpu", objective=Killed)
"""


@pytest.mark.slow
@pytest.mark.parametrize("own_store", ["1", "0"])
def test_what_torchrun_restarts_goes_on(recipe: Path, tmp_path: Path, own_store: str) -> None:
    """As docs/many-gpus.md says it: with a store of torchrun's own, the new processes ask for those that have ended."""
    (tmp_path / "script.py").write_text(KILLED)
    out = tmp_path / "run"
    command = [*TORCHRUN, "--max-restarts", "1", str(tmp_path / "script.py"), str(out), str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": own_store}
    environment["PYTHONPATH"] = str(Path(ofa_pose.__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    if own_store == "0" and done.returncode:
        assert "torchrun's --max-restarts takes TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in records_of(out) if "loss" in record] == [1, 2, 3, 4]
    assert len((out / "command.txt").read_text().splitlines()) == 2
