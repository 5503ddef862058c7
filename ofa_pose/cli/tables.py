"""Results as tables for people, and the line that says what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from ofa_pose.utils.console import say


def key_table(result: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values; numbers that are not integers with four decimals."""
    table = Table(title=title, show_header=False)
    for key, value in _rows(result):
        table.add_row(escape(key), escape(value))  # a path may hold what rich takes for markup
    return table


def rows_table(text: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]], **style: Any) -> Table:
    """A table of columns of text, then columns of numbers, which stand to the right; `style` as rich's Table has it."""
    table = Table(**style)
    for name in text:
        table.add_column(escape(name), overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _rows(result: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    """Plain values in one row each; a mapping of plain values in one row; what is deeper below it, indented."""
    for key, value in result.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            yield f"{indent}{key}", ""
            yield from _rows(value, indent + "  ")
        elif isinstance(value, Mapping):
            if value:
                yield f"{indent}{key}", "  ".join(f"{k} {format_value(v)}" for k, v in value.items())
        elif isinstance(value, list | tuple) and value and all(isinstance(inner, str) for inner in value):
            yield f"{indent}{key}", "\n".join(value)
        elif value != []:
            yield f"{indent}{key}", format_value(value)


def format_value(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def suggest(*words: object) -> None:
    """Say what the next command of the journey is; '…' stands for what the user chooses."""
    say(f"next: ofa-pose {' '.join(shlex.quote(str(word)) if word != '…' else '…' for word in words)}")
