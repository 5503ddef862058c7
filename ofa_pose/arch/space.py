"""SearchSpace: what may vary in a supernet, and the genome (choice indices) that names one of its subnets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.spec import DECONVS, MOST, STAGES, ArchSpec, Head, read_fields
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import find_yaml, read_yaml

RESOLUTION_MULTIPLE = 32  # so that a net is evaluated at the size its MACs were counted for

MOST_CHOICES = 128  # of a gene
MOST_GENES = 64  # with several choices; NumPy's arrays have no more dimensions

Genome = tuple[int, ...]


@dataclass(frozen=True)
class Gene:
    """What one place in a genome stands for.

    Attributes:
        name: its label in tables and messages, such as 'stage1' or 'expansion1.2'.
        field: the attribute of ArchSpec that it sets; stage: the index in that, where it has several values.
        block: the index in the stage, where its blocks have values of their own; subnets without it ignore the gene.
    """

    name: str
    field: str
    choices: tuple[int, ...]
    stage: int | None = None
    block: int | None = None

    def value(self, spec: ArchSpec) -> int:
        """Its value in a net; the lowest choice where the net does not have the block."""
        value = getattr(spec, self.field)
        if self.stage is not None:
            value = value[self.stage]
        if self.block is not None:
            value = value[self.block] if self.block < len(value) else self.choices[0]
        return int(value)


@dataclass(frozen=True)
class SearchSpace:
    """The choices of every elastic quantity, each ascending.

    Attributes:
        resolution, stem: of the input side and of C0.
        stages, deconv: of each stage's width and of each deconv step's filters.
        expansion: of each block's expansion factor.
        blocks: the number of blocks of each stage; of the largest subnet where the depth is elastic.
        kernel, head: as of ArchSpec, the same in all subnets.
        depth: of the number of blocks of each stage, the leading ones; () where all subnets have `blocks`.
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
        if max(self.blocks) > MOST["blocks"]:
            what = f"space '{self.name}' has {max(self.blocks)} blocks in a stage, more than {MOST['blocks']}"
            raise InputError(what, hint="give its stages fewer")
        for gene in self.genes:
            if len(gene.choices) > MOST_CHOICES:
                what = f"space '{self.name}' has {len(gene.choices)} choices for {gene.name}, more than {MOST_CHOICES}"
                raise InputError(what, hint="leave some out")
            if not gene.choices or list(gene.choices) != sorted(set(gene.choices)):
                what = f"the choices {list(gene.choices)} for {gene.name} of space '{self.name}' do not ascend"
                raise InputError(what, hint="sort them, each once")
        if (elastic := sum(len(gene.choices) > 1 for gene in self.genes)) > MOST_GENES:
            what = f"space '{self.name}' has {elastic} elastic dimensions, more than {MOST_GENES}"
            raise InputError(what, hint="give its stages fewer blocks, or all blocks one expansion")
        most = tuple(choices[-1] for choices in self.depths)
        if most != self.blocks or min(map(min, self.depths)) < 1:
            what = f"the depths of space '{self.name}' do not go from 1 or more to its blocks {list(self.blocks)}"
            raise InputError(what, hint="give every stage a list of block counts that does")
        for side in self.resolution:
            if side % RESOLUTION_MULTIPLE:
                hint = f"use multiples of {RESOLUTION_MULTIPLE}"
                raise InputError(f"resolution {side} of space '{self.name}'", hint=hint)
        self.smallest(joints=1)  # raises where a width, the kernel or the head is none
        self.largest(joints=1)  # and where one is too large

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """What varies, in genomes' order. Archives hold these: a new gene is only in spaces that give it choices."""
        genes = [Gene("resolution", "resolution", self.resolution), Gene("stem", "stem", self.stem)]
        for label, field in (("stage", "stages"), ("deconv", "deconv"), ("depth", "depth")):
            genes += [Gene(f"{label}{i + 1}", field, choices, i) for i, choices in enumerate(getattr(self, field))]
        for i, count in enumerate(self.blocks):
            genes += [Gene(f"expansion{i + 1}.{b + 1}", "expansions", self.expansion, i, b) for b in range(count)]
        return tuple(genes)

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """The choices of every gene."""
        return tuple(gene.choices for gene in self.genes)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The name of every gene, for tables and messages."""
        return tuple(gene.name for gene in self.genes)

    @property
    def depths(self) -> tuple[tuple[int, ...], ...]:
        """The choices of each stage's number of blocks: one where the depth is not elastic."""
        return self.depth or tuple((count,) for count in self.blocks)

    @cached_property
    def optional(self) -> tuple[tuple[int, int, int], ...]:
        """(gene, depth gene, least) of the genes of blocks that some subnets do not have: those have the block in which
        the depth gene is at least `least`."""
        depths = {gene.stage: index for index, gene in enumerate(self.genes) if gene.field == "depth"}
        found = []
        for index, gene in enumerate(self.genes):
            if gene.block is not None and gene.stage in depths:
                depth = depths[gene.stage]
                found.append((index, depth, sum(count <= gene.block for count in self.choices[depth])))
        return tuple(place for place in found if place[2])

    def block_genes(self, stage: int | None, count: int) -> list[int]:
        """The places of the genes of a stage's leading `count` blocks."""
        every = enumerate(self.genes)
        return [i for i, gene in every if gene.block is not None and gene.stage == stage and gene.block < count]

    @property
    def size(self) -> int:
        """The number of distinct subnets, resolutions included."""
        size = math.prod(len(gene.choices) for gene in self.genes if gene.block is None and gene.field != "depth")
        for stage, counts in enumerate(self.depths):
            size *= sum(math.prod(len(self.choices[i]) for i in self.block_genes(stage, count)) for count in counts)
        return size

    def values(self, genome: Sequence[int]) -> list[int]:
        """The value of every gene of a genome."""
        return [choices[index] for index, choices in zip(genome, self.choices, strict=True)]

    def fields(self, values: Sequence[Any]) -> dict[str, Any]:
        """ArchSpec's attributes but the joints where genes have these values (numbers or anything else), and 'depth'.

        'depth' is the number of blocks of each stage; a stage has all its blocks, those too that the depth leaves out.
        """
        found: dict[str, Any] = {"kernel": self.kernel, "head": self.head, "depth": self.blocks}
        lists: dict[str, list[Any]] = {}
        for gene, value in zip(self.genes, values, strict=True):
            if gene.stage is None:
                found[gene.field] = value
            elif gene.block is None:
                lists.setdefault(gene.field, []).append(value)
            else:
                lists.setdefault(gene.field, [()] * STAGES)[gene.stage] += (value,)
        return found | {name: tuple(items) for name, items in lists.items()}

    def check_genome(self, genome: Sequence[int]) -> None:
        """Raise InputError where a genome has another length than this space's, or an index is out of range."""
        if len(genome) != len(self.genes):
            raise InputError(f"genome of {len(genome)} genes for a space of {len(self.genes)}")
        if any(not 0 <= index < len(choices) for index, choices in zip(genome, self.choices, strict=True)):
            raise InputError(f"genome {tuple(genome)} is outside the space '{self.name}'")

    def decode(self, genome: Sequence[int], joints: int) -> ArchSpec:
        """The subnet of a genome. Raises InputError where an index is out of range."""
        self.check_genome(genome)
        fields = self.fields(self.values(genome))
        depth, stages = fields.pop("depth"), fields.pop("expansions")
        expansions = tuple(stage[:count] for stage, count in zip(stages, depth, strict=True))
        return ArchSpec(**fields, expansions=expansions, joints=joints)

    def canonical(self, genome: Sequence[int]) -> Genome:
        """The one genome that stands for all of the same subnet: genes of blocks that its depth leaves out are 0."""
        genes = list(genome)
        for index, depth, least in self.optional:
            if genes[depth] < least:
                genes[index] = 0
        return tuple(genes)

    def encode(self, spec: ArchSpec) -> Genome:
        """The canonical genome of a subnet. Raises InputError that names the first value the space does not hold."""
        known = all(count in choices for count, choices in zip(spec.depth, self.depths, strict=True))
        if spec.kernel != self.kernel or not known:
            what = f"the net ({spec}) has other kernels or depths than space '{self.name}'"
            raise InputError(what, hint=f"use kernel {self.kernel} and blocks {_shown(self.depths)}")
        if spec.head != self.head:
            what = f"the net ({spec}) has a {spec.head} head, space '{self.name}' a {self.head} head"
            raise InputError(what, hint="choose another space")
        for gene in self.genes:
            if gene.value(spec) not in gene.choices:
                what = f"{gene.name} {gene.value(spec)} is not in space '{self.name}'"
                raise InputError(what, hint=f"choose one of {', '.join(map(str, gene.choices))}")
        return tuple(gene.choices.index(gene.value(spec)) for gene in self.genes)

    def check_subnet(self, spec: ArchSpec) -> str:
        """Check that a supernet of this space has the weights of `spec`; what to warn of, or ''.

        A stage with fewer blocks than any subnet's takes the leading ones, as the LitePose repository does with the
        4/6/8/8 blocks of its own search in a supernet of 6/8/10/10. Raises InputError where another value is not held.
        """
        filled = []
        for stage, choices in zip(spec.expansions, self.depths, strict=True):
            depth = next((count for count in choices if count >= len(stage)), len(stage))
            filled.append((*stage, *(self.expansion[0],) * (depth - len(stage))))
        trained = replace(spec, expansions=tuple(filled))
        self.encode(trained)
        if trained == spec:
            return ""
        counts = f"the net has blocks {_shown([(count,) for count in spec.depth])}, space '{self.name}'"
        return f"{counts} {_shown(self.depths)}: the leading blocks are taken, though no subnet was trained so"

    def sample(self, rng: np.random.Generator) -> Genome:
        """A canonical genome, every gene drawn uniformly and on its own."""
        return self.canonical([int(rng.integers(len(choices))) for choices in self.choices])

    def largest(self, joints: int) -> ArchSpec:
        """The subnet with the largest choice everywhere: the supernet's own shape."""
        return self.decode([len(choices) - 1 for choices in self.choices], joints)

    def smallest(self, joints: int) -> ArchSpec:
        """The subnet with the smallest choice everywhere."""
        return self.decode([0] * len(self.genes), joints)

    def uniform(self, joints: int) -> list[ArchSpec]:
        """The uniformly scaled nets: at every resolution, each width level, all genes at the same share, rounded up."""
        levels = max(len(choices) for choices in self.choices[1:])  # the first gene is the resolution
        specs = []
        for resolution in range(len(self.resolution)):
            for level in range(levels):
                share = level / max(levels - 1, 1)
                widths = [math.ceil(share * (len(choices) - 1) - 1e-9) for choices in self.choices[1:]]
                specs.append(self.decode([resolution, *widths], joints))
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
        return read_fields(cls, value, "search space", where)


def _shown(depths: Sequence[tuple[int, ...]]) -> str:
    """Block counts as people write them, such as 6/8/10/10 or 4,6/8/10/10."""
    return "/".join(",".join(map(str, choices)) for choices in depths)


def load_space(name: str | Path) -> SearchSpace:
    """A search space from a YAML file or by the name of a shipped one. Raises InputError."""
    path = find_yaml("search_spaces", name)
    return SearchSpace.from_dict(read_yaml(path), path)
