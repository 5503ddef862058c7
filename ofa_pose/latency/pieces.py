"""What a latency table measures: pieces that networks are cut into, and some whole networks that span a space.

Single layers would mislead, because runtimes fuse them. Pieces are read off the layer plan, of one network or of many
at once, and are equal where a runtime has the same work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.plan import Block, DeconvStep, Layer, Output, Plan, build_plan, make_plan, run_layers
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import Grid, layer_macs
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.seeding import generator

NETS = 20  # whole networks in a table
MOST_PIECES = 1_000_000  # combinations of widths and sides that are gone through
MOST_DISTANCES = 10**9  # between pieces that are taken and the others, half a minute's work
POOL = 200  # random networks that they are chosen from
# In what the pieces of a kind differ. Sides are the input's, in cells; `raw` is 0 in a plain head.
FIELDS = {
    "stem": ("cout", "side"),
    "block": ("cin", "hidden", "cout", "side", "stride", "kernel", "residual"),
    "deconv": ("refined", "raw", "filters", "side"),
    "output": ("refined", "raw", "channels", "side"),
}
ALWAYS = ("stem", "output")  # kinds that are measured whatever share is asked for
WIDTHS = {"cin", "hidden", "cout", "refined", "raw", "filters"}  # channels: what may be interpolated
BITS = {"side": 12, "stride": 2, "kernel": 5, "residual": 1}  # of a piece's code
WIDTH_BITS = 14


@dataclass(frozen=True, order=True)
class Piece:
    """A part of a network that is measured as a whole, or such a part of many networks at once.

    Attributes:
        kind: a key of FIELDS.
        sizes: values of its fields: whole numbers, or arrays that broadcast.
    """

    kind: str
    sizes: tuple[Any, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The sizes by name."""
        return dict(zip(FIELDS[self.kind], self.sizes, strict=True))

    @property
    def group(self) -> tuple[Any, ...]:
        """All but the widths: the pieces of a group differ in widths alone."""
        return (self.kind, *((name, value) for name, value in self.fields.items() if name not in WIDTHS))

    @property
    def widths(self) -> list[int]:
        """The widths, in the order of the fields."""
        return [value for name, value in self.fields.items() if name in WIDTHS]

    def __str__(self) -> str:
        return " ".join((self.kind, *(f"{name}={int(value)}" for name, value in self.fields.items())))

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    @classmethod
    def parse(cls, text: str, where: object = "") -> Piece:
        """Read what `str` writes. Raises InputError that names `where`."""
        kind, *words = text.split()
        pairs = [word.partition("=") for word in words]
        names = tuple(name for name, _, _ in pairs)
        if names != FIELDS.get(kind) or not all(value.isascii() and value.isdigit() for _, _, value in pairs):
            raise InputError(f"'{text}' is not a piece of a network", where, "build the latency table again")
        return cls(kind, tuple(int(value) for _, _, value in pairs))

    def code(self) -> Any:
        """The sizes as one whole number (or array of them), another for each piece of the kind."""
        code: Any = np.int64(0)
        for name, value in self.fields.items():
            bits = BITS.get(name, WIDTH_BITS)
            if np.max(value, initial=0) >> bits:
                raise InputError(f"a {self.kind} with {name} {np.max(value)} is too large for a latency table")
            code = (code << bits) | value
        return code


Subject = Piece | ArchSpec  # what is measured: a piece, or a whole network


class Part(NamedTuple):
    """The layers of a plan that a piece stands for.

    Attributes:
        layers: in the order of execution.
        reads: of them those that read its inputs, one for each.
        run: `run(first, last, apply)` computes it from its first and its last input.
    """

    piece: Piece
    layers: tuple[Layer, ...]
    reads: tuple[Layer, ...]
    run: Callable[..., Any]

    @property
    def name(self) -> str:
        """A path; those of the layers begin with it."""
        return self.layers[0].name.rpartition(".")[0] if self.piece.kind == "block" else self.layers[-1].writes


