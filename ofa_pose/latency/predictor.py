"""Predict what a network takes on a device from the latencies of its pieces: quick, and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.plan import Plan, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.runtimes import IN_BROWSERS
from ofa_pose.costs.macs import Genomes, population_plan
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.latency.pieces import ALWAYS, FIELDS, Piece, groups, plan_pieces, space_pieces
from ofa_pose.utils.errors import InputError

TERMS = {"stem": 0, "block": 0, "deconv": 1, "output": 1}  # which sum a piece goes into
FLOOR = 0.25  # no correction leaves less than this share of the pieces' sum


class Predictor:
    """Latencies of networks of the space, joints and resolutions that a table was built for, in milliseconds.

    What follows a piece in a network finds other data in the caches than one that is measured alone, and calling a
    runtime takes a while that a network pays once. So the sums over a network's pieces are corrected, as fits the
    networks that were measured whole.

    Attributes:
        correction: a factor of the backbone's sum (stem and blocks), one of the head's (deconv steps and outputs), and
            milliseconds that every piece adds: negative where calling the runtime takes long.
        error: the mean relative error, as a share, on the networks that the correction was fitted on.
        in_browser: whether the networks were measured in a browser.
    """

    def __init__(self, table: LatencyTable, where: object = "") -> None:
        """`where`: the table's file, for messages. Raises InputError where the table is not complete."""
        table.check_complete(where)
        self._where, self._joints, self._measured, nets = where, table.header.joints, table.pieces, table.nets
        self._space = table.header.space.name
        self.in_browser = table.header.backend in IN_BROWSERS
        self._interpolate, self._known = Interpolator(self._measured), dict(self._measured)
        self._codes: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for kind in FIELDS:
            self._sort(kind)
        sums = np.array([self._sums(make_plan(spec)) for spec in nets], np.float64)
        self.correction = _fitted(sums / np.array(list(nets.values()))[:, None])
        self.error = float(np.mean([abs(self.predict_ms(spec) / ms - 1) for spec, ms in nets.items()]))

    def check_covers(self, space: SearchSpace, joints: int) -> tuple[int, int]:
        """How many of the pieces of a space's subnets are interpolated, and how many there are.

        Raises InputError where the table cannot tell the latency of every subnet.
        """
        if joints != self._joints:
            what = f"the latency table is of networks of {self._joints} joints, these have {joints}"
            raise InputError(what, self._where, f"build one with --joints {joints}")
        pieces = space_pieces(space, joints)
        interpolated = sum(piece not in self._measured for piece in pieces)
        for piece in pieces:
            try:
                self._one(piece)
            except InputError:
                spaces = f"the latency table of space '{self._space}' does not cover space '{space.name}'"
                what = f"{spaces}: it lacks the piece '{piece}'"
                raise InputError(what, self._where, f"build a table of space '{space.name}'") from None
        return interpolated, len(pieces)

    def predict_ms(self, spec: ArchSpec) -> float:
        """One network's latency. Raises InputError where the table does not cover it."""
        return float(self._corrected(self._sums(make_plan(spec))))

    def predict_many(self, space: SearchSpace, joints: int, genomes: Genomes) -> NDArray[np.float64]:
        """(N,): the latencies of (N, G) genomes, each equal to `predict_ms`. Raises InputError, as that does."""
        plan, present = population_plan(space, joints, genomes)
        sums = self._sums(plan, [flag for stage in present for flag in stage])
        return np.broadcast_to(self._corrected(sums), np.shape(genomes)[:1]).copy()

    def _sums(self, plan: Plan, blocks: Sequence[Any] | None = None) -> list[Any]:
        """The backbone's milliseconds, the head's, the number of pieces; `blocks`: which of many networks have each."""
        pieces, find = plan_pieces(plan), self._one if blocks is None else self._many
        there: list[Any] = [True] * len(pieces)
        there[1 : 1 + len(blocks or ())] = blocks or ()
        sums: list[Any] = [0.0, 0.0, 0]
        for piece, flag in zip(pieces, there, strict=True):
            term, ms = TERMS[piece.kind], find(piece)
            sums[term] = sums[term] + (ms if flag is True else ms * flag)
            sums[2] = sums[2] + flag
        return sums

    def _corrected(self, sums: list[Any]) -> Any:
        (backbone, head, pieces), (of_backbone, of_head, each) = sums, self.correction
        return np.maximum(of_backbone * backbone + of_head * head + each * pieces, FLOOR * (backbone + head))

    def _one(self, piece: Piece) -> float:
        ms = self._known.get(piece)
        if ms is None:
            ms = self._known[piece] = self._interpolate(piece, self._where)
        return ms

    def _many(self, piece: Piece) -> Any:
        """The milliseconds of a piece of many networks: a number, or (N,)."""
        codes = np.asarray(piece.code())
        known, ms = self._codes[piece.kind]
        places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        missing = known[places] != codes
        if missing.any():
            rows = np.stack([np.broadcast_to(sizes, codes.shape)[missing] for sizes in piece.sizes], axis=-1)
            for row in np.unique(rows, axis=0).tolist():
                self._one(Piece(piece.kind, tuple(row)))
            self._sort(piece.kind)
            return self._many(piece)
        return ms[places]

    def _sort(self, kind: str) -> None:
        found = sorted((int(piece.code()), ms) for piece, ms in self._known.items() if piece.kind == kind)
        codes, values = zip(*found, strict=True)
        self._codes[kind] = (np.array(codes, np.int64), np.array(values, np.float64))


