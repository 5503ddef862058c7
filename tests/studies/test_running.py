"""The runs of a study: each once, after those that it needs, in any executor; a failure costs what rests on it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.macs import Macs, spec_macs
from ofa_pose.studies.classify import Classification
from ofa_pose.studies.running import Task, choose_subnets, outcomes
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.files import read_json
from ofa_pose.utils.run_dir import COMMAND_WORDS

CALLS: list[str] = []


def work(out: str, fails: bool = False) -> Classification:
    CALLS.append(out)
    assert not COMMAND_WORDS.get()
    if fails:
        raise OfaPoseError("no luck")
    return Classification(0.5, Macs(3, 2, 1), 7)


def task(folder: Path, name: str, *needs: str, seed: int = 0, **more: Any) -> Task:
    arguments = {"out": f"{seed} {name}", **more}
    return Task(seed, name, needs, work, arguments, arguments, folder / f"{seed}-{name}.json", steps=4)


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def test_runs_are_done_once(tmp_path: Path) -> None:
    tasks = [task(tmp_path, "a"), task(tmp_path, "b", "a")]
    first = {str(one): found for one, found in outcomes(tasks, None)}
    assert CALLS == ["0 a", "0 b"]
    row = first["seed 0, b"]
    assert isinstance(row, dict)
    assert (row["metric"], row["value"], row["params"], row["macs_thop"], row["steps"]) == ("accuracy", 0.5, 7, 3, 4)
    assert read_json(tmp_path / "0-b.json")["figures"] == row
    assert {str(one): found for one, found in outcomes(tasks, None)} == first
    assert CALLS == ["0 a", "0 b"]


def test_what_a_failed_run_served_is_not_done_and_the_rest_is(tmp_path: Path) -> None:
    tasks = [task(tmp_path, "a", fails=True), task(tmp_path, "b", "a"), task(tmp_path, "c", "b"), task(tmp_path, "d")]
    tasks.append(task(tmp_path, "b", "a", seed=1))
    tasks.insert(4, task(tmp_path, "a", seed=1))
    found = {str(one): outcome for one, outcome in outcomes(tasks, None)}
    assert str(found["seed 0, a"]) == "no luck"
    assert str(found["seed 0, b"]) == "not done, as it needs a"
    assert str(found["seed 0, c"]) == "not done, as it needs b"
    assert all(isinstance(found[name], dict) for name in ("seed 0, d", "seed 1, a", "seed 1, b"))
    assert CALLS == ["0 a", "0 d", "1 a", "1 b"]


def test_a_run_that_was_begun_otherwise_is_refused_before_any_is_done(tmp_path: Path) -> None:
    list(outcomes([task(tmp_path, "b")], None))
    with pytest.raises(InputError) as error:
        list(outcomes([task(tmp_path, "a"), task(tmp_path, "b", fails=False)], None))
    assert "fails was not given, is False" in str(error.value) and "choose another --out" in str(error.value)
    assert CALLS == ["0 b"] and not (tmp_path / "0-a.json").exists()


def together(out: str, barrier: threading.Barrier) -> Classification:
    barrier.wait(timeout=20)
    return Classification(0.5, Macs(3, 2, 1), 7)


def test_an_executor_does_runs_at_once_that_do_not_wait_for_each_other(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)
    one = Task(0, "a", (), lambda out: together(out, barrier), {"out": "a"}, {}, tmp_path / "a.json")
    two = replace(one, name="b", record=tmp_path / "b.json")
    last = task(tmp_path, "c", "a", "b")
    with ThreadPoolExecutor(2) as pool:
        names = [one.name for one, outcome in outcomes([one, two, last], pool) if isinstance(outcome, dict)]
    assert sorted(names[:2]) == ["a", "b"] and names[2] == "c"


def test_subnets_are_the_same_always_and_of_every_third(tiny_space: SearchSpace) -> None:
    specs = choose_subnets(tiny_space, 14, 9)
    assert specs == choose_subnets(tiny_space, 14, 9) and len(set(specs)) == 9
    macs = [spec_macs(spec).exact for spec in specs]
    assert macs == sorted(macs) and macs[0] < macs[3] < macs[8]
    assert len(choose_subnets(tiny_space, 14, 1)) == 1 and len(choose_subnets(tiny_space, 14, 5)) == 5