def plan_parts(plan: Plan) -> list[Part]:
    """The parts of a network that are measured as a whole, in the order of execution.

    They are the stem, each block, then for each deconv step the step and, where it has one, its output.
    """
    piece = Piece("stem", (plan.stem[-1].cout, plan.stem[0].side_in))
    parts = [Part(piece, plan.stem, plan.stem[:1], lambda x, _, apply: run_layers(plan.stem, x, apply))]
    parts += [_block(block) for stage in plan.stages for block in stage]
    for step in plan.deconv:
        parts += [_step(step), _output(step.output)] if step.output else [_step(step)]
    return parts


def _block(block: Block) -> Part:
    expand, depthwise, project = block.layers
    widths = (expand.cin, expand.cout, project.cout)
    shape = (expand.side_in, depthwise.stride, depthwise.kernel, int(block.residual))
    piece = Piece("block", (*widths, *shape))
    return Part(piece, block.layers, (expand,), lambda x, _, apply: block.run(x, apply))


def _step(step: DeconvStep) -> Part:
    reads = (step.refined, step.raw) if step.raw else (step.refined,)
    piece = Piece("deconv", (*_read_widths(reads), step.norm.cout, step.refined.side_in))
    return Part(piece, (*reads, step.norm), reads, step.run)


def _output(output: Output) -> Part:
    layers = (*output.refined, *(output.raw or ()))
    reads, last = layers[::2], layers[-1]
    piece = Piece("output", (*_read_widths(reads), last.cout, last.side_in))
    return Part(piece, layers, reads, output.run)


def _read_widths(reads: tuple[Layer, ...]) -> tuple[int, int]:
    return reads[0].cin, reads[1].cin if len(reads) > 1 else 0


def plan_pieces(plan: Plan) -> list[Piece]:
    """The pieces of a network, one for each part; of many networks at once where the plan's fields are arrays."""
    return [part.piece for part in plan_parts(plan)]


