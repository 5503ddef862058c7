"""Searches under a latency budget, through the command line, by a table that needs no clock."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.latency.predictor import load_predictor
from ofa_pose.utils.files import read_yaml
from tests.cli.conftest import Call
from tests.latency.tables import make_table

JOINTS = 17


@pytest.fixture(scope="module")
def space(data: Path, recipe: Path) -> SearchSpace:
    return load_space(data / "tiny.yaml")


@pytest.fixture(scope="module")
def table(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "table.json"
    make_table(space, JOINTS).save(path)
    return path


def half_way(space: SearchSpace, table: Path) -> float:
    predict = load_predictor(table).predict_ms
    return round((predict(space.smallest(JOINTS)) + predict(space.largest(JOINTS))) / 2, 3)


@pytest.mark.parametrize("algorithm", ["evolution", pytest.param("nsga2", marks=pytest.mark.slow)])
def test_the_winner_and_all_others_keep_the_latency(
    call: Call, supernet: Path, space: SearchSpace, table: Path, tmp_path: Path, algorithm: str
) -> None:
    limit, out, own = half_way(space, table), tmp_path / "out", tmp_path / "table.json"
    own.write_bytes(table.read_bytes())
    words = ("search", "--supernet", supernet, "--latency-table", own, "--algorithm", algorithm, "--out", out)
    done = call(*words, "--latency", f"{limit}ms", "--macs", "1T", "--json")
    assert done.code == 0, done.err
    best = done.result["best"]
    assert best["latency_ms"] == load_predictor(table).predict_ms(ArchSpec.from_dict(best["spec"])) <= limit
    with (out / "history.csv").open() as file:
        told = [float(row["latency_ms"]) for row in csv.DictReader(file)]
    assert len(told) == done.result["evaluations"] and max(told) <= limit
    assert read_yaml(out / "best.yaml")["budget"]["latency_ms"] == pytest.approx(limit)
    assert call("report", out, "--json").code == 0
    assert (
        "Latencies are predicted from table.json: a device, onnxruntime 1, 1 thread."
        in (out / "report.html").read_text()
    )
    own.write_text(own.read_text() + "\n")
    assert call("report", out, "--json").code == 0
    assert "which is not found or has changed" in (out / "report.html").read_text()


def test_the_front_is_over_latency_where_nothing_else_is_limited(
    call: Call, supernet: Path, space: SearchSpace, table: Path, tmp_path: Path
) -> None:
    limit = half_way(space, table)
    words = ("--latency", f"{limit}ms", "--latency-table", table, "--algorithm", "nsga2", "--out", tmp_path / "out")
    done = call("search", "--supernet", supernet, *words, "--json")
    assert done.code == 0, done.err
    front = done.result["front"]
    costs = [member["cost"] for member in front]
    assert costs == [member["latency_ms"] for member in front] == sorted(costs)
    aps = [member["AP"] for member in front]
    assert aps == sorted(aps)


def test_a_table_without_a_limit_is_only_recorded(call: Call, supernet: Path, table: Path, tmp_path: Path) -> None:
    words = ("--macs", "1T", "--latency-table", table, "--out", tmp_path / "out", "--json")
    done = call("search", "--supernet", supernet, *words)
    assert done.code == 0, done.err
    assert done.result["best"]["latency_ms"] > 0


def test_a_search_is_not_resumed_with_another_table(
    call: Call, supernet: Path, space: SearchSpace, table: Path, tmp_path: Path
) -> None:
    words = ("search", "--supernet", supernet, "--latency", f"{half_way(space, table)}ms", "--out", tmp_path / "out")
    assert call(*words, "--latency-table", table).code == 0
    other = tmp_path / "other.json"
    value = json.loads(table.read_text())
    other.write_text(json.dumps(value, indent=3))
    refused = call(*words, "--latency-table", other, "--resume")
    assert refused.code == 2 and "another budget" in refused.err


def test_a_table_that_contradicts_itself_is_told(
    call: Call, supernet: Path, space: SearchSpace, table: Path, tmp_path: Path
) -> None:
    value = json.loads(table.read_text())
    for index, net in enumerate(value["nets"]):
        net["ratios"] = [ratio * (3 if index % 2 else 1) for ratio in net["ratios"]]
    (tmp_path / "odd.json").write_text(json.dumps(value))
    words = ("search", "--supernet", supernet, "--latency", "1us", "--out", tmp_path / "out", "--latency-table")
    assert "predicts its own networks" in call(*words, tmp_path / "odd.json").err
    assert "predicts its own networks" not in call(*words, table).err


@pytest.mark.parametrize(("backend", "again"), [("ncnn", "latency build"), ("onnxruntime-web-wasm", "latency bundle")])
def test_a_table_with_interpolated_pieces_says_what_measures_all(
    call: Call, supernet: Path, space: SearchSpace, tmp_path: Path, backend: str, again: str
) -> None:
    some = make_table(space, JOINTS, share=0.3)
    replace(some, header=replace(some.header, backend=backend, runtime=f"{backend} 1.0")).save(tmp_path / "some.json")
    words = ("search", "--supernet", supernet, "--latency", "1us", "--out", tmp_path / "out", "--latency-table")
    said = call(*words, tmp_path / "some.json").err
    assert f"are interpolated, not measured; 'ofa-pose {again}" in said, said


def test_faults_are_told_in_a_line(call: Call, supernet: Path, space: SearchSpace, table: Path, tmp_path: Path) -> None:
    make_table(space, 14).save(tmp_path / "joints.json")
    for words, told in (
        (("--latency", "5ms"), "latency build"),
        (("--latency", "5", "--latency-table", table), "is not a time"),
        (("--latency", "1us", "--latency-table", table), "raise --latency to at least"),
        (("--latency", "5ms", "--latency-table", tmp_path / "none.json"), "no such file"),
        (("--latency", "5ms", "--latency-table", tmp_path / "joints.json"), "--joints 17"),
    ):
        done = call("search", "--supernet", supernet, *words, "--out", tmp_path / "out")
        assert done.code == 2, words
        assert told in done.err and "Traceback" not in done.err, done.err
    assert not (tmp_path / "out").exists()
