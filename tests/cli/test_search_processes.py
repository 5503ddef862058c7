"""Real searches as processes: with workers of their own, asked to end, and killed again and again."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ofa_pose.cli import run
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import read_yaml
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

ROOT = Path(__file__).resolve().parents[2]
SPACE = SearchSpace(
    name="narrowed",
    resolution=(96, 128),
    stem=(12, 16),
    stages=((12, 16), (24, 32), (36, 48), (60, 80)),
    deconv=((24, 32), (24,), (24,)),
    expansion=(6,),
    blocks=(2, 3, 4, 3),
    kernel=7,
)


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What calls a search over a supernet whose subnets do find people, each as well as it can: the shipped weights."""
    folder = tmp_path_factory.mktemp("able")
    for seed, part in enumerate(("train", "search")):
        write_dataset(folder / part, images=10, size=128, joints="coco", seed=seed, workers=1)
    net = load_checkpoint("litepose-nano-coco")
    spec = SPACE.largest(17)
    assert spec == net.spec.at(spec.resolution)
    data = {
        part: {"annotations": str(folder / part / "annotations.json"), "images": str(folder / part / "images")}
        for part in ("train", "search")
    }
    recipe = {"data": data, "search": {"population": 8, "generations": 3, "images": 10, "calibration_images": 8}}
    save_checkpoint(folder / "supernet.pt", replace(net, kind="supernet", spec=spec, space=SPACE, recipe=recipe))
    return ["search", "--supernet", str(folder / "supernet.pt"), "--macs", "190M", "--device", "cpu", "--json"]


