"""What a study found: a table of runs, means and spreads over seeds, and a picture."""

from __future__ import annotations

import csv
import io
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ofa_pose.utils import atomic, files
from ofa_pose.utils.numbers import format_count
from ofa_pose.utils.result import Result

CSV, TABLE, PICTURE = "study.csv", "study.md", "study.png"
_COSTS = ("macs_exact", "macs_thop", "macs_paper", "params")
COLUMNS = ("run", "arm", "seed", "metric", "value", *_COSTS, "steps", "seconds")
BLUE = "#2b6cb0"
LABEL = 14  # characters of a bar's name on a line


@dataclass(frozen=True)
class ArmSummary(Result):
    """An arm of a study over its seeds.

    Attributes:
        metric: 'AP', or 'accuracy' of a classifier.
        seeds: those whose runs are done.
        mean, spread: of the metric, the spread being the standard deviation over seeds; None where too few are done.
        difference, difference_spread: to the first arm of the metric, seed by seed: mean and standard deviation; None
            of the first arm itself.
        macs: of one forward pass by convention; of a supernet the mean of its evaluated subnets'.
        params, steps: of its network and its training.
        seconds: mean of its runs', evaluation included, each since it was last begun.
    """

    arm: str
    metric: str
    seeds: tuple[int, ...]
    mean: float | None
    spread: float | None
    difference: float | None
    difference_spread: float | None
    macs: dict[str, float]
    params: float
    steps: int | None
    seconds: float


@dataclass(frozen=True)
class StudyResult(Result):
    """A study.

    Attributes:
        study: its name; asks: its question.
        arms: what is compared, by its table's rows; runs: the rows of study.csv.
        failed: of each run that failed why, by 'seed 0, NAME'.
        csv, table: study.csv and study.md; picture: study.png, None where no arm has a figure.
        seconds: what the study took now.
        out: its folder.
    """

    study: str
    asks: str
    arms: tuple[ArmSummary, ...]
    runs: tuple[dict[str, Any], ...]
    failed: dict[str, str]
    csv: Path
    table: Path
    picture: Path | None
    seconds: float
    out: Path


def summarise(rows: Sequence[Mapping[str, Any]]) -> tuple[ArmSummary, ...]:
    """The arms in the order of their first rows, those of one metric beside each other; runs that are none left out."""
    arms: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        if row["arm"] and row["metric"]:
            arms.setdefault((row["metric"], row["arm"]), {})[row["seed"]] = row
    firsts: dict[str, Mapping[int, Mapping[str, Any]]] = {}
    for (metric, _), found in arms.items():
        firsts.setdefault(metric, found)
    ordered = sorted(arms.items(), key=lambda item: [*firsts].index(item[0][0]))
    return tuple(_summary(arm, metric, found, firsts[metric]) for (metric, arm), found in ordered)


def _summary(
    arm: str, metric: str, found: Mapping[int, Mapping[str, Any]], first: Mapping[int, Mapping[str, Any]]
) -> ArmSummary:
    values = [row["value"] for row in found.values()]
    pairs = [found[seed]["value"] - first[seed]["value"] for seed in found if seed in first]
    is_first = found is first
    rows = list(found.values())
    costs = {name: statistics.fmean(row[f"macs_{name}"] for row in rows) for name in ("exact", "thop", "paper")}
    return ArmSummary(
        arm,
        metric,
        tuple(found),
        _mean(values),
        _spread(values),
        None if is_first else _mean(pairs),
        None if is_first else _spread(pairs),
        costs,
        statistics.fmean(row["params"] for row in rows),
        rows[0]["steps"],
        round(statistics.fmean(row["seconds"] for row in rows), 1),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 5) if values else None


def _spread(values: Sequence[float]) -> float | None:
    return round(statistics.stdev(values), 5) if len(values) > 1 else None


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write study.csv: a row for each run and seed that is done."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row.get(name) for name in COLUMNS} for row in rows)
    files.write_text(path, text.getvalue())


