"""The part of a search space inside a budget: whether there is one, how large it is, and how to draw from it."""

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
from ofa_pose.costs.limits import LATENCY, Budget, Limit
from ofa_pose.costs.macs import Genomes, Grid, canonical_rows, population_costs
from ofa_pose.utils.errors import Fault, InputError
from ofa_pose.utils.seeding import generator

LISTED = 4_000_000  # grids up to this size are listed: a fraction of a second and some 100 MB
PREDICTED = 500_000  # subnets whose latencies are predicted for that, many at once: a second
PREDICTED_SINGLY = 20_000  # the same, one after the other
CHUNK = 1 << 14
TRIALS, FEW_TRIALS = 1 << 15, 512  # proposals by which the share inside is estimated; where each prediction is a call
AFFORDABLE = 0.005  # share inside from which proposals outside are drawn again; below, to repair them takes less
SWEEPS = 3  # how often each gene is drawn anew, on average, after a repair
BATCH, REPAIRED_BATCH, LARGEST_BATCH = 64, 1024, 4096  # proposals at once
FRUITLESS = 30  # batches without a new subnet after which no more are sought
FILLED = 64  # subnets of which the largest found is taken for the largest of all

Listed = tuple[Grid, NDArray[np.int64], NDArray[np.float64]]  # numbers of a grid's subnets, and their latencies


class UniformDraws:
    """Draws canonical genomes up to given choices, each of all `size` with the same probability."""

    def __init__(self, space: SearchSpace, top: Sequence[int]) -> None:
        """`top`: for every gene the highest choice that is left."""
        self._space, self._top = space, np.array(top)
        most = max(len(choices) for choices in space.choices)
        weights = (np.arange(most) <= self._top[:, None]).astype(np.float64)
        counted = np.ones(len(top), bool)
        for place, gene in enumerate(space.genes):
            if gene.field == "depth":  # a deeper stage has more subnets
                for index, count in enumerate(gene.choices):
                    weights[place, index] *= math.prod(top[block] + 1 for block in space.block_genes(gene.stage, count))
                counted[space.block_genes(gene.stage, gene.choices[-1])] = False
        totals = weights.sum(axis=1)
        self.size = float(totals[counted].prod())
        self._cumulative = np.cumsum(weights / totals[:, None], axis=1)[:, :-1]

    def redraw(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """(N,): a new choice of each of (N,) genes."""
        return np.asarray((rng.random((len(genes), 1)) > self._cumulative[genes]).sum(axis=1))

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, G) genomes, each drawn on its own."""
        uniform = rng.random((count, len(self._top), 1))
        return canonical_rows(self._space, np.minimum((uniform > self._cumulative).sum(axis=2), self._top))


def find_feasible_start(space: SearchSpace, joints: int, budget: Budget) -> Genome:
    """The smallest subnet's genome, or where only others keep a latency (runtimes pad channels), the fastest found.

    No subnet has fewer MACs or parameters than the smallest. The fastest is sought from there, one gene after the
    other; without `Budget.predict_many` the smallest is taken to be the fastest.

    Raises:
        InputError: one fault for each limit that none keeps, with the least that would do.
    """
    smallest = space.smallest(joints)
    start = (0,) * len(space.choices)
    exceeded = [limit for limit in budget.limits if limit.cost(smallest) > limit.maximum]
    if not exceeded:
        return start
    faults = [_fault(space, "smallest", limit, limit.cost(smallest)) for limit in exceeded]
    slow = exceeded[-1]
    if slow.key != LATENCY or budget.predict_many is None:
        raise InputError.of(faults)
    fastest, least = _descend(space, lambda rows: budget.latencies(space, joints, rows), start)
    if least > slow.maximum:
        raise InputError.of([*faults[:-1], _fault(space, "fastest", slow, least)])
    if len(exceeded) > 1:
        raise InputError.of(faults[:-1])

    def excess(rows: Genomes) -> NDArray[np.float64]:
        return np.asarray(budget.excess(space, joints, rows).max(axis=1))

    for genome in (fastest, _descend(space, excess, start)[0]):
        if excess(np.array([genome])).item() <= 0:
            return genome
    hint = f"raise {' or '.join(limit.option for limit in budget.limits)}"
    raise InputError(f"no subnet of {space.name} is found that keeps {budget} at once", hint=hint)


def single_changes(space: SearchSpace, genome: Genome) -> NDArray[np.int64]:
    """(N, G): a genome with each choice of each gene; not canonical where the depth is elastic."""
    places = [(gene, choice) for gene, choices in enumerate(space.choices) for choice in range(len(choices))]
    genes, choices = np.array(places).T
    rows = np.tile(np.array(genome, np.int64), (len(places), 1))
    rows[np.arange(len(places)), genes] = choices
    return rows


def _descend(space: SearchSpace, cost: Callable[[Genomes], NDArray[np.float64]], start: Genome) -> tuple[Genome, float]:
    """Where single changes lead, each time the one that lowers a genome's cost most, and the cost there."""
    genome, lowest = start, math.inf
    while True:
        rows = canonical_rows(space, single_changes(space, genome))
        costs = cost(rows)
        best = int(costs.argmin())
        if costs[best] >= lowest:
            return genome, lowest
        genome, lowest = tuple(rows[best].tolist()), float(costs[best])


