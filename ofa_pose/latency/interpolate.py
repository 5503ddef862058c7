"""Latencies of pieces that were not measured, from measured ones that differ in widths alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.latency.pieces import ALWAYS, Piece, group_of, groups, widths
from ofa_pose.utils.errors import InputError


class Interpolator:
    """For each group of pieces, a linear function of their work plus radial ones that pass through what is measured.

    The radial functions are distances: they follow kinks, such as widths that fill a processor's vectors and such that
    do not, without swinging beyond them.
    """

    def __init__(self, measured: Mapping[Piece, float]) -> None:
        """`measured`: milliseconds by piece."""
        self._measured = measured
        self._groups = groups(list(measured))
        self._fits: dict[tuple[Any, ...], _Fit] = {}

    def __call__(self, piece: Piece, where: object = "") -> float:
        """Milliseconds of a piece. Raises InputError where it lies outside the widths that were measured."""
        key = group_of(piece)
        group = self._groups.get(key)
        if not group or not _inside(piece, group):
            what = f"the latency table does not cover the piece '{piece}'"
            raise InputError(what, where, "build a table for this space, these joints and resolutions")
        if key not in self._fits:
            self._fits[key] = _Fit(group, np.array([self._measured[one] for one in group]))
        return self._fits[key](piece)

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
                    fit = _Fit(others, np.array([self._measured[one] for one in others]))
                    errors.append((fit(piece) - ms) / ms)
        return np.array(errors)


def _inside(piece: Piece, group: list[Piece]) -> bool:
    points, point = np.array([widths(one) for one in group]), np.array(widths(piece))
    return bool(np.all((points.min(0) <= point) & (point <= points.max(0))))


def work(piece: Piece) -> list[float]:
    """What a piece's time is roughly linear in: multiply-adds and channels."""
    if piece.kind == "block":
        hidden = piece["hidden"]
        return [piece["cin"] * hidden, hidden, hidden * piece["cout"]]
    if piece.kind == "deconv":
        cin, filters = piece["refined"] + piece["raw"], piece["filters"]
        return [cin * filters, cin, filters]
    return [float(value) for value in widths(piece)]


class _Fit:
    """A group's function."""

    def __init__(self, group: list[Piece], ms: NDArray[np.float64]) -> None:
        rows = np.array([work(piece) for piece in group], np.float64)
        self._centre, self._scale = rows.mean(0), np.maximum(rows.std(0), 1e-9)
        points = (rows - self._centre) / self._scale
        _, sizes, axes = np.linalg.svd(points, full_matrices=False)
        # Few points do not say how the time depends on each quantity: then along how they vary most.
        real = sizes > 1e-6 * max(sizes.max(initial=0), 1e-9)
        self._axes = axes[real][: max(1, len(group) - 2)].T
        self._points = points @ self._axes
        count, dims = self._points.shape
        self._linear = count > dims + 1
        basis = self._basis(self._points)
        system = np.zeros((count + basis.shape[1],) * 2)
        system[:count, :count] = -_distances(self._points, self._points)
        system[:count, count:], system[count:, :count] = basis, basis.T
        target = np.concatenate([ms, np.zeros(basis.shape[1])])
        self._weights = np.linalg.lstsq(system, target, rcond=None)[0]
        self._least = float(ms.min())

    def _basis(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        ones = np.ones((len(points), 1))
        return np.hstack([ones, points]) if self._linear else ones

    def __call__(self, piece: Piece) -> float:
        point = (((np.array([work(piece)]) - self._centre) / self._scale) @ self._axes).reshape(1, -1)
        terms = np.hstack([-_distances(point, self._points), self._basis(point)])
        return float(max((terms @ self._weights)[0], self._least / 2))


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(one[:, None] - other[None], axis=2)
