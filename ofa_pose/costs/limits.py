"""What a subnet may cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import CONVENTIONS, Convention, Genomes, population_costs, spec_macs, spec_params
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.numbers import format_count, parse_count

LATENCY = "latency_ms"
FEWEST = 1000  # multiply-adds, or parameters: any network has more
PredictMany = Callable[[SearchSpace, int, Genomes], NDArray[np.floating]]


@dataclass(frozen=True)
class Limit:
    """One limit of a budget: `cost(spec)` must not exceed `maximum`.

    Attributes:
        key: what is limited, as the key of `Budget.costs`.
        quantity: the same in words, as in 'needs 1.22G MACs (thop)'.
        option: the command-line option that sets it.
        show: a cost as text; its unit included where the option's value has one.
    """

    key: str
    quantity: str
    option: str
    maximum: float
    cost: Callable[[ArchSpec], float]
    show: Callable[[float], str]

    def enough(self, cost: float) -> str:
        """A limit with three significant digits that `cost` keeps, as the option's value."""
        step = 10.0 ** (math.floor(math.log10(cost)) - 2)
        rounded = math.ceil(cost / step) * step
        return self.show(rounded if rounded >= cost else rounded + step)


@dataclass(frozen=True)
class Budget:
    """Limits that a subnet must keep, all of them; at least one is set.

    Attributes:
        macs: multiply-adds of one forward pass, counted by `convention`.
        params: trainable parameters.
        convention: how MACs are counted; LitePose's readers expect thop's.
        latency_ms: milliseconds of one forward pass, as `predict_ms` predicts them.
        predict_ms: a subnet's milliseconds on the device in question; without `latency_ms` it is recorded only.
        predict_many: optionally the same for many subnets at once: given the space, the number of joints and (N, G)
            genomes, the milliseconds (N,), equal to `predict_ms` of each. Without it `predict_ms` is called for each.
        latency_table: what `predict_ms` rests on, the SHA-256 of a table's file; another admits other subnets.
    """

    macs: int | None = None
    params: int | None = None
    convention: Convention = "thop"
    latency_ms: float | None = None
    predict_ms: Callable[[ArchSpec], float] | None = field(default=None, compare=False, repr=False)
    predict_many: PredictMany | None = field(default=None, compare=False, repr=False)
    latency_table: str | None = None

    def __post_init__(self) -> None:
        if self.macs is None and self.params is None and self.latency_ms is None:
            raise InputError("a search needs a budget", hint="add --macs 1.2G, --params 2M or --latency 30ms")
        if self.latency_ms is not None and self.predict_ms is None:
            raise ValueError("a latency limit needs predict_ms")
        if self.convention not in CONVENTIONS:
            hint = nearest(self.convention, CONVENTIONS)
            raise InputError(f"no such MAC convention: '{self.convention}'", hint=hint)

    @classmethod
    def parse(cls, macs: str | int | None, params: str | int | None, convention: str, **others: Any) -> Budget:
        """A budget from counts as people write them, '1.2G', and further fields. Raises InputError."""
        counts = {"--macs": macs, "--params": params}
        counted, sized = (None if count is None else _counted(option, count) for option, count in counts.items())
        return cls(counted, sized, cast(Convention, convention), **others)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits that are set."""
        rows: tuple[tuple[Any, ...], ...] = (
            (f"macs_{self.convention}", f"MACs ({self.convention})", "--macs", self.macs, self.macs_of, format_count),
            ("params", "parameters", "--params", self.params, spec_params, format_count),
            (LATENCY, "of latency", "--latency", self.latency_ms, self.predict_ms, show_ms),
        )
        return tuple(Limit(*row) for row in rows if row[3] is not None)

    @property
    def counted(self) -> tuple[Limit, ...]:
        """The limits that no subnet exceeds less than a smaller one: all but the latency."""
        return tuple(limit for limit in self.limits if limit.key != LATENCY)

    def macs_of(self, spec: ArchSpec) -> int:
        """A subnet's multiply-adds in this budget's convention."""
        return int(getattr(spec_macs(spec), self.convention))

    def admits(self, spec: ArchSpec) -> bool:
        """Whether a subnet keeps every limit."""
        return all(limit.cost(spec) <= limit.maximum for limit in self.limits)

    def costs(self, space: SearchSpace, joints: int, genomes: Genomes) -> dict[str, NDArray[np.float64]]:
        """What many subnets cost: of (N, G) genomes macs_thop, macs_exact, macs_paper, params and, where it can be
        predicted, latency_ms; each (N,)."""
        counts = population_costs(space, joints, genomes)
        found = {name: values.astype(np.float64) for name, values in counts.items()}
        return found if self.predict_ms is None else found | {LATENCY: self.latencies(space, joints, genomes)}

    def latencies(self, space: SearchSpace, joints: int, genomes: Genomes) -> NDArray[np.float64]:
        """(N,): milliseconds of the subnets of (N, G) genomes. Needs `predict_ms`."""
        if self.predict_many is not None:
            return np.asarray(self.predict_many(space, joints, genomes), np.float64)
        assert self.predict_ms is not None
        specs = (space.decode(genome, joints) for genome in np.asarray(genomes).tolist())
        return np.array([self.predict_ms(spec) for spec in specs], np.float64)

    def excess(self, space: SearchSpace, joints: int, genomes: Genomes) -> NDArray[np.float64]:
        """(N, limits): by which factor each limit is exceeded, as a logarithm; up to 0 is inside."""
        counts = population_costs(space, joints, genomes) if self.counted else {}
        columns = []
        for limit in self.limits:
            cost = self.latencies(space, joints, genomes) if limit.key == LATENCY else counts[limit.key]
            factor = np.log(cost / limit.maximum)
            # Rounding must not move what is close to the limit to its other side; one that is not a number is over.
            columns.append(np.where(cost <= limit.maximum, np.fmin(factor, 0.0), np.fmax(factor, 1e-15)))
        return np.stack(columns, axis=1)

    def to_dict(self) -> dict[str, float | str | None]:
        """The limits, for YAML and JSON; null where there is none; and the latency table, where there is one."""
        table = {"latency_table": self.latency_table} if self.latency_table else {}
        return {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms, **table}

    def __str__(self) -> str:
        return ", ".join(f"{c.show(c.maximum)} {c.quantity}" for c in self.limits)


def _counted(option: str, count: str | int) -> int:
    """A count of at least `FEWEST`, or one with a unit: '340' was most likely meant as '340M'."""
    found = parse_count(str(count))
    if isinstance(count, str) and found < FEWEST and not count.strip()[-1:].isalpha():
        raise InputError(f"{option} {count} is less than any network has", hint=f"add a unit, as in {count.strip()}M")
    return found


def uniform_candidates(space: SearchSpace, joints: int, budget: Budget) -> list[ArchSpec]:
    """For every resolution the widest uniformly scaled net inside the budget, where there is one; ascending."""
    widest: dict[int, ArchSpec] = {}
    for spec in space.uniform(joints):
        best = widest.get(spec.resolution)
        if budget.admits(spec) and (best is None or spec_params(spec) > spec_params(best)):
            widest[spec.resolution] = spec
    return [widest[resolution] for resolution in sorted(widest)]


def show_ms(value: float) -> str:
    """Milliseconds as an option's value: '12.3ms', '20s'."""
    if value >= 10_000:
        return f"{value / 1000:.0f}s"
    return f"{value:.0f}ms" if value >= 100 else f"{value:.3g}ms"
