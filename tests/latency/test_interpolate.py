"""Pieces between measured ones."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_pose.arch.space import load_space
from ofa_pose.latency.pieces import Piece, space_pieces, spanning_pieces
from ofa_pose.latency.predictor import Interpolator
from ofa_pose.utils.errors import InputError
from tests.latency.tables import piece_ms


@pytest.mark.parametrize("name", ["litepose-nano", "litepose", "litepose-per-block"])
def test_times_linear_in_the_work_come_back(name: str) -> None:
    pieces = space_pieces(load_space(name), 17)
    kept = set(spanning_pieces(pieces, 0.5))
    interpolate = Interpolator({piece: piece_ms(piece) for piece in kept})
    missing = [piece for piece in pieces if piece not in kept]
    assert len(missing) > 100
    errors = [interpolate(piece) / piece_ms(piece) - 1 for piece in missing]
    assert np.abs(errors).max() < 0.25  # groups of few pieces have no linear function of all the work
    assert np.percentile(np.abs(errors), 90) < 0.05
    assert np.median(np.abs(errors)) < 1e-6


def test_measured_pieces_are_passed_through() -> None:
    pieces = spanning_pieces(space_pieces(load_space("litepose-nano"), 17), 0.6)
    rng = np.random.default_rng(0)
    ms = {piece: piece_ms(piece) * float(rng.uniform(0.7, 1.3)) for piece in pieces}
    interpolate = Interpolator(ms)
    for piece in pieces:
        if piece.kind == "block":  # deconv steps of as many channels in all are one to the function
            assert interpolate(piece) == pytest.approx(ms[piece], rel=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "stem cout=99 side=96",
        "stem cout=8 side=97",
        "block cin=8 hidden=48 cout=8 side=48 stride=2 kernel=5 residual=0",
        "output refined=12 raw=8 channels=14 side=48",
    ],
)
def test_what_lies_outside_is_refused(text: str) -> None:
    pieces = space_pieces(load_space("litepose-nano"), 17)
    interpolate = Interpolator({piece: piece_ms(piece) for piece in pieces})
    with pytest.raises(InputError, match="does not cover") as error:
        interpolate(Piece.parse(text), "table.json")
    assert text in str(error.value) and "table.json" in str(error.value)


def test_leaving_out_gives_the_error() -> None:
    pieces = space_pieces(load_space("litepose-nano"), 17)
    exact = {piece: piece_ms(piece) for piece in pieces}
    rough = {
        piece: ms * (1.5 if piece.kind == "deconv" and index % 2 else 1)
        for index, (piece, ms) in enumerate(exact.items())
    }
    low, high = (np.abs(Interpolator(ms).leave_out_errors()).mean() for ms in (exact, rough))
    assert low < 0.01 < 0.04 < high
