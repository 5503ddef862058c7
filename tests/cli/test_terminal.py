"""What a person sees on a terminal of 80 columns: nothing cut, nothing twice, nothing of libraries, or nothing."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from ofa_pose.api import datasets, evaluating, exchanging, profiling, searching, studying, training
from ofa_pose.api.searching import ReportResult
from ofa_pose.arch.presets import load_spec
from ofa_pose.cli import completing, run
from ofa_pose.cli.device_views import show_comparison, show_verification
from ofa_pose.cli.views import after_search, show_report, show_search, show_training
from ofa_pose.costs import macs
from ofa_pose.latency.comparison import ComparedNet, ImageTime, LatencyComparison
from ofa_pose.latency.measure import Verification
from ofa_pose.searches.results import SearchResult, SubnetFigures
from ofa_pose.train.loop import TrainingResult
from tests.cli.conftest import Call, Called

LONG = ("scaled-higherhrnet-shrink1", "litepose-xs", "scaled-higherhrnet-w24")


def test_quiet(call: Call, recipe: Path, tmp_path: Path) -> None:
    assert call("profile", "litepose-xs", "--quiet") == Called(0, "", "")
    shown = call("profile", "litepose-xs", "--quiet", "--json")
    assert shown.err == "" and shown.result["joints"] == 17
    words = ("pretrain", "--recipe", recipe, "--set", "train.steps=1", "--device", "cpu", "--quiet", "--out")
    trained = call(*words, tmp_path / "run")
    assert (trained.code, trained.out, trained.err) == (0, "", "")
    again = call(*words, tmp_path / "run")
    assert again.code == 2 and again.err.startswith("error: "), "what is wrong is said"
    resumed = call("pretrain", "--resume", "--out", tmp_path / "run", "--set", "train.steps=2")
    assert resumed.code == 0 and "best AP" in resumed.err, "the first call's --quiet is not the second's"
    assert "train.steps was 1, is 2" in resumed.err


def test_an_opening_and_an_end(call: Call, recipe: Path, tmp_path: Path) -> None:
    done = call("pretrain", "--recipe", recipe, "--device", "cpu", "--out", tmp_path / "run")
    lines = done.err.splitlines()
    start, names = (
        lines.index("pretrain"),
        ("network", "costs", "training", "held out", "validation", "steps", "device"),
    )
    for name in (*names, "writes"):
        assert any(line.startswith(f"  {name}") for line in lines[start:]), name
    text = " ".join(done.err.split())
    assert "12 images" in text and "4 images" in text and "4 of 2 images each, 6 an epoch: 0.7 epochs" in text
    assert re.search(r"best AP +0\.\d{4} on 4 validation images, \d+ people, without the flip test", text)
    assert re.search(r"^took +\d", done.err, flags=re.MULTILINE) and (tmp_path / "run" / "poses.jpg").is_file()


def test_one_ap_of_one_net_on_one_split_is_one_number(call: Call, recipe: Path, data: Path, tmp_path: Path) -> None:
    few = ("train.steps=1", "train.batch=2", "train.evaluate_images=8", "decode.calibrate=false", "train.lr=1e-6")
    words = [word for one in (*few, "space=litepose-nano") for word in ("--set", one)]
    start = ("--init", "litepose-nano-coco", "--device", "cpu", "--out", tmp_path / "run")
    trained = call("pretrain", "--recipe", recipe, *words, *start, "--json").result
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    scored = call("eval", "--checkpoint", tmp_path / "run", *where, "--no-flip", "--device", "cpu")
    assert trained["AP"] > 0.05
    assert f"AP {trained['AP']:.4f} ± " in " ".join(scored.err.split()) and "without the flip test" in scored.err
    assert "with the flip test" in call("eval", "--checkpoint", tmp_path / "run", *where, "--device", "cpu").err


@pytest.mark.parametrize(
    ("line", "place", "found"),
    [
        ("ofa-pose train-s", 1, "train-supernet"),
        ("ofa-pose search --lat", 2, "--latency-table"),
        ("ofa-pose wa", 1, "watch"),
        ("ofa-pose search --algorithm ns", 3, "nsga2"),
        ("ofa-pose pretrain --recipe na", 3, "nano"),
        ("ofa-pose pretrain --net higherhrnet-w4", 3, "higherhrnet-w48"),
        ("ofa-pose study ker", 2, "kernels"),
        ("ofa-pose latency build --space litepose-na", 4, "litepose-nano"),
        ("ofa-pose latency bundle --format we", 4, "web"),
        ("ofa-pose data convert export.json --format yo", 5, "yolo"),
    ],
)
def test_the_shell_completes(
    call: Call, monkeypatch: pytest.MonkeyPatch, line: str, place: int, found: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ofa-pose"])
    for name, value in (("OFA_POSE_COMPLETE", "complete_bash"), ("COMP_WORDS", line), ("COMP_CWORD", str(place))):
        monkeypatch.setenv(f"_{name}" if name.startswith("OFA") else name, value)
    with pytest.raises(SystemExit):
        run([])
    assert found in capfd.readouterr().out.split()


def test_what_the_shell_completes_is_a_parameter_with_values() -> None:
    modules = (datasets, evaluating, exchanging, profiling, searching, studying, training)
    functions = {name: one for module in modules for name, one in inspect.getmembers(module, inspect.isfunction)}
    known = {name: {*inspect.signature(function).parameters} for name, function in functions.items()}
    for key, values in completing.VALUES.items():
        function, _, parameter = key.rpartition(".")
        assert parameter in (known[function] if function else set().union(*known.values())), key
        assert [*values()] and all(isinstance(value, str) for value in values()), key


def test_of_several_processes_the_first_shows_the_help(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        shown = call("pretrain", "--help")
        assert shown.code == 0 and ("--recipe" in shown.out) == (rank == "0")


def test_warnings_of_libraries_are_not_shown(
    call: Call, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    profile = macs.profile

    def warns(*given: object) -> object:
        warnings.warn("of a library", FutureWarning, stacklevel=1)
        return profile(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(macs, "profile", warns)
    shown = call("profile", "litepose-xs")
    assert shown.code == 0 and "of a library" not in shown.err and not recwarn.list


def lines_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    shown = capfd.readouterr().err
    assert "…" not in shown
    return shown.splitlines()


def test_a_comparison_fits(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    time, counts = ImageTime(1234.5, 100.5, 1335.0, 12.34, 10.01), dict.fromkeys(("thop", "exact", "paper"), 11.3e9)
    backends = {"onnxruntime": "onnxruntime 1.32.0", "onnxruntime-int8": "onnxruntime-int8 1.32.0"}
    for names in (["onnxruntime"], [*backends]):
        nets = [ComparedNet(net, one, 512, 17, 7_210_000, counts, time, time) for net in LONG for one in names]  # type: ignore[arg-type]
        runtimes = {name: backends[name] for name in names}
        show_comparison(LatencyComparison(runtimes, "A processor", 1, 5, LONG[0], 8, 2.6, nets))
        lines = lines_of(capfd)
        assert all(any(net in line for line in lines) for net in (*LONG, *(names if len(names) > 1 else ())))
        assert max(map(len, lines[1:-1])) <= 80


def test_a_verification_fits(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setenv("COLUMNS", "80")
    specs = [load_spec("litepose-xs"), load_spec("litepose-l")]
    show_verification(Verification(specs, np.array([123.4, 5.6]), np.array([120.0, 6.0]), 1.01))  # type: ignore[arg-type]
    table = lines_of(capfd)[:4]
    assert len(table) == 4 and max(map(len, table)) <= 110


def test_figures_have_words_and_units(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec, counts = load_spec("litepose-xs"), {"thop": 170_352_640, "exact": 1e8, "paper": 1.6e8}
    best = SubnetFigures(spec, 0.5, 0.02, counts, 522_696, 12.345)  # type: ignore[arg-type]
    int8 = {"calibration_images": 64, "annotations": "train.json", "images": "train"}
    paths = {"archive": tmp_path / "a.sqlite", "out": tmp_path, "subnet": tmp_path / "b.yaml", "checkpoint": None}
    more = {"chosen": None, "front": [], "uniform": [], "saving": None, "notes": [], "seconds": 75.2, "people": 1}
    found = SearchResult(best=best, evaluations=1200, judged=700, algorithm="nsga2", int8=int8, **paths, **more)  # type: ignore[arg-type]
    show_search(found)
    shown = " ".join(capfd.readouterr().err.split())
    for words in (
        "0.5000 ± 0.0200 (standard error) on the search images, 1 person, without the flip test",
        "170M (thop), 100M (exact), 160M (paper) MACs, 523K parameters, 12.3 ms",
        "1,200 subnets by nsga2, 500 of them looked up in the archive",
        "took 1 min 15 s",
        "64 training images (train.json)",
    ):
        assert words in shown, words
    after_search(found, {"supernet": "runs/a b"})
    assert " --int8 --out …" in capfd.readouterr().err
    after_search(replace(found, best=replace(best, AP=0.0)), {"supernet": "runs/a b"})
    assert not capfd.readouterr().err
    show_training(TrainingResult(0.25, 500, 1000, tmp_path, tmp_path, 150, 420, 3750.0, None))
    shown = " ".join(capfd.readouterr().err.split())
    assert "best AP 0.2500 on 150 validation images, 420 people, without the flip test" in shown
    assert "after step 500 of 1,000" in shown and "took 1 h 2 min" in shown


def test_a_small_report_has_a_size(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    show_report(ReportResult(tmp_path / "report.html", 31_249))
    assert "(31.2 kB)" in capfd.readouterr().err
