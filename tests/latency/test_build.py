"""Measuring a table with a device that has no clock: drift, interruption, what is measured."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.backends import on_device
from ofa_pose.backends.on_device import sweep
from ofa_pose.latency import measure
from ofa_pose.latency.latency_table import LatencyTable, Samples
from ofa_pose.latency.measure import build_table
from ofa_pose.latency.pieces import reference_nets, space_pieces
from ofa_pose.utils import run_dir
from ofa_pose.utils.errors import InputError
from tests.latency.tables import FakeDevice, clock, net_ms, subject_ms


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "open_device", lambda backend, threads: FakeDevice())
    monkeypatch.setattr(on_device, "visit", clock(lambda: 1.0))


def test_a_table_holds_all_pieces_and_spanning_nets(tiny_space: SearchSpace, tmp_path: Path) -> None:
    table = build_table(tmp_path / "t.json", tiny_space, 14, "onnxruntime", 1, 1.0, 3, resume=False)
    assert set(table.pieces) == set(space_pieces(tiny_space, 14))
    assert list(table.nets) == reference_nets(tiny_space, 14)
    assert all(len(seen) == 3 for seen in table.ratios.values())
    read = LatencyTable.load(tmp_path / "t.json")
    for subject, ms in {**read.pieces, **read.nets}.items():
        assert ms == pytest.approx(subject_ms(subject), rel=1e-4)


def test_a_machine_that_slows_down_does_not_matter(tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count()
    monkeypatch.setattr(on_device, "visit", clock(lambda: 1 + next(count) / 500))
    monkeypatch.setattr(on_device, "BATCH_S", 0.0)
    anchor = tiny_space.smallest(14)
    ratios: Samples = {piece: [] for piece in space_pieces(tiny_space, 14)}
    list(sweep(FakeDevice().load, 1, anchor, [], ratios, rounds=1))
    assert next(count) > 300
    for piece, (ratio,) in ratios.items():
        assert ratio * net_ms(anchor) == pytest.approx(subject_ms(piece), rel=0.01)


def test_every_round_has_an_order_of_its_own(tiny_space: SearchSpace) -> None:
    seen: list[object] = []

    class Recording(FakeDevice):
        def load(self, subject):  # type: ignore[no-untyped-def]
            seen.append(subject)
            return super().load(subject)

    ratios: Samples = {piece: [] for piece in space_pieces(tiny_space, 14)}
    list(sweep(Recording().load, 1, tiny_space.smallest(14), [], ratios, rounds=2))
    first, second = seen[1 : 1 + len(ratios)], seen[1 + len(ratios) :]
    assert set(first) == set(second) == set(ratios)
    assert first != second != list(ratios)


def test_what_was_killed_is_gone_on_with(
    tiny_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    whole = len(space_pieces(tiny_space, 14)) + len(reference_nets(tiny_space, 14))

    def killed(run: object, threads: int) -> float:
        if next(calls) == whole + whole // 2:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(on_device, "visit", killed)
    monkeypatch.setattr(on_device, "BATCH_S", 0.0)
    task = (tmp_path / "t.json", tiny_space, 14, "onnxruntime", 1, 1.0, 2)
    with pytest.raises(KeyboardInterrupt):
        build_table(*task, resume=False)
    cut = LatencyTable.load(tmp_path / "t.json")
    done = sum(map(len, cut.ratios.values()))
    assert 0 < done < 2 * whole
    with pytest.raises(InputError, match="exists already"):
        build_table(*task, resume=False)
    monkeypatch.setattr(run_dir, "FREED_S", 0.0)
    with run_dir.alone_on(tmp_path / "t.json"), pytest.raises(InputError, match=r"t\.json: another process runs there"):
        build_table(*task, resume=True)
    timed = itertools.count()
    monkeypatch.setattr(on_device, "visit", lambda run, threads: next(timed) * 0 + 1.0)
    monkeypatch.setattr(on_device, "BATCH_S", 1000.0)
    table = build_table(*task, resume=True)
    assert all(len(seen) == 2 for seen in table.ratios.values())
    assert next(timed) - 3 <= 2 * whole - done  # the anchor is timed three times: at the start, and after each round
    with pytest.raises(InputError, match=r"other settings \(threads\)"):
        build_table(tmp_path / "t.json", tiny_space, 14, "onnxruntime", 2, 1.0, 2, resume=True)
