"""Every subnet that a search evaluated, to be looked through on the page: dots of AP over a cost, a budget, a table."""

from __future__ import annotations

import html
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import Genome
from ofa_pose.costs.subnet_rows import genome_text, read_genome
from ofa_pose.reports.html_parts import data, element, scrolled
from ofa_pose.reports.runs import RESTORE, attempt, values_of
from ofa_pose.reports.search_section import Searched
from ofa_pose.searches.archive import ARCHIVE
from ofa_pose.searches.results import FRONT, UNIFORM
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import are_numbers

AXES = {  # a column of history.csv -> its name and unit
    "macs_thop": ("MACs (thop)", ""),
    "macs_exact": ("MACs (exact)", ""),
    "macs_paper": ("MACs (paper)", ""),
    "params": ("parameters", ""),
    "latency_ms": ("latency (predicted)", "ms"),
}
HELP = (
    "Each dot is a subnet with the supernet's weights. Point at one, touch it, or go through them with the arrow keys; "
    "drag on the picture, or the slider, to set a budget. Blue: nothing as cheap is better; green: uniformly "
    f"scaled, with {UNIFORM}; red: the best within the budget."
)


def explorer(search: Searched, problems: list[str]) -> list[str]:
    """The HTML of it, for explorer.js; nothing where no subnet has an AP.

    Args:
        problems: gets a line where the archive is damaged; it says the standard errors alone.
    """
    found = _values(search, attempt(partial(_archived, search), problems) or {})
    if not found["nets"] or not found["axes"]:
        return []
    options = "".join(f"<option>{html.escape(axis['name'])}</option>" for axis in found["axes"])
    head = ("net", "AP", ("cost", "cost-column"), "resolution", "generation")
    cells = (
        f'<th scope="col" id="{name[1]}">{name[0]}</th>' if isinstance(name, tuple) else f'<th scope="col">{name}</th>'
        for name in head
    )
    table = f'<table><thead><tr>{"".join(cells)}</tr></thead><tbody id="nets"></tbody></table>'
    return [
        element("h3", "All subnets evaluated"),
        '<div class="explorer" id="explorer" hidden>',
        element("p", HELP, "note"),
        '<div class="controls">',
        f'<label>cost <select id="axis">{options}</select></label>',
        '<label>budget <input type="range" id="budget"></label>',
        "</div>",
        '<p><output id="winner" for="axis budget"></output></p>',
        '<svg id="plot" role="group" aria-label="AP over cost of every subnet evaluated"></svg>',
        '<div class="about" id="about"></div>',
        scrolled("subnets within the budget, the best first", table),
        '<button type="button" id="more"></button>',
        "</div>",
        data("explorer-data", found),
    ]


def _values(search: Searched, archived: Mapping[Genome, float]) -> dict[str, Any]:
    rows = {genome: row for genome, row in search.history.items() if row["AP"] is not None}
    orders = {genome: number for number, genome in enumerate(search.history, start=1)}
    axes = [key for key in _ordered(search) if rows and all(row.get(key) is not None for row in rows.values())]
    uniform: set[Genome] = set()
    if search.space is not None and "spec" in search.best:
        uniform = {search.space.encode(spec) for spec in search.space.uniform(search.best["spec"].joints)}
    front = {tuple(one["genome"]): f"{FRONT}/{one['rank']:03}.yaml" for one in search.result.get("front") or ()}
    errors, labels = {**archived, **_errors(search)}, search.space.labels if search.space is not None else ()
    nets = [
        {
            "order": orders[genome],
            "genome": genome_text(genome),
            "file": front.get(genome, ""),
            "uniform": genome in uniform,
            "generation": None if row.get("generation") is None else int(row["generation"]),
            "AP": row["AP"],
            "error": errors.get(genome),
            "resolution": row.get("resolution", ""),
            "costs": {key: row[key] for key in axes},
            "values": {label: row[label] for label in labels},
        }
        for genome, row in rows.items()
    ]
    limit = search.budget.limits[0] if search.budget is not None else None
    names = [{"key": key, "name": AXES[key][0], "unit": AXES[key][1]} for key in axes]
    chosen = next((n for n, genome in enumerate(rows) if genome == search.genome), None)
    budget = limit.maximum if limit is not None and axes[:1] == [limit.key] else None
    return {"axes": names, "nets": nets, "budget": budget, "chosen": chosen}


def _ordered(search: Searched) -> list[str]:
    """The axes, that of the budget's first limit in front."""
    first = search.budget.limits[0].key if search.budget is not None else ""
    return sorted(AXES, key=lambda key: key != first)


def _archived(search: Searched) -> Mapping[Genome, float]:
    """The standard errors of APs that the archive holds, where it lies in the run."""
    found: dict[Genome, float] = {}
    path = search.run.path / ARCHIVE
    if path.is_file():
        address = f"{path.absolute().as_uri()}?mode=ro"
        with _sqlite(path), values_of(path), closing(sqlite3.connect(address, uri=True)) as file:
            for genome, ap, metrics in file.execute("SELECT genome, AP, metrics FROM evaluations"):
                known = json.loads(metrics)
                own = search.history.get(read_genome(genome))
                if own is not None and own["AP"] == ap and are_numbers([known.get("AP_stderr")], 1):
                    found[read_genome(genome)] = known["AP_stderr"]
    return found


@contextmanager
def _sqlite(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError:  # such as that a search writes into it just now
        pass
    except sqlite3.Error as error:
        raise InputError(f"is damaged ({error})", path, RESTORE) from None


def _errors(search: Searched) -> Mapping[Genome, float]:
    """Those of the search's result."""
    nets = [*(search.result.get("front") or ()), *(search.result.get("uniform") or ())]
    return {tuple(net["genome"]): net["AP_stderr"] for net in nets if are_numbers([net.get("AP_stderr")], 1)}