def _fitted(rows: NDArray[np.float64]) -> tuple[float, float, float]:
    """What minimises the relative errors of networks, both factors at least 0; `rows` (N, 3): sums over measured."""
    best, least = (1.0, 1.0, 0.0), np.inf
    for kept in ([0, 1, 2], [0, 2], [1, 2]) if len(rows) >= 4 else ():
        values = np.zeros(3)
        values[kept] = np.linalg.lstsq(rows[:, kept], np.ones(len(rows)), rcond=None)[0]
        error = float(np.square(rows @ values - 1).sum())
        if values[:2].min() >= 0 and error < least:
            best, least = (float(values[0]), float(values[1]), float(values[2])), error
    return best


def load_predictor(path: str | Path) -> Predictor:
    """The predictor of a latency table's file. Raises InputError where it is none, or not complete."""
    return Predictor(LatencyTable.load(path), path)


class Interpolator:
    """For each group of pieces, a linear function of their work plus radial ones that pass through what is measured.

    The radial functions are distances: they follow kinks, such as widths that fill a processor's vectors and such that
    do not, without swinging beyond them.
    """

    def __init__(self, measured: Mapping[Piece, float]) -> None:
        """`measured`: milliseconds by piece."""
        self._measured, self._groups = measured, groups(measured)
        self._fits: dict[tuple[Any, ...], _Fit] = {}

    def __call__(self, piece: Piece, where: object = "") -> float:
        """Milliseconds of a piece. Raises InputError where it lies outside the widths that were measured."""
        group = self._groups.get(piece.group)
        if not group or not _inside(piece, group):
            what = f"the latency table does not cover the piece '{piece}'"
            raise InputError(what, where, "build a table for this space, these joints and resolutions")
        if piece.group not in self._fits:
            self._fits[piece.group] = _Fit(group, self._measured)
        return self._fits[piece.group](piece)

    def leave_out_errors(self) -> NDArray[np.float64]:
        """Relative errors of measured pieces that lie within the others of their group, each predicted by the others.

        Of kinds that are interpolated at all. They are upper bounds: what is left out is itself one of those chosen to
        span the group.
        """
        errors = []
        for group in (group for group in self._groups.values() if group[0].kind not in ALWAYS):
            for piece in group:
                others = [one for one in group if one != piece]
                if others and _inside(piece, others):
                    ms = self._measured[piece]
                    errors.append((_Fit(others, self._measured)(piece) - ms) / ms)
        return np.array(errors)


def _inside(piece: Piece, group: list[Piece]) -> bool:
    points, point = np.array([one.widths for one in group]), np.array(piece.widths)
    return bool(np.all((points.min(0) <= point) & (point <= points.max(0))))


def work(piece: Piece) -> list[float]:
    """What a piece's time is roughly linear in: multiply-adds and channels."""
    if piece.kind == "block":
        hidden = piece["hidden"]
        return [piece["cin"] * hidden, hidden, hidden * piece["cout"]]
    if piece.kind == "deconv":
        cin, filters = piece["refined"] + piece["raw"], piece["filters"]
        return [cin * filters, cin, filters]
    return [float(value) for value in piece.widths]


class _Fit:
    """A group's function."""

    def __init__(self, group: list[Piece], measured: Mapping[Piece, float]) -> None:
        ms = np.array([measured[piece] for piece in group])
        rows = np.array([work(piece) for piece in group], np.float64)
        self._centre, self._scale = rows.mean(0), np.maximum(rows.std(0), 1e-9)
        points = (rows - self._centre) / self._scale
        _, sizes, axes = np.linalg.svd(points, full_matrices=False)
        # Few points do not say how the time depends on each quantity: then along how they vary most.
        real = sizes > 1e-6 * max(sizes.max(initial=0), 1e-9)
        self._axes = axes[real][: max(1, len(group) - 2)].T
        self._points = points @ self._axes
        count, dims = self._points.shape
        self._linear = dims if count > dims + 1 else 0
        basis = self._basis(self._points)
        system = np.zeros((count + basis.shape[1],) * 2)
        system[:count, :count] = -_distances(self._points, self._points)
        system[:count, count:], system[count:, :count] = basis, basis.T
        target = np.concatenate([ms, np.zeros(basis.shape[1])])
        self._weights = np.linalg.lstsq(system, target, rcond=None)[0]
        self._least = float(ms.min())

    def _basis(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.hstack([np.ones((len(points), 1)), points[:, : self._linear]])

    def __call__(self, piece: Piece) -> float:
        point = ((np.array([work(piece)]) - self._centre) / self._scale) @ self._axes
        terms = np.hstack([-_distances(point, self._points), self._basis(point)])
        return float(max((terms @ self._weights)[0], self._least / 2))


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(one[:, None] - other[None], axis=2)
