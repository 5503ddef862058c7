"""Trainings as processes that are told to end, or killed, at any step: nothing is lost, nobody is left, all goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ofa_pose import cli
from ofa_pose.__main__ import main
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.cli import run
from ofa_pose.utils.files import dump_yaml, write_text
from tests.train.test_loop import same

ROOT = Path(__file__).resolve().parents[2]
STEPS = 150
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
# A shell's background jobs ignore Ctrl-C, and so would what a test starts from there.
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from ofa_pose.cli import run; sys.exit(run(sys.argv[1:]))"
)


def start(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def records(out: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, without the clock's."""
    path = out / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [
        {key: value for key, value in json.loads(line).items() if key not in ("seconds", "data_wait")} for line in lines
    ]


def steps(out: Path) -> int:
    """How many steps were taken."""
    return max((record["step"] for record in records(out) if "loss" in record), default=0)


def members(session: int) -> list[int]:
    """The processes that a process begun here has left, zombies aside."""
    listing = subprocess.run(["ps", "-eo", "pid=,sid=,stat="], capture_output=True, text=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [int(pid) for pid, sid, state in rows if int(sid) == session and not state.startswith("Z")]


def left(running: subprocess.Popen[str], within_s: float = 10.0) -> list[int]:
    until = time.monotonic() + within_s
    while (found := members(running.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def cut_off(running: subprocess.Popen[str], out: Path, step: int, by: signal.Signals) -> str:
    """Wait until a step was taken, send a signal; what the process said before it ended."""
    while steps(out) < step:
        assert running.poll() is None, running.communicate()
        time.sleep(0.002)
    running.send_signal(by)
    told, errors = running.communicate(timeout=120)
    assert not told
    return errors


@pytest.fixture(scope="session")
def calls(recipe: Path, supernet: Path, net: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """A supernet's training and a fine-tuning, of some steps and with processes that read images."""
    folder = tmp_path_factory.mktemp("cut off")
    space = load_checkpoint(supernet).space
    assert space is not None
    write_text(folder / "subnet.yaml", dump_yaml({"spec": space.smallest(17).to_dict()}))
    changed = ("steps", STEPS), ("workers", 2), ("evaluate_every", 40), ("checkpoint_every", 7)
    settings = [word for key, value in changed for word in ("--set", f"train.{key}={value}")]
    many = [*settings, "--set", "decode.calibrate=false", "--device", "cpu"]
    trained = ["--supernet", supernet, "--teacher", net]
    return {
        "train-supernet": ["train-supernet", "--recipe", recipe, *many],
        "finetune": ["finetune", "--subnet", folder / "subnet.yaml", *trained, *many],
    }


@pytest.fixture(scope="session")
def whole(calls: dict[str, list[object]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes either, uninterrupted, once; its folder."""
    folder = tmp_path_factory.mktemp("whole")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            assert run([*map(str, calls[name]), "--out", str(folder / name)]) == 0
        return folder / name

    return make


def check_same(out: Path, whole: Path) -> None:
    """Raise where a run did not end as the one that nobody cut off."""
    assert steps(out) == STEPS
    assert records(out) == records(whole)
    for name in ("last", "best"):
        one, other = (load_checkpoint(run / "checkpoints" / f"{name}.pt") for run in (out, whole))
        assert one.info == other.info and one.recipe == other.recipe
        assert same(one.weights, other.weights) and same(one.training, other.training), name


def torture(
    words: Sequence[object], out: Path, signals: Sequence[signal.Signals], rng: random.Random
) -> dict[str, list[int]]:
    """A training that is cut off by every signal in turn, at random steps, and resumed; the steps where it was."""
    name, found = str(words[0]), dict[str, list[int]]()
    for number, by in enumerate(signals):
        before = steps(out)
        running = start(*(words if number == 0 else [name, "--resume"]), "--out", out)
        errors = cut_off(
            running, out, before + rng.randint(1, 2 * (STEPS - before - 1) // (len(signals) - number + 1)), by
        )
        taken = steps(out)
        assert taken < STEPS, "it ended before the signal came: choose more steps"
        found.setdefault(by.name, []).append(taken)
        if by == signal.SIGKILL:
            assert running.returncode == -by
        else:
            assert running.returncode == CODES[by], errors
            last = load_checkpoint(out / "checkpoints" / "last.pt").training
            assert last is not None and last["step"] == taken, "no step is lost"
            said = errors.strip().splitlines()[-1]
            assert said.endswith(f"step {taken} of {STEPS} is kept; go on with: ofa-pose {name} --resume --out {out}")
            assert said.startswith("error: ") and "Traceback" not in errors
        assert not left(running), "no process outlives it"
        assert not [path.name for path in out.rglob(".*")] or by == signal.SIGKILL
    assert run([name, "--resume", "--out", str(out)]) == 0
    assert not list(out.rglob(".*")), "what kills left is gone"
    return found


@pytest.mark.slow
def test_a_training_that_is_told_to_end_loses_no_step(
    calls: dict[str, list[object]], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    torture(calls["finetune"], tmp_path / "run", [signal.SIGTERM, signal.SIGKILL], random.Random(0))
    check_same(tmp_path / "run", whole("finetune"))


@pytest.mark.parametrize("number", CODES)
def test_a_signal_before_a_command_begins_is_a_line_too(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(cli, "_program", program)
    assert run(["profile"]) == CODES[number]
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert capfd.readouterr().err == f"error: {said}\n"


def test_a_signal_of_which_a_library_makes_another_exception_is_a_line_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def program(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr(cli, "_program", lambda: program)
    assert run(["profile"]) == 143
    assert capfd.readouterr().err == "error: ended by SIGTERM\n"


def test_ctrl_c_while_the_command_line_is_imported_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def raising() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", raising)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == CODES[signal.SIGINT] and capfd.readouterr().err == "error: interrupted\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-supernet", "finetune"])
def test_trainings_told_to_end_and_killed_again_and_again(
    calls: dict[str, list[object]], whole: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    rng = random.Random(1)
    by = [signal.SIGTERM] * 10 + [signal.SIGINT, signal.SIGHUP] * 2
    for part, signals in enumerate([by[:7], by[7:], [signal.SIGKILL] * 7, [signal.SIGKILL] * 7, [signal.SIGKILL] * 6]):
        out = tmp_path / str(part)
        print(name, torture(calls[name], out, rng.sample(signals, len(signals)), rng))
        check_same(out, whole(name))