def table_text(arms: Sequence[ArmSummary]) -> str:
    """The arms as Markdown, a table for each metric."""
    parts = []
    for metric in dict.fromkeys(arm.metric for arm in arms):
        mine = [arm for arm in arms if arm.metric == metric]
        head = ["", metric, f"difference to {mine[0].arm}", "MACs: exact", "thop", "paper", "parameters"]
        head += ["steps", "seconds a run"]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *(arm_cells(arm) for arm in mine)]
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(parts)


def arm_cells(arm: ArmSummary) -> list[str]:
    """An arm's row as text."""
    steps = "–" if arm.steps is None else f"{arm.steps:,}"
    costs = [*(format_count(arm.macs[name]) for name in ("exact", "thop", "paper")), format_count(arm.params)]
    difference = figure_text(arm.difference, arm.difference_spread, signed=True)
    return [arm.arm, figure_text(arm.mean, arm.spread), difference, *costs, steps, f"{arm.seconds:.0f}"]


def figure_text(mean: float | None, spread: float | None, signed: bool = False) -> str:
    """'0.412 ± 0.013'; a dash where it is not known."""
    if mean is None:
        return "–"
    text = f"{mean:+.3f}" if signed else f"{mean:.3f}"
    return text if spread is None else f"{text} ± {spread:.3f}"


def write_summary(out: Path, study: str, asks: str, arms: Sequence[ArmSummary], seeds: int) -> None:
    """Write study.md."""
    many = f"means of {seeds} seeds ± their standard deviation" if seeds > 1 else "one seed"
    note = f"{many[0].upper()}{many[1:]}; differences are taken seed by seed."
    files.write_text(out / TABLE, f"# {study}\n\n{asks}\n\n{table_text(arms)}\n\n{note}\n")


def draw_summary(path: Path, arms: Sequence[ArmSummary], kind: Literal["macs", "bars"]) -> Path | None:
    """Write study.png, a panel for each metric; None where no arm has a figure.

    Args:
        kind: 'macs': the figures over exact MACs, with their spread; 'bars': a bar an arm.
    """
    metrics = list(dict.fromkeys(arm.metric for arm in arms))
    if not metrics:
        return None
    most = max(sum(arm.metric == metric for arm in arms) for metric in metrics)
    figure = Figure(figsize=(max(4.6, 1.1 * most) * len(metrics), 3.4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        mine = [arm for arm in arms if arm.metric == metric and arm.mean is not None]
        (_over_macs if kind == "macs" else _bars)(axes, mine)
        axes.set_ylabel("AP on the test images" if metric == "AP" else f"{metric} on the test images")
        axes.grid(alpha=0.3, axis="both" if kind == "macs" else "y")
        axes.spines[["top", "right"]].set_visible(False)
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return path


def _over_macs(axes: Axes, arms: Sequence[ArmSummary]) -> None:
    x, y = [arm.macs["exact"] / 1e6 for arm in arms], [arm.mean or 0.0 for arm in arms]
    axes.errorbar(x, y, [arm.spread or 0.0 for arm in arms], fmt="o-", color=BLUE, capsize=4, lw=1.3)
    for arm, *place in zip(arms, x, y, strict=True):
        axes.annotate(arm.arm, place, xytext=(5, -11), textcoords="offset points", fontsize=8)  # type: ignore[arg-type]
    axes.margins(x=0.18, y=0.15)
    axes.set_ylim(bottom=0)  # so that the panels of a study can be compared
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("MMACs, exact")


def _bars(axes: Axes, arms: Sequence[ArmSummary]) -> None:
    places = range(len(arms))
    heights, spreads = [arm.mean or 0.0 for arm in arms], [arm.spread or 0.0 for arm in arms]
    axes.bar(places, heights, 0.6, yerr=spreads, color=BLUE, alpha=0.85, capsize=4)
    for place, arm, height, spread in zip(places, arms, heights, spreads, strict=True):
        axes.text(place, height + spread, f"{arm.mean:.3f}", ha="center", va="bottom", fontsize=9)
    axes.set_xticks(places, [textwrap.fill(arm.arm, LABEL) for arm in arms], fontsize=8)
    axes.margins(y=0.12)
