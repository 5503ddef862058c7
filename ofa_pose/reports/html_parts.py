"""Pieces of a page: all text on it is escaped, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_pose import __version__

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
<main>
"""


def document(title: str, body: Iterable[str], scripts: Iterable[str] = ()) -> str:
    """A whole page; `scripts` are names of files of this folder."""
    head = _HEAD.format(title=html.escape(title), style=_own_file("report.css"))
    ended = "".join(f"<script>\n{_own_file(name)}</script>\n" for name in scripts)
    return f"{head}{chr(10).join(body)}\n</main>\n<footer>ofa-pose {__version__}</footer>\n{ended}</html>\n"


def _own_file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def data(name: str, value: Any) -> str:
    """Values for the page's script, under an id; no text in them can end the element."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{html.escape(name)}">{text}</script>'


def element(name: str, text: object, kind: str = "") -> str:
    """An element around a text, of a class where one is given."""
    opening = f'{name} class="{kind}"' if kind else name
    return f"<{opening}>{html.escape(str(text))}</{name}>"


def section(title: str, parts: Iterable[str]) -> list[str]:
    """A part of the page under a heading."""
    return ["<section>", element("h2", title), *parts, "</section>"]


def details(summary: str, text: str) -> str:
    """A long text, folded away."""
    return f"<details>{element('summary', summary)}{scrolled(summary, element('pre', text))}</details>"


def scrolled(label: str, inner: str) -> str:
    """What may be wider than a phone, in a box that scrolls by itself, by keyboard too."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{html.escape(label)}">{inner}</div>'


def command(text: str) -> str:
    """A command, with a button that copies it."""
    button = f'<button type="button" class="copy" aria-label="copy: {html.escape(text)}">copy</button>'
    return f'<div class="command">{element("code", text)}{button}</div>'


def tiles(figures: Mapping[str, str | None]) -> str:
    """Figures side by side, those that there are, by name."""
    known = {name: value for name, value in figures.items() if value is not None}
    shown = (f'<div class="tile">{element("b", value)}{element("span", name)}</div>' for name, value in known.items())
    return f'<div class="tiles">{"".join(shown)}</div>'


def table(label: str, head: Iterable[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """A table; the first cell of a row names it; `kinds` are the classes of the rows, '' for none."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = []
    for row, kind in zip(rows, kinds or [""] * len(rows), strict=True):
        cells = f'<th scope="row">{html.escape(row[0])}</th>' + "".join(element("td", cell) for cell in row[1:])
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return scrolled(label, f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>")


def figure(picture: str, caption: str) -> str:
    """A picture, markup, and what it shows."""
    return f"<figure>{picture}{element('figcaption', caption)}</figure>"


def jpeg_address(code: bytes) -> str:
    """A JPEG as an address that holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(code).decode()
