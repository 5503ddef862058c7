"""What a search leaves behind besides its picture: history.csv, written as it goes, and best.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import Budget, FeasibleSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.subnet_rows import SubnetTable
from ofa_pose.searches.candidates import Candidate
from ofa_pose.utils import files


class History:
    """history.csv, a `SubnetTable`: a row for each candidate of the search, in its order, as soon as it is judged.

    Columns before the genome: order, generation, origin; after the costs: AP (empty where it was not a number),
    seconds.
    """

    def __init__(self, path: Path, part: FeasibleSpace) -> None:
        """Start the file anew with its header."""
        leading, measured = ("order", "generation", "origin"), ("AP", "seconds")
        self._table = SubnetTable(path, part.space, part.joints, measured, leading, part.budget.predict_ms)
        self._table.write({})

    def add(self, candidate: Candidate) -> None:
        """Append one candidate."""
        measured = {"AP": candidate.fitness if candidate.is_valid else "", "seconds": round(candidate.seconds, 4)}
        leading = {name: getattr(candidate, name) for name in ("order", "generation", "origin")}
        self._table.append(candidate.genome, {**leading, **measured})


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
