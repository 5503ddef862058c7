"""Many processes at one search: the same rows as one, and whatever happens to a worker is told and loses nothing."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_pose.arch.space import Genome
from ofa_pose.searches import evaluation, job, workers
from ofa_pose.searches.archive import Archive
from ofa_pose.searches.evaluation import ArchivedEvaluations
from ofa_pose.searches.workers import cluster_workers, local_workers
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.process import process_pool
from tests.searches.search_process import Recorded, search_job
from tests.searches.test_archive import BASIS, rows
from tests.searches.test_archived_evaluations import GENOMES, PART
from tests.searches.test_resume import archived, listed

ROOT = Path(__file__).resolve().parents[2]


class Backwards(Executor):
    """Notes what it is given, and does the last of it first."""

    def __init__(self) -> None:
        self.given: list[Genome] = []
        self.waiting: list[tuple[Future[Any], Callable[..., Any]]] = []

    def submit(self, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += args
        future = Late(self)
        self.waiting.append((future, partial(task, *args)))
        return future


class Late(Future[Any]):
    """Has all that its executor was given done when somebody asks for the result."""

    def __init__(self, executor: Backwards) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout: float | None = None) -> Any:
        while self._executor.waiting:
            future, task = self._executor.waiting.pop()
            future.set_result(task())
        return super().result(timeout)


@pytest.fixture
def processes(tmp_path: Path) -> Path:
    folder = tmp_path / "processes"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "processes").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "draw_pareto", lambda *_: None)
        search_job(Recorded(folder / "processes")).run(folder / "run")
    assert [path.name for path in (folder / "processes").iterdir()] == [str(os.getpid())]
    return folder / "run"


@pytest.fixture(autouse=True)
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "draw_pareto", lambda *_: None)


def test_any_executor_gives_the_rows_of_one_process(alone: Path, processes: Path, tmp_path: Path) -> None:
    backwards = Backwards()
    with ThreadPoolExecutor(3) as threads:
        for name, executor in (("threads", threads), ("backwards", backwards)):
            result = search_job(Recorded(processes)).run(tmp_path / name, executor=executor)
            assert result.judged == 32
            assert listed(tmp_path / name) == listed(alone) and archived(tmp_path / name) == archived(alone)
    assert len(set(backwards.given)) == len(backwards.given) == 32


def test_two_workers_give_the_rows_of_one_process(alone: Path, processes: Path, tmp_path: Path) -> None:
    with local_workers(2, "cpu") as executor:
        search_job(Recorded(processes, 0.1)).run(tmp_path / "run", executor=executor)
    assert listed(tmp_path / "run") == listed(alone) and archived(tmp_path / "run") == archived(alone)
    counts = {path.name: len(path.read_text().splitlines()) for path in processes.iterdir()}
    assert len(counts) == 2 and str(os.getpid()) not in counts
    assert sum(counts.values()) == 32 and min(counts.values()) >= 4


def test_the_dearest_go_first_and_are_kept_as_they_come(tmp_path: Path) -> None:
    executor = Backwards()
    with Archive(tmp_path / "a.sqlite", BASIS) as archive:
        evaluations = ArchivedEvaluations(PART, lambda genome: {"AP": genome[0] / 10}, archive, 0, executor)
        assert [value for value, _ in evaluations(GENOMES)] == [0.0, 0.1, 0.2, 0.3]
        assert list(evaluations(GENOMES)) and evaluations.measured == 4
    assert [PART.macs(genome) for genome in executor.given] == sorted(map(PART.macs, GENOMES), reverse=True)
    assert [row["genome"] for row in rows(tmp_path / "a.sqlite")] == ["-".join(map(str, g)) for g in executor.given]


@pytest.mark.parametrize(("error", "kind"), [(RuntimeError("no"), OfaPoseError), (InputError("no"), InputError)])
def test_what_fails_elsewhere_is_raised_here(tmp_path: Path, error: Exception, kind: type[Exception]) -> None:
    others = threading.Semaphore(0)

    def fail(genome: Genome) -> dict[str, Any]:
        if genome == GENOMES[2]:
            for _ in GENOMES[1:]:
                assert others.acquire(timeout=30)
            time.sleep(0.2)  # the last of them is done a moment later
            raise error
        others.release()
        return {"AP": 0.5}

    with Archive(tmp_path / "a.sqlite", BASIS) as archive, ThreadPoolExecutor(2) as executor:
        with pytest.raises(kind, match="no") as told:
            list(ArchivedEvaluations(PART, fail, archive, 0, executor)(GENOMES))
        assert ("subnet 2-0-0" in str(told.value)) == (kind is OfaPoseError)
    assert len(rows(tmp_path / "a.sqlite")) == len(GENOMES) - 1, "what was finished meanwhile is kept"


def test_a_worker_that_hangs_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def measure(genome: Genome) -> dict[str, Any]:
        if genome == GENOMES[2]:
            hangs.wait(20)
        return {"AP": 0.5}

    monkeypatch.setattr(evaluation, "ANSWER_S", 0.3)
    monkeypatch.setattr(evaluation, "ProcessPoolExecutor", ThreadPoolExecutor)
    with Archive(tmp_path / "a.sqlite", BASIS) as archive, ThreadPoolExecutor(2) as executor:
        match = r"subnet 2-0-0-.* could not be evaluated \(TimeoutError: no answer came for 0\.3 s\); what was"
        with pytest.raises(OfaPoseError, match=match):
            list(ArchivedEvaluations(PART, measure, archive, 0, executor)(GENOMES))
        hangs.set()
    assert len(rows(tmp_path / "a.sqlite")) == len(GENOMES) - 1, "what was finished meanwhile is kept"


def test_an_answer_that_comes_as_the_time_is_over_counts() -> None:
    class Late(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            if timeout is not None:
                self.set_result(5)
                raise TimeoutError
            return super().result()

    assert evaluation._answer(Late(), 1.0) == 5


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError("cannot be read", "images/7.jpg", "copy it again")))
    assert isinstance(error, InputError) and str(error) == "images/7.jpg: cannot be read; copy it again"


def state() -> tuple[int, str]:
    """What a worker may use."""
    return torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def states(executor: Executor) -> set[tuple[int, str]]:
    futures = [executor.submit(state) for _ in range(2)]
    return {future.result() for future in futures}


@pytest.mark.slow
def test_workers_share_the_threads_and_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    @contextmanager
    def none_started(_count: int, _begin: object, *arguments: Any) -> Iterator[None]:
        given.append(arguments)
        yield

    monkeypatch.setattr(workers, "process_pool", none_started)
    monkeypatch.setattr(workers, "pick_device", lambda name: torch.device(name or "cuda"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for count, device, visible, threads, gpus in (
        (3, None, "", 2, ["0", "1", "0"]),
        (2, "cuda", "5,7", 4, ["5", "7"]),
        (16, "cuda:1", "", 1, []),
        (2, "cpu", "", 4, []),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with local_workers(count, device):
            assert given[-1][0] == threads
            assert [given[-1][1].get() for _ in gpus] == gpus and given[-1][1].empty()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(workers, "process_pool", process_pool)
    with local_workers(2) as executor:
        assert states(executor) == {(2, "7")}


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.searches.search_process", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes)


def evaluating(out: Path, running: subprocess.Popen[str]) -> list[int]:
    """The processes that evaluate, once there are two and something is in the archive."""
    folder = out.with_name("processes")
    before = {path.name for path in folder.iterdir()} if folder.exists() else set()
    while running.poll() is None:
        found = {path.name for path in folder.iterdir()} - before if folder.exists() else set()
        if len(found) == 2 and (out / "history.csv").exists() and listed(out):
            return sorted(map(int, found))
        time.sleep(0.1)
    raise AssertionError(running.communicate())


def is_running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    if stat.parent.parent.exists() and sys.platform == "linux":
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return not subprocess.run(["ps", "-p", str(process)], capture_output=True).returncode


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_search_which_goes_on(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = start(out, "seconds=0.2")
    first, second = evaluating(out, running)
    os.kill(first, signal.SIGKILL)
    told, errors = running.communicate(timeout=60)
    assert running.returncode == 1 and told == ""
    assert errors.splitlines()[-1].startswith("error: a worker process died (killed") and "--resume" in errors
    assert "Traceback" not in errors and not is_running(second)
    kept = len(archived(out))
    assert 1 <= kept < 32
    last = start(out, "resume=1")
    assert last.wait(120) == 0, last.communicate()
    last.communicate()
    assert listed(out) == listed(alone) and archived(out) == archived(alone)
    done = sum(len(path.read_text().splitlines()) for path in out.with_name("processes").iterdir())
    assert done <= 32 + 6, "only what was in hand was evaluated again"


@pytest.mark.parametrize(
    "by", [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGKILL))]
)
@pytest.mark.slow
def test_no_worker_outlives_the_search(tmp_path: Path, by: signal.Signals) -> None:
    out = tmp_path / "run"
    running = start(out, "seconds=0.5")
    found = evaluating(out, running)
    running.send_signal(by)
    told, errors = running.communicate(timeout=60)
    assert running.returncode and told == ""
    assert by == signal.SIGKILL or "leaked" not in errors
    until = time.monotonic() + 10
    while any(map(is_running, found)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_running, found))
    assert archived(out)


@pytest.mark.slow
def test_all_workers_start_at_once_and_hear_no_ctrl_c_while_they_do(capfd: pytest.CaptureFixture[str]) -> None:
    with local_workers(2, "cpu") as pool:
        assert isinstance(pool, ProcessPoolExecutor)
        found = list(pool._processes)
        assert len(found) == 2
        for process in found:
            os.kill(process, signal.SIGINT)  # before they import anything
        assert sorted(pool.map(abs, (-1, -2))) == [1, 2]
    assert "Traceback" not in capfd.readouterr().err


def test_without_dask_a_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"--scheduler needs .*distributed.*\[cluster\]"), cluster_workers("tcp://x:1"):
        raise AssertionError("not reached")


needs_dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed")


@needs_dask
@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_named() -> None:
    for address in ("tcp://127.0.0.1:9", "nonsense://127.0.0.1"):
        refused = pytest.raises(InputError, match=f"--scheduler {address} cannot be reached.*dask scheduler")
        with refused, cluster_workers(address):
            raise AssertionError("not reached")


@needs_dask
@pytest.mark.slow
def test_two_workers_of_a_dask_cluster_give_the_rows_of_one_process(
    alone: Path, processes: Path, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, cluster_workers(cluster.scheduler_address) as executor:
        search_job(Recorded(processes, 0.05)).run(tmp_path / "run", executor=executor)
    assert listed(tmp_path / "run") == listed(alone) and archived(tmp_path / "run") == archived(alone)
    assert len(list(processes.iterdir())) == 2


@needs_dask
def test_a_cluster_that_has_lost_its_workers_is_said_to_have(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(workers, "WATCH_S", 0.02)
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, cluster_workers(cluster.scheduler_address) as executor:
        assert executor.submit(abs, -1).result() == 1
        assert "no worker" not in capfd.readouterr().err
        cluster.scale(0)
        said, end = "", time.monotonic() + 30
        while "has no worker left; the work waits: start some with 'dask worker " not in " ".join(said.split()):
            assert time.monotonic() < end, said
            time.sleep(0.02)
            said += capfd.readouterr().err
        later = executor.submit(abs, -2)
        cluster.scale(1)
        assert later.result() == 2
        assert capfd.readouterr().err == ""


@needs_dask
@pytest.mark.slow
def test_a_scheduler_that_ends_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-c", "from dask.__main__ import main; main()"]
    commands = (["scheduler", "--port", address.rpartition(":")[2]], ["worker", address, "--nthreads", "1"])
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen([*dask, *command, "--no-dashboard"], **quiet) for command in commands]
    scheduler, _ = running

    def end(genome: Genome) -> dict[str, Any]:
        time.sleep(600)
        return {}

    try:
        with Archive(tmp_path / "a.sqlite", BASIS) as archive, cluster_workers(address) as executor:
            threading.Timer(2, scheduler.kill).start()
            with pytest.raises(OfaPoseError, match=r"the scheduler of the workers is gone; .*--resume"):
                list(ArchivedEvaluations(PART, end, archive, 0, executor)(GENOMES))
    finally:
        for one in running:
            one.kill()
            one.wait()
    assert "Traceback" not in capfd.readouterr().err
