"""Work done in threads a little ahead of who asks for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
