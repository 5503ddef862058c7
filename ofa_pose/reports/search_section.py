"""What a report says of a search: what it rests on, its front, what the choices were worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.limits import Budget, show_ms
from ofa_pose.costs.macs import QUANTITIES
from ofa_pose.costs.subnet_rows import read_subnets
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.pose.bootstrap import show_ap
from ofa_pose.reports import charts
from ofa_pose.reports.html_parts import element, section, table
from ofa_pose.reports.runs import RESTORE, Run, attempt, values_of
from ofa_pose.searches.job import BASIS, BEST, HISTORY, RESULT
from ofa_pose.searches.results import FRONT, ap_cells, front_notes
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count, positive

SHOWN = 15  # rows of the front
SETTINGS = ("algorithm", "population", "seed", "surrogate")


@dataclass(frozen=True)
class Searched:
    """A search and the network that was taken from it.

    Attributes:
        best, result: of best.yaml, and of what the search printed in the end; empty where there is none.
        history: of every candidate the AP (or None), its costs and generation, and each gene's value under its label.
        basis: of search.json, what was evaluated on what, and how.
        genome: of the network in question; empty where it is not of the space.
    """

    run: Run
    space: SearchSpace | None
    best: Mapping[str, Any]
    history: Mapping[Genome, Mapping[str, Any]]
    basis: Mapping[str, Any]
    result: Mapping[str, Any]
    genome: Genome

    @property
    def chosen(self) -> Mapping[str, Any]:
        """Of `history` the network in question; empty where it was not evaluated."""
        return self.history.get(self.genome, {})

    @property
    def file(self) -> str:
        """Such as ' (front/001.yaml)'; '' where it is not on the front."""
        front = self.result.get("front")
        nets = (net for net in front if isinstance(net, Mapping)) if isinstance(front, list) else ()
        ranks = (net.get("rank") for net in nets if net.get("genome") == list(self.genome))
        return next((f" ({FRONT}/{rank:03}.yaml)" for rank in ranks if isinstance(rank, int)), "")

    @property
    def error(self) -> float | None:
        """The standard error of its AP, where the search gave it: of what it chose, and of the front."""
        front, best, chosen = (self.result.get(key) for key in ("front", "best", "chosen"))
        nets = [*front] if isinstance(front, list) else []
        nets += [{**best, "genome": chosen}] if isinstance(best, Mapping) else []
        found = (net for net in nets if isinstance(net, Mapping) and net.get("genome") == list(self.genome))
        errors = (net.get("AP_stderr") for net in found)
        return next((error for error in errors if isinstance(error, float)), None)

    @property
    def notes(self) -> list[str]:
        """What the search said of its choice."""
        notes = self.result.get("notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    @property
    def budget(self) -> Budget | None:
        """The budget, to be shown: it predicts no latency."""
        kept = self.best.get("budget") or {}
        with values_of(self.run.path / BEST):
            limits = {key: kept[key] for key in ("macs", "params", "latency_ms") if kept.get(key) is not None}
            if not all(map(positive, limits.values())):
                raise ValueError(f"a budget of {limits}")
            convention = self.best.get("convention", "thop")
            return Budget(**limits, convention=convention, predict_ms=lambda _: math.nan) if limits else None

    @property
    def latency_table(self) -> Path | None:
        """The latency table of its budget, where the file is found and is still the same."""
        name = self.run.option("--latency-table")
        path = self.run.locate(name) if name else None
        with values_of(self.run.path / BEST):
            wanted = (self.best.get("budget") or {}).get("latency_table")
        return path if path is not None and path.is_file() and files.sha256(path) == wanted else None


def read_search(run: Run, spec: ArchSpec | None, problems: list[str]) -> Searched | None:
    """The search in a run's directory, if any, for a network or the one it chose; damaged files are left out of it.

    Args:
        problems: gets a line of each file that is damaged.
    """
    if not (run.path / HISTORY).exists():
        return None
    basis, result = (attempt(partial(run.table, name), problems) or {} for name in (BASIS, RESULT))
    best = attempt(run.best, problems) or {}
    space = attempt(partial(_space, run, basis), problems)
    history = attempt(partial(_history, run, space), problems) or {}
    genome: Genome = ()
    wanted = spec or best.get("spec")
    with suppress(InputError):  # it is not of the space
        genome = space.encode(wanted) if space is not None and wanted else ()
    found = Searched(run, space, best, history, basis, result, genome)
    if not attempt(partial(_is_readable, found, BEST), problems):
        found = replace(found, best={})
    if not attempt(partial(_is_readable, found, RESULT), problems):
        found = replace(found, result={})
    if not attempt(partial(_is_readable, found, BASIS), problems):
        found = replace(found, basis={})
    return found


def _space(run: Run, basis: Mapping[str, Any]) -> SearchSpace | None:
    return SearchSpace.from_dict(basis["space"], run.path / BASIS) if isinstance(basis.get("space"), Mapping) else None


def _history(run: Run, space: SearchSpace | None) -> Mapping[Genome, Mapping[str, Any]]:
    path, extra = run.path / HISTORY, ("generation", *QUANTITIES, "latency_ms")
    return read_subnets(path, ("AP",), space, ("AP",), extra, "a history of a search", RESTORE)


def _is_readable(search: Searched, name: str) -> bool:
    """True. Raises InputError where a file of the search holds what no search writes: all that is shown is read."""
    with values_of(search.run.path / name):
        if name == BEST:
            _ = search.budget, search.latency_table
        elif name == RESULT:
            _front(search)
            _ = {tuple(net["genome"]): f"{net['rank']:03}" for net in search.result.get("front") or ()}
            _ = search.error, {tuple(net["genome"]) for net in search.result.get("uniform") or ()}
        else:
            _ = list(_rests_on(search))
    return True


def search_lead(search: Searched) -> str:
    """The search in a sentence or two."""
    count, ap = len(search.history), search.chosen.get("AP")
    where = f"in the space {search.space.name} " if search.space else ""
    subnets = "1 subnet was" if count == 1 else f"{count:,} subnets were"
    if not search.history and search.best:
        return f"Searched {where}within {search.budget or 'a budget'}; its {HISTORY} cannot be read."
    said = f"Searched {where}within {search.budget or 'a budget'}: {subnets} evaluated"
    if ap is None:
        return f"{said}."
    rank = 1 + sum((row["AP"] or 0) > ap for row in search.history.values())
    place = "the best of them" if rank == 1 else f"number {rank} of them by AP"
    shown = show_ap(ap, search.error)
    computed = f", computed in {search.chosen['precision']}" if "precision" in search.chosen else ""
    weights = f"on the search images with the supernet's weights{computed}"
    why = [note.partition("; ")[0] for note in search.notes if "so it is chosen" in note]
    return " ".join([f"{said}. It is {place}{search.file}, with AP {shown} {weights}.", *(f"{one}." for one in why)])


def search_section(search: Searched, explored: Sequence[str]) -> list[str]:
    """The HTML of a search, with what `explorer` makes of it."""
    said = " ".join(_rests_on(search))
    body = [*([element("p", said)] if said else []), *explored]
    if search.history:
        body.append(charts.progress_chart([row["AP"] for row in search.history.values()]))
    body += _front(search)
    evaluated = [row for row in search.history.values() if row["AP"] is not None]
    labels = search.space.labels if search.space is not None else ()
    choices = {label: [(row[label], row["AP"]) for row in evaluated] for label in labels}
    choices = {label: pairs for label, pairs in choices.items() if len({value for value, _ in pairs}) > 1}
    if choices:
        bold = "; bold: chosen" if search.chosen else ""
        dots = "Every dot is a subnet that was evaluated"
        if len(evaluated) > charts.MANY:
            dots = f"The dots are some {charts.MANY} of the {len(evaluated):,} subnets that were evaluated"
        note = (
            f"{dots}; red: the best with this choice, blue: their median{bold}. "
            "All keep the budget, so what is wide here is narrow elsewhere."
        )
        body += [element("h3", "What the choices were worth"), '<div class="charts small">']
        body += [charts.choice_chart(label, pairs, search.chosen.get(label)) for label, pairs in choices.items()]
        body += ["</div>", element("p", note, "note")]
    return section("The search", body)


def _rests_on(search: Searched) -> Iterator[str]:
    """What the APs rest on, in sentences."""
    basis = search.basis
    if isinstance(basis.get("search"), list) and isinstance(basis.get("train"), list):
        (_, there, images), (_, _, calibration) = basis["search"], basis["train"]
        what = f"{min(images, there)} search images, after BatchNorm recalibration on {calibration} training images"
        yield f"AP is measured on {what}."
    if isinstance(basis.get("algorithm"), Mapping):
        kept = {key: basis["algorithm"][key] for key in SETTINGS if key in basis["algorithm"]}
        named = [key if value is True else f"{key} {value}" for key, value in kept.items() if value is not False]
        yield f"Settings: {', '.join(named)}."
    name = search.run.option("--latency-table")
    if name:
        yield f"Latencies are predicted from {_latency_table(search, name)}."
    if search.result.get("people") is not None:
        people = search.result["people"]
        yield f"{people} people are on them, crowds and people without joints aside; ± is one standard error of the AP."
    yield from (f"{note[:1].upper()}{note[1:]}." for note in search.notes)
    if not search.result:
        yield f"The search did not come to its end, or there is no {RESULT} that can be read."


def _latency_table(search: Searched, name: str) -> str:
    """A latency table in words: the device and the runtime, if the file can be found and is still the same."""
    path = search.latency_table
    if path is None:
        return f"{name}, which is not found or has changed"
    header = LatencyTable.load(path).header
    threads = "1 thread" if header.threads == 1 else f"{header.threads} threads"
    return f"{path.name}: {header.device}, {header.runtime}, {threads}"


def _front(search: Searched) -> list[str]:
    """The Pareto front beside the uniformly scaled nets; nothing where the search did not end."""
    front, uniform = search.result.get("front"), search.result.get("uniform")
    if not front or uniform is None:
        return []
    latency = front[0]["latency_ms"] is not None
    nets = [(f"front/{entry['rank']:03}.yaml", entry) for entry in front[:SHOWN]]
    nets += [("uniformly scaled", net) for net in uniform]
    rows, kinds = [], ["chosen" if tuple(entry["genome"]) == search.genome else "" for entry in front[:SHOWN]]
    for name, net in nets:
        costs = [format_count(net["macs"]["thop"]), format_count(net["params"])]
        costs += [show_ms(net["latency_ms"])] if latency else []
        rows.append([name, str(net["resolution"]), *costs, *ap_cells(net)])
    kinds += ["aside"] * len(uniform)
    head = [
        "net",
        "resolution",
        "MACs (thop)",
        "parameters",
        *(["latency"] if latency else []),
        "AP",
        "uniform",
        "gain",
    ]
    quantity = search.budget.limits[0].quantity.removeprefix("of ") if search.budget else "cost"
    notes = [element("p", note, "note") for note in front_notes(search.result, quantity, SHOWN)]
    return [element("h3", "The Pareto front"), table("The Pareto front", head, rows, kinds), *notes]