def piece_part(piece: Piece) -> Part:
    """The part that a piece of whole numbers stands for, in a narrow network that has it."""
    sizes = piece.fields
    raw, scale, stem, stages, joints = sizes.get("raw", 1), 1, 1, [1] * 4, 1
    expansions, deconv = [(1,)] * 4, [1] * 3
    if piece.kind == "stem":
        stem = sizes["cout"]
    elif piece.kind == "block":
        stage = 4 - sizes["stride"]  # of the last two, the first halves the side
        scale, stages[stage - 1], stages[stage] = 2 ** (stage + 1), sizes["cin"], sizes["cout"]
        expansions[stage] = (1,) * sizes["residual"] + (sizes["hidden"] // sizes["cin"],)
    elif piece.kind == "deconv":
        scale, stages[2], stages[3], deconv[0] = 16, raw or 1, sizes["refined"], sizes["filters"]
    elif sizes["channels"] % 2:
        scale, stem, deconv[2], joints = 2, raw or 1, sizes["refined"], sizes["channels"]
    else:  # 2J channels stand at 1/4, where any side fits
        scale, stages[0], deconv[1], joints = 4, raw or 1, sizes["refined"], sizes["channels"] // 2
    widths = (stem, tuple(stages), tuple(expansions), tuple(deconv))
    spec = ArchSpec(scale * sizes["side"], *widths, sizes.get("kernel", 1), joints, "fusion" if raw else "plain")
    return next(part for part in plan_parts(build_plan(spec)) if part.piece == piece)


def space_pieces(space: SearchSpace, joints: int) -> list[Piece]:
    """All pieces that subnets of a space have, each once, sorted."""
    top = [len(choices) - 1 for choices in space.choices]
    found: set[Piece] = set()
    for piece in plan_pieces(Grid(space, joints, top).plan):
        shapes = (np.shape(sizes)[::-1] for sizes in piece.sizes)  # as np.broadcast does, which stops at 32 axes
        count = math.prod(map(max, zip_longest(*shapes, fillvalue=1)))
        _check_count(count, space)
        nothing = sum(piece.sizes) * 0  # spreads each array over all axes
        rows = np.stack([np.ravel(sizes + nothing) for sizes in piece.sizes], axis=1)
        found |= {Piece(piece.kind, tuple(row)) for row in np.unique(rows, axis=0).tolist()}
        _check_count(len(found), space)
    return sorted(found)


def _check_count(count: int, space: SearchSpace) -> None:
    if count > MOST_PIECES:
        what = f"space '{space.name}' has more than {MOST_PIECES:,} pieces, too many to be measured or predicted"
        raise InputError(what, hint="give its stages fewer choices")


def spanning_pieces(pieces: list[Piece], share: float) -> list[Piece]:
    """About `share` of the blocks and deconv steps, from which the rest can be interpolated, and all other pieces.

    These are few, and an output's time jumps where its channels do not fill a processor's vectors: by half. What is
    added to the corners of a group (pieces that differ in widths alone) is what lies farthest from all that are in.
    """
    if share >= 1:
        return sorted(pieces)
    kept: list[Piece] = []
    grouped = groups(pieces)
    if share * sum(len(group) ** 2 for key, group in grouped.items() if key[0] not in ALWAYS) > MOST_DISTANCES:
        what = f"a share of {share:g} of {len(pieces):,} pieces takes too long to be chosen"
        raise InputError(what, hint="ask for a smaller share, or give the space's stages fewer choices")
    for group in grouped.values():
        if group[0].kind in ALWAYS:
            kept += group
            continue
        points = scaled_widths(group)
        ends = (points == 0) | (points == points.max(0))
        chosen: list[int] = np.flatnonzero(ends.all(axis=1)).tolist()
        for width in points.T:  # where no piece is a corner, the ends of every width must be there all the same
            chosen += [int(end) for end in (width.argmin(), width.argmax()) if width[end] not in width[chosen]]
        kept += [group[index] for index in farthest(points, chosen, share * len(group))]
    return sorted(kept)


def farthest(points: NDArray[np.float64], chosen: list[int], count: float) -> list[int]:
    """Rows of `points` beside those chosen, each what lies farthest from all before, until they are `count`."""
    distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(1)
    chosen = list(chosen)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def groups(pieces: Iterable[Piece]) -> dict[tuple[Any, ...], list[Piece]]:
    """Pieces by their group."""
    found: dict[tuple[Any, ...], list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.group, []).append(piece)
    return found


def scaled_widths(group: list[Piece]) -> NDArray[np.float64]:
    """(pieces, widths): 0 at the narrowest of a group, 1 at the widest."""
    points = np.array([piece.widths for piece in group], np.float64)
    return (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1)


def table_subjects(space: SearchSpace, joints: int, share: float) -> list[Subject]:
    """What a table of a space measures: pieces, then whole networks."""
    return [*spanning_pieces(space_pieces(space, joints), share), *reference_nets(space, joints)]


def reference_nets(space: SearchSpace, joints: int, count: int = NETS) -> list[ArchSpec]:
    """Networks that span a space: its smallest and largest, then of random ones what is farthest from those chosen.

    Networks are near that divide their multiply-adds alike between stem, stages and head.
    """
    rng = generator("latency", "reference nets")
    pool = [space.smallest(joints), space.largest(joints)]
    pool += [space.decode(space.sample(rng), joints) for _ in range(POOL)]
    pool = list(dict.fromkeys(pool))
    points = np.array([_work(spec) for spec in pool])
    points = (points - points.mean(0)) / np.maximum(points.std(0), 1e-9)
    return [pool[index] for index in farthest(points, list(range(min(2, len(pool)))), count)]


def _work(spec: ArchSpec) -> list[float]:
    """Logarithms of the multiply-adds of the stem, the stages and the head."""
    plan = make_plan(spec)
    stages = [[layer for block in stage for layer in block.layers] for stage in plan.stages]
    parts = (plan.stem, *stages, plan.head())
    return [float(np.log(sum(layer_macs(layer).exact for layer in part))) for part in parts]