def _fault(space: SearchSpace, which: str, limit: Limit, cost: float) -> Fault:
    what = f"the {which} subnet of {space.name} needs {limit.show(cost)} {limit.quantity}"
    return Fault(what, hint=f"raise {limit.option} to at least {limit.enough(cost)}")


@dataclass(frozen=True)
class Estimate:
    """How many subnets there are: counted (`exact`), estimated, or at most, as no draw was inside (`bound`)."""

    number: float
    exact: bool
    bound: bool = False


class FeasibleSpace:
    """The subnets of a space inside a budget, and how to draw them.

    A choice with which even the smallest subnet has too many MACs or parameters is left out at once. If few
    combinations are left, they are listed: counts are exact, draws exactly uniform. If not, proposals are drawn
    uniformly; where enough of them are inside, others are drawn again, which is uniform too, and else they are repaired
    (see `repair_many`) and then mixed, which is nearly uniform.
    """

    def __init__(self, space: SearchSpace, joints: int, budget: Budget) -> None:
        """Raises InputError where no subnet keeps the budget."""
        self._start = find_feasible_start(space, joints, budget)
        self.space, self.joints, self.budget = space, joints, budget
        self._singly = budget.latency_ms is not None and budget.predict_many is None

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

    def draw(self, count: int, rng: np.random.Generator) -> list[Genome]:
        """So many random canonical genomes inside the budget, each on its own; see the class for their distribution."""
        found: list[Genome] = []
        while missing := max(count - len(found), 0):
            batch = missing if self._listed is not None else max(missing, BATCH)
            found += (tuple(row) for row in self._draw(batch, rng).tolist())
        return found[:count]

    def sample_many(self, count: int, rng: np.random.Generator) -> list[Genome]:
        """Up to `count` distinct genomes inside the budget, in random order; fewer only where no more are found."""
        if self._listed is not None:
            grid, numbers, _ = self._listed
            chosen = rng.choice(numbers, min(count, len(numbers)), replace=False)
            return [tuple(row) for row in grid.genomes(chosen).tolist()]
        found: dict[Genome, None] = {}
        fruitless, batch = 0, count if self._share < AFFORDABLE else BATCH
        while len(found) < count and fruitless < FRUITLESS:
            before = len(found)
            found.update(dict.fromkeys(tuple(row) for row in self._draw(batch, rng).tolist()))
            fruitless = fruitless + 1 if len(found) == before else 0
            batch = min(2 * batch, BATCH if self._singly else LARGEST_BATCH)
        return list(found)[:count]

    def repair_many(self, genomes: Genomes, rng: np.random.Generator) -> NDArray[np.int64]:
        """(N, G) genomes, with random genes moved towards a subnet inside until they are inside; those that are stay.

        Each next gene is uniformly one of those whose step towards that subnet, the smallest as a rule, eases an
        exceeded limit; a gene that eases none (the resolution, for parameters) is given up only as a last resort. All
        the ways are costed at once, so that a population takes a few evaluations, not one for every step.
        """
        rows = canonical_rows(self.space, genomes)
        over = self._excess(rows)
        if (outside := (over > 0).any(axis=1)).any():  # choices that no subnet inside can have need no steps
            rows[outside] = canonical_rows(self.space, np.minimum(rows[outside], self.top))
            over[outside] = self._excess(rows[outside])
        while (todo := np.flatnonzero((over > 0).any(axis=1))).size:
            eases = self._eases(rows[todo], over[todo])
            ways = [self._way_inside(rows[row], easing, rng) for row, easing in zip(todo, eases, strict=True)]
            ends = np.cumsum([len(way) for way in ways])
            along = np.split(self._excess(np.concatenate(ways)), ends[:-1])
            for row, way, costs in zip(todo, ways, along, strict=True):
                # Up to where another set of limits is exceeded: then other genes ease it.
                changed = ((costs > 0) != (over[row] > 0)).any(axis=1)
                last = int(np.argmax(changed)) if changed.any() else len(way) - 1
                rows[row], over[row] = way[last], costs[last]
        return rows

    def _eases(self, rows: NDArray[np.int64], over: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n, G): whether a gene's step towards the known subnet lowers an exceeded limit's cost."""
        steps = np.sign(np.array(self._start) - rows)
        row, gene = np.nonzero(steps)
        moved = rows[row]
        moved[np.arange(len(row)), gene] += steps[row, gene]
        less = (self._excess(canonical_rows(self.space, moved)) < over[row]) & (over[row] > 0)
        eases = np.zeros(rows.shape, bool)
        eases[row, gene] = less.any(axis=1)
        return eases

    def _way_inside(
        self, genome: NDArray[np.int64], eases: Sequence[bool], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """(steps, G): the genome after each of a random sequence of single steps that ends at the known subnet."""
        genes: list[int] = genome.tolist()
        way: list[list[int]] = []
        for last_resort in (False, True):
            while far := [
                gene for gene, goal in enumerate(self._start) if genes[gene] != goal and (eases[gene] or last_resort)
            ]:
                gene = far[int(rng.integers(len(far)))]
                genes[gene] += 1 if genes[gene] < self._start[gene] else -1
                genes = list(self.space.canonical(genes))
                if not way or genes != way[-1]:  # a gene of an absent block stays as it is
                    way.append(genes.copy())
        return np.array(way)

    def fill_many(self, genomes: Genomes, rng: np.random.Generator) -> NDArray[np.int64]:
        """(N, G) genomes inside the budget, with random genes raised a step at a time until nothing more fits.

        A gene whose next step did not fit is not tried again.
        """
        rows, top = np.array(genomes, np.int64), np.array(self.top)
        room = rows < top
        while len(rising := np.flatnonzero(room.any(axis=1))):
            gene = np.where(room[rising], rng.random((len(rising), len(top))), -1).argmax(axis=1)
            raised = rows[rising]
            raised[np.arange(len(rising)), gene] += 1
            raised = canonical_rows(self.space, raised)
            fits = self.admitted(raised) & (raised != rows[rising]).any(axis=1)
            rows[rising[fits]] = raised[fits]
            room[rising[~fits], gene[~fits]] = False
            room &= rows < top
        return rows

    def count(self) -> Estimate:
        """How many subnets are inside: counted where they can be listed, else estimated from proposals."""
        if self._listed is not None:
            return Estimate(len(self._listed[1]), exact=True)
        size = self._proposals.size
        if self._share:
            return Estimate(max(self._share * size, 1.0), exact=False)
        return Estimate(3 / self._trials * size, exact=False, bound=True)  # surely: at 95 %

    @cached_property
    def cheapest(self) -> Genome:
        """The subnet inside that costs least, by the first limit, where all are listed; else one known."""
        return self._start if self._listed is None else self._extreme(self._listed, np.argmin)

    @cached_property
    def largest(self) -> Genome:
        """The subnet inside that costs most, by the first limit: exactly where they can be listed, else the largest of
        some that were grown until nothing more fitted."""
        if self._listed is not None:
            return self._extreme(self._listed, np.argmax)
        rng = generator("largest", self.space.name)
        rows = self.fill_many(np.array(self.sample_many(FILLED, rng)), rng)
        costs = self.costs(rows)[self.budget.limits[0].key]
        return tuple(rows[int(costs.argmax())].tolist())

    @cached_property
    def top(self) -> tuple[int, ...]:
        """For every gene, the highest choice that is left."""
        if self._listed is None or self.budget.latency_ms is None:
            return self._counted_top
        grid, numbers, _ = self._listed
        return tuple(grid.genomes(numbers).max(axis=0).tolist())

    def _excess(self, genomes: Genomes) -> NDArray[np.float64]:
        return self.budget.excess(self.space, self.joints, genomes)

    def _extreme(self, listed: Listed, choose: Callable[[Any], np.intp]) -> Genome:
        """The genome of the listed subnet whose cost, by the first limit, is chosen."""
        grid, numbers, latencies = listed
        first = self.budget.limits[0].key
        costs = latencies if first == LATENCY else grid.costs(first)[numbers]
        return tuple(grid.genomes(numbers[[int(choose(costs))]])[0].tolist())

    @cached_property
    def _counted_top(self) -> tuple[int, ...]:
        """For every gene, the highest choice with which the smallest subnet has few enough MACs and parameters."""
        genomes = single_changes(self.space, (0,) * len(self.space.choices))
        costs = population_costs(self.space, self.joints, genomes)
        inside = np.ones(len(genomes), bool)
        for limit in self.budget.counted:
            inside &= costs[limit.key] <= limit.maximum
        return tuple(genomes[inside].max(axis=0).tolist())

    @cached_property
    def _listed(self) -> Listed | None:
        """All that is inside, as numbers of a grid, with their latencies if these are limited; None: too many."""
        top = self._counted_top
        if math.prod(highest + 1 for highest in top) > LISTED:
            return None
        grid = Grid(self.space, self.joints, top)
        inside = grid.canonical().copy()
        for limit in self.budget.counted:
            inside &= grid.costs(limit.key) <= limit.maximum
        numbers = np.flatnonzero(inside)
        if self.budget.latency_ms is None:
            return grid, numbers, np.zeros(0)
        if len(numbers) > (PREDICTED_SINGLY if self._singly else PREDICTED):
            return None
        chunks = [grid.genomes(numbers[start : start + CHUNK]) for start in range(0, len(numbers), CHUNK)]
        latencies = np.concatenate([self.budget.latencies(self.space, self.joints, chunk) for chunk in chunks])
        kept = latencies <= self.budget.latency_ms
        return grid, numbers[kept], latencies[kept]

    @cached_property
    def _proposals(self) -> UniformDraws:
        return UniformDraws(self.space, self._counted_top)

    @property
    def _trials(self) -> int:
        return FEW_TRIALS if self._singly else TRIALS

    @cached_property
    def _share(self) -> float:
        """Of proposals that are inside."""
        rng = generator("count", self.space.name)  # of its own: what is drawn depends on the caller's alone
        genomes = self._proposals.draw(self._trials, rng)
        chunks = (genomes[start : start + CHUNK] for start in range(0, len(genomes), CHUNK))
        return float(np.concatenate([self.admitted(chunk) for chunk in chunks]).mean())

    def _draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(up to count, G): genomes inside, drawn on their own."""
        if self._listed is not None:
            grid, numbers, _ = self._listed
            return grid.genomes(numbers[rng.integers(len(numbers), size=count)])
        if self._share < AFFORDABLE:
            return self._mixed(self.repair_many(self._proposals.draw(min(count, REPAIRED_BATCH), rng), rng), rng)
        genomes = self._proposals.draw(count, rng)
        return genomes[self.admitted(genomes)]

    def _mixed(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Genomes inside after their genes were drawn anew, one at a time, where that did not lead outside.

        A Gibbs sampler of the uniform distribution; repairs alone leave cheap genes too low.
        """
        elastic, each = np.flatnonzero(self._counted_top), np.arange(len(rows))
        for _ in range(SWEEPS * len(elastic)):
            genes = rng.choice(elastic, len(rows))
            moved = rows.copy()
            moved[each, genes] = self._proposals.redraw(genes, rng)
            inside = self.admitted(moved)
            rows[inside] = moved[inside]
        return canonical_rows(self.space, rows)


def describe_feasible(feasible: FeasibleSpace) -> str:
    """What to say before a search starts: how many subnets are inside, and from which cost to which.

    Such as '5,389 of 245,760 subnets keep 1.2G MACs (thop): 429M to 1.2G'; an estimate with 'about'.
    """
    count, first = feasible.count(), feasible.budget.limits[0]
    prefix = "" if count.exact else "at most about " if count.bound else "about "
    number = count.number if count.exact else float(f"{count.number:.2g}")
    low, high = (first.show(first.cost(feasible.decode(one))) for one in (feasible.cheapest, feasible.largest))
    spread = f"{low} to {high}" if low != high else low
    subnets = f"{prefix}{format_subnets(number)} of {format_subnets(feasible.space.size)} subnets"
    which = f" {first.quantity}" if len(feasible.budget.limits) > 1 else ""
    return f"{subnets} keep{'s' if number == 1 else ''} {feasible.budget}: {spread}{which}"


def format_subnets(number: float) -> str:
    """How many subnets, in whole numbers up to ten million."""
    return f"{number:,.0f}" if number < 1e7 else f"{number:.1e}".replace("e+", "e")
