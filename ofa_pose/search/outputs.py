"""What a search leaves behind besides its picture: history.csv, written as it goes, and best.yaml."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_pose import files
from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.errors import InputError
from ofa_pose.search.budget import Budget, FeasibleSpace
from ofa_pose.search.evolution import Candidate


class History:
    """history.csv: a row for each judged subnet, written at once, so that a killed search keeps them.

    Columns: order, generation, origin, genome (choice indices joined by '-'), every gene's value under its label,
    macs_thop, macs_exact, macs_paper, params, latency_ms (where the budget can predict it), AP, seconds.
    """

    def __init__(self, path: Path, part: FeasibleSpace) -> None:
        """Start the file anew with its header."""
        self._path, self._part = path, part
        latency = ["latency_ms"] if part.budget.predict_ms is not None else []
        costs = ["macs_thop", "macs_exact", "macs_paper", "params", *latency]
        header = ["order", "generation", "origin", "genome", *part.space.labels, *costs, "AP", "seconds"]
        files.write_text(path, _line(header))

    def add(self, candidate: Candidate) -> None:
        """Append one candidate."""
        part, genome = self._part, candidate.genome
        spec = part.decode(genome)
        values = [choices[gene] for gene, choices in zip(genome, part.space.choices, strict=True)]
        costs: list[Any] = [*spec_macs(spec).to_dict().values(), spec_params(spec)]
        if part.budget.predict_ms is not None:
            costs.append(part.budget.predict_ms(spec))
        start = [candidate.order, candidate.generation, candidate.origin, "-".join(map(str, genome))]
        row = [*start, *values, *costs, candidate.fitness, round(candidate.seconds, 4)]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line(row))


def read_judged(path: Path, space: SearchSpace) -> dict[Genome, tuple[float, float]]:
    """The AP and seconds of every genome in a history.csv; a row that was being written when it was killed is left out.

    Raises:
        InputError: the file is missing, or is the history of another space.
    """
    judged: dict[Genome, tuple[float, float]] = {}
    reader = csv.DictReader(io.StringIO(files.read_text(path)))
    expected = {"genome", "AP", "seconds", *space.labels}
    if not expected <= set(reader.fieldnames or ()):
        raise InputError(f"is no history of space '{space.name}'", path, "choose another --out")
    for line, row in enumerate(reader, start=2):
        if None in row.values():
            continue
        try:
            genome = tuple(int(gene) for gene in row["genome"].split("-"))
            values = tuple(int(row[label]) for label in space.labels)
            judged[genome] = float(row["AP"]), float(row["seconds"] or 0)
        except ValueError:
            raise InputError("is no row of a search's history", f"{path}:{line}", "remove that line") from None
        if values != _values(space, genome):
            raise InputError(f"is not of space '{space.name}'", f"{path}:{line}", "choose another --out")
    return judged


def set_aside(history: Path, earlier: Path) -> None:
    """Add the complete rows of a history to those of `earlier`, so that the history can be started anew."""
    kept = ""
    for path in (earlier, history):
        if path.exists():
            header, *rows = files.read_text(path).splitlines(keepends=True) or [""]
            kept = kept or header
            kept += "".join(row for row in rows if row.endswith("\n"))
    files.write_text(earlier, kept)


def describe(spec: ArchSpec, ap: float, budget: Budget) -> dict[str, Any]:
    """A chosen subnet as plain values: spec, AP, macs in each convention, params, latency_ms (null if unknown)."""
    latency = budget.predict_ms(spec) if budget.predict_ms is not None else None
    macs = spec_macs(spec).to_dict()
    return {"spec": spec.to_dict(), "AP": ap, "macs": macs, "params": spec_params(spec), "latency_ms": latency}


def write_best(path: Path, best: dict[str, Any], space: SearchSpace, budget: Budget, origin: dict[str, Any]) -> None:
    """Write best.yaml, which `arch.presets.load_spec` reads.

    Args:
        best: from `describe`.
        origin: where it comes from: the supernet and the search.
    """
    facts = {"convention": budget.convention, "budget": budget.to_dict(), "space": space.name, **origin}
    files.write_text(path, files.dump_yaml({**best, **facts}))


def _values(space: SearchSpace, genome: Genome) -> tuple[int, ...] | None:
    if len(genome) != len(space.choices):
        return None
    in_range = all(0 <= gene < len(choices) for gene, choices in zip(genome, space.choices, strict=True))
    return tuple(choices[gene] for gene, choices in zip(genome, space.choices, strict=True)) if in_range else None


def _line(row: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
