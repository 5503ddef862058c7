"""What all functions of the Python API have in common."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import COMMAND_WORDS

P = ParamSpec("P")
R = TypeVar("R")


def single_process(function: Callable[P, R]) -> Callable[P, R]:
    """Have the run that a function writes say the call in its command.txt, in the shell's words.

    It is refused under torchrun: the function shares no work with other processes, so each would do all of it.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        name, world = function.__name__.replace("_", "-"), os.environ.get("WORLD_SIZE", "1")
        if world not in ("", "1"):
            what = f"{name} does not share its work, and {world} processes were started"
            raise InputError(what, hint="start it without torchrun; 'ofa-pose search --workers N' starts its own")
        if COMMAND_WORDS.get():  # the shell's own, which called this
            return function(*args, **kwargs)
        before = COMMAND_WORDS.set([name, *_words(signature.bind(*args, **kwargs).arguments)])
        try:
            return function(*args, **kwargs)
        finally:
            COMMAND_WORDS.reset(before)

    return call


def _words(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        option = "--set" if name == "overrides" else f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        elif isinstance(value, str | Path | int | float):
            yield from (option, str(value))
        elif name == "overrides":
            yield from (word for override in value for word in (option, override))
        elif isinstance(value, Sequence):
            yield from (option, ",".join(map(str, value)))
        elif value is not None:  # a function, which no shell can give
            yield from (option, getattr(value, "__name__", repr(value)))


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
