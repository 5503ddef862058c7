"""The run directory: recipe.yaml, command.txt, metrics.jsonl and checkpoints/, the same for every command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from itertools import compress
from pathlib import Path
from typing import Any

from ofa_pose.utils import atomic, files
from ofa_pose.utils.console import say, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import launcher, place
from ofa_pose.utils.result import plain

RECIPE, COMMAND, METRICS = "recipe.yaml", "command.txt", "metrics.jsonl"
PROVENANCE = "provenance.jsonl"  # see checkpoints.provenance
POSES = "poses.jpg"  # of a training: what its net finds on some validation images
PROGRESS = ("checkpoints/last.pt", "history.csv", "table.csv", "fidelity.csv")  # of training, search, and studies
FREED_S = 3.0  # what a killed process started, and has its locks, ends a moment after it

ONLY_IN_PYTHON = ("objective", "executor")  # parameters that take what a shell cannot give
_OLDER = re.compile(r"last-(\d+)\.pt")  # beside last.pt: the checkpoint of an earlier step

COMMAND_WORDS: ContextVar[Sequence[str]] = ContextVar("command_words", default=())  # of the call that is going on
BASIS_DEFAULTS = {
    "metric": "coco",
    "choice": "any",
    "precision": "float32",
}  # what a run's basis leaves out where it is so: those of earlier versions lack it


class RunDir:
    """A directory that holds one run, as `plan_run` found it; nothing is written before `open`.

    Args:
        recipe: the resolved recipe's text; None where there is none to keep.
        command: the words of the command that runs.
        fresh: nothing in it is to be kept; else the run that it holds is resumed.
        progress: see `plan_run`.

    Attributes:
        listeners: get every record that is logged, after it was written.
    """

    def __init__(
        self,
        path: Path,
        recipe: str | None = None,
        command: Sequence[str] = (),
        fresh: bool = True,
        progress: str = PROGRESS[0],
    ) -> None:
        self.path = path
        self._recipe, self.command, self.fresh, self._progress = recipe, command, fresh, progress
        self._held: ExitStack | None = None
        self._locked = False
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.metrics = path / METRICS
        self.poses = path / POSES
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []

    @property
    def go_on(self) -> str:
        """How to go on with this run, in words; '' where no command is known to have begun it."""
        if not self.command:
            return ""
        if {f"--{name.replace('_', '-')}" for name in ONLY_IN_PYTHON} & {*self.command}:
            return "go on with the same call and resume=True"
        words = shlex.join([self.command[0], "--resume", "--out", str(self.path)])
        return f"go on with: {launcher()} {words}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """In it no other process runs in the directory; in one that is not there yet, none from `open` on.

        Raises:
            InputError: another process runs there.
        """
        with ExitStack() as self._held:
            if (self.path / COMMAND).exists():
                self._lock()
            try:
                yield
            finally:
                self._held, self._locked = None, False

    def _lock(self) -> None:
        if self._held is None or self._locked or self._recipe is None:
            return
        self._held.enter_context(_alone(atomic.locked(self.path / COMMAND, FREED_S), self.path))
        self._locked = True

    def open(self) -> None:
        """Make the directory with the resolved recipe and the exact command.

        A job calls it when its last check has passed, so that a refused one leaves nothing behind.

        Raises:
            InputError: the directory cannot be made, or another process has begun a run there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot be made ({error.strerror})", self.path, "choose another --out") from None
        self._lock()
        if self.fresh and has_begun(self.path, self._progress):
            raise InputError(*_in_use(self.path))
        if self.fresh:  # what a run left that was killed before its first checkpoint
            self.metrics.unlink(missing_ok=True)
        if self._recipe is None:
            return
        files.write_text(self.path / RECIPE, self._recipe)
        path = self.path / COMMAND
        with atomic.naming(path), path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(shlex.join(["ofa-pose", *self.command]) + "\n")

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl; NaN and infinities are written as null."""
        written = plain(record)
        with atomic.naming(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(written, allow_nan=False) + "\n")
        for listener in self.listeners:
            listener(written)

    def forget_after(self, step: int, evaluated: bool = True) -> None:
        """Drop the records of steps after `step`: a resumed run writes them again, and how it ended.

        Args:
            evaluated: the record of an evaluation after that very step is kept too.
        """
        if not self.metrics.exists():
            return
        again = {"calibration"} if evaluated else {"calibration", "val"}

        def stays(record: Mapping[str, Any]) -> bool:
            at = record.get("step", 0)
            return at < step or (at == step and not again & record.keys())

        found, damaged = read_log(self.metrics)
        kept = [line for line, record in found if stays(record)]
        if damaged:
            warn(f"{self.metrics}: damaged lines are left out ({damaged})")
        files.write_text(self.metrics, "".join(line + "\n" for line in kept))


def read_command(path: Path) -> list[str]:
    """The lines of command.txt; a path in it may be no UTF-8. Raises InputError."""
    files.check_text(path, damaged=True)
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [line for one in lines if (line := one.strip("\0"))]  # zeros that a loss of power has left


def read_log(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """The lines of metrics.jsonl with their records, and how many are damaged but for the end of one that was cut off.

    A step in a record is a whole number.
    """
    lines = files.read_json_lines(path)
    whole = [isinstance(record, dict) and type(record.get("step", 0)) is int for _, record in lines]
    return [*compress(lines, whole)], whole[:-1].count(False)


def read_records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of metrics.jsonl with their records, see `read_log`."""
    return read_log(path)[0]


