"""A made-up table: APs of every subnet of the kept table's space, so that algorithms can be tried on many tables."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace, load_space
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.searches.candidates import Evaluate, FitnessOutcome

JOINTS = 17
FOLDER = Path(__file__).with_name("table")


@dataclass(frozen=True)
class EvaluatedSpace:
    """Every subnet of a space, evaluated.

    Attributes:
        genomes: all of them.
        costs: their MACs (thop), (N,).
        aps: their APs, (N,).
    """

    space: SearchSpace
    genomes: tuple[Genome, ...]
    costs: np.ndarray
    aps: np.ndarray

    @property
    def evaluate(self) -> Evaluate:
        """Looks APs up."""
        return evaluate_with(dict(zip(self.genomes, self.aps.tolist(), strict=True)).__getitem__)

    def feasible(self, share: float) -> FeasibleSpace:
        """What costs at most this share of the way from the cheapest to the dearest subnet."""
        limit = round(float(self.costs.min() + share * np.ptp(self.costs)))
        return FeasibleSpace(self.space, JOINTS, Budget(macs=limit))


@cache
def table_space() -> tuple[SearchSpace, tuple[Genome, ...], np.ndarray]:
    """The kept table's space, all its genomes, and their MACs."""
    space = load_space(FOLDER / "space.yaml")
    genomes = tuple(itertools.product(*(range(len(choices)) for choices in space.choices)))
    count = Budget(macs=1).macs_of
    return space, genomes, np.array([count(space.decode(genome, JOINTS)) for genome in genomes])


def draw_space(seed: int, noise: float = 0.005) -> EvaluatedSpace:
    """APs from .05 to .45: each gene has a weight and diminishing returns, some a best choice short of the largest;
    genes help or hinder each other; the whole saturates; every subnet has a fixed error of its own."""
    space, genomes, costs = table_space()
    rng = np.random.default_rng(seed)
    tops = np.array([max(len(choices) - 1, 1) for choices in space.choices])
    elastic = np.array([len(choices) > 1 for choices in space.choices])
    share = np.array(genomes) / tops
    weights = np.where(elastic, rng.gamma(1.5, 0.5, len(tops)), 0)
    weights[0] += 1.5  # the resolution counts most
    power = rng.uniform(0.4, 1.2, len(tops))
    past = rng.uniform(0, 0.8, len(tops)) * (rng.random(len(tops)) < 0.3)  # what the largest choice loses again
    alone = (share**power - past * share**2) @ weights
    together = rng.normal(0, 0.15, (len(tops), len(tops))) * np.outer(elastic, elastic)
    total = alone + np.einsum("ni,ij,nj->n", share, together, share)
    total = (total - total.min()) / np.ptp(total)
    aps = 0.05 + 0.4 * (1 - np.exp(-2.5 * total)) / (1 - np.exp(-2.5))
    return EvaluatedSpace(space, genomes, costs, aps + rng.normal(0, noise, len(aps)))


def evaluate_with(fitness: Callable[[Genome], float]) -> Evaluate:
    """Evaluates by a function, one genome after the other."""

    def evaluate(genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        for genome in genomes:
            yield fitness(genome), 0.0

    return evaluate


def load_table(folder: Path = FOLDER) -> EvaluatedSpace:
    """The kept table, measured from a trained supernet. Raises FileNotFoundError where there is none."""
    space = load_space(folder / "space.yaml")
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    genomes = tuple(tuple(map(int, row["genome"].split("-"))) for row in rows)
    costs, aps = (np.array([float(row[key]) for row in rows]) for key in ("macs_thop", "AP"))
    assert len(set(genomes)) == space.size, f"{folder} has {len(set(genomes))} of {space.size} subnets"
    return EvaluatedSpace(space, genomes, costs.astype(np.int64), aps)
