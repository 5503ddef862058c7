"""Pieces of HTML; all text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a202c; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem; }}
h3 {{ font-size: 1rem; }}
p.lead {{ color: #4a5568; margin: 0 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .25rem .8rem; border-bottom: 1px solid #e2e8f0; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
tr.chosen td {{ font-weight: 600; }}
tr.aside td {{ color: #718096; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: .7rem; }}
.tile {{ background: #f7fafc; border-radius: .5rem; padding: .6rem 1rem; }}
.tile b {{ display: block; font-size: 1.25rem; }}
.tile span {{ color: #4a5568; font-size: .85rem; }}
svg, img {{ max-width: 100%; height: auto; }}
pre {{ background: #f7fafc; padding: .6rem .8rem; overflow-x: auto; font-size: .8rem; }}
footer {{ margin-top: 3rem; color: #718096; font-size: .85rem; }}
</style>
"""


def document(title: str, body: Sequence[str]) -> str:
    """A whole page."""
    return HEAD.format(title=escape(title)) + "\n".join(body) + "\n</html>\n"


def element(name: str, text: object, kind: str = "") -> str:
    """An element around a text, of a class where one is given."""
    return f'<{name} class="{kind}">{escape(text)}</{name}>' if kind else f"<{name}>{escape(text)}</{name}>"


def details(summary: str, text: str) -> str:
    """A long text, folded away."""
    return f"<details>{element('summary', summary)}{element('pre', text)}</details>"


def tiles(figures: Mapping[str, str | None]) -> str:
    """Figures side by side, those that there are, by name."""
    known = {name: value for name, value in figures.items() if value is not None}
    shown = (f'<div class="tile">{element("b", value)}{element("span", name)}</div>' for name, value in known.items())
    return f'<div class="tiles">{"".join(shown)}</div>'


def table(head: Iterable[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """A table; `kinds` are the classes of the rows, '' for none."""
    top = "".join(element("th", name) for name in head)
    lines = []
    for row, kind in zip(rows, kinds or [""] * len(rows), strict=True):
        cells = "".join(element("td", cell) for cell in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def escape(text: object) -> str:
    """A text as it stands in HTML, attributes included."""
    return html.escape(str(text))
