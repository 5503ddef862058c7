"""Predict what a network takes on a device from the latencies of its pieces: quick, and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.plan import Plan, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import Genomes, population_plan
from ofa_pose.latency.interpolate import Interpolator
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.latency.pieces import FIELDS, Piece, plan_pieces, space_pieces
from ofa_pose.utils.errors import InputError

TERMS = {"stem": 0, "block": 0, "deconv": 1, "output": 1}  # which sum a piece goes into


@dataclass(frozen=True)
class Correction:
    """From the sums over a network's pieces to the whole network's time; fitted on networks that were measured whole.

    What follows a piece in a network finds other data in the caches than one that is measured alone, and calling a
    runtime takes a while that a network pays once.

    Attributes:
        factors: of the backbone's sum (stem and blocks) and the head's (deconv steps and outputs).
        each: milliseconds that every piece adds; negative where calling the runtime takes long.
    """

    factors: tuple[float, float] = (1.0, 1.0)
    each: float = 0.0


class Predictor:
    """Latencies of networks of the space, joints and resolutions that a table was built for, in milliseconds.

    Attributes:
        correction: from the pieces' sums to whole networks.
        error: the mean relative error, as a share, on the whole networks that the correction was fitted on.
    """

    def __init__(self, table: LatencyTable, where: object = "") -> None:
        """
        Args:
            where: the table's file, for messages.

        Raises:
            InputError: the table is not complete.
        """
        table.check_complete(where)
        self._where, self._joints = where, table.header.joints
        pieces, nets = table.pieces, table.nets
        self._interpolate = Interpolator(pieces)
        self._measured, self._known = pieces.keys(), dict(pieces)
        self._codes: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for kind in FIELDS:
            self._sort(kind)
        self.correction = self._fit(nets)
        self.error = float(np.mean([abs(self.predict_ms(spec) / ms - 1) for spec, ms in nets.items()]))

    def check_covers(self, space: SearchSpace, joints: int) -> tuple[int, int]:
        """How many of the pieces of a space's subnets are interpolated, and how many there are.

        Raises:
            InputError: the table cannot tell the latency of every subnet.
        """
        built = self._joints
        if joints != built:
            what = f"the latency table is of networks of {built} joints, these have {joints}"
            raise InputError(what, self._where, f"build one with --joints {joints}")
        pieces = space_pieces(space, joints)
        interpolated = sum(piece not in self._measured for piece in pieces)
        for piece in pieces:
            self._one(piece)
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
        """Over the pieces that are there: the backbone's milliseconds, the head's, the number of pieces.

        Args:
            blocks: of a plan of many networks, which of them have each block.
        """
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
        (backbone, head), fit = sums[:2], self.correction
        ms = fit.factors[0] * backbone + fit.factors[1] * head + fit.each * sums[2]
        return np.maximum(ms, FLOOR * (backbone + head))

    def _one(self, piece: Piece) -> float:
        ms = self._known.get(piece)
        if ms is None:
            ms = self._known[piece] = self._interpolate(piece, self._where)
        return ms

    def _many(self, piece: Piece) -> Any:
        """The milliseconds of a piece of many networks: a number, or (N,)."""
        codes = np.asarray(piece.code())
        known, ms = self._codes[piece.kind]
        places = np.minimum(np.searchsorted(known, codes), max(len(known) - 1, 0))
        missing = known[places] != codes if len(known) else np.ones(codes.shape, bool)
        if missing.any():
            rows = np.stack([np.broadcast_to(sizes, codes.shape)[missing] for sizes in piece.sizes], axis=-1)
            for row in np.unique(rows, axis=0).tolist():
                self._one(Piece(piece.kind, tuple(row)))
            self._sort(piece.kind)
            return self._many(piece)
        return ms[places]

    def _sort(self, kind: str) -> None:
        found = sorted((int(piece.code()), ms) for piece, ms in self._known.items() if piece.kind == kind)
        codes, values = [code for code, _ in found], [ms for _, ms in found]
        self._codes[kind] = (np.array(codes, np.int64), np.array(values, np.float64))

    def _fit(self, nets: Mapping[ArchSpec, float]) -> Correction:
        """Least squares of relative errors over whole networks, measured in milliseconds."""
        if len(nets) < 4:
            return Correction()
        sums = [self._sums(make_plan(spec)) for spec in nets]
        measured = np.array(list(nets.values()))
        rows = np.array(sums, np.float64) / measured[:, None]
        return _fitted(rows)


FLOOR = 0.25  # no correction leaves less than this share of the pieces' sum


def _fitted(rows: NDArray[np.float64]) -> Correction:
    """The correction whose products with `rows` (networks, 3) are nearest to 1, both factors at least 0."""
    best, least = Correction(), np.inf
    for kept in ([0, 1, 2], [0, 2], [1, 2]):
        values = np.zeros(3)
        values[kept] = np.linalg.lstsq(rows[:, kept], np.ones(len(rows)), rcond=None)[0]
        error = float(np.square(rows @ values - 1).sum())
        if values[:2].min() >= 0 and error < least:
            best, least = Correction((float(values[0]), float(values[1])), float(values[2])), error
    return best


def load_predictor(path: str | Path) -> Predictor:
    """The predictor of a latency table's file. Raises InputError where it is none, or not complete."""
    return Predictor(LatencyTable.load(path), path)
