"""This process: its place among those that torchrun started, the signals that ask it to end, and its threads."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from ofa_pose.utils.errors import InputError, OfaPoseError, is_memory, is_used_up

if TYPE_CHECKING:  # there is no such module where the system has no shared memory
    from multiprocessing.synchronize import Barrier

WAITING = "OMP_WAIT_POLICY"
MOST_WORKERS = 1024  # processes of one machine that share a work
_WATCH_S = 0.5
_PAUSE_S = 0.2
_ROOM_OF_THREAD = 16 << 20  # bytes: its stack, as a rule of 8 MB, and more
_ENDS_S = 5.0  # in which a worker that works has ended
# What a terminal sends to all of its processes.
_OF_TERMINALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
_ENDING = (*_OF_TERMINALS, signal.SIGTERM)


T = TypeVar("T")
R = TypeVar("R")


class Interrupted(KeyboardInterrupt):
    """The work was asked to end by a signal.

    Attributes:
        number: of the signal.
        go_on: what was kept and how to go on, a sentence without its end; '' where the work says nothing of it.
    """

    def __init__(self, number: int, go_on: str = "") -> None:
        super().__init__(number, go_on)
        self.number, self.go_on = number, go_on

    @property
    def exit_code(self) -> int:
        """As shells count it: 130 of SIGINT, 143 of SIGTERM, 129 of SIGHUP."""
        return 128 + self.number

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        what = "interrupted" if self.number == signal.SIGINT else f"ended by {name}"
        return f"{what}; {self.go_on}" if self.go_on else what


class Ending:
    """What `interruptible` knows of the signals that came.

    Attributes:
        number: of the first one; None before.
    """

    def __init__(self, patient: bool = False) -> None:
        self.number: int | None = None
        self._held, self._patient = 0, patient

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done in it is done whole: a signal that comes raises `Interrupted` at its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self.number is not None:
            raise Interrupted(self.number)

    def take(self, number: int, _frame: FrameType | None) -> None:
        """The handler. A second Ctrl-C or SIGTERM ends at once; a hangup often comes twice, which means no more."""
        self.number = number
        for other in _ENDING:
            if signal.getsignal(other) == self.take:
                again = signal.SIG_IGN if self._patient else _AGAIN.get(other, signal.SIG_IGN)
                signal.signal(other, again)
        if not self._held:
            raise Interrupted(number)


_AGAIN: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def interruptible(go_on: str = "", patient: bool = False) -> Iterator[Ending]:
    """In it SIGINT, SIGTERM and SIGHUP raise `Interrupted`, at once or at the end of what is `held`.

    Those that are ignored stay so (nohup). Outside the main thread, which alone gets signals, nothing changes. The
    handlers are as before when it ends.

    Args:
        go_on: what an `Interrupted` from inside says that says nothing of its own; see there.
        patient: a second signal ends nothing at once: of processes that are asked to end together, each may get it from
            a cluster's scheduler and from torchrun.
    """
    ending = Ending(patient)
    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _ENDING if mine}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in before:
            signal.signal(number, ending.take)
        yield ending
    except Interrupted as error:
        error.go_on = error.go_on or go_on
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def apart_from_terminal() -> Iterator[None]:
    """Processes that start in it get no Ctrl-C and no hangup of the terminal's, which are this one's to answer.

    Nor does this one, as long as that takes. Outside the main thread nothing changes.
    """
    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _OF_TERMINALS if mine}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def process_pool(count: int, begin: Callable[..., object], *given: Any) -> Iterator[Executor]:
    """An executor of so many new processes of this machine, each of which calls `begin(*given)` first.

    They end with this process, however it ends, and wait for no work then; one that hangs is killed. A signal to end is
    raised at once. Where one of them dies, what was to be done raises `concurrent.futures.BrokenExecutor`.
    """
    context = pool_context()
    all_there = context.Barrier(count)  # none is idle before, so that each `submit` starts one
    pool = ProcessPoolExecutor(count, context, _begin_worker, (os.getpid(), all_there, begin, given))
    before, started = {*multiprocessing.active_children()}, set[BaseProcess]()
    try:
        with interruptible():
            try:
                with apart_from_terminal():
                    for _ in range(count):
                        pool.submit(int)
            finally:  # where not all could be started, the others wait for them
                started = {*multiprocessing.active_children()} - before
            yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        time.sleep(_PAUSE_S)  # the pool takes note of it; else it would report that its workers are gone
        for process in started:
            process.terminate()
        until = time.monotonic() + _ENDS_S
        for process in started:
            if not _ends(process, until):
                process.kill()  # the interpreter would wait for it at its end
                _ends(process, time.monotonic() + _ENDS_S)


def pool_context() -> SpawnContext:
    """What the processes of a pool come from. Raises InputError as `check_shared_memory`."""
    context = multiprocessing.get_context("spawn")  # forking a process that runs threads (torch, OpenCV) can hang
    check_shared_memory(context, "add --workers 1")
    return context


def check_shared_memory(context: BaseContext, hint: str) -> None:
    """Raise InputError where this machine has none, which the locks of several processes are in."""
    try:
        context.Lock()
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and is_used_up(error):
            raise
        why = getattr(error, "strerror", None) or error
        what = f"several processes need shared memory, and there is none here ({why})"
        raise InputError(what, hint=f"mount /dev/shm, or {hint}") from None


def _ends(process: BaseProcess, until: float) -> bool:
    """Whether a process ends until then. `join` would not see it where the pool's thread is joining it just then."""
    while process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    return not process.is_alive()


