"""What people see while work goes on: always on stderr, so that stdout is free for results.

On a terminal long work shows a rich progress bar with speed and time left; piped, a plain line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_INTERVAL_S = 15.0
T = TypeVar("T")
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line on stderr."""
    _err.print(text, markup=False)


def warn(text: str) -> None:
    """A warning line on stderr."""
    _err.print(f"warning: {text}", style="yellow", markup=False)


def show(table: Table) -> None:
    """A rich table on stderr."""
    _err.print(table)


class Meter:
    """The running state of one progress display: call `step` as work is done."""

    def __init__(self, what: str, total: int, unit: str, bar: Progress | None, done: int = 0) -> None:
        self._what, self._total, self._unit, self._bar = what, total, unit, bar
        self._done = self._first = done
        self._start = self._last = time.monotonic()
        self._task = bar.add_task(what, total=total, completed=done, note="") if bar else None

    def step(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more units are done; `note` is a short text such as the loss."""
        self._done += count
        now = time.monotonic()
        speed = (self._done - self._first) / max(now - self._start, 1e-9)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=f"{speed:.1f} {self._unit}/s  {note}")
        elif now - self._last >= PLAIN_INTERVAL_S or (self._done >= self._total and now - self._start > 2):
            self._last = now
            left = (self._total - self._done) / max(speed, 1e-9)
            ending = f"{left:.0f} s left" if self._done < self._total else f"{now - self._start:.0f} s"
            say(f"{self._what}: {self._done}/{self._total} {self._unit}, {speed:.1f}/s, {ending}  {note}".rstrip())


@contextmanager
def progress(what: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Meter]:
    """A progress display of `total` units of work named `what`; `done` of them were done before."""
    if not _err.is_terminal:
        yield Meter(what, total, unit, None, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=_err) as bar:
        yield Meter(what, total, unit, bar, done)


def track(
    items: Iterable[T], what: str, total: int, unit: str = "images", size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Iterate over `items` under a progress display; `size` says how many units an item is."""
    with progress(what, total, unit) as meter:
        for item in items:
            yield item
            meter.step(size(item))
