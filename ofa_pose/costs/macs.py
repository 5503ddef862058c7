"""Multiply-adds and parameters of a plan, in the three conventions that people quote.

exact: multiply-adds of convolutions and transposed convolutions (a transposed one costs input pixels × weights).
thop:  what thop.profile counts: a transposed convolution per OUTPUT pixel (4 × too many at stride 2) + 4 per
       BatchNorm element. Budgets are in this convention by default: it is the one LitePose's readers expect.
paper: the LitePose paper's table: per output pixel + 2 per BatchNorm element + 1 per ReLU element.

Many subnets at once have no second formula: `build_plan`, `layer_macs` and `layer_params` are given arrays instead of
numbers. Arrays of one axis make a population; arrays that each have an axis of their own make the whole grid of a
space, on which a layer costs only as much work as there are values of the few genes it depends on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.plan import Layer, Plan, build_plan, make_plan
from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec

Convention = Literal["thop", "exact", "paper"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)
QUANTITIES = ("macs_thop", "macs_exact", "macs_paper", "params")

Genomes = NDArray[np.integer]  # (N, G), a row for each genome
Costs = dict[str, NDArray[np.int64]]
Present = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one forward pass at batch 1, in each convention."""

    thop: int
    exact: int
    paper: int

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.thop + other.thop, self.exact + other.exact, self.paper + other.paper)

    def to_dict(self) -> dict[str, int]:
        """{'thop': …, 'exact': …, 'paper': …}"""
        return asdict(self)


