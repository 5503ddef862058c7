"""Calls of the command line as processes that meet a fault, and what they leave behind."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch

from ofa_pose.cli import run

CHANGES = {
    "os.rename",
    "os.remove",
    "os.link",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
}  # Python's names of what it is about to do
# What the calls import first; torch._dynamo is what an optimiser imports at its first step, for seconds.
PRELOADED = (
    "ofa_pose.train.loop",
    "ofa_pose.searches.job",
    "ofa_pose.exports.formats",
    "onnxruntime",
    "torch.onnx",
    "torch._dynamo",
)
_FLUSH = os.fsync
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Fault:
    """What a process brings upon itself.

    Attributes:
        operation: before which change of a file in `within`, counted from 1, it happens; 0: none.
        number: of the error that the operation ends with; 0: the process is killed.
        limits: by the number of a limit of the system, such as RLIMIT_FSIZE, what it is; of RLIMIT_AS, by how much the
            process may grow; of RLIMIT_NOFILE, how many more files it may open.
    """

    within: Path
    operation: int = 0
    number: int = 0
    limits: tuple[tuple[int, int], ...] = ()


class Operations:
    """Counts the changes of files in a folder as they are about to happen, and lets a fault happen at one of them."""

    def __init__(self, fault: Fault) -> None:
        self.count, self._fault, self._within = 0, fault, str(fault.within)

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        """See `sys.addaudithook`."""
        if event not in CHANGES and not (event == "open" and isinstance(given[2], int) and given[2] & WRITING):
            return
        if not isinstance(given[0], str | os.PathLike) or not os.fspath(given[0]).startswith(self._within):
            return
        self._count(os.fspath(given[0]))

    def flush(self, handle: int) -> None:
        """What os.fsync is meanwhile: the disk may fail only then."""
        if os.readlink(f"/proc/self/fd/{handle}").startswith(self._within):
            self._count()
        _FLUSH(handle)

    def _count(self, *named: str) -> None:
        self.count += 1
        if self.count == self._fault.operation:
            if not self._fault.number:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self._fault.number, os.strerror(self._fault.number), *named)


def perform(words: Sequence[str], log: Path, fault: Fault) -> None:
    """What such a process does; stdout and stderr go into a file, and how many files it changed into one beside it."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    operations = Operations(fault)
    sys.addaudithook(operations)
    os.fsync = operations.flush  # type: ignore[assignment]
    for kind, amount in fault.limits:
        used = {resource.RLIMIT_AS: _address_space, resource.RLIMIT_NOFILE: _open_files}.get(kind, int)()
        resource.setrlimit(kind, (used + amount, resource.getrlimit(kind)[1]))
    code = run(words)
    log.with_suffix(".count").write_text(str(operations.count))
    sys.exit(code)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _open_files() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd")) + 1


class Calls:
    """Begins processes that have imported everything already."""

    def __init__(self, folder: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.calls", *PRELOADED])
        self.log = folder / "said.txt"

    def begin(self, words: Sequence[str], fault: Fault | None = None) -> BaseProcess:
        """Begin a call; `said` is what it said, once it has ended."""
        given = fault or Fault(Path(os.devnull))
        process = self._context.Process(target=perform, args=(list(words), self.log, given))
        process.start()
        return process

    @property
    def said(self) -> str:
        """What the last call said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def operations(self) -> int:
        """How many changes of files the last call made that was given where to count them, and ended by itself."""
        return int(self.log.with_suffix(".count").read_text())


def ends_in_a_line(said: str, code: int | None) -> bool:
    """Whether a call ended with an exit code of a refusal or a failure, and one line that says why."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    return code in (1, 2) and len(errors) == 1 and "Traceback" not in said


def children_of(process: int) -> list[int]:
    """The processes that a process has begun."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
