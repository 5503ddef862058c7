"""The sheet of a study: a table of subnets and what was measured on each, kept on disk as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.subnet_rows import SubnetTable, read_subnets
from ofa_pose.utils.errors import InputError


class Sheet:
    """A row for each subnet: genes, costs, then what was measured; whole on disk after each figure."""

    def __init__(self, path: Path, part: FeasibleSpace, genomes: Sequence[Genome], columns: Sequence[str]) -> None:
        self._table = SubnetTable(path, part.space, part.joints, columns)
        self._space, self._columns = part.space, columns
        self.values: dict[Genome, dict[str, float]] = {genome: {} for genome in genomes}

    def read(self) -> None:
        """Take over what the file holds. Raises InputError where it is of other subnets or damaged."""
        path, what = self._table.path, "a table of this study"
        found = read_subnets(path, self._columns, self._space, empty=self._columns, what=what)
        for genome, cells in found.items():
            if genome not in self.values:
                raise InputError("holds subnets of another study", path, "choose another --out")
            self.values[genome] |= {name: cells[name] for name in self._columns if cells[name] is not None}

    def put(self, genome: Genome, **figures: float) -> None:
        """Take in figures of a subnet and write the file."""
        self.values[genome].update(figures)
        self.write()

    def column(self, name: str) -> list[float]:
        """A figure of every subnet, in the order of the genomes."""
        return [values[name] for values in self.values.values()]

    def write(self) -> None:
        """Write the file at once."""
        self._table.write(self.values)
