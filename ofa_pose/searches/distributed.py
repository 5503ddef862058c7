"""Several processes at one job: rank 0 hands out tasks, and every rank, 0 too, takes the next one when it is free.

Started by torchrun, or by hand with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set. All that ranks tell each other
goes through one key-value store (torchrun's own where it has one); nobody waits for a rank that is slower.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ofa_pose.utils.errors import InputError, OfaPoseError

if TYPE_CHECKING:
    import torch
    from torch import distributed

POLL_S = 0.02
BEAT_S = 1.0  # every rank shows so often that it is alive
LOST_S = 60.0  # a rank that was silent for so long is gone
JOIN_S = 600.0  # a rank that was not seen at all by then never started
LEAVE_S = 10.0  # what ranks get to leave where the job failed
KEPT = "what was evaluated is kept: go on with --resume"

Work = Callable[[Any], Any]
"""Does one task; both the task and its result are JSON values."""


class Team:
    """The ranks of one job, as one of them sees it.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    def __init__(self, store: distributed.Store, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store = store
        self._batches = 0
        self._started = time.monotonic()
        self._beats = dict.fromkeys(range(1, size) if rank == 0 else (0,), (0, self._started))
        self._over = threading.Event()
        threading.Thread(target=self._pulse, daemon=True).start()

    def own_device(self, device: torch.device) -> torch.device:
        """`device`, or this rank's own GPU of the machine where any would do."""
        if device.type != "cuda" or device.index is not None:
            return device
        import torch

        return torch.device("cuda", _number("LOCAL_RANK", self.rank) % torch.cuda.device_count())

    @contextlib.contextmanager
    def lead(self, work: Work) -> Iterator[None]:
        """Rank 0: while inside, what is shared is worked on, here in a thread of its own. Afterwards all ranks end."""
        worker = threading.Thread(target=self._work, args=(work,))
        worker.start()
        try:
            yield
        finally:  # where the job failed nobody waits for the task in hand: the message comes first
            self.end()
        worker.join()

    def share(self, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Rank 0: have `tasks` done by whoever is free, in this order; yields (place, result) as each is done.

        Raises:
            OfaPoseError: a task failed (InputError where that is the user's fault), or a rank is gone.
        """
        self._batches += 1
        number = self._batches
        self._store.set(f"batch/{number}", json.dumps(list(tasks)))
        self._store.add("batches", 1)
        for count in range(1, len(tasks) + 1):
            key = f"done/{number}/{count}"
            self._await(key)
            answer = json.loads(self._store.get(key))
            self._store.delete_key(key)
            if "error" in answer:
                raise _error(answer)
            yield answer["place"], answer["result"]

    def follow(self, work: Work) -> None:
        """Other ranks: work on what rank 0 shares, until it ends."""
        self._work(work)

    def fail(self, error: BaseException) -> None:
        """Other ranks: tell rank 0 why this one cannot go on, and wait until it has ended the job.

        Raises:
            OfaPoseError: rank 0 is gone.
        """
        self._store.set("failure", json.dumps(self._answer(error)))
        while not self._ended():
            time.sleep(POLL_S)

    def end(self) -> None:
        """Rank 0: no more tasks will come."""
        self._store.set("end", "1")

    def close(self, wait_s: float) -> None:
        """Stop showing that this rank is alive. Rank 0 waits first until the others have left, but not for lost ones.

        Args:
            wait_s: how long rank 0 waits at most.
        """
        until = time.monotonic() + wait_s
        if self.rank:
            self._store.add("left", 1)
        else:
            while self._store.add("left", 0) < self.size - 1 - len(self._lost()) and time.monotonic() < until:
                time.sleep(POLL_S)
        self._over.set()

    def _work(self, work: Work) -> None:
        number, tasks = 0, []
        while not self._ended():
            newest = self._store.add("batches", 0)
            if newest != number:  # an older one that was not finished is wanted by nobody
                number, tasks = newest, json.loads(self._store.get(f"batch/{newest}"))
            place = self._store.add(f"taken/{number}", 1) - 1 if tasks else 0
            if place >= len(tasks):
                tasks = []
                time.sleep(POLL_S)
                continue
            answer: dict[str, Any]
            try:
                answer = {"result": work(tasks[place])}
            except Exception as error:
                answer = self._answer(error)
            count = self._store.add(f"finished/{number}", 1)
            self._store.set(f"done/{number}/{count}", json.dumps({"place": place, **answer}))

    def _answer(self, error: BaseException) -> dict[str, Any]:
        known = str(error) if isinstance(error, OfaPoseError) else f"{type(error).__name__}: {error}"
        return {"error": known, "exit_code": getattr(error, "exit_code", 1), "rank": self.rank}

    def _ended(self) -> bool:
        """Whether rank 0 has ended the job. Raises OfaPoseError where it is gone."""
        if self._store.check(["end"]):
            return True
        if self.rank and self._lost():
            raise OfaPoseError("rank 0 is gone")
        return False

    def _await(self, key: str) -> None:
        while not self._store.check([key]):
            if self._store.check(["failure"]):
                raise _error(json.loads(self._store.get("failure")))
            for rank in self._lost():
                raise OfaPoseError(f"rank {rank} of {self.size} is gone; {KEPT}")
            time.sleep(POLL_S)

    def _pulse(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store has gone first
            while not self._over.is_set():
                self._store.add(f"alive/{self.rank}", 1)
                for rank, (beats, seen) in self._beats.items():
                    now = self._store.add(f"alive/{rank}", 0)
                    self._beats[rank] = (now, time.monotonic() if now != beats else seen)
                self._over.wait(BEAT_S)

    def _lost(self) -> list[int]:
        """The ranks (for those after 0: rank 0) that have long shown no sign of life."""
        now = time.monotonic()
        return [rank for rank, (beats, seen) in self._beats.items() if now - seen > (LOST_S if beats else JOIN_S)]


@contextlib.contextmanager
def team_of_ranks() -> Iterator[Team | None]:
    """The team that this process belongs to; None where it is alone.

    Rank 0 ends the job when it leaves, for whatever reason; asked to end by torchrun, because another rank died, it
    does so with a message. The other ranks print nothing: what fails in them is raised on rank 0, and here
    what follows the `with` block goes on.

    Raises:
        InputError: the variables that name the other processes are not right.
        OfaPoseError: the other processes cannot be reached, or are gone.
    """
    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    if size == 1:
        yield None
        return
    if not rank < size:
        raise InputError(f"RANK is {rank} of WORLD_SIZE {size}", hint="start it with torchrun")
    import torch
    from torch import distributed

    torch.set_num_threads(_share_of_cores())
    try:
        store, hosted = _store(rank)
        team = Team(store, rank, size)
        with _leading(team, hosted) if rank == 0 else _following(team):
            yield team
    except distributed.DistError as error:
        reason = " ".join(str(error).split())
        raise OfaPoseError(f"the processes of this run cannot reach each other ({reason}); {KEPT}") from error


@contextlib.contextmanager
def _leading(team: Team, hosted: bool) -> Iterator[None]:
    def asked_to_end(*_: object) -> None:
        raise OfaPoseError(f"asked to end: another rank died, or the run was stopped; {KEPT}")

    before = signal.signal(signal.SIGTERM, asked_to_end)
    wait_s = LEAVE_S
    try:
        yield
        wait_s = JOIN_S
    finally:
        team.end()
        team.close(wait_s if hosted else 0.0)
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _following(team: Team) -> Iterator[None]:
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    except (Exception, KeyboardInterrupt) as error:
        team.fail(error)
    team.close(0.0)


def _store(rank: int) -> tuple[distributed.Store, bool]:
    """The store that all ranks meet in, and whether this process keeps it."""
    host, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT", 0)
    if not host or not port:
        raise InputError("MASTER_ADDR and MASTER_PORT do not name the first process", hint="start it with torchrun")
    from torch import distributed

    hosted = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = distributed.TCPStore(
        host, port, is_master=hosted, wait_for_workers=False, timeout=timedelta(seconds=JOIN_S)
    )
    attempt = [os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RUN_ID", "RESTART_COUNT")]
    return distributed.PrefixStore("/".join(["ofa-pose", *attempt]), store), hosted


def restarted() -> bool:
    """Whether torchrun has started the processes anew after one of them died (its --max-restarts)."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def _share_of_cores() -> int:
    """How many threads this process may keep busy: torchrun allows one, whatever the machine has."""
    asked = _number("OMP_NUM_THREADS", 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked if asked > 1 else max(1, cores // _number("LOCAL_WORLD_SIZE", _number("WORLD_SIZE", 1)))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        raise InputError(
            f"the environment variable {variable} is not a number: '{text}'", hint="start it with torchrun"
        )
    return int(text)


def _error(answer: Mapping[str, Any]) -> OfaPoseError:
    reason = f"{answer['error']} (rank {answer['rank']})"
    return InputError(reason) if answer["exit_code"] == InputError.exit_code else OfaPoseError(reason)