def start(words: Sequence[object]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ofa_pose", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def history(out: Path) -> list[dict[str, str]]:
    with (out / "history.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def archived(out: Path) -> list[tuple[Any, ...]]:
    columns = "basis, supernet, genome, spec, macs_thop, macs_exact, macs_paper, params, latency_ms, metrics, AP, seed"
    file = sqlite3.connect(out / "archive.sqlite")
    found = file.execute(f"SELECT {columns} FROM evaluations ORDER BY genome").fetchall()
    file.close()
    return found


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """A result but for the clock, the folder, and how much of the work this very call did."""
    return {key: result[key] for key in ("best", "evaluations", "algorithm")}


@pytest.fixture(scope="module")
def whole(able: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The search by one process, uninterrupted: its folder and its result."""
    out = tmp_path_factory.mktemp("whole") / "run"
    running = start([*able, "--out", out])
    told, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert len({row["AP"] for row in history(out)}) > 5, "APs that are all alike would show nothing"
    return out, json.loads(told)


@pytest.mark.slow
def test_two_workers_give_the_rows_of_one_process(
    able: list[str], whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    running = start([*able, "--out", out, "--workers", 2])
    told, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert comparable(json.loads(told)) == comparable(whole[1]), "and stdout holds nothing else"
    assert history(out) == history(whole[0]) and archived(out) == archived(whole[0])
    best = read_yaml(out / "best.yaml")
    best["supernet"]["path"] = read_yaml(whole[0] / "best.yaml")["supernet"]["path"]
    assert best == read_yaml(whole[0] / "best.yaml")
    assert errors.count("generation 3:") == 1


def test_what_is_wrong_is_told_before_workers_start(call: Call, able: list[str], tmp_path: Path) -> None:
    words = [*able, "--out", tmp_path / "run", "--workers"]
    refused(call(*words, 2, "--macs", "20k"), "the smallest subnet of narrowed needs ")
    refused(call(*words, 0), "--workers 0 is out of range", "from 1")
    refused(call(*words, 10**20), "--workers 1e+20 is out of range", "from 1 to 1024")
    refused(call(*words, 2, "--scheduler", "tcp://127.0.0.1:8786"), "more than one says where to work")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_which_goes_on(
    able: list[str], whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    running = start([*able, "--out", out, "--workers", 2])
    while not ((out / "history.csv").exists() and history(out)):
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    listing = subprocess.run(["ps", "-wwo", "pid=,args=", "--ppid", str(running.pid)], capture_output=True, text=True)
    workers = [line.split()[0] for line in listing.stdout.splitlines() if "spawn_main" in line]
    assert len(workers) == 2
    os.kill(int(workers[-1]), signal.SIGKILL)
    errors = running.communicate(timeout=120)[1]
    assert running.returncode == 1
    assert "error: a worker process died" in errors and "--resume" in errors and "Traceback" not in errors
    again = start([*able, "--out", out, "--resume", "--workers", 2])
    told, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert comparable(json.loads(told)) == comparable(whole[1])
    assert history(out) == history(whole[0]) and archived(out) == archived(whole[0])


@pytest.mark.slow
def test_a_search_killed_at_twenty_moments_ends_as_if_it_had_not_been(
    able: list[str], whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, rng, kills, lengths = tmp_path / "run", random.Random(0), 0, set()
    while kills < 20:
        begun = (out / "history.csv").exists()
        before = len(archived(out)) if begun else 0
        running = start([*able, "--out", out, *(["--resume"] if begun else [])])
        # Most of a short process is its start: three kills in four come after its first evaluation, one anywhere.
        anywhere = rng.random() < 0.25
        while running.poll() is None and not anywhere:
            if (out / "history.csv").exists() and len(archived(out)) > before:
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 4.0) if anywhere else rng.uniform(0.0, 0.5))
        if running.poll() is not None:
            break
        running.kill()
        running.communicate()
        kills += 1
        lengths.add(len(archived(out)) if (out / "history.csv").exists() else 0)
    last = start([*able, "--out", out, *(["--resume"] if (out / "history.csv").exists() else [])])
    told, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert kills == 20, "it ended before it could be killed so often: give it more to do"
    assert len(lengths) > 5, "it was killed at different points of its way"
    assert comparable(json.loads(told)) == comparable(whole[1])
    assert history(out) == history(whole[0]) and archived(out) == archived(whole[0])
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole[0].iterdir())


def call_in_child(words: Sequence[str], errors: Path) -> None:
    """What a child process does: a call of the command line, whose stderr goes into a file."""
    handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    sys.exit(run(words))


def left_by(out: Path) -> dict[str, Any]:
    """All that a search leaves but for the clock's figures and where its folder is."""
    result = json.loads((out / "result.json").read_text().replace(str(out), "OUT"))
    texts = [path for path in sorted(out.rglob("*")) if path.suffix in (".yaml", ".csv") and path.name != "history.csv"]
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = load_checkpoint(out / "best.pt")
    return {
        "result": {key: value for key, value in result.items() if key != "seconds"},
        "texts": {str(path.relative_to(out)): path.read_text() for path in texts},
        "metrics": [{key: value for key, value in record.items() if key != "seconds"} for record in metrics],
        "history": history(out),
        "archive": archived(out),
        "best": (best.spec, best.info, {name: value.tolist() for name, value in best.weights.items()}),
        "names": sorted(str(path.relative_to(out)) for path in out.rglob("*")),
    }


@pytest.mark.slow
def test_fifty_searches_killed_at_any_moment_leave_what_one_leaves_that_was_not(
    able: list[str], tmp_path: Path
) -> None:
    """Killed from the first import of data to the last file; one in three twice."""
    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(["tests.cli.test_search_processes", "ofa_pose.searches.job"])
    short = [*able, "--set", "search.population=4", "--set", "search.generations=2"]

    def begin(out: Path, *more: str) -> Any:
        words = [*short, "--out", str(out), *more]
        child = children.Process(target=call_in_child, args=(words, tmp_path / "errors"))
        child.start()
        return child

    begin(tmp_path / "warm").join()
    began = time.monotonic()
    begin(tmp_path / "whole").join()
    lasts, whole = time.monotonic() - began, left_by(tmp_path / "whole")
    rng, moments = random.Random(2), dict[str, int]()
    for number in range(50):
        out = tmp_path / str(number)
        for kill in range(2 if number % 3 == 0 else 1):
            child = begin(out, *(["--resume"] if kill else []))
            child.join(rng.uniform(0.05, 1.0) * lasts)
            child.kill()
            child.join()
        count = len(archived(out)) if (out / "search.json").exists() else 0
        moment = "at its end" if child.exitcode == 0 else f"after {count}"
        moments[moment] = moments.get(moment, 0) + 1
        child = begin(out, "--resume")
        child.join()
        assert child.exitcode == 0, (tmp_path / "errors").read_text()
        assert left_by(out) == whole, moment
        before = (out / "result.json").read_bytes()
        if number % 10 == 0:
            child = begin(out, "--resume")
            child.join()
            assert (out / "result.json").read_bytes() == before, "a search that has ended is resumed"
    print(moments)
    assert len(moments) > 5 and moments.get("at its end", 0) < 35, moments


def test_search_options_override_the_recipe_and_share_an_archive(call: Call, supernet: Path, tmp_path: Path) -> None:
    words = ("search", "--supernet", supernet, "--params", "1G", "--set", "search.generations=0", "--json")
    first = call(*words, "--out", tmp_path / "first", "--algorithm", "evolution", "--no-surrogate")
    assert first.code == 0, first.err
    assert first.result["judged"] == 6 and first.result["evaluations"] == 4  # and two nets to hold the winner against
    assert all(member["uniform"]["complete"] for member in first.result["front"] if member["rank"] == 1)
    assert read_yaml(tmp_path / "first" / "recipe.yaml")["search"]["algorithm"] == "evolution"
    again = call(*words, "--out", tmp_path / "second", "--archive", tmp_path / "first")
    assert again.code == 0, again.err
    assert again.result["judged"] == 0 and again.result["best"] == first.result["best"]
    assert again.result["archive"] == str(tmp_path / "first" / "archive.sqlite")
    wrong = call(*words, "--out", tmp_path / "third", "--algorithm", "guess")
    assert wrong.code == 2 and "guess" in wrong.err and "nsga2" in wrong.err
    (tmp_path / "notes.txt").write_text("not an archive")
    refused = call(*words, "--out", tmp_path / "third", "--archive", tmp_path / "notes.txt")
    assert refused.code == 2 and "is not an archive of a search" in refused.err
    assert not (tmp_path / "third").exists() and (tmp_path / "notes.txt").read_text() == "not an archive"