def _begin_worker(parent: int, all_there: Barrier, begin: Callable[..., object], given: tuple[Any, ...]) -> None:
    end_with(parent)
    all_there.wait()
    begin(*given)


def end_with(parent: int) -> None:
    """Let this process, a child of `parent`, end when that ends or terminates it, and by no other signal to end.

    A signal to a whole group of processes, such as a terminal's Ctrl-C, is for the parent to answer.
    """
    for number in _OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS, where a SIGTERM of anybody's ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(_WATCH_S)
        elif (came := signal.sigtimedwait({signal.SIGTERM}, _WATCH_S)) and came.si_pid == parent:
            break
    os._exit(0)


def run_command(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own, its stdout kept: one that is asked to end where this one ends."""
    begin = (
        "import sys; from ofa_pose.utils.process import ended_with; ended_with(int(sys.argv.pop(1))); "
        "from ofa_pose.__main__ import main; main()"
    )
    call = [sys.executable, "-c", begin, str(os.getpid()), *words]
    return subprocess.run(call, stdout=subprocess.PIPE, text=True)


def ended_with(parent: int) -> None:
    """Let this process, a child of `parent`, get a SIGTERM when that has ended, and end at once some seconds later."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ENDS_S)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def place() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine), as torchrun says it; (0, 1, 0) where it started none.

    Raises InputError where the environment says of how many processes this is one, but not which.
    """
    world = os.environ.get("WORLD_SIZE", "")
    if world in ("", "1"):
        return 0, 1, 0
    try:
        rank, local, count = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    except (KeyError, ValueError):
        rank, local, count = 0, 0, 0
    if not 0 <= local <= rank < count:
        what = f"{world} processes were started (WORLD_SIZE), but RANK and LOCAL_RANK do not say which one this is"
        raise InputError(what, hint="start them with torchrun, or unset WORLD_SIZE")
    return rank, count, local


def sharers() -> int:
    """How many processes torchrun started on this machine, this one among them."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(given)) if given.isdecimal() else 1


def launcher() -> str:
    """How a command is started as this process was, in the shell's words: 'ofa-pose', or torchrun's."""
    _, world, _ = place()
    if world == 1:
        return "ofa-pose"
    here = sharers()
    machines = "--standalone" if here == world else f"--nnodes {world // here} …"
    return f"torchrun {machines} --nproc-per-node {here} -m ofa_pose"


@contextmanager
def exchange() -> Iterator[None]:
    """Round what processes exchange: it fails where one of them has ended or hangs. Raises OfaPoseError then."""
    try:
        yield
    except RuntimeError as error:  # torch's word for it, whichever library carries the exchange
        if is_memory(error):
            raise
        late = any(words in str(error).lower() for words in ("timed out", "timeout"))
        what = "has not answered in time" if late else "has ended"
        raise OfaPoseError(f"another process of the training {what}, so this one ends too; --resume goes on") from None


class ThreadPool(ThreadPoolExecutor):
    """A ThreadPoolExecutor that fails where there is no memory for a thread: Python's waits for ever for its start.

    See CPython's issue 140746. `submit` and `map` raise OSError then. As a context, what an exception ends, Ctrl-C's
    too, waits for no more than what has begun.
    """

    def submit(self, work: Callable[..., R], /, *given: Any, **named: Any) -> Future[R]:
        """See `Executor.submit`."""
        if len(self._threads) < self._max_workers:
            mmap.mmap(-1, _ROOM_OF_THREAD).close()
        return super().submit(work, *given, **named)

    def __exit__(self, kind: type[BaseException] | None, *given: object) -> None:
        self.shutdown(cancel_futures=kind is not None)


def map_ahead(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Generator[R, None, None]:
    """`work` of each item, in order, up to `ahead` of them before they are asked for; close it where it ends early.

    No more than `ahead` items or results are ever held. With one thread the calls are one after another, in order.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPool(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # who stops early does not wait for what nobody wants


def sleep_while_waiting() -> None:
    """Have torch's threads sleep while they wait for one another, unless the environment says how they wait.

    By default they wait in busy loops, which keep from running the very thread waited for where other work shares the
    processors: a step takes ten times as long then. OpenMP reads the variable once, when torch is imported; where it
    has been, nothing changes.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault(WAITING, "PASSIVE")
