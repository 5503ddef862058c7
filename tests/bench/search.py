"""How many evaluations a search needs, on a table that holds the AP of every subnet of a small space.

Budgets lie at shares of the range of MACs. 'To get there' is to evaluate a subnet within 0.005 AP of the best feasible
one; random search's figure is measured like the others'. The ways are described beside `WAYS`. The front is judged by
the hypervolume over (MACs, AP) that is missing of the true front's, over the whole space.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.algorithms import ALGORITHMS
from ofa_pose.searches.candidates import Candidate
from ofa_pose.utils.console import progress, show
from tests.searches.evaluated_space import FOLDER, EvaluatedSpace, draw_space, load_table

CLOSE = 0.005  # AP
SHARES = (0.25, 0.5, 0.75)  # of the range of MACs
ALLOWED = 0.1  # of the feasible subnets
FRONT_ALLOWED = 0.2  # of the space
# Few subnets may be evaluated, so generations are small.
SETTINGS = SearchSettings(population=8)
# Evolution as in the papers: nothing is grown to the budget, and no uniform nets at the start, so good that they would
# hide the rest. Then with growing, which is ours; then with uniform nets too, as it is by default.
PLAIN = {"algorithm": "evolution", "fill": 0.0, "uniform_start": False}
GROWN = {"algorithm": "evolution", "uniform_start": False}
WAYS: dict[str, dict[str, Any]] = {
    "random": {"algorithm": "random"},
    "paper": PLAIN,
    "paper + surrogate": {**PLAIN, "surrogate": True},
    "grown": GROWN,
    "grown + surrogate": {**GROWN, "surrogate": True},
    "default": {"algorithm": "evolution"},
}
FRONT_WAYS: dict[str, dict[str, Any]] = {
    "random": {"algorithm": "random"},
    "nsga2": {"algorithm": "nsga2"},
}


def search(
    subnets: EvaluatedSpace,
    feasible: FeasibleSpace,
    way: Mapping[str, Any],
    seed: int,
    most: int,
    reports: list[dict[str, Any]],
) -> Iterator[Candidate]:
    """Up to `most` candidates of one search."""
    generations = -(-most // SETTINGS.population)
    settings = SETTINGS.model_copy(update={**way, "generations": generations})
    search_with = ALGORITHMS[settings.algorithm]
    return islice(search_with(feasible, settings, seed, subnets.evaluate, report=reports.append), most)


def reach(subnets: EvaluatedSpace, share: float, seeds: int, ways: Sequence[str] = tuple(WAYS)) -> dict[str, Any]:
    """At one budget: evaluations until each way gets close to the best feasible AP."""
    feasible = subnets.feasible(share)
    aps = subnets.aps[subnets.costs <= (feasible.budget.macs or 0)]
    inside, target = len(aps), float(aps.max()) - CLOSE
    row: dict[str, Any] = {
        "share": share,
        "macs": feasible.budget.macs,
        "feasible": inside,
        "close": int((aps >= target).sum()),
        "best": round(float(aps.max()), 4),
        "allowed": int(ALLOWED * inside),
        "ways": {},
    }
    for name in ways:
        counts, reports = [], []
        for seed in range(seeds):
            told: list[dict[str, Any]] = []
            found = search(subnets, feasible, WAYS[name], seed, inside, told)
            counts.append(next((c.order for c in found if c.fitness >= target), None))
            reports += told
        row["ways"][name] = {**_counted(counts, row["allowed"]), **_quality(reports)}
    return row


def front(subnets: EvaluatedSpace, seeds: int) -> dict[str, Any]:
    """Over the whole space: the share of the true front's hypervolume that each way misses."""
    feasible, most = subnets.feasible(1.0), int(FRONT_ALLOWED * len(subnets.genomes))
    corner = float(subnets.costs.max()), 0.0
    whole = hypervolume(subnets.costs, subnets.aps, corner)
    gaps = {}
    for name, way in FRONT_WAYS.items():
        missed = []
        for seed in range(seeds):
            found = list(search(subnets, feasible, way, seed, most, []))
            reached = hypervolume([c.macs for c in found], [c.fitness for c in found], corner)
            missed.append(max(1 - reached / whole, 0.0))  # rounding
        gaps[name] = {"median": float(np.median(missed)), "worst": max(missed)}
    return {"allowed": most, "gaps": gaps}


