"""Limits of this process for a while: what a test has too little of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

resource = pytest.importorskip("resource", reason="limits are of POSIX")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: writing more fails with EFBIG, where a full disk's does with ENOSPC."""
    with _limited(resource.RLIMIT_FSIZE, size):
        yield


@contextmanager
def no_more_files(but: int = 0) -> Iterator[None]:
    """No further file can be opened, but for so many at once."""
    with _limited(resource.RLIMIT_NOFILE, lowest_free(but)):
        yield


def lowest_free(but: int = 0) -> int:
    """The number that the next file would get after so many."""
    handles = [os.open(os.devnull, os.O_RDONLY) for _ in range(but + 1)]
    for handle in handles:
        os.close(handle)
    return handles[-1]


@contextmanager
def _limited(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)
