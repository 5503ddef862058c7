"""`ofa-pose study`: trainings compared, cut off and gone on with, alone and in several processes; what it refuses."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.utils import run_dir
from ofa_pose.utils.files import STUDIES, dump_yaml, read_json, shipped_folder, write_text
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused
from tests.train.test_loop import same

ROOT = Path(__file__).resolve().parents[2]
NET = {"resolution": 32, "stem": 4, "stages": [4, 4, 8, 8], "expansions": [[1], [1], [1], [1]], "deconv": [4, 4, 4]}
STEPS = 40
EVERY = {"evaluate_every": STEPS, "evaluate_images": 4, "checkpoint_every": 3}
TINY: dict[str, Any] = {
    "asks": "Which kernel?",
    "seeds": [0, 1],
    "picture": "macs",
    "scenes": {"size": 64, "joints": "crowdpose", "people": 1, "train": 12, "val": 4, "test": 6},
    "settings": {"train": {"steps": STEPS, "batch": 2, "workers": 0, "resolutions": None, **EVERY}},
    "runs": {
        "small": {"command": "pretrain", "arm": "3×3", "net": {**NET, "kernel": 3, "joints": 14}},
        "large": {"command": "pretrain", "arm": "5×5", "net": {**NET, "kernel": 5, "joints": 14}},
    },
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies") / "tiny.yaml"
    write_text(path, dump_yaml(TINY))
    return path


@pytest.fixture(scope="session")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that nobody cut off."""
    from ofa_pose.cli import run

    out = tmp_path_factory.mktemp("whole") / "study"
    assert run(["study", str(tiny), "--out", str(out), "--device", "cpu"]) == 0
    return out


