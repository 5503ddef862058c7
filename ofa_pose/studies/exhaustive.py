"""The exhaustive table: every subnet of a small space evaluated once, so that searches are compared with the truth."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.costs.feasible import format_subnets
from ofa_pose.costs.macs import population_costs, spec_macs, spec_params
from ofa_pose.costs.subnet_rows import SubnetTable, read_subnets
from ofa_pose.inference.evaluate import count_people
from ofa_pose.monitor.opening import show_opening
from ofa_pose.pose.bootstrap import doubts
from ofa_pose.recipe import Recipe, load_recipe
from ofa_pose.searches.candidates import Evaluate, FitnessOutcome
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.utils import files
from ofa_pose.utils.config import config_text
from ofa_pose.utils.console import progress, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import interruptible
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import RunDir, check_basis, plan_run, read_basis

TABLE, BASIS = "table.csv", "table.json"
MEASURED = ("AP", "seconds")


@dataclass(frozen=True)
class ExhaustiveTable(Result):
    """A complete table.

    Attributes:
        subnets, judged: how many it holds, and how many of them were evaluated now.
        best: the subnet with the highest AP: "spec", "AP", "AP_stderr" (the AP's standard error; null where it is not
            known), "macs" by convention, "params"; plain values.
        table: table.csv.
        seconds: what it took now.
        out: the run directory.
    """

    subnets: int
    judged: int
    best: dict[str, Any]
    table: Path
    seconds: float
    out: Path


@dataclass(frozen=True)
class TableStudy:
    """Every subnet of a space, to be evaluated once.

    Attributes:
        evaluate: AP and seconds of subnets.
        basis: what the APs rest on, JSON values, kept in table.json; a table on another basis is not resumed.
        recipe: kept in the run directory.
        error_of: the standard error of a subnet's AP, for which it is evaluated again; asked for the best one.
        people: how many the APs are taken of.
        about: what is said of the evaluations before the first one.
    """

    space: SearchSpace
    joints: int
    evaluate: Evaluate
    basis: Mapping[str, Any]
    recipe: Recipe = field(default_factory=Recipe)
    error_of: Callable[[Genome], float | None] = lambda _: None
    people: int | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        recipe: str | Path | None = None,
        overrides: Sequence[str] = (),
        device: str | None = None,
    ) -> TableStudy:
        """Of a supernet; the recipe is its own by default. Raises InputError where data, recipe and supernet differ."""
        resolved, _ = load_recipe("search", recipe, overrides, checkpoint.recipe)
        evaluator = SubnetEvaluator.from_checkpoint(checkpoint, resolved, device)
        basis = evaluator.basis(checkpoint.sha256)
        space, people = evaluator.supernet.space, count_people(evaluator.images)
        rest = evaluator.error, people, {"supernet": str(checkpoint.path or ""), **evaluator.facts()}
        return cls(space, checkpoint.spec.joints, timed(evaluator), basis, resolved, *rest)

    def run(self, out: str | Path, resume: bool = False) -> ExhaustiveTable:
        """Evaluate every subnet that the run directory's table.csv does not hold yet.

        It is a `SubnetTable` with the columns AP and seconds. A row is written as soon as its subnet is evaluated, so
        that a killed run loses at most the one in work; at the end the rows stand in the order of their genomes.

        Raises:
            InputError: `out` holds another run, or a table and `resume` is not asked for; the table to be resumed has
                another basis or a damaged row.
        """
        run = plan_run(out, config_text(self.recipe), resume, progress=TABLE)
        with run.held():
            return self._run(run)

    def _run(self, run: RunDir) -> ExhaustiveTable:
        start, path = time.perf_counter(), run.path / TABLE
        if not run.fresh:
            check_basis(read_basis(run.path / BASIS), self.basis, run.path)
        rows = dict(sorted(read_table(path, self.space).items())) if not run.fresh else {}
        subnets = f"{self.space.name}: {format_subnets(self.space.size)} subnets, all of them"
        show_opening("table", {"space": subnets, **self.about}, run.path)
        run.open()
        files.write_json(run.path / BASIS, dict(self.basis))
        genomes = list(every_genome(self.space))
        macs = population_costs(self.space, self.joints, np.array(genomes))["macs_exact"]
        # What a subnet takes, in MMACs of one image: time left counted in subnets would be far too short.
        work = dict(zip(genomes, (-(-macs // 10**6)).tolist(), strict=True))
        table = SubnetTable(path, self.space, self.joints, MEASURED)
        table.write(rows)
        missing = [genome for genome in genomes if genome not in rows]
        done = sum(work[genome] for genome in rows)
        with interruptible(run.go_on), progress("table", sum(work.values()), "MMACs", done) as meter:
            for genome, (ap, seconds) in zip(missing, self.evaluate(missing), strict=True):
                rows[genome] = {"AP": ap, "seconds": round(seconds, 4)}
                table.append(genome, rows[genome])
                meter.step(work[genome], f"{len(rows)} of {len(genomes)} subnets, {seconds:.2f} s each")
        table.write({genome: rows[genome] for genome in genomes})
        fittest = max(rows, key=lambda genome: rows[genome]["AP"])
        spec = self.space.decode(fittest, self.joints)
        ap, error = rows[fittest]["AP"], self.error_of(fittest)
        if doubt := doubts(self.people, error, [row["AP"] for row in rows.values()]):
            warn(doubt)
        best = {"spec": spec.to_dict(), "AP": ap, "AP_stderr": error}
        best |= {"macs": spec_macs(spec).to_dict(), "params": spec_params(spec)}
        return ExhaustiveTable(len(rows), len(missing), best, path, round(time.perf_counter() - start, 3), run.path)


def every_genome(space: SearchSpace) -> Iterator[Genome]:
    """The canonical genome of every subnet of a space, ascending; so one resolution after another."""
    every = itertools.product(*(range(len(choices)) for choices in space.choices))
    return (genome for genome in every if space.canonical(genome) == genome)


def check_size(space: SearchSpace, limit: int) -> None:
    """Raise InputError where a space has more subnets than `limit`."""
    if space.size > limit:
        what = f"space '{space.name}' has {space.size:,} subnets, a table takes at most {limit:,}"
        raise InputError(what, hint="train a supernet of a smaller space, or raise --limit")


def read_table(path: Path, space: SearchSpace) -> dict[Genome, dict[str, float]]:
    """The values and measurements of every subnet in a table.csv; see `read_subnets`."""
    return read_subnets(path, MEASURED, space, what=f"a table of space '{space.name}'")


def timed(ap_of: Callable[[Genome], float]) -> Evaluate:
    """An `Evaluate` of what gives the AP of one subnet."""

    def evaluate(genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        for genome in genomes:
            start = time.perf_counter()
            ap = ap_of(genome)
            yield ap, time.perf_counter() - start

    return evaluate
