"""What a subnet may cost, and the part of a search space that stays inside.

Everything here works on layer plans, so that a budget no subnet meets is refused before anything heavy is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import Convention, spec_macs, spec_params
from ofa_pose.errors import Fault, InputError
from ofa_pose.units import format_count


@dataclass(frozen=True)
class Ceiling:
    """One limit of a budget: `cost(spec)` must not exceed `limit`.

    Attributes:
        quantity: what is limited, as in 'needs 1.22G MACs (thop)'.
        option: the command-line option that sets it.
        show: a cost as text; its unit included where the option's value has one.
    """

    quantity: str
    option: str
    limit: float
    cost: Callable[[ArchSpec], float]
    show: Callable[[float], str]


@dataclass(frozen=True)
class Budget:
    """Ceilings that a subnet must keep, all of them; at least one is set.

    Attributes:
        macs: multiply-adds of one forward pass, counted by `convention`.
        params: trainable parameters.
        convention: how MACs are counted; LitePose's readers expect thop's.
        latency_ms: milliseconds of one forward pass, as `predict_ms` foretells them.
        predict_ms: the latency of a subnet on the device in question, in milliseconds. Given without `latency_ms`, it
            is recorded but limits nothing.
    """

    macs: int | None = None
    params: int | None = None
    convention: Convention = "thop"
    latency_ms: float | None = None
    predict_ms: Callable[[ArchSpec], float] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.macs is None and self.params is None and self.latency_ms is None:
            raise InputError("a search needs a budget", mend="add --macs 1.2G, --params 2M or --latency 30ms")
        if self.latency_ms is not None and self.predict_ms is None:
            raise ValueError("a latency ceiling needs predict_ms")

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The limits that are set."""
        found = []
        if self.macs is not None:
            found.append(Ceiling(f"MACs ({self.convention})", "--macs", self.macs, self.macs_of, format_count))
        if self.params is not None:
            found.append(Ceiling("parameters", "--params", self.params, spec_params, format_count))
        if self.latency_ms is not None and self.predict_ms is not None:
            found.append(Ceiling("of latency", "--latency", self.latency_ms, self.predict_ms, _show_ms))
        return tuple(found)

    def macs_of(self, spec: ArchSpec) -> int:
        """A subnet's multiply-adds in this budget's convention."""
        return int(getattr(spec_macs(spec), self.convention))

    def admits(self, spec: ArchSpec) -> bool:
        """Whether a subnet keeps every ceiling."""
        return all(ceiling.cost(spec) <= ceiling.limit for ceiling in self.ceilings)

    def to_dict(self) -> dict[str, float | None]:
        """The ceilings, for YAML and JSON; null where there is none."""
        return {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms}

    def __str__(self) -> str:
        return ", ".join(f"{c.show(c.limit)} {c.quantity}" for c in self.ceilings)


def check_feasible(space: SearchSpace, joints: int, budget: Budget) -> None:
    """Refuse a budget that no subnet keeps.

    The smallest subnet decides: no other has fewer MACs or parameters (a predicted latency may be noisier than that).

    Raises:
        InputError: one fault for each ceiling below the smallest subnet, with the least that would do.
    """
    smallest = space.smallest(joints)
    faults = []
    for ceiling in budget.ceilings:
        cost = ceiling.cost(smallest)
        if cost > ceiling.limit:
            what = f"the smallest subnet of {space.name} needs {ceiling.show(cost)} {ceiling.quantity}"
            faults.append(Fault(what, mend=f"raise {ceiling.option} to at least {ceiling.show(_rounded_up(cost))}"))
    if faults:
        raise InputError.of(faults)


def uniform_candidates(space: SearchSpace, joints: int, budget: Budget) -> list[ArchSpec]:
    """For every resolution the widest uniformly scaled net inside the budget, where there is one; ascending."""
    widest: dict[int, ArchSpec] = {}
    for spec in space.uniform(joints):
        best = widest.get(spec.resolution)
        if budget.admits(spec) and (best is None or spec_params(spec) > spec_params(best)):
            widest[spec.resolution] = spec
    return [widest[resolution] for resolution in sorted(widest)]


class FeasibleSpace:
    """The subnets of a space inside a budget, and how to draw them without ever drawing in vain.

    A choice that no subnet inside the budget can have is removed at once (it costs too much even with the smallest
    choice everywhere else). What is still too large is repaired: random genes are lowered, a step at a time, until it
    fits; that ends, because the smallest subnet fits.

    Attributes:
        top: for every gene, the highest choice that is left.
    """

    def __init__(self, space: SearchSpace, joints: int, budget: Budget) -> None:
        """Raises InputError where no subnet keeps the budget."""
        check_feasible(space, joints, budget)
        self.space, self.joints, self.budget = space, joints, budget
        self.top = tuple(self._highest(gene) for gene in range(len(space.choices)))

    def decode(self, genome: Sequence[int]) -> ArchSpec:
        """The subnet of a genome."""
        return self.space.decode(genome, self.joints)

    def admits(self, genome: Sequence[int]) -> bool:
        """Whether a genome's subnet is inside the budget."""
        return self.budget.admits(self.decode(genome))

    def macs(self, genome: Sequence[int]) -> int:
        """Multiply-adds of a genome's subnet in the budget's convention."""
        return self.budget.macs_of(self.decode(genome))

    def sample(self, rng: np.random.Generator) -> Genome:
        """A random genome inside the budget: uniform over the choices left, then repaired."""
        return self.repair([int(rng.integers(top + 1)) for top in self.top], rng)

    def repair(self, genome: Sequence[int], rng: np.random.Generator) -> Genome:
        """`genome` with random genes lowered until it is inside the budget; unchanged where it is already."""
        genes = list(self.space.canonical([min(gene, top) for gene, top in zip(genome, self.top, strict=True)]))
        while over := self._over(genes):
            lowerable = [index for index, gene in enumerate(genes) if gene]
            order = rng.permutation(lowerable)
            # A gene that eases no exceeded ceiling (the resolution, for parameters) is given up only as a last resort.
            chosen = next((index for index in order if self._eases(genes, int(index), over)), order[0])
            genes[int(chosen)] -= 1
            genes = list(self.space.canonical(genes))
        return tuple(genes)

    def _highest(self, gene: int) -> int:
        genes = [0] * len(self.space.choices)
        for choice in reversed(range(len(self.space.choices[gene]))):
            genes[gene] = choice
            if self.admits(genes):
                return choice
        raise AssertionError("the smallest subnet was checked")

    def _over(self, genes: Sequence[int]) -> list[tuple[Ceiling, float]]:
        spec = self.decode(genes)
        costs = ((ceiling, ceiling.cost(spec)) for ceiling in self.budget.ceilings)
        return [(ceiling, cost) for ceiling, cost in costs if cost > ceiling.limit]

    def _eases(self, genes: Sequence[int], index: int, over: Sequence[tuple[Ceiling, float]]) -> bool:
        lower = self.decode([gene - (place == index) for place, gene in enumerate(genes)])
        return any(ceiling.cost(lower) < cost for ceiling, cost in over)


def _rounded_up(value: float) -> float:
    """The next number with three significant digits that is at least `value`."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    rounded = math.ceil(value / step) * step
    return rounded if rounded >= value else rounded + step


def _show_ms(value: float) -> str:
    return f"{value:.0f}ms" if value >= 100 else f"{value:.3g}ms"
