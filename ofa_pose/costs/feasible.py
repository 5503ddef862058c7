"""The part of a search space inside a budget: how large it is, and how to draw from it without ever drawing in vain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible_start import find_feasible_start
from ofa_pose.costs.limits import LATENCY, Budget, Limit, uniform_candidates
from ofa_pose.costs.population import Genomes, Grid, canonical_rows, population_costs
from ofa_pose.costs.repair import cheapest_rows, repair_rows, single_choices
from ofa_pose.costs.sampling import Proposals, find_proposals
from ofa_pose.utils.seeding import generator

__all__ = [
    "Budget",
    "Estimate",
    "FeasibleSpace",
    "Limit",
    "Member",
    "describe_feasible",
    "find_feasible_start",
    "uniform_candidates",
]

LISTED = 4_000_000  # grids up to this size are listed: a fraction of a second and some 100 MB
PREDICTED_WHOLE = 500_000  # the same where latencies of many subnets are predicted: a second
PREDICTED = 20_000  # the same where the latency of one subnet at a time can be predicted
CHUNK = 1 << 14
COUNTED = 1 << 15  # proposals that an estimated count rests on
BATCH, LARGEST_BATCH = 64, 4096  # proposals at once
FRUITLESS = 30  # batches without a new subnet after which no more are sought
CLIMBERS = 8


Listed = tuple[Grid, NDArray[np.int64], NDArray[np.float64]]  # numbers of a grid's subnets, and their latencies


@dataclass(frozen=True)
class Estimate:
    """How many subnets there are.

    Attributes:
        number: as counted, or as estimated.
        exact: whether it was counted.
        error: the standard error of an estimate, infinite where the number is only known to be no less; 0 where it was
            counted.
    """

    number: float
    exact: bool
    error: float = 0.0


@dataclass(frozen=True)
class Member:
    """A subnet with what it costs, under the keys of `FeasibleSpace.costs`."""

    genome: Genome
    spec: ArchSpec
    costs: dict[str, float]


class FeasibleSpace:
    """The subnets of a space inside a budget, and how to draw them.

    A choice that no subnet inside the budget can have is removed at once (it costs too much even with the smallest
    choice everywhere else). If few combinations are left, they are listed: counts are exact, draws exactly uniform. If
    not, but at least some 5 % of uniform draws are inside, others are drawn again, which too is uniform. In a rarer
    part, proposals are tilted towards cheap choices, and those that the tilt favours are thinned out again: the
    probability of a subnet is then proportional to min(1, its probability of being proposed / a constant), so that
    most have the same and none has 0. Only where no tilt leads inside, as with a latency that does not grow with the
    net, are proposals repaired.

    A predicted latency may fall where a subnet grows (runtimes pad channels to blocks): how low it can be with some
    choice is sought step by step. Without `Budget.predict_many` it is taken to be lowest for the smallest subnet, and
    fewer trials are made, because each takes a call.
    """

    def __init__(self, space: SearchSpace, joints: int, budget: Budget) -> None:
        """Raises InputError where no subnet keeps the budget."""
        self._feasible_start = find_feasible_start(space, joints, budget)
        self.space, self.joints, self.budget = space, joints, budget
        self._dear = budget.latency_ms is not None and budget.predict_many is None

    def decode(self, genome: Sequence[int]) -> ArchSpec:
        """The subnet of a genome."""
        return self.space.decode(genome, self.joints)

    def admits(self, genome: Sequence[int]) -> bool:
        """Whether a genome's subnet is inside the budget."""
        return self.budget.admits(self.decode(genome))

    def macs(self, genome: Sequence[int]) -> int:
        """Multiply-adds of a genome's subnet in the budget's convention."""
        return self.budget.macs_of(self.decode(genome))

    def costs(self, genomes: Genomes) -> dict[str, NDArray[np.float64]]:
        """Of (N, G) genomes macs_thop, macs_exact, macs_paper, params and, with `predict_ms`, latency_ms; each (N,)."""
        return self.budget.costs(self.space, self.joints, genomes)

    def admitted(self, genomes: Genomes) -> NDArray[np.bool_]:
        """(N,): which of (N, G) genomes are inside the budget."""
        return np.asarray(self._excess(genomes).max(axis=1) <= 0)

    def sample(self, rng: np.random.Generator) -> Genome:
        """A random canonical genome inside the budget; see the class for its distribution."""
        batch = 1 if self._listed is not None or self._proposals.hopeless else BATCH
        while True:
            drawn = self._draw(batch, rng)
            if len(drawn):
                return tuple(drawn[0].tolist())

    def sample_many(self, count: int, rng: np.random.Generator) -> list[Genome]:
        """Up to `count` distinct genomes inside the budget, in random order; fewer only where no more are found."""
        if self._listed is not None:
            grid, numbers, _ = self._listed
            chosen = rng.choice(numbers, min(count, len(numbers)), replace=False)
            return [tuple(row) for row in grid.genomes(chosen).tolist()]
        found: dict[Genome, None] = {}
        fruitless, batch = 0, BATCH
        while len(found) < count and fruitless < FRUITLESS:
            before = len(found)
            found.update(dict.fromkeys(tuple(row) for row in self._draw(batch, rng).tolist()))
            fruitless = fruitless + 1 if len(found) == before else 0
            batch = min(2 * batch, BATCH if self._dear else LARGEST_BATCH)
        return list(found)[:count]

    def repair(self, genome: Sequence[int], rng: np.random.Generator) -> Genome:
        """`genome` with random genes lowered (see `repair_rows`) until it is inside; unchanged where it is already."""
        return tuple(self.repair_many(np.array([genome]), rng)[0].tolist())

    def repair_many(self, genomes: Genomes, rng: np.random.Generator) -> NDArray[np.int64]:
        """`repair` of every row of (N, G) genomes."""
        rows = canonical_rows(self.space, genomes)
        over = ~self.admitted(rows)
        if not over.any():
            return rows
        # Choices that no subnet inside can have need no steps.
        clipped = canonical_rows(self.space, np.minimum(rows[over], self.top))
        rows[over] = repair_rows(self.space, self._excess, clipped, self._feasible_start, rng)
        return rows

    def count(self) -> Estimate:
        """How many subnets are inside.

        Counted where they can be listed; else estimated by importance sampling: the mean over proposals of 1 / their
        probability, or 0 where they are outside. The proposals are tilted, so that rare parts are seen too.
        """
        if self._listed is not None:
            return Estimate(len(self._listed[1]), exact=True)
        source, rng = self._proposals.source, generator("count", self.space.name)
        number = LARGEST_BATCH // 8 if self._dear else COUNTED
        genomes = canonical_rows(self.space, source.draw(number, rng))
        inside = np.concatenate([self.admitted(genomes[i : i + CHUNK]) for i in range(0, number, CHUNK)])
        weights = np.where(inside, np.exp(-source.log_probability(genomes)), 0.0)
        # One subnet is known to be inside.
        error = float(weights.std() / math.sqrt(number)) if inside.any() else math.inf
        return Estimate(max(float(weights.mean()), 1.0), False, error)

    @cached_property
    def cheapest(self) -> Member:
        """The subnet inside that costs least, by the first limit, where all are listed; else one known."""
        return self._member(self._feasible_start if self._listed is None else self._extreme(self._listed, np.argmin))

    @cached_property
    def largest(self) -> Member:
        """The subnet inside that costs most, by the first limit: exactly where they can be listed, else as far as
        raising single genes of random subnets leads."""
        return self._member(self._climb() if self._listed is None else self._extreme(self._listed, np.argmax))

    def _member(self, genome: Genome) -> Member:
        costs = {key: float(values[0]) for key, values in self.costs(np.array([genome])).items()}
        return Member(genome, self.decode(genome), costs)

    def _excess(self, genomes: Genomes) -> NDArray[np.float64]:
        return self.budget.excess(self.space, self.joints, genomes)

    @cached_property
    def top(self) -> tuple[int, ...]:
        """For every gene, the highest choice that is left."""
        if self._whole is not None:
            grid, numbers, _ = self._whole
            return tuple(grid.genomes(numbers).max(axis=0).tolist())
        genomes, genes = single_choices(self.space)
        choices = genomes.max(axis=1)
        if self.budget.latency_ms is not None and not self._dear:
            near = np.tile(np.array(self._feasible_start), (len(genes), 1))
            near[np.arange(len(genes)), genes] = choices
            genomes, genes, choices = np.concatenate([genomes, near]), np.tile(genes, 2), np.tile(choices, 2)
            genomes = cheapest_rows(self.space, self._excess, genomes, genes)
        top = np.array(self._feasible_start)
        inside = self.admitted(genomes)
        np.maximum.at(top, genes[inside], choices[inside])
        return tuple(top.tolist())

    def _extreme(self, listed: Listed, choose: Callable[[Any], np.intp]) -> Genome:
        """The genome of the listed subnet whose cost, by the first limit, is chosen."""
        grid, numbers, latencies = listed
        first = self.budget.limits[0].key
        costs = latencies if first == LATENCY else grid.costs(first)[numbers]
        return tuple(grid.genomes(numbers[[int(choose(costs))]])[0].tolist())

    @cached_property
    def _whole(self) -> Listed | None:
        """All that is inside, where a latency is limited and the whole space can be predicted; see `_list`."""
        if self.budget.latency_ms is None or self._dear:
            return None
        return self._list([len(choices) - 1 for choices in self.space.choices])

    @cached_property
    def _listed(self) -> Listed | None:
        """All that is inside."""
        return self._list(self.top) if self._whole is None else self._whole

    def _list(self, top: Sequence[int]) -> Listed | None:
        """All inside up to `top`, as numbers of a grid, with their latencies if these are limited; None: too many."""
        few = LISTED if self.budget.latency_ms is None or self._dear else PREDICTED_WHOLE
        if math.prod(highest + 1 for highest in top) > few:
            return None
        grid = Grid(self.space, self.joints, top)
        inside = grid.canonical().copy()
        for limit in self.budget.limits:
            if limit.key != LATENCY:
                inside &= grid.costs(limit.key) <= limit.maximum
        numbers = np.flatnonzero(inside)
        if self.budget.latency_ms is None:
            return grid, numbers, np.zeros(0)
        if self._dear and len(numbers) > PREDICTED:
            return None
        chunks = [grid.genomes(numbers[start : start + CHUNK]) for start in range(0, len(numbers), CHUNK)]
        latencies = np.concatenate([self.budget.latencies(self.space, self.joints, chunk) for chunk in chunks])
        kept = latencies <= self.budget.latency_ms
        return grid, numbers[kept], latencies[kept]

    @cached_property
    def _proposals(self) -> Proposals:
        trials, bases = (256, 2) if self._dear else (2048, 8)
        rng = generator("proposals", self.space.name)  # of its own: what is drawn depends on the caller's alone
        return find_proposals(self.space, self.top, lambda rows: self._excess(rows).max(axis=1), rng, trials, bases)

    def _draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(up to count, G): genomes inside, drawn on their own."""
        if self._listed is not None:
            grid, numbers, _ = self._listed
            return grid.genomes(numbers[rng.integers(len(numbers), size=count)])
        genomes = canonical_rows(self.space, self._proposals.source.draw(count, rng))
        if self._proposals.hopeless:
            return self.repair_many(genomes[:BATCH], rng)
        genomes = genomes[self.admitted(genomes)]
        return genomes[self._proposals.kept(genomes, rng)]

    def _cost(self, key: str, genomes: Genomes) -> NDArray[np.float64]:
        if key == LATENCY:
            return self.budget.latencies(self.space, self.joints, genomes)
        return population_costs(self.space, self.joints, genomes)[key].astype(np.float64)

    def _climb(self) -> Genome:
        """A subnet inside of which no single gene can be raised by a step to where it costs more."""
        key = self.budget.limits[0].key
        number = 1 if self._dear else CLIMBERS
        rows = np.array(self.sample_many(4 * number, generator("largest", self.space.name)))
        rows = rows[np.argsort(-self._cost(key, rows), kind="stable")[:number]]
        best, genes = self._cost(key, rows), len(self.top)
        while True:
            steps = np.minimum(rows[:, None] + np.eye(genes, dtype=np.int64), self.top)
            raised = canonical_rows(self.space, steps.reshape(-1, genes))
            costs = np.where(self.admitted(raised), self._cost(key, raised), 0.0).reshape(-1, genes)
            better = costs.max(axis=1) > best
            if not better.any():
                return tuple(rows[int(np.argmax(best))].tolist())
            chosen = raised.reshape(-1, genes, genes)[np.arange(len(rows)), costs.argmax(axis=1)]
            rows, best = np.where(better[:, None], chosen, rows), np.where(better, costs.max(axis=1), best)


def describe_feasible(part: FeasibleSpace) -> str:
    """What to say before a search starts: how many subnets are inside, and from which cost to which.

    Such as '5,389 of 245,760 subnets keep 1.2G MACs (thop): 429M to 1.2G'; an estimate with 'about'.
    """
    count, first = part.count(), part.budget.limits[0]
    prefix = "" if count.exact else "at least " if math.isinf(count.error) else "about "
    number = count.number if count.exact else float(f"{count.number:.2g}")
    low, high = (first.show(member.costs[first.key]) for member in (part.cheapest, part.largest))
    spread = f"{low} to {high}" if low != high else low
    subnets = f"{prefix}{_shown(number)} of {_shown(part.space.size)} subnets"
    which = f" {first.quantity}" if len(part.budget.limits) > 1 else ""
    return f"{subnets} keep{'s' if number == 1 else ''} {part.budget}: {spread}{which}"


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number < 1e7 else f"{number:.1e}".replace("e+", "e")
