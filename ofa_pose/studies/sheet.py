"""The sheet of a study: a table of subnets and what was measured on each, kept on disk as it grows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.searches.archive import genome_text
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError


class Sheet:
    """A CSV with a row for each subnet: genes, costs, then what was measured; whole on disk after each figure."""

    def __init__(self, path: Path, part: FeasibleSpace, genomes: Sequence[Genome], columns: Sequence[str]) -> None:
        self._path, self._part, self._columns = path, part, list(columns)
        self.values: dict[Genome, dict[str, float]] = {genome: {} for genome in genomes}

    def read(self) -> None:
        """Take over what the file holds. Raises InputError where it is of other subnets or damaged."""
        reader = csv.DictReader(io.StringIO(files.read_text(self._path)))
        if not {"genome", *self._columns} <= set(reader.fieldnames or ()):
            raise InputError("is not a sheet of this study", self._path, "choose another --out")
        for line, row in enumerate(reader, start=2):
            try:
                genome = tuple(int(gene) for gene in row["genome"].split("-"))
                found = self.values[genome]
                found.update({name: float(row[name]) for name in self._columns if row[name]})
            except (KeyError, TypeError, ValueError):
                raise InputError("is not a row of this study", f"{self._path}:{line}", "choose another --out") from None

    def put(self, genome: Genome, **figures: float) -> None:
        """Take in figures of a subnet and write the file."""
        self.values[genome].update(figures)
        self.write()

    def column(self, name: str) -> list[float]:
        """A figure of every subnet, in the order of the genomes."""
        return [values[name] for values in self.values.values()]

    def write(self) -> None:
        """Write the file at once."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        space = self._part.space
        costs = ["macs_thop", "macs_exact", "macs_paper", "params"]
        writer.writerow(["genome", *space.labels, *costs, *self._columns])
        for genome, values in self.values.items():
            spec = self._part.decode(genome)
            genes = [choices[gene] for gene, choices in zip(genome, space.choices, strict=True)]
            counted = [*spec_macs(spec).to_dict().values(), spec_params(spec)]
            figures = [values.get(name, "") for name in self._columns]
            writer.writerow([genome_text(genome), *genes, *counted, *figures])
        files.write_text(self._path, text.getvalue())
