"""The exhaustive table: every subnet of a small space judged once, so that searches can be held against the truth."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.macs import CONVENTIONS
from ofa_pose.costs.population import QUANTITIES, population_costs
from ofa_pose.searches.archive import genome_text
from ofa_pose.utils import files
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import BASIS_DEFAULTS, RunDir, another, plan_run

TABLE, BASIS = "table.csv", "table.json"

Outcome = tuple[float, float]  # AP, seconds
Costs = Mapping[Genome, Sequence[int]]  # of every subnet, as QUANTITIES
Judge = Callable[[Sequence[Genome]], Iterator[Outcome]]  # in the order of the genomes, each as soon as it is known


def every_genome(space: SearchSpace) -> Iterator[Genome]:
    """The canonical genome of every subnet of a space, ascending; so one resolution after another."""
    first = len(space.choices) - sum(space.blocks)
    depths = first - len(space.depth)
    for head in itertools.product(*(range(len(choices)) for choices in space.choices[:first])):
        counts = (
            [choices[gene] for choices, gene in zip(space.depths, head[depths:], strict=True)] if space.depth else []
        )
        # A block that the depth leaves out has one gene: 0.
        present = itertools.chain.from_iterable(
            (block < count for block in range(most))
            for count, most in zip(counts or space.blocks, space.blocks, strict=True)
        )
        for tail in itertools.product(*(range(len(space.expansion) if there else 1) for there in present)):
            yield (*head, *tail)


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

    Columns: genome (choice indices joined by '-'), every gene's value under its label, macs_thop, macs_exact,
    macs_paper, params, AP, seconds. A row is written as soon as its subnet is judged, so that a killed run loses at
    most the one in work; at the end the rows stand in the order of their genomes.

    Args:
        basis: what the APs rest on, JSON values, kept in table.json; a table with another basis is not resumed.

    Returns:
        {"subnets", "judged" (in this run), "best": {"spec", "AP", "macs", "params"}, "table"}: plain values.

    Raises:
        InputError: the table that is to be resumed has another basis or a damaged row.
    """
    path = run.path / TABLE
    if resume:
        check_basis(run.path / BASIS, basis)
    known = read_table(path, space) if resume else {}
    run.open()
    files.write_json(run.path / BASIS, dict(basis))
    costs = _costs(space, joints)
    # What a subnet takes, in MMACs of one image: time left counted in subnets would be far too short.
    work = {genome: -(-counts[QUANTITIES.index("macs_exact")] // 10**6) for genome, counts in costs.items()}
    _rewrite(path, space, costs, known)
    missing = [genome for genome in costs if genome not in known]
    judged = dict(known)
    with progress("table", sum(work.values()), "MMACs", sum(work[genome] for genome in known)) as meter:
        for genome, outcome in zip(missing, judge(missing), strict=True):
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(_line(_row(space, costs, genome, outcome)))
            judged[genome] = outcome
            meter.step(work[genome], f"{len(judged)} of {len(costs)} subnets, {outcome[1]:.2f} s each")
    _rewrite(path, space, costs, judged)
    fittest, (ap, _) = max(judged.items(), key=lambda item: item[1][0])
    *macs, params = costs[fittest]
    best = {"spec": space.decode(fittest, joints).to_dict(), "AP": ap}
    best |= {"macs": dict(zip(CONVENTIONS, macs, strict=True)), "params": params}
    return {"subnets": len(judged), "judged": len(missing), "best": best, "table": str(path)}


def check_basis(path: Path, basis: Mapping[str, Any]) -> None:
    """Raise InputError that names what differs between a basis kept in a file and this one."""
    before = {**BASIS_DEFAULTS, **files.read_json(path)}
    for key, value in {**BASIS_DEFAULTS, **basis}.items():
        if before.get(key, value) != value:
            what = f"was measured with {another(key, before[key], value)}"
            raise InputError(what, path.parent, "resume with the settings of that run, or choose another --out")


def read_table(path: Path, space: SearchSpace) -> dict[Genome, Outcome]:
    """AP and seconds of every genome in a table.csv; a row that was being written when it was killed is left out.

    Raises:
        InputError: the file is missing, is the table of another space, or holds a row that is none.
    """
    text = files.read_text(path)
    lines = text.splitlines()
    if text and not text.endswith("\n"):
        lines.pop()
    reader = csv.DictReader(lines)
    if not {"genome", "AP", "seconds", *space.labels} <= set(reader.fieldnames or ()):
        raise InputError(f"is not a table of space '{space.name}'", path, "choose another --out")
    judged: dict[Genome, Outcome] = {}
    for line, row in enumerate(reader, start=2):
        try:
            genome = tuple(int(gene) for gene in row["genome"].split("-"))
            values = [int(row[label]) for label in space.labels]
            outcome = float(row["AP"]), float(row["seconds"])
        except (TypeError, ValueError):
            raise InputError("is not a row of a table", f"{path}:{line}", "remove that line") from None
        if not _fits(space, genome, values):
            raise InputError(f"is not of space '{space.name}'", f"{path}:{line}", "choose another --out")
        judged[genome] = outcome
    return judged


def _fits(space: SearchSpace, genome: Genome, values: Sequence[int]) -> bool:
    if len(genome) != len(space.choices):
        return False
    if not all(0 <= gene < len(choices) for gene, choices in zip(genome, space.choices, strict=True)):
        return False
    return space.canonical(genome) == genome and _values(space, genome) == list(values)


def _values(space: SearchSpace, genome: Genome) -> list[int]:
    return [choices[gene] for gene, choices in zip(genome, space.choices, strict=True)]


def _costs(space: SearchSpace, joints: int) -> Costs:
    genomes = list(every_genome(space))
    counts = population_costs(space, joints, np.array(genomes))
    rows = np.stack([counts[name] for name in QUANTITIES], axis=1).tolist()
    return dict(zip(genomes, rows, strict=True))


def _row(space: SearchSpace, costs: Costs, genome: Genome, outcome: Outcome) -> list[Any]:
    return [genome_text(genome), *_values(space, genome), *costs[genome], outcome[0], round(outcome[1], 4)]


def _rewrite(path: Path, space: SearchSpace, costs: Costs, judged: Mapping[Genome, Outcome]) -> None:
    """The whole table at once, in the order of the genomes."""
    header = ["genome", *space.labels, *QUANTITIES, "AP", "seconds"]
    rows = (_line(_row(space, costs, genome, judged[genome])) for genome in sorted(judged))
    files.write_text(path, "".join((_line(header), *rows)))


def _line(row: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
