"""Work done in threads a little ahead of who asks for it, and how threads that compute together wait for each other."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

WAITING = "OMP_WAIT_POLICY"

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Generator[R, None, None]:
    """`work` of each item, in order, up to `ahead` of them before they are asked for; close it where it ends early.

    No more than `ahead` items or results are ever held. With one thread the calls are one after another, in order.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
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
