"""What all functions of the Python API have in common."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ofa_pose.utils.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def single_process(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function refuse to run under torchrun: it does not share its work, so each process would do all of it."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        world = os.environ.get("WORLD_SIZE", "1")
        if world not in ("", "1"):
            what = f"{function.__name__.replace('_', '-')} does not share its work, and {world} processes were started"
            raise InputError(what, hint="start it without torchrun; 'ofa-pose search' shares its evaluations")
        return function(*args, **kwargs)

    return checked
