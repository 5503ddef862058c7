"""`ofa-pose latency`: a table of a tiny space, measured on ONNX Runtime, through the command line."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.latency import measure
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.utils.files import dump_yaml
from tests.cli.conftest import Call
from tests.latency.tables import make_table, measure_bundle

pytest.importorskip("onnxruntime")


@pytest.fixture
def space_file(tiny_space: SearchSpace, tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(dump_yaml(tiny_space.to_dict()))
    return path


def test_build_then_verify(call: Call, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "verify", partial(measure.verify, rounds=4))
    table, picture = tmp_path / "table.json", tmp_path / "picture.png"
    words = ("--space", space_file, "--joints", 14, "--rounds", 1, "--share", 0.1, "--out", table)
    built = call("latency", "build", *words, "--json")
    assert built.code == 0, built.err
    assert built.result["nets"] == len(LatencyTable.load(table).nets)
    assert built.result["interpolation_error"]["pieces"] > 0
    verified = call("latency", "verify", "--table", table, "--nets", 5, "--out", picture, "--json")
    assert verified.code == 0, verified.err
    assert {"spearman", "kendall", "mape", "nets"} <= verified.result.keys()
    assert verified.result["nets"] == 5
    assert cv2.imread(str(picture)) is not None
    shown = call("latency", "verify", "--table", table, "--nets", 3)
    assert shown.code == 0 and "measured, ms" in shown.err
    again = call("latency", "build", *words)
    assert again.code == 2 and "--resume" in again.err
    assert call("latency", "build", *words, "--resume").code == 0


def test_faults_of_the_user_are_reported_in_a_line(
    call: Call, space_file: Path, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    (tmp_path / "other.json").write_text("{}")
    (table := make_table(tiny_space)).save(tmp_path / "table.json")
    few = replace(tiny_space, expansion=(1,), stem=(8,), stages=((8,), (8,), (12,), (16,)), deconv=((8,), (8,), (8,)))
    make_table(few).save(tmp_path / "few.json")
    browser = {"backend": "onnxruntime-web-wasm", "runtime": "onnxruntime-web-wasm 1.30.0"}
    replace(table, header=replace(table.header, **browser)).save(tmp_path / "phone.json")
    for words, message in (
        (("build", "--space", space_file, "--backend", "onx", "--out", tmp_path / "t.json"), "no such backend"),
        (("build", "--space", "nowhere", "--out", tmp_path / "t.json"), "no such search space"),
        (("verify", "--table", tmp_path / "none.json"), "no such file"),
        (("verify", "--table", tmp_path / "other.json"), "is not a latency table"),
        (("verify", "--table", tmp_path / "table.json", "--out", tmp_path / "picture.txt"), "is not a picture's name"),
        (("verify", "--table", tmp_path / "few.json", "--nets", 99), "has no 99 subnets"),  # at once
        (
            ("verify", "--table", tmp_path / "table.json", "--nets", 10**20),
            "out of range; give a number from 2 to 1000",
        ),
        (("verify", "--table", tmp_path / "phone.json"), "onnxruntime-web-wasm runs in a browser only; measure there"),
        (
            ("build", "--space", space_file, "--backend", "onnxruntime-web-webgpu", "--out", tmp_path / "t.json"),
            "onnxruntime-web-webgpu runs in a browser only; measure there: 'ofa-pose latency bundle --format web'",
        ),
        (
            ("bundle", "--space", space_file, "--runtime-files", tmp_path, "--out", tmp_path / "b"),
            "--runtime-files are for a page; add --format web",
        ),
        (("bundle", "--space", space_file, "--nets", 10**20, "--out", tmp_path / "b"), "a number from 0 to 1000"),
        (("bundle", "--space", space_file, "--format", "tflite", "--out", tmp_path / "b"), "no such format"),
        (("import", tmp_path / "other.json", "--out", tmp_path / "t.json"), "is not a results.csv"),
        (("import", tmp_path / "other.json", "--out", tmp_path / "table.json"), "table.json: exists already"),
    ):
        done = call("latency", *words)
        assert done.code == 2, words
        assert message in done.err and "Traceback" not in done.err
    assert not (tmp_path / "t.json").exists()


def test_a_measured_bundle_comes_home_by_its_folder(
    call: Call, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    made = call("latency", "bundle", "--space", space_file, "--joints", 14, "--out", bundle, "--share", 0.5)
    assert made.code == 0 and "python bundle/measure.py --threads N, as many as" in " ".join(made.err.split()), made.err
    early = call("latency", "import", bundle, "--out", tmp_path / "early.json")
    assert early.code == 2 and "results.csv: no such file" in early.err
    measure_bundle(bundle, monkeypatch)
    home = call("latency", "import", bundle, "--out", tmp_path / "table.json", "--json")
    assert home.code == 0, home.err
    assert home.result["nets"] == len(LatencyTable.load(tmp_path / "table.json").nets)
    assert home.result["verification"].keys() == {"spearman", "kendall", "mape", "nets"}
    assert home.result["verification"]["nets"] == 15


def test_a_page_is_said_how_to_serve(call: Call, space_file: Path, tmp_path: Path) -> None:
    words = ("--space", space_file, "--joints", 14, "--nets", 0, "--format", "web", "--out", tmp_path / "page")
    made = call("latency", "bundle", *words)
    assert made.code == 0 and f"python -m http.server --directory {tmp_path / 'page'}" in " ".join(made.err.split())
    assert "https://cdn.jsdelivr.net/npm/onnxruntime-web@" in (tmp_path / "page" / "index.html").read_text()


def test_ctrl_c_is_reported(call: Call, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("ofa_pose.latency.measure.build_table", interrupted)
    done = call("latency", "build", "--space", space_file, "--out", tmp_path / "table.json")
    assert (done.code, done.out) == (130, "")
    assert done.err == "error: interrupted; the same call with --resume goes on\n"
