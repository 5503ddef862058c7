"""What people see while work goes on: always on stderr, so that stdout is free for results.

On a terminal long work shows a rich progress bar with speed and time left; piped, a plain line now and then.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ofa_pose.utils.errors import LONGEST, shortened, visible
from ofa_pose.utils.numbers import format_time

MOST_CHARACTERS = 3 * LONGEST  # of a line that is said
PLAIN_INTERVAL_S = 15.0
SHORT_S = 2.0  # work that takes no longer needs no line at its end
WIDEST = 10_000  # of a table, in characters
_UNBROKEN = "\N{NO-BREAK SPACE}"  # which `visible` leaves in no text
# The blank in '12 ms', '3 people', '95 %', '0.52 ± 0.02', '640 × 480', '1.2M parameters' and '1.2G (thop)'.
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=[^\W\d_]|[%±×])|(?<=\d[KMGT]) (?=[^\W\d_]|\()|(?<=[±×]) (?=\d)")


class _PlainConsole(Console):
    """A console on which a name is never more than text: what no terminal shows is written as Python does.

    Attributes:
        only_warnings: of all that is shown only those are.
    """

    only_warnings = False

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


def _forget_odd_sizes() -> None:
    """Take sizes of the terminal that are none, such as COLUMNS=0, out of the environment: rich fails of them."""
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch(r"[1-9]\d{0,4}", os.environ.get(name, "1"), re.ASCII):
            del os.environ[name]


_forget_odd_sizes()
_err = _PlainConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def say(text: str) -> None:
    """A line on stderr, on a terminal in as many as it takes: words stay whole."""
    _print(_folded(_fitting(text)))


def say_command(text: str) -> None:
    """A line that ends in a command; on a terminal in as many as it takes, which a shell reads as one."""
    text = _fitting(text)
    if _err.is_terminal and len(text) > _err.width:
        text = text.replace(" --", " \\\n    --")
    _print(text)


def warn(text: str) -> None:
    """A warning line on stderr."""
    _err.print(_folded(f"warning: {_fitting(text)}"), style="yellow", markup=False)


@contextmanager
def quiet(but_warnings: bool = False) -> Iterator[None]:
    """Let nothing be shown for a while, or nothing but warnings.

    Of several processes that do the same work one is enough to hear from.
    """
    before = _err.quiet, _err.only_warnings
    _err.quiet, _err.only_warnings = _err.quiet or not but_warnings, _err.only_warnings or but_warnings
    try:
        yield
    finally:
        _err.quiet, _err.only_warnings = before


def _print(text: str) -> None:
    if not _err.only_warnings:
        _err.print(text, markup=False)


def _fitting(text: str) -> str:
    return "\n".join(shortened(line, MOST_CHARACTERS) for line in text.splitlines())


def show(table: Table) -> None:
    """A rich table on stderr, whole: one that is wider than the terminal is not cut."""
    if not _err.only_warnings:
        _err.print(_Whole(table), crop=False)


@dataclass(frozen=True)
class _Whole:
    """A table with as much room as it needs."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needs = console.measure(self.table, options=options.update(width=WIDEST)).maximum
        yield from console.render(self.table, options.update(width=max(needs, 1)))


def show_facts(facts: Mapping[str, str] | Iterable[tuple[str, str]], title: str = "") -> None:
    """Names and values on stderr, a line each; what a line cannot hold goes on below, and no word or path is cut."""
    rows = list(facts.items() if isinstance(facts, Mapping) else facts)
    indent = 2 if title else 0
    column = indent + 2 + max((len(name) for name, _ in rows), default=0)
    if title:
        say(title)
    for name, value in rows:
        first = f"{' ' * indent}{name}".ljust(column)
        for line in _fitting(value).splitlines() or [""]:
            _print("\n".join(_wrapped(line, first, column)))
            first = " " * column


def _folded(text: str) -> str:
    if not _err.is_terminal:
        return text
    return "\n".join(one for line in text.splitlines() for one in _wrapped(line, "", 2))


def _wrapped(line: str, first: str, column: int) -> list[str]:
    """A line in as many as the terminal needs, the first after `first`, the others indented as far.

    A number and its unit stay on one.
    """
    style: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "drop_whitespace": True}
    style |= {"initial_indent": first, "subsequent_indent": " " * column}
    wrapped = textwrap.wrap(_BEFORE_UNIT.sub(_UNBROKEN, line), _err.width, **style) or [first]
    return [one.replace(_UNBROKEN, " ") for one in wrapped]


def terminal() -> Console | None:
    """The console of stderr where that is a terminal on which something is to be shown; else None."""
    return _err if _err.is_terminal and not (_err.quiet or _err.only_warnings) else None


def width() -> int:
    """How many characters a line of the terminal has; 80 where there is none."""
    return _err.width


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
        speed, count, ending = self._speed(now), str(self._done), format_time(now - self._start)
        if self._total is not None:
            count = f"{self._done}/{self._total}"
            if self._done < self._total:
                ending = f"{format_time((self._total - self._done) / max(speed, 1e-9))} left"
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
    with Progress(*columns, console=_err) if terminal() else nullcontext() as bar:
        meter = Meter(what, total, unit, bar, done)
        yield meter
        meter.finish()
