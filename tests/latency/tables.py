"""Makers of latency tables and of devices without a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.on_device import Run
from ofa_pose.latency.latency_table import Header, LatencyTable
from ofa_pose.latency.pieces import Piece, Subject, plan_pieces, table_subjects
from ofa_pose.latency.predictor import work


def header(space: SearchSpace, joints: int = 14, share: float = 1.0) -> Header:
    return Header(
        space, joints, "onnxruntime", "onnxruntime 1", 1, "a device", 2, "2026-01-01T00:00:00+00:00", share, 1
    )


def piece_ms(piece: Piece) -> float:
    """A time that is linear in a piece's work."""
    return 0.01 + 1e-6 * piece["side"] ** 2 * sum(work(piece))


def net_ms(spec: ArchSpec) -> float:
    """What a runtime makes of the pieces: the backbone is slower than alone, and each piece saves a call."""
    sums = {"backbone": 0.0, "head": 0.0}
    pieces = plan_pieces(make_plan(spec))
    for piece in pieces:
        sums["backbone" if piece.kind in ("stem", "block") else "head"] += piece_ms(piece)
    return 1.2 * sums["backbone"] + 0.9 * sums["head"] - 0.004 * len(pieces)


def subject_ms(subject: Subject) -> float:
    return piece_ms(subject) if isinstance(subject, Piece) else net_ms(subject)


def make_table(space: SearchSpace, joints: int = 14, share: float = 1.0) -> LatencyTable:
    """A complete table of a device that takes `piece_ms` and `net_ms`."""
    subjects = table_subjects(space, joints, share)
    return LatencyTable(header(space, joints, share), [2.0], {one: [subject_ms(one) / 2.0] for one in subjects})


class FakeDevice:
    """What it loads says how long it takes."""

    runtime, threads = "onnxruntime 1", 1

    def load(self, subject: Subject) -> Run:
        return lambda: subject


def clock(speed: Callable[[], float]) -> Callable[[Run, int], float]:
    """A `visit` without a clock: `subject_ms` times how slow the machine is at the moment."""

    def visit(run: Run, threads: int) -> float:
        return subject_ms(run()) * speed()  # type: ignore[arg-type]

    return visit


def measure_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results.csv of a bundle whose models all take a millisecond."""
    monkeypatch.setattr(on_device, "__file__", str(folder / "measure.py"))
    monkeypatch.setattr(on_device, "keep_memory", lambda: None)
    monkeypatch.setattr(on_device, "visit", lambda run, threads: 1.0)
    monkeypatch.setattr(on_device, "onnx_run", lambda *given: None)
    assert on_device.main(["--rounds", "1"]) == 0
    return folder / "results.csv"


def few_networks(space: SearchSpace) -> SearchSpace:
    """A space of two networks."""
    single = ((4,), (4,), (8,), (8,))
    return replace(space, resolution=(64,), stages=single, deconv=((4,), (4,), (6,)), expansion=(1,))
