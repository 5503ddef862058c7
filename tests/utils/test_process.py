"""Signals to end become an exception, at once or after what is held; handlers are as they were before."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.searches.workers import local_workers
from ofa_pose.utils import process
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.process import (
    Interrupted,
    ThreadPool,
    apart_from_terminal,
    exchange,
    interruptible,
    process_pool,
)

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number, _ in CODES]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_is_raised_at_once_with_its_exit_code(number: signal.Signals, code: int) -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt) as raised, interruptible("go on with: this") as ending:
        signal.raise_signal(number)
        raise AssertionError("not reached")
    error = raised.value
    assert isinstance(error, Interrupted) and error.exit_code == code and ending.number == number
    assert str(error).endswith("; go on with: this") and (number == signal.SIGINT or number.name in str(error))
    assert handlers() == before


def test_what_is_held_is_done_whole() -> None:
    done = []
    with pytest.raises(Interrupted), interruptible() as ending:
        with ending.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("held")
        done.append("after")
    assert done == ["held"]


def test_a_second_ctrl_c_ends_at_once_and_a_second_hangup_does_not() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, interruptible() as ending, ending.held():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")
    assert not isinstance(raised.value, Interrupted)


def test_a_second_sigterm_ends_the_process() -> None:
    code = (
        "import signal, time\nfrom ofa_pose.utils.process import interruptible\n"
        "with interruptible() as ending, ending.held():\n"
        "    signal.raise_signal(signal.SIGTERM)\n    print('first', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n    print('not reached')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and done.stdout == "first\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_innermost_says_how_to_go_on_and_other_threads_change_nothing() -> None:
    with pytest.raises(Interrupted, match="inner"), interruptible("outer"), interruptible("inner"):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted, match="outer"), interruptible("outer"), interruptible():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"^interrupted$"), interruptible():
        signal.raise_signal(signal.SIGINT)
    before, seen = handlers(), list[Any]()

    def work() -> None:
        with interruptible(), apart_from_terminal():
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before == handlers()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("[…/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:45461.", "process of the training has ended"),
        ("[…/unbound_buffer.cc:78] Timed out waiting 7200000ms for recv", "has not answered in time"),
        ("Application timeout caused pair closure", "has not answered in time"),
    ],
)
def test_what_is_wrong_with_another_process_is_told_apart(error: str, words: str) -> None:
    with pytest.raises(OfaPoseError, match=f"{words}, so this one ends too; --resume goes on$"), exchange():
        raise RuntimeError(error)


@pytest.mark.parametrize("said", ["DefaultCPUAllocator: can't allocate memory", "CUDA out of memory. Tried"])
def test_no_memory_for_an_exchange_is_no_fault_of_another_process(said: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(said)), exchange():
        raise RuntimeError(said)


def test_processes_that_begin_apart_from_the_terminal_do_not_hear_it() -> None:
    before = handlers()
    with apart_from_terminal():
        child = subprocess.Popen(["sleep", "30"])
    assert handlers() == before
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(child.pid, number)
    time.sleep(0.2)
    assert child.poll() is None
    child.kill()
    child.wait()


def test_a_pool_has_all_its_processes_at_once_and_ends_those_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_ENDS_S", 1.0)
    before = {*multiprocessing.active_children()}
    with process_pool(2, int) as pool:
        started = {*multiprocessing.active_children()} - before
        assert len(started) == 2 and pool.submit(abs, -3).result(60) == 3
        for one in started:
            assert one.pid is not None
            os.kill(one.pid, signal.SIGSTOP)  # hears no signal to end
    assert not any(one.is_alive() for one in started)


def test_a_pool_that_cannot_start_all_its_processes_ends_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    before, submit = {*multiprocessing.active_children()}, ProcessPoolExecutor.submit

    def submit_once(pool: ProcessPoolExecutor, *given: Any) -> Future[Any]:
        if {*multiprocessing.active_children()} - before:
            raise BlockingIOError("no more processes")
        return submit(pool, *given)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit_once)
    with pytest.raises(BlockingIOError), process_pool(2, int):
        raise AssertionError("not reached")
    assert not {*multiprocessing.active_children()} - before


def test_without_shared_memory_there_is_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    said = OSError(errno.ENOSYS, "Function not implemented")

    def refuse(*_: object) -> None:
        raise said

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    for pool in (process_pool(2, int), local_workers(2, "cpu")):
        with pytest.raises(InputError, match=r"Function not implemented.*; mount /dev/shm, or add --workers 1"), pool:
            pass
    said = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError, match="Too many open files"), process_pool(2, int):
        pass


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="a process's children are not listed here")
def test_a_command_that_a_process_runs_ends_soon_after_it(tmp_path: Path) -> None:
    code = f"""
from ofa_pose.utils.process import run_command
run_command(["data", "synth", {str(tmp_path / "out")!r}, "--images", "1000000", "--size", "64", "--workers", "1"])
"""
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    listed, until = Path(f"/proc/{running.pid}/task/{running.pid}/children"), time.monotonic() + 60
    while not (tmp_path / "out" / "images").exists() and time.monotonic() < until:
        time.sleep(0.1)
    (command,) = map(int, listed.read_text().split())
    running.kill()
    running.wait()
    while is_running(command) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_running(command)


def is_running(number: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    stat = Path(f"/proc/{number}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


WITHOUT_MEMORY = """
import resource
from ofa_pose.utils.process import ThreadPool
with ThreadPool(1) as pool:
    assert [*pool.map(str, range(2))] == ["0", "1"]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))
with ThreadPool(1) as pool:
    try:
        pool.submit(str, 1)
    except OSError as error:
        print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of memory are Linux's")
def test_a_thread_that_there_is_no_memory_for_is_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[Errno 12] Cannot allocate memory\n", done.stderr


def test_an_exception_waits_for_what_has_begun_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    first, asked = threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        first.set()
        asked.wait(60.0)

    with pytest.raises(KeyboardInterrupt), ThreadPool(1) as pool:
        shutdown = pool.shutdown
        pool.map(work, range(1000))
        first.wait(60.0)
        monkeypatch.setattr(pool, "shutdown", lambda **how: (shutdown(wait=False, **how), asked.set(), shutdown()))
        raise KeyboardInterrupt
    assert begun == [0]
