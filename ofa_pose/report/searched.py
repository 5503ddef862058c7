"""The search that chose a network: what it judged, its front, and what each choice was worth."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa_pose import files
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.errors import InputError
from ofa_pose.latency.table import LatencyTable
from ofa_pose.report import charts
from ofa_pose.report.html import element, table
from ofa_pose.report.runs import BASIS, HISTORY, RESULT, Run
from ofa_pose.search.ceilings import show_ms
from ofa_pose.search.search import PICTURE
from ofa_pose.units import format_count

SHOWN = 15  # rows of the front
SETTINGS = ("algorithm", "population", "seed", "surrogate")


@dataclass(frozen=True)
class Searched:
    """A search and the network that was taken from it.

    Attributes:
        history: every candidate, see `Run.history`.
        basis: what was judged on what, and how; of search.json.
        result: what the search printed in the end; empty where it did not end.
        chosen: the candidate that is the network in question; None where it was not judged.
    """

    run: Run
    space: SearchSpace | None
    history: Sequence[Mapping[str, Any]]
    basis: Mapping[str, Any]
    result: Mapping[str, Any]
    chosen: Mapping[str, Any] | None


def read_search(run: Run, spec: ArchSpec | None) -> Searched | None:
    """The search in a run's directory; None where it holds none. Raises InputError where it is damaged.

    Args:
        spec: the network in question; None for the one that the search chose.
    """
    if not (run.path / HISTORY).exists():
        return None
    basis, best = run.table(BASIS), run.best()
    space = SearchSpace.from_dict(basis["space"], run.path / BASIS) if isinstance(basis.get("space"), Mapping) else None
    history = run.history()
    wanted = spec if spec is not None else best["spec"] if best else None
    genome = "-".join(map(str, space.encode(wanted))) if space and wanted and holds(space, wanted) else None
    chosen = next((row for row in history if row["genome"] == genome), None)
    return Searched(run, space, history, basis, run.table(RESULT), chosen)


def holds(space: SearchSpace, spec: ArchSpec) -> bool:
    """Whether a network is a subnet of a space."""
    try:
        space.encode(spec)
    except InputError:
        return False
    return True


def search_lead(search: Searched) -> str:
    """The search in a sentence or two."""
    best, count = search.run.best() or {}, len(search.history)
    limits = ", ".join(_limits(best.get("budget") or {}, best.get("convention", "thop")))
    where = f"in the space {search.space.name} " if search.space else ""
    judged = "1 subnet was" if count == 1 else f"{count:,} subnets were"
    told = f"Searched {where}within {limits or 'a budget'}: {judged} judged"
    if search.chosen is None or search.chosen["AP"] is None:
        return f"{told}."
    rank = 1 + sum((row["AP"] or 0) > search.chosen["AP"] for row in search.history)
    place = "the best" if rank == 1 else f"the one taken ranks {rank} by AP and"
    return f"{told}; {place} has AP {search.chosen['AP']:.3f} on the search images with the supernet's weights."


def _limits(budget: Mapping[str, Any], convention: str) -> list[str]:
    found = []
    if budget.get("macs") is not None:
        found.append(f"{format_count(budget['macs'])} MACs ({convention})")
    if budget.get("params") is not None:
        found.append(f"{format_count(budget['params'])} parameters")
    if budget.get("latency_ms") is not None:
        found.append(f"{show_ms(budget['latency_ms'])} of latency")
    return found


def search_section(search: Searched) -> list[str]:
    """The HTML of a search."""
    body = [element("h2", "The search"), *_rests_on(search)]
    picture = search.run.path / PICTURE
    if picture.exists() and picture.stat().st_size:
        content = base64.b64encode(picture.read_bytes()).decode()
        body.append(f'<img alt="AP over cost of all subnets judged" src="data:image/png;base64,{content}">')
    if search.history:
        body.append(charts.svg(charts.progress_chart([row["AP"] for row in search.history]), "progress"))
    body += _front(search)
    genes = _genes(search)
    if genes:
        chosen = {label: search.chosen[label] for label in genes} if search.chosen is not None else {}
        note = (
            "Every dot is a subnet that was judged; red: the best with this choice, blue: their median"
            f"{'; bold: chosen' if chosen else ''}. All keep the budget, so what is wide here is narrow elsewhere."
        )
        chart = charts.svg(charts.choices_chart(genes, chosen), "choices")
        body += [element("h3", "What the choices were worth"), chart, element("p", note)]
    return body


def _rests_on(search: Searched) -> list[str]:
    """What the APs rest on, in a sentence."""
    basis, told = search.basis, []
    if isinstance(basis.get("search"), list) and isinstance(basis.get("train"), list):
        (_, there, judged), (_, _, calibration) = basis["search"], basis["train"]
        told.append(
            f"AP is measured on {min(judged, there)} search images, after BatchNorm recalibration on {calibration} "
            "training images."
        )
    if isinstance(basis.get("algorithm"), Mapping):
        named = [f"{key} {basis['algorithm'][key]}" for key in SETTINGS if key in basis["algorithm"]]
        told.append(f"Settings: {', '.join(named)}.")
    told += _latencies(search)
    if not search.result:
        told.append(f"The search did not come to its end, or is of a version that wrote no {RESULT}.")
    return [element("p", " ".join(told))] if told else []


def _latencies(search: Searched) -> list[str]:
    """Where predicted latencies come from: the table, if it can be found and is still the same."""
    name = search.run.option("--latency-table")
    path = search.run.locate(name) if name else None
    wanted = ((search.run.best() or {}).get("budget") or {}).get("latency_table")
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
    genome = search.chosen["genome"] if search.chosen is not None else None

    def cells(name: str, net: Mapping[str, Any]) -> list[str]:
        costs = [format_count(net["macs"]["thop"]), format_count(net["params"])]
        costs += [show_ms(net["latency_ms"])] if latency else []
        return [name, str(net["resolution"]), *costs, "not judged" if net["AP"] is None else f"{net['AP']:.3f}"]

    rows, kinds = [], []
    for entry in front[:SHOWN]:
        beside = entry["uniform"]["AP"]
        gain = "–" if beside is None else f"{entry['AP'] - beside:+.3f}"
        rows.append([*cells(f"front/{entry['rank']:03}.yaml", entry), gain])
        kinds.append("chosen" if "-".join(map(str, entry["genome"])) == genome else "")
    for net in uniform:
        rows.append([*cells("uniformly scaled", net), ""])
        kinds.append("aside")
    head = ["", "resolution", "MACs (thop)", "parameters", *(["latency"] if latency else []), "AP", "gain"]
    notes = ["Gain: over the best uniformly scaled net judged that costs no more."]
    if (search.result.get("saving") or 0) >= 0.005:
        notes.append(f"The AP of the best uniform net comes at {search.result['saving']:.0%} less cost.")
    if len(front) > SHOWN:
        notes.append(f"{len(front) - SHOWN} more are in pareto.csv.")
    return [element("h3", "The Pareto front"), table(head, rows, kinds), element("p", " ".join(notes))]


def _genes(search: Searched) -> dict[str, list[tuple[int, float]]]:
    """By gene, the value and the AP of every subnet; of genes that vary."""
    labels = search.space.labels if search.space is not None else ()
    judged = [row for row in search.history if row["AP"] is not None]
    found = {label: [(int(row[label]), row["AP"]) for row in judged if row.get(label) is not None] for label in labels}
    return {label: pairs for label, pairs in found.items() if len({value for value, _ in pairs}) > 1}
