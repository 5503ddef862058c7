"""The kinds of faults: each lets one happen to a work, then the same call is made again."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.calls import Calls, Fault, children_of, ends_in_a_line
from tests.faults.works import Work

LONGEST_S = 180  # a call that takes longer hangs
SAME, TOLD, WRONG = "as if nothing had happened", "a line says why not", "neither"
CRASHED = {-signal.SIGSEGV, -signal.SIGABRT}  # what native libraries do without memory: nothing can be said then
ENDED = {0, -signal.SIGKILL, 128 + signal.SIGTERM}


class Hangs(Exception):
    """A call did not end."""


@dataclass(frozen=True)
class Trial:
    """One work in a folder of its own.

    Attributes:
        expected: what it leaves when nothing happens; lasts: how long it takes then, in seconds.
        operations: how many changes of files it makes.
    """

    calls: Calls
    work: Work
    out: Path
    expected: Any
    lasts: float
    operations: int
    rng: Random

    def go(self, fault: Fault | None = None, meanwhile: Callable[[Any], object] | None = None) -> int | None:
        """Make the call, with what happens to it; its exit code. Raises Hangs."""
        process = self.calls.begin(self.work.call(self.out), fault)
        if meanwhile:
            meanwhile(process)
        process.join(LONGEST_S)
        if process.exitcode is None:
            process.kill()
            raise Hangs
        return process.exitcode

    def fails(self, fault: Fault | None = None, meanwhile: Callable[[Any], object] | None = None) -> str:
        """'' where a call that meets a fault ends as it may: whole, killed, or in a line; else what it said."""
        code = self.go(fault, meanwhile)
        return "" if code in ENDED or ends_in_a_line(self.calls.said, code) else f"exit code {code}: {self.calls.said}"

    def again(self) -> tuple[str, str]:
        """What becomes of the same call after a fault: a verdict, and of `WRONG` what was said."""
        code = self.go()
        if code == 0 and self.work.left(self.out) == self.expected:
            return SAME, ""
        if code == 0:  # such as that the best checkpoint is damaged, and the best is sought anew
            warned = any(
                line.startswith("warning: ") and str(self.out) in line for line in self.calls.said.splitlines()
            )
            return (TOLD, "") if warned else (WRONG, "another result")
        return (TOLD, "") if ends_in_a_line(self.calls.said, code) else (WRONG, f"exit code {code}: {self.calls.said}")


Kind = Callable[[Trial, int, int], str]
"""Lets the fault of a number, of so many, happen; '' where it ends as it may, else what was said."""


def _after(trial: Trial, by: signal.Signals) -> Callable[[Any], None]:
    wait = trial.rng.uniform(0.02, 1.0) * trial.lasts

    def send(process: Any) -> None:
        process.join(wait)
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, by)

    return send


def killed(trial: Trial, number: int, count: int) -> str:
    return trial.fails(meanwhile=_after(trial, signal.SIGKILL))


def terminated(trial: Trial, number: int, count: int) -> str:
    code = trial.go(meanwhile=_after(trial, signal.SIGTERM))
    said = trial.calls.said
    fine = code in (0, 128 + signal.SIGTERM, -signal.SIGTERM) and "Traceback" not in said
    return "" if fine else f"exit code {code}: {said}"


def _place(trial: Trial, number: int, count: int) -> int:
    """Of a work's changes of files the one that a trial is for: the trials of a kind go over all of them."""
    return 1 + number * trial.operations // count


def killed_at_a_change(trial: Trial, number: int, count: int) -> str:
    return trial.fails(Fault(trial.out, _place(trial, number, count)))


def full_at_a_change(trial: Trial, number: int, count: int) -> str:
    return trial.fails(Fault(trial.out, _place(trial, number, count), errno.ENOSPC))


def broken_at_a_change(trial: Trial, number: int, count: int) -> str:
    return trial.fails(Fault(trial.out, _place(trial, number, count), errno.EIO))


def full_disk(trial: Trial, number: int, count: int) -> str:
    kilobytes = trial.rng.choice((4, 16, 40, 80, 120, 160, 240, 360))
    trial.out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", trial.out], check=True)
    found = trial.fails()
    subprocess.run(["mount", "-o", "remount,size=64m", trial.out], check=True)
    return found


def short_files(trial: Trial, number: int, count: int) -> str:
    return trial.fails(
        Fault(trial.out, limits=((resource.RLIMIT_FSIZE, trial.rng.choice((5000, 20000, 60000, 90000))),))
    )


def few_handles(trial: Trial, number: int, count: int) -> str:
    return trial.fails(Fault(trial.out, limits=((resource.RLIMIT_NOFILE, number % 12),)))


def little_memory(trial: Trial, number: int, count: int) -> str:
    fault = Fault(trial.out, limits=((resource.RLIMIT_AS, trial.rng.randrange(1 << 20, 96 << 20)),))
    code = trial.go(fault)
    fine = code in ENDED | CRASHED or ends_in_a_line(trial.calls.said, code)
    return "" if fine else f"exit code {code}: {trial.calls.said}"


def dead_worker(trial: Trial, number: int, count: int) -> str:
    def kill(process: Any) -> None:
        until = time.monotonic() + LONGEST_S
        while process.exitcode is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                if found := children_of(process.pid):
                    time.sleep(trial.rng.uniform(0.0, 0.5) * trial.lasts)
                    os.kill(trial.rng.choice(found), signal.SIGKILL)
                    return
            process.join(0.01)

    return trial.fails(meanwhile=kill)


def flipped_bit(trial: Trial, number: int, count: int) -> str:
    said = trial.fails(Fault(trial.out, trial.rng.randrange(trial.operations // 2, trial.operations)))
    files = sorted((trial.out / "checkpoints").glob("[!.]*.pt"))
    path = files[number % len(files)]
    content = bytearray(path.read_bytes())
    content[trial.rng.randrange(len(content))] ^= 1 << trial.rng.randrange(8)
    path.write_bytes(content)
    return said


ALL = ("training", "search", "data synth", "finetune", "export", "data convert", "table", "fidelity", "study")
KINDS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "a process that reads images, or evaluates subnets, is killed": (
        dead_worker,
        ("training with a process", "search with processes"),
    ),
    "a flipped bit in a checkpoint": (flipped_bit, ("training",)),
    "killed at any moment": (killed, ALL),
    "killed before a file is opened to write, flushed, renamed or removed": (killed_at_a_change, ALL),
    "SIGTERM at any moment": (terminated, ALL),
    "a full disk where a file is opened to write, flushed, renamed or removed": (full_at_a_change, ALL),
    "a failing disk there": (broken_at_a_change, ALL),
    "a small file system, then a larger one": (full_disk, ALL),
    "a limit of a file's size": (short_files, ALL),
    "no more open files": (few_handles, ALL),
    "no more memory": (little_memory, ALL),
}


@contextmanager
def clean(out: Path) -> Iterator[None]:
    """Leave nothing of a trial behind."""
    try:
        yield
    finally:
        if os.path.ismount(out):
            subprocess.run(["umount", out], check=True)
        shutil.rmtree(out, ignore_errors=True)


def can_mount(folder: Path) -> bool:
    """Whether this process may make a small file system."""
    place = folder / "mount"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", place], capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", place], check=True)
    return done.returncode == 0
