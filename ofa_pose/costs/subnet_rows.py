"""Tables of subnets, CSV files: each has a row with its genome, its choices, its costs and what was measured on it."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import QUANTITIES, population_costs, spec_macs, spec_params
from ofa_pose.utils import atomic, files
from ofa_pose.utils.errors import InputError

Cells = Mapping[str, Any]  # of one row, by column; a cell that is missing stays empty


class SubnetTable:
    """A table that is written whole, or row by row as its figures come.

    Columns: those of `leading`, genome (choice indices joined by '-'), every gene's value under its label, macs_thop,
    macs_exact, macs_paper, params, latency_ms (where it is predicted), those of `measured`.
    """

    def __init__(
        self,
        path: Path,
        space: SearchSpace,
        joints: int,
        measured: Sequence[str],
        leading: Sequence[str] = (),
        predict_ms: Callable[[ArchSpec], float] | None = None,
    ) -> None:
        self.path, self._space, self._joints, self._predict_ms = path, space, joints, predict_ms
        self._leading, self._measured = leading, measured

    def write(self, rows: Mapping[Genome, Cells]) -> None:
        """Write the file at once, its rows in the order given."""
        latency = [] if self._predict_ms is None else ["latency_ms"]
        header = [*self._leading, "genome", *self._space.labels, *QUANTITIES, *latency, *self._measured]
        genomes = np.array(list(rows), np.int64).reshape(-1, len(self._space.choices))
        costs = population_costs(self._space, self._joints, genomes)
        counts = zip(*(costs[name].tolist() for name in QUANTITIES), strict=True)
        lines = (self._line(genome, count, rows[genome]) for genome, count in zip(rows, counts, strict=True))
        files.write_text(self.path, ",".join(header) + "\n" + "".join(lines))

    def append(self, genome: Genome, cells: Cells) -> None:
        """Add a row to the file."""
        with atomic.naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            spec = self._space.decode(genome, self._joints)  # whose costs are known, where a search asked for them
            file.write(self._line(genome, [*spec_macs(spec).to_dict().values(), spec_params(spec)], cells))

    def _line(self, genome: Genome, counts: Sequence[int], cells: Cells) -> str:
        latency = [] if self._predict_ms is None else [self._predict_ms(self._space.decode(genome, self._joints))]
        leading, measured = ([cells.get(name, "") for name in names] for names in (self._leading, self._measured))
        text = io.StringIO()
        row = [*leading, genome_text(genome), *self._space.values(genome), *counts, *latency, *measured]
        csv.writer(text, lineterminator="\n").writerow(row)
        return text.getvalue()


def read_subnets(
    path: Path,
    columns: Sequence[str],
    space: SearchSpace | None = None,
    empty: Collection[str] = (),
    extra: Sequence[str] = (),
    what: str = "a table of subnets",
    hint: str = "choose another --out",
) -> dict[Genome, dict[str, Any]]:
    """The cells of every subnet in a table; a last line that was being written when its writer was killed is left out.

    Args:
        columns: those to read: numbers from 0, APs (AP, AP_…) up to 1.
        space: whose subnets they have to be; the values of its genes are read too.
        empty: columns whose cells may be empty, which gives None.
        extra: columns to read as well where the file has them.
        what, hint: what the file should be, and what to do where it is not that; for messages.

    Raises:
        InputError: the file is missing, has other columns, holds a row that is damaged or of another space, or gives
            a subnet other figures than a row above.
    """
    labels = space.labels if space is not None else ()
    names, rows = files.read_csv(path)
    if not {"genome", *labels, *columns} <= set(names):
        raise InputError(f"is not {what}", path, hint)
    every = [*columns, *(name for name in extra if name in names)]
    found: dict[Genome, dict[str, Any]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            genome = read_genome(row["genome"])
            cells = {name: float(row[name]) if row[name] or name not in empty else None for name in every}
            values = [int(row[label]) for label in labels]
        except (AttributeError, TypeError, ValueError):
            raise InputError(f"is not a row of {what}", f"{path}:{line}", "remove that line") from None
        for name, cell in cells.items():
            most = 1 if name.startswith("AP") else sys.float_info.max
            if cell is not None and not 0 <= cell <= most:  # NaN neither
                fault = f"{name} is {cell:g}, which {what} does not hold"
                raise InputError(fault, f"{path}:{line}", "remove that line")
        if space is not None and not _fits(space, genome, values):
            raise InputError(f"is not of space '{space.name}'", f"{path}:{line}", hint)
        before = found.get(genome, cells)
        if any(before[name] != cells[name] for name in columns):
            fault = f"subnet {genome_text(genome)} has other figures there than above"
            raise InputError(fault, f"{path}:{line}", "remove one of the two lines")
        found[genome] = {**dict(zip(labels, values, strict=True)), **cells}
    return found


def genome_text(genome: Genome) -> str:
    """A genome as tables and archives hold it: '0-1-2'."""
    return "-".join(map(str, genome))


def read_genome(text: str) -> Genome:
    """The genome of a `genome_text`."""
    return tuple(map(int, text.split("-")))


def _fits(space: SearchSpace, genome: Genome, values: Sequence[int]) -> bool:
    known = [gene in range(len(choices)) for gene, choices in zip(genome, space.choices, strict=False)]
    if len(genome) != len(space.choices) or not all(known):
        return False
    return space.canonical(genome) == genome and space.values(genome) == list(values)