def hypervolume(
    costs: Sequence[float] | np.ndarray, aps: Sequence[float] | np.ndarray, corner: tuple[float, float]
) -> float:
    """The area that (cost, AP) points dominate, bounded by the corner (highest cost, lowest AP)."""
    order = np.lexsort((-np.asarray(aps), costs))
    cost = np.append(np.minimum(np.asarray(costs, float)[order], corner[0]), corner[0])
    height = np.maximum.accumulate(np.maximum(np.asarray(aps)[order] - corner[1], 0))
    return float(np.sum(np.diff(cost) * height))


def _counted(counts: Sequence[int | None], allowed: int) -> dict[str, Any]:
    median = float(np.median([np.inf if count is None else count for count in counts]))
    return {
        "in_time": sum(count is not None and count <= allowed for count in counts),
        "median": median if np.isfinite(median) else None,
        "counts": list(counts),
    }


def _quality(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How often a surrogate chose, and its mean held-out Kendall tau."""
    if not reports:
        return {}
    taus = [report["surrogate_tau"] for report in reports if report["surrogate_tau"] is not None]
    used = [report["surrogate"] for report in reports if report["generation"]]
    return {
        "tau": round(float(np.mean(taus)), 3) if taus else None,
        "used": round(float(np.mean(used)), 3) if used else None,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    if options.drawn is not None:
        subnets, name = draw_space(options.drawn), f"drawn table {options.drawn}"
    else:
        subnets, name = load_table(options.table), str(options.table)
    budgets = []
    with progress("search", len(SHARES), "budgets") as meter:
        for share in SHARES:
            budgets.append(reach(subnets, share, options.seeds))
            meter.step()
    settings = SETTINGS.model_dump(exclude={"images", "calibration_images", "batch", "generations"})
    return {"table": name, "seeds": options.seeds, "settings": settings, "budgets": budgets} | {
        "front": front(subnets, max(options.seeds // 2, 1))
    }


def show_figures(figures: Mapping[str, Any]) -> None:
    """The tables, on stderr."""
    seeds = figures["seeds"]
    head = ("budget", "inside", "close", "allowed", "way", "in time", "median", "tau", "used")
    table = _table(f"Evaluations to get within {CLOSE} AP, {seeds} seeds", head)
    for row in figures["budgets"]:
        start = (f"{row['share']:.0%}", str(row["feasible"]), str(row["close"]), str(row["allowed"]))
        for name, way in row["ways"].items():
            figures_of = (_text(way["median"], 1), _text(way.get("tau"), 2), _text(way.get("used"), 2))
            table.add_row(*start, name, f"{way['in_time']}/{seeds}", *figures_of)
            start = ("", "", "", "")
    show(table)
    fronts = _table(f"Hypervolume missing after {figures['front']['allowed']} evaluations", ("way", "median", "worst"))
    for name, gap in figures["front"]["gaps"].items():
        fronts.add_row(name, f"{gap['median']:.3%}", f"{gap['worst']:.3%}")
    show(fronts)


def _table(title: str, head: Sequence[str]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for name in head:
        left = name in ("budget", "way")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    return table


def _text(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bin/bench search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind; half as many for fronts")
    parser.add_argument("--table", type=Path, default=FOLDER, help="a folder with table.csv and space.yaml")
    parser.add_argument("--drawn", type=int, metavar="SEED", help="a made-up table instead")
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds = 2
    if options.seeds < 1:
        parser.error("--seeds must be 1 or more")
    if options.drawn is None and not (options.table / "table.csv").is_file():
        parser.error(f"{options.table} has no table.csv: name a folder made by 'ofa-pose table', or use --drawn 0")
    return options


def main() -> None:
    """Parse, run, report."""
    options = parse()
    figures = run(options)
    show_figures(figures)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
