"""What a search leaves behind: history.csv, best.yaml, the Pareto front with its files, a picture of AP over cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import LATENCY
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.subnet_rows import SubnetTable
from ofa_pose.pose.bootstrap import show_ap, shown_difference
from ofa_pose.searches.candidates import Candidate
from ofa_pose.utils import atomic, files
from ofa_pose.utils.result import Result

FRONT, PARETO = "front", "pareto.csv"
UNIFORM = "every width at the same share of its range"  # what a uniformly scaled net is
SHOWN = 12  # front members in the table that people see; all are in the files


class History:
    """history.csv, a `SubnetTable`: a row for each candidate of the search, in its order, as soon as it is evaluated.

    Columns before the genome: order, generation, origin; after the costs: AP (empty where it was not a number),
    seconds.
    """

    def __init__(self, path: Path, feasible: FeasibleSpace) -> None:
        """Start the file anew with its header."""
        leading, measured = ("order", "generation", "origin"), ("AP", "seconds")
        self._table = SubnetTable(path, feasible.space, feasible.joints, measured, leading, feasible.budget.predict_ms)
        self._table.write({})

    def add(self, candidate: Candidate) -> None:
        """Append one candidate."""
        ap = candidate.fitness if candidate.is_valid else ""
        self._table.append(candidate.genome, {**vars(candidate), "AP": ap, "seconds": round(candidate.seconds, 4)})


@dataclass(frozen=True)
class SubnetFigures(Result):
    """A subnet, its AP and what it costs.

    Attributes:
        AP_stderr: the AP's standard error; None where it is not known.
        macs: multiply-adds by convention.
        latency_ms: None where it cannot be predicted.
    """

    spec: ArchSpec
    AP: float
    AP_stderr: float | None
    macs: dict[str, int]
    params: int
    latency_ms: float | None


@dataclass(frozen=True)
class SearchResult(Result):
    """What a search found.

    Attributes:
        best: the chosen subnet: the fittest, or a cheaper one within noise of it (`search.prefer_cheaper`).
        evaluations: how many subnets the algorithm asked for.
        judged: how many were measured since it began, uniform nets beside the winner included, however often it was
            cut off; the rest was in the archive before.
        algorithm: its name.
        archive: the file that holds every evaluation.
        chosen, front, uniform, saving: see `write_front`.
        int8: where the APs are those of subnets computed in int8: 'calibration_images', how many of the training images
            the ranges of maps are taken from, and their files, 'annotations' and 'images'; `export` takes the same.
        people: how many on the search images the APs are taken of; None where that is not known.
        notes: what is to be said of the choice, sentences: see `choice.choice_notes`.
        seconds: what the search took, of one that was resumed since then.
        out: the run directory.
        subnet: best.yaml, the chosen subnet.
        checkpoint: best.pt, the same with the supernet's weights; None where the job could not save them.
    """

    best: SubnetFigures
    evaluations: int
    judged: int
    algorithm: str
    archive: Path
    chosen: list[int] | None
    front: list[dict[str, Any]]
    uniform: list[dict[str, Any]]
    saving: float | None
    int8: dict[str, Any] | None
    people: int | None
    notes: list[str]
    seconds: float
    out: Path
    subnet: Path
    checkpoint: Path | None


def describe(feasible: FeasibleSpace, genome: Genome, ap: float, error: float | None = None) -> SubnetFigures:
    """The figures of a subnet; an AP of -inf, where it could not be evaluated, is given as 0.

    Args:
        error: the AP's standard error.
    """
    spec, predict_ms = feasible.decode(genome), feasible.budget.predict_ms
    latency = predict_ms(spec) if predict_ms is not None else None
    return SubnetFigures(spec, max(ap, 0.0), error, spec_macs(spec).to_dict(), spec_params(spec), latency)


def write_best(
    path: Path, feasible: FeasibleSpace, candidate: Candidate, origin: Mapping[str, Any], error: float | None = None
) -> None:
    """Write a candidate's best.yaml, which `arch.presets.load_spec` reads.

    Args:
        origin: where it comes from: the supernet and the search.
        error: the standard error of its AP.
    """
    figures, budget = describe(feasible, candidate.genome, candidate.fitness, error).to_dict(), feasible.budget
    facts = {"convention": budget.convention, "budget": budget.to_dict(), "space": feasible.space.name}
    files.write_text(path, files.dump_yaml({**figures, **facts, **origin}))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, AP) points that no other matches or beats in both; by ascending cost, so ascending AP.

    What finds nobody, AP 0, is of no use at any cost: it is on the front only where all are so.
    """
    front: list[int] = []
    useful = [index for index, (_, ap) in enumerate(points) if ap > 0] or range(len(points))
    for index in sorted(useful, key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def costs_of(feasible: FeasibleSpace, candidates: Sequence[Candidate]) -> list[float]:
    """Every candidate's cost in the quantity of the budget's first limit, which is that of the front."""
    genomes = np.array([candidate.genome for candidate in candidates], np.int64)
    genomes = genomes.reshape(-1, len(feasible.space.choices))  # where there is none too
    return feasible.costs(genomes)[feasible.budget.limits[0].key].tolist()


def uniform_genomes(feasible: FeasibleSpace) -> dict[Genome, ArchSpec]:
    """The uniformly scaled nets inside the budget."""
    specs = feasible.space.uniform(feasible.joints)
    return {feasible.space.encode(spec): spec for spec in specs if feasible.budget.admits(spec)}


def rivals(candidates: Sequence[Candidate], feasible: FeasibleSpace, chosen: Candidate) -> list[Genome]:
    """The uniformly scaled nets that the chosen candidate is to be held against, and were not evaluated.

    They are the widest of each resolution that cost no more than it does.
    """
    known = {candidate.genome for candidate in candidates}
    nets = _widest(_uniform(feasible, {}, {}), costs_of(feasible, [chosen])[0])
    return [genome for net in nets if (genome := tuple(net["genome"])) not in known]


def write_front(
    run_path: Path,
    candidates: Sequence[Candidate],
    feasible: FeasibleSpace,
    origin: Mapping[str, Any],
    beside: Mapping[Genome, float] | None = None,
    chosen: Candidate | None = None,
    error_of: Callable[[Genome], float | None] = lambda _: None,
) -> dict[str, Any]:
    """Write pareto.csv and front/001.yaml … of a search, best AP first; files of an earlier, longer front go.

    The cost is what the budget's first limit limits. pareto.csv is a `SubnetTable` with the columns rank and AP; the
    YAML files are as best.yaml. What gave no AP is on no front.

    Args:
        origin: what the files say about where the subnets come from, plain values.
        beside: APs of further uniformly scaled nets, which are held against the front and not put on it.
        chosen: what the search takes; the fittest by default.
        error_of: the standard error of an evaluated subnet's AP.

    Returns:
        Plain values: "chosen": the chosen candidate's genome (null where all failed), "front": [{"rank", "genome",
        "resolution", "AP", "AP_stderr" (null where not known), "macs" {"thop", "exact", "paper"}, "params",
        "latency_ms", "cost", "subnet": path, "uniform"}], "uniform": the uniformly scaled nets that were evaluated or
        are the widest of their resolution inside the budget, with the same keys from "genome" to "cost" (AP null where
        not evaluated), "saving": of the cheapest front member that is as good as the best evaluated uniform net, the
        share of that net's cost that it saves (null where there is none, or its AP is 0).

        A front member's "uniform" is {"AP": of the best evaluated uniform net that costs no more (null where there is
        none), "complete": whether the widest such net of every resolution was evaluated}. Without that, the AP is only
        a lower bound of what uniform scaling gives: nothing is interpolated between nets.
    """
    valid = [candidate for candidate in candidates if candidate.is_valid]
    costs = costs_of(feasible, valid)
    order = pareto_front([(cost, c.fitness) for cost, c in zip(costs, valid, strict=True)])[::-1]
    known = {**(beside or {}), **{c.genome: c.fitness for c in valid}}
    uniform = _uniform(feasible, known, {genome: error_of(genome) for genome in uniform_genomes(feasible)})
    front = []
    for rank, index in enumerate(order, start=1):
        path = run_path / FRONT / f"{rank:03}.yaml"
        error = error_of(valid[index].genome)
        write_best(path, feasible, valid[index], {**origin, "rank": rank}, error)
        facts = _facts(feasible, valid[index].genome, valid[index].fitness, error)
        dearest = [net["AP"] for net in _widest(uniform, costs[index])]
        found = [net["AP"] for net in uniform if net["AP"] is not None and net["cost"] <= costs[index]]
        beside_it = {"AP": max(found, default=None), "complete": None not in dearest}
        front.append({"rank": rank, **facts, "subnet": str(path), "uniform": beside_it})
    for path in (run_path / FRONT).glob("[0-9][0-9][0-9]*.yaml"):
        if path.stem.isdecimal() and int(path.stem) > len(front):
            path.unlink()
    table = SubnetTable(
        run_path / PARETO, feasible.space, feasible.joints, ("AP",), ("rank",), feasible.budget.predict_ms
    )
    table.write({tuple(entry["genome"]): entry for entry in front})
    taken = (chosen or max(valid, key=lambda c: c.rank)).genome if valid else None
    shown = [net for net in uniform if net["AP"] is not None or net in _widest(uniform)]
    return {"chosen": taken and list(taken), "front": front, "uniform": shown, "saving": _saving(front, uniform)}


def front_table(result: Mapping[str, Any], feasible: FeasibleSpace) -> Table:
    """What `write_front` found, for people: the front, best AP first, against the uniformly scaled nets."""
    limits = feasible.budget.limits
    quantities = [limit.quantity.removeprefix("of ") for limit in limits]
    table = Table(box=SIMPLE_HEAD, padding=(0, int(len(limits) == 1), 0, 0), show_edge=False)
    for name in ("", "pixels", *quantities, "AP", "uniform", "gain"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)

    def costs(entry: Mapping[str, Any]) -> list[str]:
        spec = feasible.decode(entry["genome"])
        return [limit.show(limit.cost(spec)) for limit in limits]

    front = result["front"]
    for place in np.unique(np.linspace(0, len(front) - 1, min(SHOWN, len(front))).round().astype(int)):
        entry = front[place]
        label = f"front/{entry['rank']:03}" + (" *" if entry["genome"] == result["chosen"] else "")
        table.add_row(label, str(entry["resolution"]), *costs(entry), *ap_cells(entry))
    table.add_section()
    for net in result["uniform"]:
        table.add_row("uniform", str(net["resolution"]), *costs(net), *ap_cells(net))
    return table


def ap_cells(net: Mapping[str, Any]) -> list[str]:
    """The last cells of a front's or a uniform net's row: AP, that of the best uniform net, the gain over it."""
    ap = "not evaluated" if net["AP"] is None else show_ap(net["AP"], net.get("AP_stderr"))
    beside = net.get("uniform")
    if beside is None:
        return [ap, "", ""]
    if beside["AP"] is None:
        return [ap, "none" if beside["complete"] else "not evaluated", "–"]
    least, most = ("", "") if beside["complete"] else ("≥ ", "≤ ")
    return [ap, f"{least}{beside['AP']:.3f}", f"{most}{shown_difference(net['AP'], beside['AP']):+.3f}"]


def front_notes(result: Mapping[str, Any], quantity: str, shown: int) -> list[str]:
    """What is to be said below a table that shows so many members of a front, which is over `quantity`."""
    notes = [
        f"uniform: the best net with {UNIFORM} that was evaluated and costs no more; ≥: not all such were",
        "these nets are in result.json, with their genomes; only members of the front have files of their own",
    ]
    if (result["saving"] or 0) >= 0.005:
        notes.append(f"the AP of the best uniform net comes at {result['saving']:.0%} less {quantity}")
    if len(result["front"]) > shown:
        notes.append(f"{len(result['front']) - shown} more front members are in {PARETO}")
    return notes


def _facts(feasible: FeasibleSpace, genome: Genome, ap: float | None, error: float | None) -> dict[str, Any]:
    figures = describe(feasible, genome, 0.0)
    costs = {key: getattr(figures, key) for key in ("macs", "params", "latency_ms")}
    cost = feasible.budget.limits[0].cost(figures.spec)
    aps = {"AP": ap, "AP_stderr": error}
    return {"genome": list(genome), "resolution": figures.spec.resolution, **aps, **costs, "cost": cost}


def _uniform(
    feasible: FeasibleSpace, known: Mapping[Genome, float], errors: Mapping[Genome, float | None]
) -> list[dict[str, Any]]:
    """All uniformly scaled nets inside the budget, with their AP and its error where known; by resolution, cost."""
    nets = [_facts(feasible, genome, known.get(genome), errors.get(genome)) for genome in uniform_genomes(feasible)]
    return sorted(nets, key=lambda net: (net["resolution"], net["cost"], net["params"]))


def _widest(nets: Sequence[dict[str, Any]], cost: float = math.inf) -> list[dict[str, Any]]:
    """The widest of each resolution that costs no more."""
    return list({net["resolution"]: net for net in nets if net["cost"] <= cost}.values())


def _saving(front: Sequence[dict[str, Any]], uniform: Sequence[dict[str, Any]]) -> float | None:
    evaluated = [net for net in uniform if net["AP"]]  # neither unknown nor 0
    if not evaluated:
        return None
    best = max(evaluated, key=lambda net: (net["AP"], -net["cost"]))
    # None is as good where the algorithm did not ask for the uniform nets, and they are better than all it found.
    costs = [entry["cost"] for entry in front if entry["AP"] >= best["AP"]]
    return 1 - float(min(costs) / best["cost"]) if costs else None


def draw_pareto(
    path: Path, history: Sequence[Candidate], feasible: FeasibleSpace, chosen: Candidate | None = None
) -> None:
    """Write a PNG of AP over cost: all candidates, Pareto front, uniformly scaled nets, budget, and the chosen one.

    The cost is what the budget's first limit limits. Candidates whose evaluation failed (-inf) are only counted. The
    chosen one is the fittest by default.
    """
    valid = [candidate for candidate in history if candidate.is_valid]
    first = feasible.budget.limits[0]
    unit, scale = ("G", 1e9) if first.maximum >= 1e9 else ("M", 1e6)
    if first.key == LATENCY:
        unit, scale = "ms", 1.0
    points = np.array(list(zip(costs_of(feasible, valid), (c.fitness for c in valid), strict=True))).reshape(-1, 2)
    points[:, 0] /= scale
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    limit = first.maximum / scale
    axes.axvline(limit, color="0.4", linestyle="--", lw=1.2, zorder=1, label=f"budget: {feasible.budget}")
    if valid:
        _draw_all(figure, axes, points, [c.generation for c in valid])
        uniform = uniform_genomes(feasible)
        _draw_fronts(axes, points, np.array([c.genome in uniform for c in valid]), limit)
        x, y = points[valid.index(chosen if chosen in valid else max(valid, key=lambda c: c.rank))]
        label = f"chosen: AP {y:.3f} at {x:.3g}{unit}"
        axes.plot(x, y, "*", color="gold", markeredgecolor="black", markersize=17, ls="none", zorder=6, label=label)
    axes.set_xlabel(f"{first.quantity.removeprefix('of ')} [{unit}]")
    axes.set_ylabel("AP on the search images")
    failed = len(history) - len(valid)
    subnets = "1 subnet" if len(history) == 1 else f"{len(history):,} subnets"
    axes.set_title(f"{subnets} of {feasible.space.name}" + (f", {failed} of them failed" if failed else ""))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)  # where it can hide no point
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _draw_all(figure: Figure, axes: Axes, points: np.ndarray, generations: Sequence[int]) -> None:
    """A dot each: small and pale where there are thousands, so that the lines over them can be seen."""
    many = max(len(points) / 100, 1)
    size, alpha = max(5.0, 24 / many**0.5), max(0.35, 0.8 / many**0.25)
    dots = axes.scatter(
        points[:, 0], points[:, 1], c=generations, cmap="viridis", s=size, alpha=alpha, linewidths=0, zorder=2
    )
    if max(generations):
        bar = figure.colorbar(dots, ax=axes, label="generation", ticks=MaxNLocator(integer=True))
        bar.solids.set_alpha(1)  # type: ignore[union-attr]


def _draw_fronts(axes: Axes, points: np.ndarray, is_uniform: np.ndarray, limit: float) -> None:
    """The Pareto front, with marks while they can be kept apart, and the uniformly scaled nets with theirs."""
    end = max(limit, points[:, 0].max())

    def draw_front(members: np.ndarray, **style: Any) -> np.ndarray:
        """Draw the front, on at its last height as far as `end`."""
        front = members[pareto_front(members.tolist())]
        axes.step([*front[:, 0], end], [*front[:, 1], front[-1, 1]], where="post", zorder=4, **style)
        return front

    front = draw_front(points, color="black", lw=1.3, label="Pareto front")
    if len(front) < 60:
        axes.plot(*front.T, "o", color="black", markersize=3.5, zorder=4)
    if is_uniform.any():
        draw_front(points[is_uniform], color="tab:red", ls="--", lw=1.2)
        label = "uniformly scaled nets, and their front"
        nets = points[is_uniform].T
        axes.plot(*nets, "s", color="tab:red", markeredgecolor="white", markersize=6, zorder=5, label=label)
