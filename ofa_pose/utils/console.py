"""What people see while work goes on: always on stderr, so that stdout is free for results.

On a terminal long work shows a rich progress bar with speed and time left; piped, a plain line now and then.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ofa_pose.utils.errors import LONGEST, shortened, visible

MOST_CHARACTERS = 3 * LONGEST  # of a line that is said
PLAIN_INTERVAL_S = 15.0
SHORT_S = 2.0  # work that takes no longer needs no line at its end


class _PlainConsole(Console):
    """A console on which a name is never more than text: what no terminal shows is written as Python does."""

    def render_str(self, text: str, **style: Any) -> Text:
        return super().render_str(visible(text), **style)

    def print(self, *objects: Any, **style: Any) -> None:
        try:
            super().print(*objects, **style)
        except OSError:  # a full disk, a terminal that was closed
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Say no more where nobody reads it; the work goes on."""
        self.quiet = True
        with suppress(OSError, ValueError):  # what replaces sys.stderr may have no number
            mute(sys.stderr.fileno())


def mute(stream: int) -> None:
    """Let what is written to a stream with this number go nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


_err = _PlainConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def say(text: str) -> None:
    """A line on stderr."""
    _err.print(_fitting(text), markup=False)


def warn(text: str) -> None:
    """A warning line on stderr."""
    _err.print(f"warning: {_fitting(text)}", style="yellow", markup=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be shown for a while: of several processes that do the same work one is enough to hear from."""
    before, _err.quiet = _err.quiet, True
    try:
        yield
    finally:
        _err.quiet = before


def _fitting(text: str) -> str:
    return "\n".join(shortened(line, MOST_CHARACTERS) for line in text.splitlines())


def show(table: Table) -> None:
    """A rich table on stderr."""
    _err.print(table)


class Meter:
    """The running state of one progress display: call `step` as work is done."""

    def __init__(self, what: str, total: int | None, unit: str, bar: Progress | None, done: int = 0) -> None:
        self._what, self._total, self._unit, self._bar = what, total, unit, bar
        self._done = self._first = self._shown = done
        self._start = self._last = time.monotonic()
        self._task = bar.add_task(what, total=total, completed=done, note="") if bar else None

    def step(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more units are done; `note` is a short text such as the loss."""
        self._done += count
        now = time.monotonic()
        ended = self._total is not None and self._done >= self._total
        if self._bar is not None and self._task is not None:
            note = f"{self._speed(now):.1f} {self._unit}/s  {visible(note)}"
            self._bar.update(self._task, completed=self._done, note=note)
        elif now - self._last >= PLAIN_INTERVAL_S or (ended and now - self._start > SHORT_S):
            self._show_line(now, note)

    def finish(self) -> None:
        """Say how much was done where no total said so before."""
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            if self._total is None:
                self._bar.update(self._task, total=self._done)
        elif self._total is None and self._shown < self._done and now - self._start > SHORT_S:
            self._show_line(now)

    def _speed(self, now: float) -> float:
        return (self._done - self._first) / max(now - self._start, 1e-9)

    def _show_line(self, now: float, note: str = "") -> None:
        self._last, self._shown = now, self._done
        speed, count, ending = self._speed(now), str(self._done), f"{now - self._start:.0f} s"
        if self._total is not None:
            count = f"{self._done}/{self._total}"
            if self._done < self._total:
                ending = f"{(self._total - self._done) / max(speed, 1e-9):.0f} s left"
        say(f"{self._what}: {count} {self._unit}, {speed:.1f}/s, {ending}  {note}".rstrip())


@contextmanager
def progress(what: str, total: int | None, unit: str = "images", done: int = 0) -> Iterator[Meter]:
    """A progress display of `total` units of work (None: nobody knows) named `what`; `done` were done before."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=_err) if _err.is_terminal else nullcontext() as bar:
        meter = Meter(what, total, unit, bar, done)
        yield meter
        meter.finish()