def layer_macs(layer: Layer) -> Macs:
    """Multiply-adds of one layer with its normalisation and activation."""
    elements = layer.cout * layer.side_out**2
    norm, act = elements * layer.norm, elements * (layer.act is not None)
    if layer.kind == "norm":
        return Macs(4 * norm, 0, 2 * norm + act)
    weights = layer.cout * (layer.cin // layer.groups) * layer.kernel**2
    by_output = weights * layer.side_out**2
    exact = weights * layer.side_in**2 if layer.kind == "deconv" else by_output
    return Macs(by_output + 4 * norm, exact, by_output + 2 * norm + act)


def layer_params(layer: Layer) -> int:
    """Trainable parameters of one layer: weights, and the BatchNorm's scale and shift."""
    weights = 0 if layer.kind == "norm" else layer.cout * (layer.cin // layer.groups) * layer.kernel**2
    return weights + 2 * layer.cout * layer.norm


@lru_cache(maxsize=65536)
def spec_macs(spec: ArchSpec) -> Macs:
    """Multiply-adds of the network that a spec describes, at its resolution."""
    return sum((layer_macs(layer) for layer in make_plan(spec).layers()), Macs(0, 0, 0))


def spec_params(spec: ArchSpec) -> int:
    """Trainable parameters of the network that a spec describes."""
    return sum(layer_params(layer) for layer in make_plan(spec).layers())


def profile(spec: ArchSpec, name: str = "") -> dict[str, Any]:
    """The figures of a network: {'name', 'resolution', 'joints', 'params', 'macs': {'thop', 'exact', 'paper'}}.

    Args:
        name: what to call it; by default the name of the preset with this shape, else the shape itself.
    """
    presets = {preset.with_joints(spec.joints): key for key, preset in PRESETS.items()}
    return {
        "name": name or presets.get(spec, str(spec)),
        "resolution": spec.resolution,
        "joints": spec.joints,
        "params": spec_params(spec),
        "macs": spec_macs(spec).to_dict(),
    }


def layer_rows(spec: ArchSpec) -> list[dict[str, Any]]:
    """The per-layer table as JSON values, in the order of execution; `side` is the output's, in cells.

    A layer's MACs are with its norm and activation; the columns add up to `profile`'s figures.
    """
    rows = []
    for layer in make_plan(spec).layers():
        shape = {"cin": layer.cin, "cout": layer.cout, "side": layer.side_out}
        row = {"name": layer.name, "operator": _operator(layer), **shape}
        rows.append(row | {"params": layer_params(layer), "macs": layer_macs(layer).to_dict()})
    return rows


def _operator(layer: Layer) -> str:
    """A layer's operator in words, such as 'depthwise conv 7×7 /2' or 'deconv 4×4 ×2'."""
    if layer.kind == "norm":
        return "norm"
    step = f" {'×' if layer.kind == 'deconv' else '/'}{layer.stride}" if layer.stride > 1 else ""
    return f"{'depthwise ' * layer.depthwise}{layer.kind} {layer.kernel}×{layer.kernel}{step}"


def population_costs(space: SearchSpace, joints: int, genomes: Genomes) -> Costs:
    """What each of many subnets costs.

    Args:
        genomes: (N, G) choice indices, canonical or not; a row for each subnet.

    Returns:
        For each of QUANTITIES an int64 array (N,): equal to `spec_macs` and `spec_params` of the decoded rows.
    """
    genomes = np.asarray(genomes)
    terms = _terms(*population_plan(space, joints, genomes))
    return {name: _total(terms, index, genomes.shape[:1]) for index, name in enumerate(QUANTITIES)}


def population_plan(space: SearchSpace, joints: int, genomes: Genomes) -> tuple[Plan, Present]:
    """The plan of many subnets at once, of (N, G) genomes, and which of its blocks they have.

    A layer's channels and sides are whole numbers where they are the same for all, else arrays (N,). The plan has the
    blocks of the deepest subnet; which subnets have one is, for each stage's blocks, True (all) or an array (N,).
    """
    # What is the same for all stays a plain number: a large part of the arithmetic is then done once.
    columns = zip(space.choices, np.asarray(genomes).T, strict=True)
    taken = [choices[0] if len(choices) == 1 else np.array(choices, np.int64)[column] for choices, column in columns]
    return _plan(space, joints, taken)


def canonical_rows(space: SearchSpace, genomes: Genomes) -> NDArray[np.int64]:
    """`SearchSpace.canonical` of every row of (N, G) genomes."""
    rows = np.array(genomes, np.int64)
    present = present_genes(space, rows)
    return rows if present is None else np.where(present, rows, 0)


def present_genes(space: SearchSpace, genomes: Genomes) -> NDArray[np.bool_] | None:
    """(N, G): which genes say something, as opposed to those of blocks that the depth leaves out; None: all do."""
    if not space.depth:
        return None
    present = np.ones(np.shape(genomes), bool)
    for gene, depth, least in space.optional:
        present[:, gene] = genomes[:, depth] >= least
    return present


class Grid:
    """All subnets of a space, or of the part of it below given choices, numbered from 0.

    Attributes:
        shape: the number of choices of every gene that has more than one left.
        size: the product of these. Where the depth is elastic, some numbers stand for no canonical genome.
        plan: the plan of them all: a layer's channels and sides are whole numbers, or arrays that broadcast to `shape`.
    """

    def __init__(self, space: SearchSpace, joints: int, top: Sequence[int]) -> None:
        """`top`: for every gene the highest choice that is left."""
        self.space, self._genes = space, [gene for gene, highest in enumerate(top) if highest]
        self.shape = tuple(top[gene] + 1 for gene in self._genes)
        self.size = math.prod(self.shape)
        values = [self._axis(choices[: top[gene] + 1], gene) for gene, choices in enumerate(space.choices)]
        self.plan, present = _plan(space, joints, values)
        self._terms = _terms(self.plan, present)

    def costs(self, quantity: str) -> NDArray[np.int64]:
        """(size,): one of QUANTITIES, for every number."""
        return _total(self._terms, QUANTITIES.index(quantity), self.shape).reshape(-1)

    def canonical(self) -> NDArray[np.bool_]:
        """(size,): whether a number stands for a canonical genome."""
        kept: Any = np.ones((1,) * len(self.shape), bool)
        for gene, depth, least in self.space.optional:
            there = self._axis(range(self._left(depth)), depth) >= least
            kept = kept & ((self._axis(range(self._left(gene)), gene) == 0) | there)
        return np.broadcast_to(kept, self.shape).reshape(-1)

    def genomes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N, G): the genomes of (N,) numbers."""
        rows = np.zeros((len(numbers), len(self.space.choices)), np.int64)
        if self._genes:
            rows[:, self._genes] = np.stack(np.unravel_index(numbers, self.shape), axis=1)
        return rows

    def _left(self, gene: int) -> int:
        return self.shape[self._genes.index(gene)] if gene in self._genes else 1

    def _axis(self, values: Sequence[int], gene: int) -> Any:
        if len(values) == 1:
            return values[0]
        axes = [1] * len(self._genes)
        axes[self._genes.index(gene)] = -1
        return np.array(values, np.int64).reshape(axes)


def _plan(space: SearchSpace, joints: int, values: Sequence[Any]) -> tuple[Plan, Present]:
    """The plan of the subnets whose genes have these values, numbers or arrays; and which of its blocks they have."""
    fields = space.fields(values)
    present = tuple(
        tuple(True if block < counts[0] else block < depth for block in range(counts[-1]))
        for counts, depth in zip(space.depths, fields["depth"], strict=True)
    )
    return build_plan(cast(ArchSpec, SimpleNamespace(**fields, joints=joints))), present


def _terms(plan: Plan, present: Present) -> dict[tuple[int, ...], list[Any]]:
    """Sums over the layers, of each of QUANTITIES, apart by the shape of what is summed."""
    have: dict[str, Any] = {}  # which subnets have a layer, where not all have
    for blocks, flags in zip(plan.stages, present, strict=True):
        have |= {layer.name: there for block, there in zip(blocks, flags, strict=True) for layer in block.layers}
    sums: dict[tuple[int, ...], list[Any]] = {}
    for layer in plan.layers():
        macs, there = layer_macs(layer), have.get(layer.name, True)
        for index, value in enumerate((macs.thop, macs.exact, macs.paper, layer_params(layer))):
            term: Any = value if there is True else value * there
            sums.setdefault(np.shape(term), [0] * len(QUANTITIES))[index] += term
    return sums


def _total(terms: dict[tuple[int, ...], list[Any]], index: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    total: Any = np.zeros((1,) * len(shape), np.int64)
    # The smallest first, so that few additions have the size of the whole.
    for values in sorted((values[index] for values in terms.values()), key=np.size):
        total = total + values
    return np.ascontiguousarray(np.broadcast_to(total, shape))
