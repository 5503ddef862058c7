"""The processes that torchrun starts: where this one stands among them, and errors of what they exchange, in a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ofa_pose.utils.errors import InputError, OfaPoseError


def place() -> tuple[int, int, int]:
    """(rank, number of processes, rank on this machine), as torchrun says it; (0, 1, 0) where it started none.

    Raises InputError where the environment says of how many processes this is one, but not which.
    """
    world = os.environ.get("WORLD_SIZE", "")
    if world in ("", "1"):
        return 0, 1, 0
    try:
        rank, local = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK"))
        return rank, int(world), local
    except (KeyError, ValueError):
        what = f"{world} processes were started (WORLD_SIZE), but RANK and LOCAL_RANK do not say which one this is"
        raise InputError(what, hint="start them with torchrun, or unset WORLD_SIZE") from None


@contextmanager
def exchange() -> Iterator[None]:
    """Round what processes exchange: it fails where one of them has ended. Raises OfaPoseError then."""
    try:
        yield
    except RuntimeError:  # torch's word for it, whichever library carries the exchange
        message = "another process of the training has ended, so this one ends too; --resume goes on"
        raise OfaPoseError(message) from None
