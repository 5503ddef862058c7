"""The exhaustive table: every subnet of a small space judged once, so that searches can be held against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.population import population_costs
from ofa_pose.costs.subnet_rows import SubnetTable, read_subnets
from ofa_pose.utils import files
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import RunDir, check_basis, plan_run

TABLE, BASIS = "table.csv", "table.json"

Outcome = tuple[float, float]  # AP, seconds
Judge = Callable[[Sequence[Genome]], Iterator[Outcome]]  # in the order of the genomes, each as soon as it is known


def every_genome(space: SearchSpace) -> Iterator[Genome]:
    """The canonical genome of every subnet of a space, ascending; so one resolution after another."""
    every = itertools.product(*(range(len(choices)) for choices in space.choices))
    return (genome for genome in every if space.canonical(genome) == genome)


def check_size(space: SearchSpace, limit: int) -> None:
    """Raise InputError where a space has more subnets than `limit`."""
    if space.size > limit:
        what = f"space '{space.name}' has {space.size:,} subnets, a table takes at most {limit:,}"
        raise InputError(what, hint="train a supernet of a smaller space, or raise --limit")


def plan_table(out: Path, recipe: str, resume: bool = False) -> RunDir:
    """The run directory of a table, checked but not yet made.

    Raises:
        InputError: `out` holds a table already and `resume` is not asked for, there is none to resume, or `out` holds
            another run or is not a folder.
    """
    return plan_run(out, recipe, resume, progress=TABLE)


def fill_table(
    run: RunDir,
    space: SearchSpace,
    joints: int,
    judge: Judge,
    basis: Mapping[str, Any],
    resume: bool = False,
) -> dict[str, Any]:
    """Judge every subnet of a space that the run directory's table.csv does not hold yet.

    It is a `SubnetTable` with the columns AP and seconds. A row is written as soon as its subnet is judged, so that a
    killed run loses at most the one in work; at the end the rows stand in the order of their genomes.

    Args:
        basis: what the APs rest on, JSON values, kept in table.json; a table with another basis is not resumed.

    Returns:
        {"subnets", "judged" (in this run), "best": {"spec", "AP", "macs", "params"}, "table"}: plain values.

    Raises:
        InputError: the table that is to be resumed has another basis or a damaged row.
    """
    path = run.path / TABLE
    if resume:
        check_basis(files.read_json(run.path / BASIS), basis, run.path)
    known = read_table(path, space) if resume else {}
    run.open()
    files.write_json(run.path / BASIS, dict(basis))
    genomes = list(every_genome(space))
    macs = population_costs(space, joints, np.array(genomes))["macs_exact"]
    # What a subnet takes, in MMACs of one image: time left counted in subnets would be far too short.
    work = dict(zip(genomes, (-(-macs // 10**6)).tolist(), strict=True))
    table = SubnetTable(path, space, joints, ("AP", "seconds"))
    table.write(_sorted(known))
    missing = [genome for genome in genomes if genome not in known]
    judged = dict(known)
    with progress("table", sum(work.values()), "MMACs", sum(work[genome] for genome in known)) as meter:
        for genome, outcome in zip(missing, judge(missing), strict=True):
            table.append(genome, _cells(outcome))
            judged[genome] = outcome
            meter.step(work[genome], f"{len(judged)} of {len(genomes)} subnets, {outcome[1]:.2f} s each")
    table.write(_sorted(judged))
    fittest, (ap, _) = max(judged.items(), key=lambda item: item[1][0])
    spec = space.decode(fittest, joints)
    best = {"spec": spec.to_dict(), "AP": ap, "macs": spec_macs(spec).to_dict(), "params": spec_params(spec)}
    return {"subnets": len(judged), "judged": len(missing), "best": best, "table": str(path)}


def read_table(path: Path, space: SearchSpace) -> dict[Genome, Outcome]:
    """AP and seconds of every genome in a table.csv; a row that was being written when it was killed is left out.

    Raises:
        InputError: the file is missing, is the table of another space, or holds a row that is none.
    """
    rows = read_subnets(path, ("AP", "seconds"), space, what=f"a table of space '{space.name}'")
    return {genome: (cells["AP"], cells["seconds"]) for genome, cells in rows.items()}


def _cells(outcome: Outcome) -> dict[str, float]:
    return {"AP": outcome[0], "seconds": round(outcome[1], 4)}


def _sorted(judged: Mapping[Genome, Outcome]) -> dict[Genome, dict[str, float]]:
    return {genome: _cells(judged[genome]) for genome in sorted(judged)}
