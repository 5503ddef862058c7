"""Values and tables as people read them on a terminal of 80 columns: words with units, nothing cut."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ofa_pose.utils.console import say_command, show
from ofa_pose.utils.numbers import format_count, format_time

Given = Mapping[str, Any]  # a call's arguments


def show_rows(text: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of columns of text, then columns of numbers, which stand to the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in text:
        table.add_column(escape(name), no_wrap=True)
    for name in numbers:
        table.add_column(escape(name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))  # a path may hold what rich takes for markup
    show(table)


def format_value(value: Any) -> str:
    """A figure as people read it: four decimals, thousands apart, a dash for what is not known."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def sure_ap(ap: float | None, error: float | None) -> str:
    """'0.5321 ± 0.0213 (standard error)', as far as it is known."""
    return format_value(ap) + ("" if error is None else f" ± {format_value(error)} (standard error)")


def macs_of(macs: Mapping[str, float]) -> str:
    """'431M (thop), 220M (exact), 401M (paper)'."""
    return ", ".join(f"{format_count(count)} ({convention})" for convention, count in macs.items())


def stages_of(seconds: Mapping[str, float]) -> str:
    """'3 min 20 s: read 1.2 s, network 41 s, …', of seconds by stage and in 'total'."""
    stages = ", ".join(f"{name} {format_time(spent)}" for name, spent in seconds.items() if name != "total")
    return f"{format_time(seconds['total'])}: {stages}" if "total" in seconds else stages


def suggest(*commands: str) -> Callable[[Any, Given], None]:
    """What says the next commands: {names} are those of the result or the call, '…' is what the user chooses."""

    def say_next(result: Any, given: Given) -> None:
        known = {name: shlex.quote(str(value)) for name, value in {**given, **vars(result)}.items()}
        for command in commands:
            say_command(f"next: ofa-pose {command.format_map(known)}")

    return say_next