def rows(out: Path) -> list[dict[str, str]]:
    """study.csv without the clock's column."""
    with (out / "study.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def check_same(out: Path, whole: Path) -> None:
    assert rows(out) == rows(whole)
    for row in rows(whole):
        run = Path(f"seed-{row['seed']}") / row["run"]
        one, other = (load_checkpoint(folder / run) for folder in (out, whole))
        assert same(one.weights, other.weights), run


def test_a_study_leaves_its_table_and_its_runs(whole: Path) -> None:
    found = rows(whole)
    assert [(row["run"], row["arm"], row["seed"]) for row in found] == [
        (run, arm, seed) for seed in ("0", "1") for run, arm in (("small", "3×3"), ("large", "5×5"))
    ]
    assert {row["metric"] for row in found} == {"AP"} and {row["steps"] for row in found} == {str(STEPS)}
    assert int(found[1]["macs_exact"]) > int(found[0]["macs_exact"]) > 0
    text = (whole / "study.md").read_text()
    assert "Which kernel?" in text and "| 5×5 |" in text and "means of 2 seeds" in text.lower()
    assert cv2.imread(str(whole / "study.png")) is not None
    words = (whole / "seed-1" / "large" / "command.txt").read_text()
    assert words.startswith("ofa-pose pretrain ") and "--seed 1" in words and "--resume" not in words


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_a_study_that_is_cut_off_goes_on(
    call: Call, tiny: Path, whole: Path, tmp_path: Path, by: signal.Signals
) -> None:
    out = tmp_path / "study"
    words = ["study", str(tiny), "--out", str(out), "--device", "cpu"]
    code = "import sys; from ofa_pose.cli import run; sys.exit(run(sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *words]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics = out / "seed-0" / "large" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 8:
        assert running.poll() is None
        time.sleep(0.005)
    running.send_signal(by)
    errors = running.communicate(timeout=60)[1]
    if by == signal.SIGINT:
        assert f"go on with: ofa-pose study {tiny}" in errors.splitlines()[-1]
    assert len(rows(out)) == 1 and read_json(out / "seed-0" / "large.json")["figures"] is None

    done = call(*words, "--json")
    assert done.code == 0, done.err
    assert "seed 0, small: begins" not in done.err
    check_same(out, whole)
    assert [arm["arm"] for arm in done.result["arms"]] == ["3×3", "5×5"] and done.result["failed"] == {}


@pytest.mark.slow
def test_processes_find_what_one_finds(call: Call, tiny: Path, whole: Path, tmp_path: Path) -> None:
    done = call("study", tiny, "--out", tmp_path / "study", "--device", "cpu", "--workers", 2)
    assert done.code == 0, done.err
    check_same(tmp_path / "study", whole)


@pytest.mark.slow
def test_a_run_that_fails_costs_the_others_nothing(call: Call, tiny: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    (out / "seed-0" / "large" / "checkpoints").mkdir(parents=True)
    (out / "seed-0" / "large" / "checkpoints" / "last.pt").write_text("damaged")
    done = call("study", tiny, "--out", out, "--device", "cpu")
    assert done.code == 1
    assert "warning: seed 0, large: " in done.err and "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("error: runs failed: seed 0, large; ")
    assert [row for row in rows(whole) if (row["seed"], row["run"]) != ("0", "large")] == rows(out)


def test_own_images_are_taken(call: Call, tiny: Path, data: Path, tmp_path: Path) -> None:
    sources = {"train": "train", "val": "val", "test": "val"}
    named = [
        word
        for split, folder in sources.items()
        for key, value in (("annotations", data / folder / "annotations.json"), ("images", data / folder / "images"))
        for word in ("--set", f"data.{split}.{key}={value}")
    ]
    more = [word for run in ("small", "large") for word in ("--set", f"runs.{run}.net.joints=17")]
    steps = ["--set", "settings.train.steps=2", "--set", "settings.train.evaluate_every=2", "--set", "seeds=[0]"]
    out = tmp_path / "study"
    done = call("study", tiny, "--out", out, "--device", "cpu", *named, *more, *steps, "--json")
    assert done.code == 0, done.err
    assert not (out / "data").exists() and len(rows(out)) == 2
    opening = " ".join(done.err.split("seed 0, small: begins")[0].split())
    assert opening.startswith(
        "study tiny runs small, large; with the seed 0: 2 trainings recipe nano device cpu writes"
    )
    assert done.result["arms"][0]["spread"] is None


def test_what_cannot_be_is_refused(
    call: Call, tiny: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    refused(call("study", "kernel", "--out", out), "kernel", "did you mean 'kernels'")
    refused(call("study", tiny, "--out", out, "--set", "runs.small.nets=3"), "runs.small", "did you mean 'net'")
    refused(call("study", tiny, "--out", out, "--workers", 2, "--scheduler", "tcp://x:1"), "--workers", "--scheduler")
    refused(call("study", tiny, "--out", out, "--set", "data.train.images=x"), "data.train.annotations")
    assert not out.exists()
    kept = {path: path.read_bytes() for path in whole.rglob("*.*") if path.is_file()}
    refused(call("study", tiny, "--out", whole, "--set", "settings.train.lr=1e-4"), "train.lr", "another --out")
    refused(call("study", tiny, "--out", whole, "--set", "runs.small.net.kernel=7"), "net.kernel was 3, is 7")
    with run_dir.alone_in(whole):
        monkeypatch.setattr(run_dir, "FREED_S", 0.0)
        refused(call("study", tiny, "--out", whole), "another process runs there", "wait until it ends")
    run = whole / "seed-0" / "small"
    refused(call("study", tiny, "--out", run), "holds a run already (checkpoints/last.pt)", "another --out")
    assert {path: path.read_bytes() for path in whole.rglob("*.*") if path.is_file()} == kept


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in shipped_folder(STUDIES).glob("*.yaml")))
def test_shipped_studies_run_quickly(call: Call, tmp_path: Path, name: str) -> None:
    done = call("study", name, "--quick", "--out", tmp_path / "study", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert len(done.result["arms"]) >= 2 and done.result["failed"] == {}
    assert all(arm["mean"] is not None for arm in done.result["arms"])
    assert (tmp_path / "study" / "study.png").stat().st_size < 60_000
