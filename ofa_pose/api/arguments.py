"""What kind an argument of the Python API is of: one of another is refused with a line before any work begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

from ofa_pose.utils.errors import InputError

LONGEST_PART, LONGEST_PATH = 255, 4095  # bytes, on any system


def _is_truth(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # NumPy's own too, which is not to be imported for that


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not _is_truth(value)


def _is_list(value: Any) -> bool:
    if isinstance(value, str | bytes | bytearray | Mapping) or getattr(value, "ndim", 1) == 0:
        return False
    return isinstance(value, Collection)


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {  # by the word of an annotation
    "str": (lambda value: isinstance(value, str) or type(value).__name__ == "device", "a text"),  # torch's too
    "Path": (lambda value: isinstance(value, os.PathLike) and isinstance(os.fspath(value), str), "a path"),
    "int": (lambda value: _is_number(value) and (isinstance(value, Integral) or value % 1 == 0), "a whole number"),
    "float": (_is_number, "a number"),
    "bool": (lambda value: _is_truth(value) or (_is_number(value) and value in (0, 1)), "True or False"),
    "None": (lambda value: value is None, "None"),
}
OWN = (lambda value: callable(value) or hasattr(value, "submit"), "a callable")  # of an algorithm, a loss, an executor


def checked(function: str, name: str, value: Any, annotation: str) -> Any:
    """An argument's value; 256.0 as 256. Raises InputError where it is of none of the kinds that its annotation names.

    What is read as a text, a device of torch's or an entry of a list of texts, may be what has one.
    """
    kinds = [kind.strip() for kind in annotation.split("|")]
    if {"str", "int"} <= {*kinds} and "Path" not in kinds:  # a budget: '1.2G', 1200000000, or as well 1.2e9
        kinds = ["float" if kind == "int" else kind for kind in kinds]
    if not any(_is_of(kind, value) for kind in kinds):
        wanted = " or ".join(dict.fromkeys(_in_words(kind) for kind in kinds if kind != "None"))
        what = f"{function}(): {name} is {_shown(value)}"
        raise InputError(what, hint=f"give {wanted}" + (", or leave it out" if "None" in kinds else ""))
    if isinstance(value, str | os.PathLike):
        _check_name(f"{function}(): {name}", os.fspath(value), "Path" in kinds and "://" not in str(value))
    return int(value) if "int" in kinds and isinstance(value, float) else value


def _check_name(name: str, value: str, is_path: bool) -> None:
    """Raise InputError where no file can have this name."""
    try:
        parts = os.fsencode(value).split(b"/")
    except UnicodeEncodeError:
        raise InputError(f"{name} is {_shown(value)}, which is not Unicode", hint="correct it") from None
    if "\0" in value:
        raise InputError(f"{name} holds a null character, {_shown(value)}", hint="leave that out")
    if is_path and (max(map(len, parts)) > LONGEST_PART or len(os.fsencode(value)) > LONGEST_PATH):
        raise InputError(f"{name} is longer than a file's name can be, {_shown(value)}", hint="give a path")


def _is_of(kind: str, value: Any) -> bool:
    if kind.startswith("Sequence["):
        entry = kind.removeprefix("Sequence[").removesuffix("]")
        return _is_list(value) and all(_is_of(entry, one) or _is_path(entry, one) for one in value)
    return KINDS.get(kind, OWN)[0](value)


def _is_path(kind: str, value: Any) -> bool:
    return kind == "str" and KINDS["Path"][0](value)


def _in_words(kind: str) -> str:
    if kind.startswith("Sequence["):
        return f"a list of which each is {_in_words(kind.removeprefix('Sequence[').removesuffix(']'))}"
    return KINDS.get(kind, OWN)[1]


def _shown(value: Any) -> str:
    try:
        words = repr(value)
    except Exception:  # of an object of the caller's, whose repr may do anything
        words = ""
    return f"{words:.60} ({type(value).__name__})"
