"""Judging a table with a device that has no clock."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.latency.measure import draw, random_nets, verify
from tests.latency.tables import FakeDevice, clock, few_networks, make_table


def nets_of(table: LatencyTable, count: int, seed: int) -> list[ArchSpec]:
    return random_nets(table.header.space, table.header.joints, table.nets, count, seed)


def test_the_drift_since_the_table_was_built_is_divided_out(
    tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "visit", clock(lambda: 1.7))
    table = make_table(tiny_space)
    found = verify(table, FakeDevice(), nets_of(table, 15, seed=0), rounds=2)
    assert found.drift == pytest.approx(1.7)
    result = found.to_dict()
    assert result["nets"] == 15
    assert result["mape"] < 1e-6
    assert result["spearman"] == pytest.approx(1)
    assert result["kendall"] == pytest.approx(1)


def test_errors_are_reported(tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = make_table(tiny_space)
    specs = nets_of(table, 10, seed=1)
    slow = {specs[0], specs[1]}

    def visit(run, threads):  # type: ignore[no-untyped-def]
        return clock(lambda: 2.0 if run() in slow else 1.0)(run, threads)

    monkeypatch.setattr(on_device, "visit", visit)
    found = verify(table, FakeDevice(), specs, rounds=1)
    assert found.errors[:2] == pytest.approx([-0.5, -0.5])
    assert found.errors[2:] == pytest.approx([0] * 8, abs=1e-6)
    assert found.to_dict()["mape"] == pytest.approx(0.1)
    assert found.to_dict()["spearman"] < 1
    draw(tmp_path / "picture.png", found, "a title")
    assert cv2.imread(str(tmp_path / "picture.png")) is not None


def test_random_nets_are_the_seeds_and_none_of_the_tables(tiny_space: SearchSpace) -> None:
    table = make_table(tiny_space)
    nets = nets_of(table, 30, seed=0)
    assert nets == nets_of(table, 30, seed=0) != nets_of(table, 30, seed=1)
    assert len(set(nets)) == 30 and not set(nets) & set(table.nets)
    assert nets_of(make_table(few_networks(tiny_space)), 3, seed=0) == []  # both are its own
