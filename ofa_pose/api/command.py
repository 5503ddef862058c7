"""What all functions of the Python API have in common."""

from __future__ import annotations

import functools
import math
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


def naming(**words: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Put words in the place of {names} in a function's docstring, such as those of the runtimes that there are."""

    def named(function: Callable[P, R]) -> Callable[P, R]:
        for name, text in words.items():
            function.__doc__ = (function.__doc__ or "").replace(f"{{{name}}}", text)
        return function

    return named


def check_range(option: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise InputError where the value of an option is out of its range."""
    if not least <= value <= most:
        limits = f"from {least:g}" + (f" to {most:g}" if most < math.inf else "")
        raise InputError(f"{option} {value:g} is out of range", hint=f"give a number {limits}")