def plan_run(
    out: str | Path,
    recipe: str,
    resume: bool = False,
    argv: Sequence[str] | None = None,
    progress: str = PROGRESS[0],
) -> RunDir:
    """The run directory `out`, checked but not yet made; see `RunDir.open`.

    Args:
        resume: go on with the run there; where none has begun, one begins.
        progress: the file, inside `out`, that holds what a run has done so far, and that a resumed one goes on from;
            one of `PROGRESS`.

    Raises:
        InputError: `out` holds a run already and `resume` is not asked for, or one of another kind, or one whose
            last checkpoint is gone; or `out` is a file, or another process runs in it.
    """
    path = Path(out)
    atomic.check_folder(path)
    if (path / COMMAND).exists() and not place()[0]:  # the first of several processes has it for all
        with _alone(atomic.locked(path / COMMAND, FREED_S), path):
            pass
    begun = has_begun(path, progress)
    found = next((name for name in (progress, *PROGRESS) if has_begun(path, name)), None)
    if found and not (resume and begun):
        hint = "add --resume to go on, or choose another --out" if begun else "choose another --out"
        raise InputError(f"holds a run already ({found})", out, hint)
    if not begun and progress == PROGRESS[0]:
        _check_nothing_lost(path)
    if resume and not begun:
        say(f"{out}: holds no {progress} to go on from yet; it begins")
    before = path / RECIPE
    if begun and before.exists():
        changed = changed_keys(files.read_yaml(before), files.parse_yaml(recipe, "the recipe"))
        if changed:
            warn(f"{out}: the run began with another recipe and goes on with this one: {', '.join(changed)}")
    return RunDir(path, recipe, COMMAND_WORDS.get() if argv is None else argv, not begun, progress)


@contextmanager
def alone_in(folder: Path, wait_s: float | None = None) -> Iterator[None]:
    """In it no other process is `alone_in` a folder. Raises InputError where one is, and stays there."""
    with _alone(atomic.locked_in(folder, FREED_S if wait_s is None else wait_s), folder):
        yield


@contextmanager
def alone_on(path: Path) -> Iterator[None]:
    """In it no other process is `alone_on` a file, which may be replaced meanwhile. Raises InputError where one is."""
    with _alone(atomic.locked_beside(path, FREED_S), path):
        yield


@contextmanager
def _alone(lock: AbstractContextManager[bool], path: Path) -> Iterator[None]:
    with lock as free:
        if not free:
            raise InputError(*_in_use(path))
        yield


def _in_use(path: Path) -> tuple[str, Path, str]:
    return "another process runs there", path, "wait until it ends, or name another place with --out"


def kept_checkpoints(path: Path) -> list[Path]:
    """A training's checkpoints in its run directory, the newest first: last.pt, last-800.pt, last-600.pt …"""
    folder = path / "checkpoints"
    older = {int(match[1]): one for one in folder.glob("last-*.pt") if (match := _OLDER.fullmatch(one.name))}
    newest = [folder / "last.pt"] if (folder / "last.pt").exists() else []
    return newest + [older[step] for step in sorted(older, reverse=True)]


def has_begun(path: Path, progress: str = PROGRESS[0]) -> bool:
    """Whether a run directory holds what a run goes on from; see `plan_run`."""
    return bool(kept_checkpoints(path)) if progress == PROGRESS[0] else (path / progress).exists()


def _check_nothing_lost(path: Path) -> None:
    """Refuse a training's directory with a best but no last checkpoint, and warn where steps were logged."""
    best = "checkpoints/best.pt"
    if (path / best).exists():
        hint = f"restore it, or choose another --out; --init {path / best} starts from these weights"
        raise InputError(f"holds {best} of a run whose {PROGRESS[0]} is gone", path, hint)
    metrics = path / METRICS
    steps = max((one.get("step", 0) for _, one in read_records(metrics)), default=0) if metrics.exists() else 0
    if steps:
        warn(f"{path}: {steps} steps were logged there and no checkpoint is left of them; the training begins anew")


def read_basis(path: Path) -> dict[str, Any]:
    """What a run kept of its basis, for `check_basis`. Raises InputError where the file is missing or damaged."""
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise InputError("does not say what its run rests on", path, "restore it, or choose another --out")
    return found


def check_basis(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Raise InputError where a run is resumed on another basis than it was begun with, such as 'another supernet'.

    Args:
        before: what the run kept of its basis; a key that it did not keep is not compared.
        now: all that has to be the same, JSON values.
    """
    before = {**BASIS_DEFAULTS, **before}
    for key, value in {**BASIS_DEFAULTS, **now}.items():
        if before.get(key, value) != value:
            what = {"sha256": "supernet", "space": "space"}.get(key)
            what = what or f"{key}: {', '.join(changed_keys(before[key], value, key))}"
            hint = "resume with the settings of that run, or choose another --out"
            raise InputError(f"was begun with another {what}", where, hint)


def changed_keys(before: Any, now: Any, key: str = "") -> list[str]:
    """Where two nested settings differ: 'a.b was 1, is 2', or 'was not given' of null and of what is left out."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(name for name in now if name not in before)]
        return [
            line
            for name in keys
            for line in changed_keys(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
        ]
    old, new = ("not given" if value is None else value for value in (before, now))
    return [] if before == now else [f"{key} was {old}, is {new}"]
