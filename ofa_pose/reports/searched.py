"""The search that chose a network: what it evaluated, its front, and what each choice was worth."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import Budget
from ofa_pose.costs.limits import show_ms
from ofa_pose.costs.subnet_rows import read_subnets
from ofa_pose.latency.table import LatencyTable
from ofa_pose.reports import charts
from ofa_pose.reports.html import element, table
from ofa_pose.reports.runs import Run
from ofa_pose.searches.job import BASIS, HISTORY, PICTURE, RESULT
from ofa_pose.searches.results import ap_cells, front_notes
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.units import format_count

SHOWN = 15  # rows of the front
SETTINGS = ("algorithm", "population", "seed", "surrogate")


@dataclass(frozen=True)
class Searched:
    """A search and the network that was taken from it.

    Attributes:
        best: what best.yaml tells; empty where there is none.
        history: of every candidate the AP (None where it was not a number), the predicted latency where there is one,
            and each gene's value under its label.
        basis: what was evaluated on what, and how; of search.json.
        result: what the search printed in the end; empty where it did not end.
        chosen: of `history` the network in question; empty where it was not evaluated.
    """

    run: Run
    space: SearchSpace | None
    best: Mapping[str, Any]
    history: Mapping[Genome, Mapping[str, Any]]
    basis: Mapping[str, Any]
    result: Mapping[str, Any]
    chosen: Mapping[str, Any]


def read_search(run: Run, spec: ArchSpec | None) -> Searched | None:
    """The search in a run's directory; None where it holds none. Raises InputError where it is damaged.

    Args:
        spec: the network in question; None for the one that the search chose.
    """
    if not (run.path / HISTORY).exists():
        return None
    basis, best = run.table(BASIS), run.best() or {}
    space = SearchSpace.from_dict(basis["space"], run.path / BASIS) if isinstance(basis.get("space"), Mapping) else None
    what, hint = "a history of a search", "search again, or restore it"
    history = read_subnets(run.path / HISTORY, ("AP",), space, ("AP",), ("latency_ms",), what, hint)
    wanted = spec or best.get("spec")
    genome = space.encode(wanted) if space and wanted and holds(space, wanted) else ()
    return Searched(run, space, best, history, basis, run.table(RESULT), history.get(genome, {}))


def holds(space: SearchSpace, spec: ArchSpec) -> bool:
    """Whether a network is a subnet of a space."""
    try:
        space.encode(spec)
    except InputError:
        return False
    return True


def search_lead(search: Searched) -> str:
    """The search in a sentence or two."""
    budget, count = _budget(search.best), len(search.history)
    where = f"in the space {search.space.name} " if search.space else ""
    evaluated = "1 subnet was" if count == 1 else f"{count:,} subnets were"
    text = f"Searched {where}within {budget or 'a budget'}: {evaluated} evaluated"
    ap = search.chosen.get("AP")
    if ap is None:
        return f"{text}."
    rank = 1 + sum((row["AP"] or 0) > ap for row in search.history.values())
    place = "the best" if rank == 1 else f"the one taken ranks {rank} by AP and"
    return f"{text}; {place} has AP {ap:.3f} on the search images with the supernet's weights."


def _budget(best: Mapping[str, Any]) -> Budget | None:
    """The budget that best.yaml holds, to be shown: it predicts no latency."""
    given = best.get("budget") or {}
    limits = {key: given[key] for key in ("macs", "params", "latency_ms") if given.get(key) is not None}
    convention = best.get("convention", "thop")
    return Budget(**limits, convention=convention, predict_ms=lambda _: math.nan) if limits else None


def search_section(search: Searched) -> list[str]:
    """The HTML of a search."""
    body = [element("h2", "The search"), *_rests_on(search)]
    picture = search.run.path / PICTURE
    if picture.exists() and picture.stat().st_size:
        content = base64.b64encode(picture.read_bytes()).decode()
        body.append(f'<img alt="AP over cost of all subnets evaluated" src="data:image/png;base64,{content}">')
    if search.history:
        body.append(charts.svg(charts.progress_chart([row["AP"] for row in search.history.values()]), "progress"))
    body += _front(search)
    genes = _genes(search)
    if genes:
        bold = "; bold: chosen" if search.chosen else ""
        note = (
            f"Every dot is a subnet that was evaluated; red: the best with this choice, blue: their median{bold}. "
            "All keep the budget, so what is wide here is narrow elsewhere."
        )
        chart = charts.svg(charts.choices_chart(genes, search.chosen), "choices")
        body += [element("h3", "What the choices were worth"), chart, element("p", note)]
    return body


def _rests_on(search: Searched) -> list[str]:
    """What the APs rest on, in a sentence."""
    basis, sentences = search.basis, []
    if isinstance(basis.get("search"), list) and isinstance(basis.get("train"), list):
        (_, there, most), (_, _, calibration) = basis["search"], basis["train"]
        sentences.append(
            f"AP is measured on {min(most, there)} search images, after BatchNorm recalibration on {calibration} "
            "training images."
        )
    if isinstance(basis.get("algorithm"), Mapping):
        named = [f"{key} {basis['algorithm'][key]}" for key in SETTINGS if key in basis["algorithm"]]
        sentences.append(f"Settings: {', '.join(named)}.")
    sentences += _latencies(search)
    if not search.result:
        sentences.append(f"The search did not come to its end, or is of a version that wrote no {RESULT}.")
    return [element("p", " ".join(sentences))] if sentences else []


def _latencies(search: Searched) -> list[str]:
    """Where predicted latencies come from: the table, if it can be found and is still the same."""
    name = search.run.option("--latency-table")
    path = search.run.locate(name) if name else None
    wanted = (search.best.get("budget") or {}).get("latency_table")
    if path is None or not path.is_file() or files.sha256(path) != wanted:
        return [f"Latencies are predicted from {name}, which is not found or has changed."] if name else []
    header = LatencyTable.load(path).header
    threads = "1 thread" if header.threads == 1 else f"{header.threads} threads"
    return [f"Latencies are predicted from {path.name}: {header.device}, {header.runtime}, {threads}."]


def _front(search: Searched) -> list[str]:
    """The Pareto front beside the uniformly scaled nets; nothing where the search did not end."""
    front, uniform = search.result.get("front"), search.result.get("uniform")
    if not front or uniform is None:
        return []
    latency = front[0]["latency_ms"] is not None

    def cells(name: str, net: Mapping[str, Any]) -> list[str]:
        costs = [format_count(net["macs"]["thop"]), format_count(net["params"])]
        costs += [show_ms(net["latency_ms"])] if latency else []
        return [name, str(net["resolution"]), *costs, *ap_cells(net)]

    rows = [cells(f"front/{entry['rank']:03}.yaml", entry) for entry in front[:SHOWN]]
    kinds = ["chosen" if search.history.get(tuple(entry["genome"])) is search.chosen else "" for entry in front[:SHOWN]]
    rows += [cells("uniformly scaled", net) for net in uniform]
    kinds += ["aside"] * len(uniform)
    head = ["", "resolution", "MACs (thop)", "parameters", *(["latency"] if latency else []), "AP", "uniform", "gain"]
    budget = _budget(search.best)
    quantity = budget.limits[0].quantity.removeprefix("of ") if budget is not None else "cost"
    notes = [element("p", note) for note in front_notes(search.result, quantity, SHOWN)]
    return [element("h3", "The Pareto front"), table(head, rows, kinds), *notes]


def _genes(search: Searched) -> dict[str, list[tuple[int, float]]]:
    """By gene, the value and the AP of every subnet; of genes that vary."""
    labels = search.space.labels if search.space is not None else ()
    rows = search.history.values()
    found = {label: [(row[label], row["AP"]) for row in rows if row["AP"] is not None] for label in labels}
    return {label: pairs for label, pairs in found.items() if len({value for value, _ in pairs}) > 1}
