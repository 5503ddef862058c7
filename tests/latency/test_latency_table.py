"""The file of a latency table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.latency.latency_table import Header, LatencyTable
from ofa_pose.latency.predictor import Predictor
from ofa_pose.utils.errors import InputError
from tests.latency.tables import header, make_table


def test_a_table_reads_back_what_it_writes(tiny_space: SearchSpace, tmp_path: Path) -> None:
    table = make_table(tiny_space)
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again.header == table.header
    assert again.anchor == table.anchor
    assert again.ratios.keys() == table.ratios.keys()
    for subject in table.ratios:
        assert again.ms(subject) == pytest.approx(table.ms(subject), rel=1e-5)
    json.loads((tmp_path / "table.json").read_text())


def test_a_line_for_each_piece(tiny_space: SearchSpace, tmp_path: Path) -> None:
    table = make_table(tiny_space)
    table.save(tmp_path / "table.json")
    lines = (tmp_path / "table.json").read_text().splitlines()
    assert sum(line.startswith('  "block ') for line in lines) == sum(p.kind == "block" for p in table.pieces)


def test_times_are_medians_over_rounds_times_the_anchors_median(tiny_space: SearchSpace) -> None:
    table = make_table(tiny_space)
    piece = next(iter(table.pieces))
    table.ratios[piece] = [0.5, 9.0, 0.6]
    table.anchor[:] = [3.0, 2.0, 100.0]
    assert table.ms(piece) == pytest.approx(1.8)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda value: value.clear(), "is not a latency table"),
        (lambda value: value.update(format="other"), "is not a latency table"),
        (lambda value: value.pop("threads"), "malformed"),
        (lambda value: value.update(pieces=[1]), "malformed"),
        (lambda value: value.update(threads="1"), "its threads is '1'"),
        (lambda value: value.update(rounds=0), "its rounds is 0"),
        (lambda value: value.update(anchor_ms=[10**400]), "a time is not between 1e-09 and 1e[+]09"),
        (lambda value: value["nets"][0].update(ratios=[1e-320]), "a time is not between"),
        (lambda value: value.update(share=float("nan")), "its share is nan"),
        (lambda value: value.update(device=None), "its device is None"),
        (lambda value: value.update(backend="ncnn"), "its backend is ncnn, its runtime onnxruntime 1"),
        (lambda value: value["pieces"].update({"stem cout=8 side=64": ["fast"]}), "malformed"),
        (lambda value: value["pieces"].update({"stem cout=8 side=64": [-1.0]}), "malformed"),
        (lambda value: value["pieces"].update({"stem cout=8 side=64": [10**400]}), "malformed"),
        (lambda value: value["pieces"].update({"stem colour=8": [1.0]}), "is not a piece"),
        (lambda value: value["nets"].append({"spec": {}, "ratios": []}), "has no 'resolution'"),
        (lambda value: value["space"].pop("stem"), "has no 'stem'"),
    ],
)
def test_damaged_tables_are_refused(tiny_space: SearchSpace, tmp_path: Path, damage, message: str) -> None:
    path = tmp_path / "table.json"
    make_table(tiny_space).save(path)
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=message) as error:
        LatencyTable.load(path)
    assert str(path) in str(error.value)


def without_nets(table: LatencyTable) -> None:
    for spec in table.nets:
        del table.ratios[spec]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda table: table.anchor.clear(), "lacks the times of its reference network; build or import it again"),
        (
            lambda table: next(iter(table.ratios.values())).clear(),
            "measuring was cut off: 1 of .* timings wait; start the same .* with --resume",
        ),
        (lambda table: table.ratios.popitem(), "lacks 1 of the .* pieces and networks .*; build or import it again"),
        (lambda table: table.ratios.pop(next(iter(table.pieces))), "lacks 1 of"),
        (without_nets, "lacks 20 of"),
        (lambda table: table.ratios.clear(), "lacks all pieces and networks that its header names; build or import"),
    ],
)
def test_incomplete_tables_are_reported(
    tiny_space: SearchSpace, damage: Callable[[LatencyTable], object], message: str
) -> None:
    table = make_table(tiny_space)
    table.check_complete()
    damage(table)
    with pytest.raises(InputError, match=rf"table\.json: {message}"):
        Predictor(table, "table.json")


def test_every_round_counts(tiny_space: SearchSpace) -> None:
    table = make_table(tiny_space)
    more = LatencyTable(replace(table.header, rounds=3), table.anchor, table.ratios)
    with pytest.raises(InputError, match=f"{2 * len(table.ratios):,} of {3 * len(table.ratios):,} timings wait"):
        more.check_complete()


def test_the_date_alone_does_not_make_another_task(tiny_space: SearchSpace) -> None:
    table = make_table(tiny_space)
    assert table.header.differing(replace(header(tiny_space), date="2027-01-01")) == []
    assert table.header.differing(replace(header(tiny_space), threads=2)) == ["threads"]


@pytest.mark.parametrize("name", ["joints", "threads", "cores", "rounds"])
def test_a_header_of_counts_that_nothing_has_is_refused(tiny_space: SearchSpace, name: str) -> None:
    with pytest.raises(ValueError, match=f"its {name} is 1000000"):
        Header.from_dict({**header(tiny_space).to_dict(), name: 10**30})
