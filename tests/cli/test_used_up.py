"""A machine that has no more memory, disk or open files: one line that names the file or the setting."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ofa_pose import cli
from ofa_pose.train.loop import _memory_faults
from ofa_pose.utils.errors import OfaPoseError
from tests.cli.conftest import Call

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "words", "line"),
    [
        (MemoryError(), ["eval"], "there is not enough memory (MemoryError); lower --batch, or close other programs"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            ["data", "synth"],
            "there is not enough memory (DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes); "
            "lower --workers, or close other programs",
        ),
        (
            RuntimeError("std::bad_alloc"),
            ["report"],
            "there is not enough memory (std::bad_alloc); close other programs",
        ),
        (
            RuntimeError("can't start new thread"),
            ["search"],
            "there is not enough memory (can't start new thread); lower search.batch or --workers, "
            "or close other programs",
        ),
        (
            RuntimeError("could not create a primitive"),
            ["train-supernet"],
            "there is not enough memory (could not create a primitive); lower train.batch or train.workers, "
            "or close other programs",
        ),
        (
            ImportError("onnx/a.so: failed to map segment from shared object"),
            ["finetune"],
            "onnx/a.so: failed to map segment from shared object; free some memory, or install it where the file "
            "system is not mounted noexec",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "a.jpg"),
            ["eval"],
            "a.jpg: Too many open files; raise the limit of open files (ulimit -n), or lower the number of workers",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "last.pt"),
            ["pretrain"],
            "last.pt: No space left on device; make room there, then call again, "
            "with --resume where the command has it",
        ),
        (OSError(errno.EIO, "Input/output error", "a.jpg"), ["eval"], "a.jpg: Input/output error"),
    ],
)
def test_what_is_used_up_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, words: list[str], line: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_program", lambda: fail)
    called = call(*words)
    assert (called.code, called.out, called.err) == (1, "", f"error: {line}\n")


def test_other_faults_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(cli, "_program", lambda: fail)
    with pytest.raises(RuntimeError, match="of the program"):
        cli.run(["profile"])
    with pytest.raises(RuntimeError, match=r"^of the program$"), _memory_faults("go on"):
        raise RuntimeError("of the program")


def test_a_training_without_memory_says_how_to_go_on() -> None:
    match = r"^there is not enough memory \(48 MiB\); lower train.batch or raise train.accumulate, then go on with: X$"
    with pytest.raises(OfaPoseError, match=match), _memory_faults("go on with: X"):
        raise MemoryError("48 MiB")


def test_a_result_that_nobody_reads_is_no_fault(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "ofa_pose", "profile", "litepose-xs", "--json"]
    done = subprocess.run(words, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_no_fault(tmp_path: Path, closed: str) -> None:
    drawn = ["data", "synth", str(tmp_path / "drawn"), "--images", "1", "--size", "64", "--workers", "1"]
    call = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "ofa_pose", *drawn]
    done = subprocess.run(call, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "drawn" / "annotations.json").is_file()
