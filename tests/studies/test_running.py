"""The runs of a study: each once, after those that it needs, in any executor; a failure costs what rests on it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.macs import Macs, spec_macs
from ofa_pose.studies.classify import Classification
from ofa_pose.studies.running import Task, choose_subnets, outcomes, recorded
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.files import read_json, write_json
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


def test_what_a_run_rests_on_is_kept_and_compared(tmp_path: Path) -> None:
    first = replace(task(tmp_path, "a"), basis={"recipe": {"train": {"lr": 0.1}}, "init": "ab"})
    list(outcomes([first], None))
    assert read_json(first.record)["basis"] == first.basis
    more = {**first.basis, "data": {"train": "cd"}}  # which a later version looks at
    assert recorded(replace(first, basis=more)) is not None
    for key, value, words in (
        ("recipe", {"train": {"lr": 0.2}}, "another recipe: recipe.train.lr was 0.1, is 0.2"),
        ("init", "cd", "another init: init was ab, is cd"),
    ):
        with pytest.raises(InputError, match=words) as error:
            list(outcomes([replace(first, basis={**first.basis, key: value})], None))
        assert "choose another --out" in str(error.value)
    assert CALLS == ["0 a"]


def test_a_record_of_a_version_that_kept_no_basis_is_taken_as_it_is(tmp_path: Path) -> None:
    one = task(tmp_path, "a")
    list(outcomes([one], None))
    write_json(one.record, {key: value for key, value in read_json(one.record).items() if key != "basis"})
    before = one.record.read_bytes()
    assert [found for _, found in outcomes([replace(one, basis={"recipe": {}})], None)] == [recorded(one)]
    assert one.record.read_bytes() == before and CALLS == ["0 a"]


GOOD = {"metric": "AP", "value": 0.4, "params": 7, "macs_exact": 3, "macs_thop": 2, "macs_paper": 1.0}
GOOD |= {"steps": None, "seconds": 0.5}
NONE = dict.fromkeys(GOOD) | {"seconds": 1}


@pytest.mark.parametrize("figures", [None, GOOD, NONE, {**GOOD, "more": 1}])
def test_figures_of_a_record_are_taken(tmp_path: Path, figures: Any) -> None:
    one = task(tmp_path, "a")
    write_json(one.record, {"call": dict(one.call), "figures": figures})
    assert recorded(one) == figures


def test_a_run_that_has_become_an_arm_is_not_done(tmp_path: Path) -> None:
    one = task(tmp_path, "a")
    write_json(one.record, {"call": dict(one.call), "figures": NONE})
    assert recorded(replace(one, evaluate=print)) is None
    write_json(one.record, {"call": dict(one.call), "figures": GOOD})
    assert recorded(replace(one, evaluate=print)) == GOOD


@pytest.mark.parametrize(
    "figures",
    [
        {},
        [],
        0.4,
        {key: value for key, value in GOOD.items() if key != "seconds"},
        *({**GOOD, "value": value} for value in (float("nan"), float("inf"), "0.4", 73, -0.1, None, True, [0.4])),
        *({**GOOD, "metric": metric} for metric in ("mAP", 1, ["AP"])),
        *({**GOOD, "params": params} for params in (None, "7", -1, float("inf"))),
        {**NONE, "value": 0.4},
        {**NONE, "params": 7},
        *({**GOOD, "steps": steps} for steps in ("4", -1, float("nan"))),
        *({**figures, "seconds": seconds} for figures in (GOOD, NONE) for seconds in (None, "1", -1, float("nan"))),
    ],
)
def test_figures_that_no_run_gives_are_refused(tmp_path: Path, figures: Any) -> None:
    one = task(tmp_path, "a")
    one.record.write_text(json.dumps({"call": dict(one.call), "figures": figures}))
    with pytest.raises(InputError, match=r"0-a\.json: holds figures that no run gives; remove this file and"):
        list(outcomes([one], None))
    assert not CALLS


@pytest.mark.parametrize("record", [None, [], {}, {"call": []}, {"call": {}, "basis": None}])
def test_a_record_that_is_none_is_refused(tmp_path: Path, record: Any) -> None:
    write_json(tmp_path / "0-a.json", record)
    with pytest.raises(InputError, match=r"0-a\.json: does not say how its run was called; remove it and the run"):
        recorded(task(tmp_path, "a"))


class Broken(ThreadPoolExecutor):
    def submit(self, *_: Any, **__: Any) -> Any:
        raise BrokenProcessPool("a child process terminated abruptly")


def test_a_pool_that_is_broken_before_it_is_asked_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(OfaPoseError, match="a worker process died"), Broken(1) as pool:
        list(outcomes([task(tmp_path, "a")], pool))


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
