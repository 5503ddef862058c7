"""One attempt, in a process that may end: what came of an input, held to what may come of any."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TextIO

from ofa_pose.utils.errors import OfaPoseError, shortened
from tests.fuzz.kinds import KINDS, Case
from tests.fuzz.mutate import deep_values

SECONDS, BYTES = 20, 2 << 30
WAITING = 15  # times as long may an input take that the processor is busy with something else
LINES, CHARACTERS = 25, 2000  # of a message; of a line, for what it may show of the input
ADDRESSES = 8 << 30  # beyond those at the start; so that no input takes the whole machine
OK, REFUSED, FAULT = "ok", "refused", "fault"


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    Attributes:
        verdict: ok, refused, or a fault.
        shown: the call in words.
        why: of a fault, what is wrong; one line, which others of its kind have too.
        said: what stood on the terminal, and the traceback.
    """

    kind: str
    number: int
    verdict: str
    shown: str = ""
    why: str = ""
    said: str = ""
    seconds: float = 0.0


def build(kind: str, seed: int, number: int, seeds: Path, folder: Path) -> Case:
    """The input of a number; the same of the same seed."""
    with deep_values():
        return KINDS[kind](seeds, folder, Random(f"{seed} {kind} {number}"))


def begin(log: Path) -> None:
    """Prepare a worker: few threads, a limit of memory, and a log for what ends the process."""
    import cv2
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the first process to answer
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg reads it once, before the first video
    warnings.simplefilter("default")
    faulthandler.enable(log.open("w"))
    used = 1 << 30
    with contextlib.suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, resource.RLIM_INFINITY))


def attempt(kind: str, seed: int, number: int, seeds: Path, log: Path) -> Outcome:
    """Build an input, call what reads it, and say what came of it. Takes longer than allowed: the process ends."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as name, log.open("w") as last_words:
        try:
            case = build(kind, seed, number, seeds, Path(name))
        except Exception as error:
            why = f"the input could not be made: {type(error).__name__}: {error}"
            return Outcome(kind, number, FAULT, why=why, said=traceback.format_exc())
        before = _most_memory(reset=True)
        with _limited(last_words), _captured(Path(name) / "said") as said:
            code, why = _called(case)
        grown = _most_memory() - before
    text = said.pop()
    why = why or _fault(text, code, grown)
    verdict = FAULT if why else OK if code == 0 else REFUSED
    return Outcome(kind, number, verdict, case.shown, why, text if why else "")


@contextlib.contextmanager
def _limited(last_words: TextIO) -> Iterator[None]:
    """End the process after so many seconds of its own, of which other programs take nothing; or after long waiting."""
    faulthandler.dump_traceback_later(WAITING * SECONDS, exit=True, file=last_words)
    if hasattr(signal, "SIGPROF"):
        faulthandler.register(signal.SIGPROF, last_words, chain=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if hasattr(signal, "SIGPROF"):
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)


def _called(case: Case) -> tuple[int, str]:
    """The exit code, and the fault where there was an exception that no user may see."""
    try:
        code = case.call()
    except OfaPoseError as error:
        print(f"error: {error}".replace("\n", "\nerror: "), file=sys.stderr)
        return error.exit_code, ""
    except OSError as error:
        where = shortened(str(error.filename or "the system"))  # as the command line has it
        print(f"error: {where}: {error.strerror or error}", file=sys.stderr)
        return 1, ""
    except BaseException as error:
        traceback.print_exc()
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "ofa_pose" in frame.filename]
        place = f"{ours[-1].filename.rpartition('ofa_pose/')[2]}:{ours[-1].lineno}" if ours else ""
        return 1, f"{type(error).__name__} at {place}: {str(error)[:100]!r}"
    return (code if isinstance(code, int) else 0), ""


def _fault(text: str, code: int, grown: int) -> str:
    """What is wrong with what was said, or ''."""
    lines = text.splitlines()
    longest = max(map(len, lines), default=0)
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "Traceback (most recent call last)" in text:
        return "a traceback was printed"
    if code and len(lines) > LINES:
        return "more than 25 lines"
    if longest > CHARACTERS:
        return f"a line of more than {CHARACTERS} characters: {max(lines, key=len)[:60]!r}"
    if code and not lines:
        return "refused without a word"
    return "more than 2 GB of memory" if grown > BYTES else ""


@contextlib.contextmanager
def _captured(path: Path) -> Iterator[list[str]]:
    """Keep what this process and its libraries write to stderr; a list that holds it in the end."""
    said: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    text = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    with text, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(text.fileno(), 2)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(text):
                yield said
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)
            said.append(path.read_text(encoding="utf-8", errors="replace"))


def _most_memory(reset: bool = False) -> int:
    """The most memory that this process held, in bytes; `reset`: from now on."""
    if sys.platform == "linux":
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    scale = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
