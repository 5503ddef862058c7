"""What a search leaves behind besides its picture: history.csv, written as it goes, and best.yaml."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import Budget, FeasibleSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.searches.archive import genome_text
from ofa_pose.searches.candidates import Candidate
from ofa_pose.utils import files


class History:
    """history.csv: a row for each candidate of the search, in its order, as soon as it is judged.

    Columns: order, generation, origin, genome (choice indices joined by '-'), every gene's value under its label,
    macs_thop, macs_exact, macs_paper, params, latency_ms (where the budget can predict it), AP (empty where it was no
    number), seconds.
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
        start = [candidate.order, candidate.generation, candidate.origin, genome_text(genome)]
        ap = candidate.fitness if candidate.is_valid else ""
        row = [*start, *values, *costs, ap, round(candidate.seconds, 4)]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line(row))


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


def _line(row: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
