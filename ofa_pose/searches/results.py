"""The Pareto front of a search: its table and subnet files, and how it stands against the uniformly scaled nets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace, Limit
from ofa_pose.costs.subnet_rows import SubnetTable
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.outputs import describe, write_best

FRONT, PARETO = "front", "pareto.csv"
SHOWN = 12  # front members in the table that people see; all are in the files


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, AP) points that no other matches or beats in both; by ascending cost, so ascending AP."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def first_limit(part: FeasibleSpace) -> Limit:
    """The limit whose quantity is the cost of the front: MACs, else parameters, else latency."""
    return part.budget.limits[0]


def costs_of(part: FeasibleSpace, candidates: Sequence[Candidate]) -> list[float]:
    """Every candidate's cost in the quantity of the budget's first limit."""
    if not candidates:
        return []
    costs = part.costs(np.array([candidate.genome for candidate in candidates]))
    return costs[first_limit(part).key].tolist()


def uniform_genomes(part: FeasibleSpace) -> dict[Genome, ArchSpec]:
    """The uniformly scaled nets inside the budget."""
    specs = part.space.uniform(part.joints)
    return {part.space.encode(spec): spec for spec in specs if part.budget.admits(spec)}


def rivals(candidates: Sequence[Candidate], part: FeasibleSpace) -> list[Genome]:
    """The uniformly scaled nets that the fittest candidate is to be held against, and were not judged.

    They are the widest of each resolution that cost no more than it does.
    """
    known = {candidate.genome for candidate in candidates}
    best = max(candidates, key=lambda candidate: candidate.rank)
    nets = _widest(_uniform(part, {}), costs_of(part, [best])[0])
    return [genome for net in nets if (genome := tuple(net["genome"])) not in known]


def write_front(
    run_path: Path,
    candidates: Sequence[Candidate],
    part: FeasibleSpace,
    origin: Mapping[str, Any],
    beside: Mapping[Genome, float] | None = None,
) -> dict[str, Any]:
    """Write pareto.csv and front/001.yaml … of a search, best AP first; files of an earlier, longer front go.

    The cost is what the budget's first limit limits. pareto.csv is a `SubnetTable` with the columns rank and AP. The
    YAML files are as best.yaml: `arch.presets.load_spec` reads them. Candidates whose judging failed (-inf) are on no
    front.

    Args:
        origin: what the files say about where the subnets come from, plain values.
        beside: APs of further uniformly scaled nets, which are held against the front and not put on it.

    Returns:
        Plain values: "chosen": the fittest candidate's genome (null where all failed), "front": [{"rank", "genome",
        "resolution", "AP", "macs" {"thop", "exact", "paper"}, "params", "latency_ms", "cost", "subnet": path,
        "uniform"}], "uniform": the uniformly scaled nets that were judged or are the widest of their resolution inside
        the budget, [{"genome", "resolution", "AP" (null where not judged), "macs", "params", "latency_ms", "cost"}],
        "saving": of the cheapest front member that is as good as the best judged uniform net, the share of that
        net's cost that it saves (null where no uniform net was judged).

        A front member's "uniform" is {"AP": of the best judged uniform net that costs no more (null where there is
        none), "complete": whether the widest such net of every resolution was judged}. Without that, the AP is only a
        lower bound of what uniform scaling gives: nothing is interpolated between nets.
    """
    valid = [candidate for candidate in candidates if math.isfinite(candidate.fitness)]
    costs = costs_of(part, valid)
    order = pareto_front([(cost, c.fitness) for cost, c in zip(costs, valid, strict=True)])[::-1]
    uniform = _uniform(part, {**(beside or {}), **{c.genome: c.fitness for c in valid}})
    front = []
    for rank, index in enumerate(order, start=1):
        path = run_path / FRONT / f"{rank:03}.yaml"
        described = describe(part.decode(valid[index].genome), valid[index].fitness, part.budget)
        write_best(path, described, part.space, part.budget, {**origin, "rank": rank})
        facts = _facts(part, valid[index].genome, valid[index].fitness)
        front.append({"rank": rank, **facts, "subnet": str(path), "uniform": _beside(uniform, costs[index])})
    _remove_longer(run_path / FRONT, len(front))
    table = SubnetTable(run_path / PARETO, part.space, part.joints, ("AP",), ("rank",), part.budget.predict_ms)
    table.write({tuple(entry["genome"]): entry for entry in front})
    chosen = max(valid, key=lambda c: c.rank).genome if valid else None
    shown = [net for net in uniform if net["AP"] is not None or net in _widest(uniform)]
    return {"chosen": chosen and list(chosen), "front": front, "uniform": shown, "saving": _saving(front, uniform)}


def front_table(result: Mapping[str, Any], part: FeasibleSpace) -> Table:
    """What `write_front` found, for people: the front, the chosen subnet first, against the uniformly scaled nets."""
    limits = part.budget.limits
    quantities = [limit.quantity.removeprefix("of ") for limit in limits]
    table = Table(title=f"Pareto front of {part.space.name} within {part.budget}", caption_justify="left")
    for name in ("", "resolution", *quantities, "AP", "uniform", "gain"):
        table.add_column(name, justify="left" if not name else "right")

    def costs(entry: Mapping[str, Any]) -> list[str]:
        spec = part.decode(entry["genome"])
        return [limit.show(limit.cost(spec)) for limit in limits]

    for entry in _spread(result["front"], SHOWN):
        label = f"front/{entry['rank']:03}" + (" (chosen)" if entry["genome"] == result["chosen"] else "")
        table.add_row(label, str(entry["resolution"]), *costs(entry), *ap_cells(entry))
    table.add_section()
    for net in result["uniform"]:
        table.add_row("uniformly scaled", str(net["resolution"]), *costs(net), *ap_cells(net))
    table.caption = "\n".join(front_notes(result, quantities[0], SHOWN))
    return table


def ap_cells(net: Mapping[str, Any]) -> list[str]:
    """The last cells of a front's or a uniform net's row: AP, that of the best uniform net, the gain over it."""
    ap, beside = "not judged" if net["AP"] is None else f"{net['AP']:.3f}", net.get("uniform")
    if beside is None:
        return [ap, "", ""]
    if beside["AP"] is None:
        return [ap, "none" if beside["complete"] else "not judged", "–"]
    least, most = ("", "") if beside["complete"] else ("≥ ", "≤ ")
    return [ap, f"{least}{beside['AP']:.3f}", f"{most}{net['AP'] - beside['AP']:+.3f}"]


def front_notes(result: Mapping[str, Any], quantity: str, shown: int) -> list[str]:
    """What is to be said below a table that shows so many members of a front, which is over `quantity`."""
    notes = ["uniform: the best uniformly scaled net judged that costs no more; ≥: not all such were judged"]
    if (result["saving"] or 0) >= 0.005:
        notes.append(f"the AP of the best uniform net comes at {result['saving']:.0%} less {quantity}")
    if len(result["front"]) > shown:
        notes.append(f"{len(result['front']) - shown} more front members are in {PARETO}")
    return notes


def _facts(part: FeasibleSpace, genome: Genome, ap: float | None) -> dict[str, Any]:
    spec = part.decode(genome)
    described = describe(spec, 0.0 if ap is None else ap, part.budget)
    costs = {key: described[key] for key in ("macs", "params", "latency_ms")}
    return {
        "genome": list(genome), "resolution": spec.resolution, "AP": ap, **costs, "cost": first_limit(part).cost(spec)
    }  # fmt: skip


def _uniform(part: FeasibleSpace, known: Mapping[Genome, float]) -> list[dict[str, Any]]:
    """All uniformly scaled nets inside the budget, with their AP where it is known; by resolution, then cost."""
    nets = [_facts(part, genome, known.get(genome)) for genome in uniform_genomes(part)]
    return sorted(nets, key=lambda net: (net["resolution"], net["cost"], net["params"]))


def _widest(nets: Sequence[dict[str, Any]], cost: float = math.inf) -> list[dict[str, Any]]:
    """The widest of each resolution that costs no more."""
    return list({net["resolution"]: net for net in nets if net["cost"] <= cost}.values())


def _beside(uniform: Sequence[dict[str, Any]], cost: float) -> dict[str, Any]:
    found = [net["AP"] for net in uniform if net["AP"] is not None and net["cost"] <= cost]
    complete = all(net["AP"] is not None for net in _widest(uniform, cost))
    return {"AP": max(found, default=None), "complete": complete}


def _saving(front: Sequence[dict[str, Any]], uniform: Sequence[dict[str, Any]]) -> float | None:
    best = max(
        (net for net in uniform if net["AP"] is not None), key=lambda net: (net["AP"], -net["cost"]), default=None
    )
    if best is None:
        return None
    return 1 - float(min(entry["cost"] for entry in front if entry["AP"] >= best["AP"]) / best["cost"])


def _remove_longer(folder: Path, members: int) -> None:
    for path in folder.glob("*.yaml"):
        if path.stem.isdecimal() and len(path.stem) >= 3 and int(path.stem) > members:
            path.unlink()


def _spread(entries: Sequence[Any], count: int) -> Iterator[Any]:
    """At most so many of the entries, evenly spread, the first and the last among them."""
    last = len(entries) - 1
    shown = min(count, len(entries))
    yield from (entries[round(place * last / max(shown - 1, 1))] for place in range(shown))
