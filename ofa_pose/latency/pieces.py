"""Pieces: what networks are cut into to be measured. Single layers would mislead, because runtimes fuse them.

Pieces are read off the layer plan, of one network or of many at once, and are equal where a runtime has the same work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.plan import Block, DeconvStep, Layer, Output, Plan, build_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import Grid
from ofa_pose.utils.errors import InputError

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

Part = tuple[Layer, ...] | Block | DeconvStep | Output  # of a plan; a tuple of layers: the stem


@dataclass(frozen=True, order=True)
class Piece:
    """A part of a network that is measured as a whole, or such a part of many networks at once.

    Attributes:
        kind: a key of FIELDS.
        sizes: values of its fields: whole numbers, or arrays that broadcast.
    """

    kind: str
    sizes: tuple[Any, ...]

    def __str__(self) -> str:
        fields = zip(FIELDS[self.kind], self.sizes, strict=True)
        return " ".join((self.kind, *(f"{name}={int(value)}" for name, value in fields)))

    def __getitem__(self, field: str) -> Any:
        return self.sizes[FIELDS[self.kind].index(field)]

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
        for name, value in zip(FIELDS[self.kind], self.sizes, strict=True):
            bits = BITS.get(name, WIDTH_BITS)
            if np.max(value, initial=0) >> bits:
                raise InputError(f"a {self.kind} with {name} {np.max(value)} is too large for a latency table")
            code = (code << bits) | value
        return code


def plan_parts(plan: Plan) -> list[Part]:
    """The parts of a network that are measured as a whole, in the order of execution.

    They are the stem, each block, then for each deconv step the step and, where it has one, its output.
    """
    parts: list[Part] = [plan.stem, *(block for stage in plan.stages for block in stage)]
    for step in plan.deconv:
        parts += [step, step.output] if step.output else [step]
    return parts


def plan_pieces(plan: Plan) -> list[Piece]:
    """The pieces of a network, one for each part; of many networks at once where the plan's fields are arrays."""
    return [_piece(part) for part in plan_parts(plan)]


def _piece(part: Part) -> Piece:
    if isinstance(part, tuple):
        return Piece("stem", (part[-1].cout, part[0].side_in))
    if isinstance(part, Block):
        expand, depthwise, project = part.layers
        shape = (expand.cin, expand.cout, project.cout, expand.side_in, depthwise.stride, depthwise.kernel)
        return Piece("block", (*shape, int(part.residual)))
    if isinstance(part, DeconvStep):
        refined, raw = part.refined, part.raw.cin if part.raw else 0
        return Piece("deconv", (refined.cin, raw, refined.cout, refined.side_in))
    depthwise, pointwise = part.refined
    raw = part.raw[0].cin if part.raw else 0
    return Piece("output", (depthwise.cin, raw, pointwise.cout, depthwise.side_in))


def space_pieces(space: SearchSpace, joints: int) -> list[Piece]:
    """All pieces that subnets of a space have, each once, sorted."""
    top = [len(choices) - 1 for choices in space.choices]
    found: set[Piece] = set()
    for piece in plan_pieces(Grid(space, joints, top).plan):
        nothing = sum(piece.sizes) * 0  # spreads each array over all axes; np.broadcast stops at 32 of them
        rows = np.stack([np.ravel(sizes + nothing) for sizes in piece.sizes], axis=1)
        found |= {Piece(piece.kind, tuple(row)) for row in np.unique(rows, axis=0).tolist()}
    return sorted(found)


def spanning_pieces(pieces: list[Piece], share: float) -> list[Piece]:
    """About `share` of the blocks and deconv steps, from which the rest can be interpolated, and all other pieces.

    These are few, and an output's time jumps where its channels do not fill a processor's vectors: by half. What is
    added to the corners of a group (pieces that differ in widths alone) is what lies farthest from all that are in.
    """
    kept: list[Piece] = []
    for group in groups(pieces).values():
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


def groups(pieces: list[Piece]) -> dict[tuple[Any, ...], list[Piece]]:
    """Pieces by all but their widths: those of a group differ in widths alone."""
    found: dict[tuple[Any, ...], list[Piece]] = {}
    for piece in pieces:
        found.setdefault(group_of(piece), []).append(piece)
    return found


def group_of(piece: Piece) -> tuple[Any, ...]:
    """What the pieces of a group have in common."""
    fields = zip(FIELDS[piece.kind], piece.sizes, strict=True)
    return (piece.kind, *((name, value) for name, value in fields if name not in WIDTHS))


def widths(piece: Piece) -> list[int]:
    """The widths of a piece, in the order of its fields."""
    return [value for name, value in zip(FIELDS[piece.kind], piece.sizes, strict=True) if name in WIDTHS]


def scaled_widths(group: list[Piece]) -> NDArray[np.float64]:
    """(pieces, widths): 0 at the narrowest of a group, 1 at the widest."""
    points = np.array([widths(piece) for piece in group], np.float64)
    return (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1)


def piece_part(piece: Piece) -> Part:
    """The part of a plan that a piece of whole numbers stands for: some network has it, and its layers."""
    return next(part for part in plan_parts(build_plan(_home(piece))) if _piece(part) == piece)


def _home(piece: Piece) -> ArchSpec:
    """The narrowest network that has a piece."""
    shape: dict[str, Any] = {"stem": 1, "stages": (1, 1, 1, 1), "deconv": (1, 1, 1), "kernel": 1, "joints": 1}
    shape["expansions"] = ((1,), (1,), (1,), (1,))
    if piece.kind == "stem":
        return ArchSpec(piece["side"], **shape | {"stem": piece["cout"]})
    if piece.kind == "block":
        cin, cout, factor = piece["cin"], piece["cout"], piece["hidden"] // piece["cin"]
        shape["kernel"] = piece["kernel"]
        if piece["stride"] == 2:
            shape |= {"stages": (1, cin, cout, 1), "expansions": ((1,), (1,), (factor,), (1,))}
            return ArchSpec(8 * piece["side"], **shape)
        last = (1, factor) if piece["residual"] else (factor,)
        shape |= {"stages": (1, 1, 1 if piece["residual"] else cin, cout), "expansions": ((1,), (1,), (1,), last)}
        return ArchSpec(16 * piece["side"], **shape)
    shape["head"], raw, refined = "fusion" if piece["raw"] else "plain", piece["raw"] or 1, piece["refined"]
    if piece.kind == "deconv":
        return ArchSpec(
            16 * piece["side"], **shape | {"stages": (1, 1, raw, refined), "deconv": (piece["filters"], 1, 1)}
        )
    if piece["channels"] % 2 == 0:  # 2J channels stand at 1/4, where any side fits
        shape |= {"stages": (raw, 1, 1, 1), "deconv": (1, refined, 1), "joints": piece["channels"] // 2}
        return ArchSpec(4 * piece["side"], **shape)
    shape |= {"stem": raw, "deconv": (1, 1, refined), "joints": piece["channels"]}
    return ArchSpec(2 * piece["side"], **shape)


def part_layers(part: Part) -> Iterator[Layer]:
    """The layers of a part, in the order of execution."""
    if isinstance(part, tuple):
        yield from part
    elif isinstance(part, Block):
        yield from part.layers
    elif isinstance(part, Output):
        yield from (*part.refined, *(part.raw or ()))
    else:
        yield from (part.refined, *((part.raw,) if part.raw else ()), part.norm)
