"""Faults that the user can correct, each in one line: what, where, and the hint."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN_FAULTS = 20
FREE_SOME = "make room there, then call again, with --resume where the command has it"
USED_UP = {  # what a machine may have no more of, and what to do then
    errno.ENOSPC: FREE_SOME,
    errno.EDQUOT: FREE_SOME,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower the number of workers",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs, or lower the batch or the number of workers",
}
_NO_MEMORY = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "Insufficient memory",
    "Failed to allocate",
    "start new thread",
    "cannot map zero-fill pages",
    "could not create a memory object",
)
_NO_ROOM_FOR_CODE = "could not create a primitive"  # oneDNN's whole message; more words are of what it does not have
NOT_MAPPED = "failed to map segment"  # of a library, without memory as on a file system that runs nothing
MAP_HINT = "free some memory, or install it where the file system is not mounted noexec"
LONGEST = 600  # characters of each part of a message; a value of the user's in it may have any number


def visible(text: str) -> str:
    """Text with line ends, but without what else no terminal shows: that is written as Python does."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def shortened(text: str, most: int = LONGEST) -> str:
    """Text on one line of at most `most` characters, its end kept; what no terminal shows is written as Python does."""
    text = visible(" ".join(text.split()))
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 3]} … {text[-tail:]}"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the user's input: what, where (the file, and the line or record id in it), what to do."""

    what: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where, what, hint = map(shortened, (self.where, self.what, self.hint))
        return f"{where}{': ' if where else ''}{what}{'; ' if hint else ''}{hint}"


def is_used_up(error: OSError) -> bool:
    """Whether the machine has no more of what was asked for: the file or folder in question may be right."""
    return error.errno in USED_UP


def is_of_content(error: OSError) -> bool:
    """Whether a library says of a file's content what is wrong: without a number, or of a place that it lacks."""
    return error.errno in (None, errno.EINVAL)


def is_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory; torch, OpenCV and the runtimes have words of their own."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error)
    known = said == _NO_ROOM_FOR_CODE or any(words in said for words in _NO_MEMORY)
    return known and not isinstance(error, OfaPoseError)


class OfaPoseError(Exception):
    """The work failed for a reason that we know; the command ends with `exit_code`."""

    exit_code = 1


class FailedElsewhere(OfaPoseError):
    """Of several processes that share their work another has failed, and says why: this one ends without a word."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process has failed")
        self.exit_code = exit_code


class InputError(OfaPoseError):
    """The call or its input is wrong (exit code 2).

    Raise it with the parts of one `Fault`, or with many faults through `InputError.of`.
    """

    exit_code = 2

    def __init__(self, what: str, where: object = "", hint: str = "") -> None:
        self.faults: tuple[Fault, ...] = (Fault(what, str(where), hint),)
        super().__init__(what)

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> InputError:
        """An error of several faults; its text is one line each, the first 20, then a count."""
        error = cls(faults[0].what)
        error.faults = tuple(faults)
        return error

    def __str__(self) -> str:
        lines = [str(fault) for fault in self.faults[:SHOWN_FAULTS]]
        more = len(self.faults) - SHOWN_FAULTS
        if more > 0:
            lines.append(f"… and {more} more ({len(self.faults)} faults in all)")
        return "\n".join(lines)


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint that names the valid word nearest to `word`, or all of them if none is near."""
    names = sorted(valid)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if not close and len(word) > 2:
        close = [name for name in names if word in name]
    if len(close) == 1:
        return f"did you mean '{close[0]}'?"
    return f"choose one of: {', '.join(names)}"
