"""SearchSpace: what may vary in a supernet, and the genome (choice indices) that names one of its subnets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.spec import DECONVS, STAGES, ArchSpec, Head, whole, wholes
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import find_yaml, read_yaml

RESOLUTION_MULTIPLE = 32  # so that a net is evaluated at the size its MACs were counted for

Genome = tuple[int, ...]


@dataclass(frozen=True)
class SearchSpace:
    """The choices of every elastic quantity, each ascending.

    Attributes:
        name: the space's name.
        resolution, stem: choices of the input side and of C0.
        stages, deconv: choices of each stage's width and of each deconv step's filters.
        expansion: choices of each block's expansion factor (one choice: not elastic).
        blocks: number of blocks of each stage; of the largest subnet where the depth is elastic.
        kernel: side of the depthwise kernels, the same in all subnets.
        head: 'fusion' or 'plain', the same in all subnets.
        depth: choices of the number of blocks of each stage, of which a subnet has the leading ones; () where no subnet
            has fewer than `blocks`.
    """

    name: str
    resolution: tuple[int, ...]
    stem: tuple[int, ...]
    stages: tuple[tuple[int, ...], ...]
    deconv: tuple[tuple[int, ...], ...]
    expansion: tuple[int, ...]
    blocks: tuple[int, ...]
    kernel: int
    head: Head = "fusion"
    depth: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if len(self.stages) != STAGES or len(self.blocks) != STAGES or len(self.deconv) != DECONVS:
            what = f"space '{self.name}' needs {STAGES} stages, {STAGES} block counts and {DECONVS} deconv lists"
            raise InputError(what, hint="complete the lists")
        if min(self.blocks) < 1:
            raise InputError(f"blocks {list(self.blocks)} of space '{self.name}'", hint="give every stage a block")
        for label, choices in zip(self.labels, self.choices, strict=True):
            if not choices or list(choices) != sorted(set(choices)):
                what = f"the choices {list(choices)} for {label} of space '{self.name}' do not ascend"
                raise InputError(what, hint="sort them, each once")
        if self.depth and (
            tuple(choices[-1] for choices in self.depth) != self.blocks or min(map(min, self.depth)) < 1
        ):
            what = f"the depths of space '{self.name}' do not go from 1 or more to its blocks {list(self.blocks)}"
            raise InputError(what, hint="give every stage a list of block counts that does")
        for side in self.resolution:
            if side % RESOLUTION_MULTIPLE:
                raise InputError(
                    f"resolution {side} of space '{self.name}'", hint=f"use multiples of {RESOLUTION_MULTIPLE}"
                )
        self.smallest(joints=1)  # raises where a width, the kernel or the head is none

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """The choices of every gene: resolution, stem, stages, deconv, depths if elastic, each block's expansion."""
        expansions = (self.expansion,) * sum(self.blocks)
        return (self.resolution, self.stem, *self.stages, *self.deconv, *self.depth, *expansions)

    @property
    def depths(self) -> tuple[tuple[int, ...], ...]:
        """The choices of each stage's number of blocks: one where the depth is not elastic."""
        return self.depth or tuple((count,) for count in self.blocks)

    @property
    def size(self) -> int:
        """The number of distinct subnets, resolutions included."""
        widths = math.prod(len(choices) for choices in (self.resolution, self.stem, *self.stages, *self.deconv))
        return widths * math.prod(sum(len(self.expansion) ** count for count in counts) for counts in self.depths)

    def decode(self, genome: Sequence[int], joints: int) -> ArchSpec:
        """The subnet of a genome. Raises InputError where an index is out of range."""
        if len(genome) != len(self.choices):
            raise InputError(f"genome of {len(genome)} genes for a space of {len(self.choices)}")
        if any(not 0 <= gene < len(choices) for gene, choices in zip(genome, self.choices, strict=True)):
            raise InputError(f"genome {tuple(genome)} is outside the space '{self.name}'")
        values = [choices[gene] for gene, choices in zip(genome, self.choices, strict=True)]
        resolution, stem, *rest = values
        stages, rest = rest[:STAGES], rest[STAGES:]
        deconv, rest = rest[:DECONVS], rest[DECONVS:]
        depths, rest = (rest[:STAGES], rest[STAGES:]) if self.depth else (self.blocks, rest)
        expansions = []
        for count, depth in zip(self.blocks, depths, strict=True):
            expansions.append(tuple(rest[:depth]))
            rest = rest[count:]
        return ArchSpec(
            resolution, stem, tuple(stages), tuple(expansions), tuple(deconv), self.kernel, joints, self.head
        )

    def canonical(self, genome: Sequence[int]) -> Genome:
        """The one genome that stands for all of the same subnet: genes of blocks that its depth leaves out are 0."""
        if not self.depth:
            return tuple(genome)
        start = len(self.choices) - sum(self.blocks)
        genes = list(genome)
        for gene, choices in zip(genes[start - STAGES : start], self.depth, strict=True):
            genes[start + choices[gene] : start + choices[-1]] = [0] * (choices[-1] - choices[gene])
            start += choices[-1]
        return tuple(genes)

    def encode(self, spec: ArchSpec) -> Genome:
        """The canonical genome of a subnet. Raises InputError that names the first value the space does not hold."""
        counts = tuple(len(stage) for stage in spec.expansions)
        known = all(count in choices for count, choices in zip(counts, self.depths, strict=True))
        if spec.kernel != self.kernel or not known:
            what = f"the net ({spec}) has other kernels or depths than space '{self.name}'"
            raise InputError(what, hint=f"use kernel {self.kernel} and blocks {_shown(self.depths)}")
        if spec.head != self.head:
            what = f"the net ({spec}) has a {spec.head} head, space '{self.name}' a {self.head} head"
            raise InputError(what, hint="choose another space")
        lowest = self.expansion[0]
        padded = (
            (*stage, *(lowest,) * (count - len(stage)))
            for stage, count in zip(spec.expansions, self.blocks, strict=True)
        )
        widths = (spec.resolution, spec.stem, *spec.stages, *spec.deconv)
        values = (*widths, *(counts if self.depth else ()), *(e for stage in padded for e in stage))
        for value, choices, label in zip(values, self.choices, self.labels, strict=True):
            if value not in choices:
                what = f"{label} {value} is not in space '{self.name}'"
                raise InputError(what, hint=f"choose one of {', '.join(map(str, choices))}")
        return tuple(choices.index(value) for value, choices in zip(values, self.choices, strict=True))

    def check_subnet(self, spec: ArchSpec) -> str:
        """Check that a supernet of this space has the weights of `spec`; what to warn of, or ''.

        A stage with a number of blocks that no subnet has takes the supernet's leading ones, as the LitePose repository
        does with the 4/6/8/8 blocks that its own search writes for a supernet of 6/8/10/10.

        Raises:
            InputError: the space does not hold another value of `spec`.
        """
        filled = []
        for stage, choices in zip(spec.expansions, self.depths, strict=True):
            depth = next((count for count in choices if count >= len(stage)), len(stage))
            filled.append((*stage, *(self.expansion[0],) * (depth - len(stage))))
        trained = replace(spec, expansions=tuple(filled))
        self.encode(trained)
        if trained == spec:
            return ""
        counts = _shown(tuple((len(stage),) for stage in spec.expansions))
        return (
            f"the net has blocks {counts}, space '{self.name}' {_shown(self.depths)}: "
            "the leading blocks are taken, though no subnet was trained so"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of every gene, for tables and messages."""
        stages = [f"stage{i + 1}" for i in range(STAGES)]
        blocks = [f"expansion{i + 1}.{b + 1}" for i, count in enumerate(self.blocks) for b in range(count)]
        depths = [f"depth{i + 1}" for i in range(len(self.depth))]
        return ("resolution", "stem", *stages, *(f"deconv{i + 1}" for i in range(DECONVS)), *depths, *blocks)

    def sample(self, rng: np.random.Generator) -> Genome:
        """A canonical genome, every gene drawn uniformly and on its own."""
        return self.canonical([int(rng.integers(len(choices))) for choices in self.choices])

    def largest(self, joints: int) -> ArchSpec:
        """The subnet with the largest choice everywhere: the supernet's own shape."""
        return self.decode([len(choices) - 1 for choices in self.choices], joints)

    def smallest(self, joints: int) -> ArchSpec:
        """The subnet with the smallest choice everywhere."""
        return self.decode([0] * len(self.choices), joints)

    def uniform(self, joints: int) -> list[ArchSpec]:
        """The uniformly scaled nets: at every resolution, each level of width with all genes at the same share.

        Genes with fewer choices take the choice at the nearest relative position, rounded up.
        """
        levels = max(len(choices) for choices in self.choices[1:])
        specs = []
        for resolution in range(len(self.resolution)):
            for level in range(levels):
                share = level / max(levels - 1, 1)
                widths = (math.ceil(share * (len(choices) - 1) - 1e-9) for choices in self.choices[1:])
                specs.append(self.decode((resolution, *widths), joints))
        return list(dict.fromkeys(specs))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for YAML and checkpoints."""
        lists = {key: [list(c) for c in getattr(self, key)] for key in ("stages", "deconv")}
        flat = {key: list(getattr(self, key)) for key in ("resolution", "stem", "expansion", "blocks")}
        value = {"name": self.name, **flat, **lists, "kernel": self.kernel}
        # Left out where they say nothing, so that files are those of versions that knew neither.
        head = {"head": self.head} if self.head != "fusion" else {}
        return value | head | ({"depth": [list(choices) for choices in self.depth]} if self.depth else {})

    @classmethod
    def from_dict(cls, value: Any, where: object = "") -> SearchSpace:
        """Read what `to_dict` writes. Raises InputError that names `where` and the key."""
        fields = tuple(cls.__dataclass_fields__)
        if not isinstance(value, Mapping):
            raise InputError("holds no search space", where, f"give {', '.join(fields)}")
        for key in value:
            if key not in fields:
                raise InputError(f"unknown key '{key}' in a search space", where, nearest(str(key), fields))
        for key in fields:
            if key not in value and key not in ("head", "depth"):
                raise InputError(f"the search space has no '{key}'", where, "add it")
        try:
            lists: dict[str, Any] = {k: wholes(value[k]) for k in ("resolution", "stem", "expansion", "blocks")}
            lists |= {k: tuple(wholes(choices) for choices in value[k]) for k in ("stages", "deconv")}
            lists["depth"] = tuple(wholes(choices) for choices in value.get("depth", ()))
            head = value.get("head", "fusion")
            return cls(name=str(value["name"]), kernel=whole(value["kernel"]), head=head, **lists)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the search space is malformed ({error})", where, "use lists of whole numbers") from None
        except InputError as error:
            raise InputError(error.faults[0].what, where, error.faults[0].hint) from None


def _shown(depths: tuple[tuple[int, ...], ...]) -> str:
    """Block counts as people write them, such as 6/8/10/10 or 4,6/8/10/10."""
    return "/".join(",".join(map(str, choices)) for choices in depths)


def load_space(name: str | Path) -> SearchSpace:
    """A search space from a YAML file or by the name of a shipped one. Raises InputError."""
    path = find_yaml("search_spaces", name)
    return SearchSpace.from_dict(read_yaml(path), path)
