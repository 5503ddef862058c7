"""Many processes at one search: the same rows as one, and whatever happens to a rank is told and loses nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from ofa_pose.searches import distributed
from ofa_pose.searches.archive import Archive
from ofa_pose.searches.distributed import Team
from ofa_pose.searches.evaluation import ArchivedEvaluations, task_of
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.searches.test_archive import BASIS, rows
from tests.searches.test_archived_evaluations import GENOMES, PART
from tests.searches.test_resume import archived, listed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def teams() -> Iterator[list[Team]]:
    """Three ranks in one process."""
    store = HashStore()
    made = [Team(store, rank, 3) for rank in range(3)]
    yield made
    made[0].end()
    for team in made[1:] + made[:1]:
        team.close(5.0)


def follow(team: Team, work: distributed.Work) -> threading.Thread:
    thread = threading.Thread(target=team.follow, args=(work,))
    thread.start()
    return thread


def test_every_task_is_done_once_by_whoever_is_free(teams: list[Team]) -> None:
    taken: list[tuple[int, int]] = []

    def work_of(rank: int) -> distributed.Work:
        def work(task: Any) -> Any:
            time.sleep(0.2 if rank == 2 else 0.01)
            taken.append((rank, task))
            return {"twice": 2 * task, "none": float("nan")}

        return work

    threads = [follow(teams[rank], work_of(rank)) for rank in (1, 2)]
    with teams[0].lead(work_of(0)):
        for start in (0, 100):
            tasks = [start + number for number in range(20)]
            results = dict(teams[0].share(tasks))
            assert {place: result["twice"] for place, result in results.items()} == dict(
                enumerate(2 * task for task in tasks)
            )
    for thread in threads:
        thread.join(5.0)
        assert not thread.is_alive()
    assert sorted(task for _, task in taken) == [*range(20), *range(100, 120)]
    counts = [sum(rank == who for who, _ in taken) for rank in range(3)]
    assert 0 < counts[2] < counts[1] and counts[0] > 0, "a slow rank keeps nobody waiting"


def test_results_come_as_they_are_done_and_the_dearest_go_first(teams: list[Team], tmp_path: Path) -> None:
    asked: list[Any] = []

    def measure(genome: Any) -> dict[str, Any]:
        asked.append(genome)
        return {"AP": genome[0] / 10}

    with Archive(tmp_path / "a.sqlite", BASIS) as archive:
        evaluations = ArchivedEvaluations(PART, measure, archive, 0, teams[0])
        with teams[0].lead(evaluations.task):  # the other two have not come yet
            values = [value for value, _ in evaluations(GENOMES)]
    assert values == [0.0, 0.1, 0.2, 0.3]
    assert [PART.macs(genome) for genome in asked] == sorted(map(PART.macs, GENOMES), reverse=True)
    assert sorted(row["genome"] for row in rows(tmp_path / "a.sqlite"))[0].startswith("0-0-0")


@pytest.mark.parametrize(("error", "kind"), [(RuntimeError("no"), OfaPoseError), (InputError("no"), InputError)])
def test_what_fails_on_a_rank_is_raised_on_rank_0(teams: list[Team], error: Exception, kind: type[Exception]) -> None:
    def fail(task: Any) -> Any:
        if task == list(GENOMES[2]):
            raise error
        return {"AP": 0.5}

    thread = follow(teams[1], task_of(PART, lambda genome: fail(list(genome))))
    with pytest.raises(kind, match=r"no.* \(rank 1\)"), teams[0].lead(lambda task: time.sleep(0.3)):
        list(teams[0].share([list(genome) for genome in GENOMES]))
    thread.join(5.0)
    assert not thread.is_alive()


def test_what_keeps_a_rank_from_helping_is_raised_on_rank_0(teams: list[Team]) -> None:
    failing = threading.Thread(target=teams[2].fail, args=(OSError("no such disk"),))
    failing.start()
    with pytest.raises(OfaPoseError, match=r"OSError: no such disk \(rank 2\)"), teams[0].lead(time.sleep):
        list(teams[0].share([0.2] * 10))
    failing.join(5.0)
    assert not failing.is_alive(), "it waits until rank 0 has heard"


def test_a_silent_rank_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "BEAT_S", 0.05)
    monkeypatch.setattr(distributed, "LOST_S", 1.0)
    store = HashStore()
    first, second = (Team(store, rank, 2) for rank in range(2))
    time.sleep(0.2)
    assert first._lost() == second._lost() == []
    second._over.set()
    with pytest.raises(OfaPoseError, match=r"rank 1 of 2 is gone; .*--resume"), first.lead(lambda task: time.sleep(3)):
        list(first.share([0]))
    first._over.set()
    third = Team(store, 2, 3)  # whoever comes to a job without a rank 0
    monkeypatch.setattr(third, "_ended", third._ended)
    store.delete_key("end")
    with pytest.raises(OfaPoseError, match="rank 0 is gone"):
        third.follow(lambda task: task)
    third._over.set()


def test_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, named in (
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is not a number: 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2 of WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "", "MASTER_PORT": ""}, "MASTER_ADDR and MASTER_PORT"),
    ):
        with monkeypatch.context() as patch, pytest.raises(InputError, match=named):
            patch.setattr(torch, "set_num_threads", lambda number: None)
            for name, value in variables.items():
                patch.setenv(name, value)
            with distributed.team_of_ranks():
                raise AssertionError("not reached")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.team_of_ranks() as team:
        assert team is None


def test_every_rank_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for asked, ranks, threads in (("1", "4", 4), ("1", "16", 1), ("1", "99", 1), ("3", "4", 3), ("", "8", 2)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert distributed._share_of_cores() == threads


def start(out: Path, *options: str, rank: int = 0, size: int = 1, port: int = 0) -> subprocess.Popen[str]:
    """A rank by hand, without torchrun."""
    ranks = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [sys.executable, "-m", "tests.searches.search_process", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in ranks.items()}}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def lines(out: Path, rank: int) -> int:
    path = out.parent / f"{out.name}.{rank}"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = start(out)
    assert done.wait(120) == 0, done.communicate()
    return out


def test_torchrun_with_two_processes_gives_the_rows_of_one(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    words = [sys.executable, *torchrun, "-m", "tests.searches.search_process", str(out), "seconds=0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr.count("generation 3:") == 1
    assert listed(out) == listed(alone) and archived(out) == archived(alone)
    assert lines(out, 0) + lines(out, 1) == 32 and min(lines(out, 0), lines(out, 1)) >= 4


@pytest.mark.slow
def test_a_rank_that_fails_or_dies_ends_the_run_and_it_goes_on(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    port = free_port()
    failing = ("seconds=0.1", "fail_rank=1", "fail_after=2")
    ranks = [start(out, *failing, rank=rank, size=2, port=port) for rank in range(2)]
    told = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 0], told
    assert "RuntimeError: made to fail" in told[0][1] and "(rank 1)" in told[0][1] and "subnet " in told[0][1]
    assert told[1] == ("", "")
    kept = len(archived(out))
    assert 2 <= kept < 32

    port = free_port()
    more = ("seconds=0.3", "resume=1", "lost_s=1")
    ranks = [start(out, *more, rank=rank, size=2, port=port) for rank in range(2)]
    before = lines(out, 1)
    while lines(out, 1) == before and all(rank.poll() is None for rank in ranks):
        time.sleep(0.01)
    ranks[1].send_signal(signal.SIGKILL)
    error = ranks[0].communicate(timeout=120)[1]
    assert ranks[0].returncode == 1 and "rank 1 of 2 is gone" in error and "--resume" in error
    ranks[1].communicate()
    assert kept < len(archived(out)) < 32

    last = start(out, "resume=1")
    assert last.wait(120) == 0, last.communicate()
    last.communicate()
    assert listed(out) == listed(alone) and archived(out) == archived(alone)
    assert lines(out, 0) + lines(out, 1) <= 32 + 4, "only what was in hand was evaluated again"


@pytest.mark.slow
def test_without_rank_0_the_others_end(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "run"
    ranks = [start(out, "seconds=0.2", "lost_s=1", rank=rank, size=2, port=port) for rank in range(2)]
    while not lines(out, 1) and all(rank.poll() is None for rank in ranks):
        time.sleep(0.01)
    ranks[0].send_signal(signal.SIGKILL)
    error = ranks[1].communicate(timeout=60)[1]
    assert ranks[1].returncode == 1
    assert error.splitlines()[-1].startswith("error: ") and "--resume" in error
    ranks[0].communicate()
    assert archived(out)
