"""Run directories read back: what each did, and which others it started from."""

from __future__ import annotations

import itertools
import json
import os.path
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.label_pictures import SAMPLES
from ofa_pose.reports.findings import moved
from ofa_pose.searches.job import BEST
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import are_numbers, is_share
from ofa_pose.utils.run_dir import COMMAND, METRICS, PROVENANCE, RECIPE, read_command, read_log

SOURCES = {  # options that name what a run starts from, and what that is to it
    "--init": "starting weights",
    "--supernet": "supernet",
    "--subnet": "choice of the subnet",
    "--teacher": "teacher",
}
SHOWN = (COMMAND, RECIPE, METRICS, PROVENANCE, SAMPLES, BEST, "result.json", "search.json", "history.csv")
STUDIES = ("table", "fidelity")
HINT = "name a folder that pretrain, train-supernet, search or finetune wrote"
RESTORE = "search again, or restore it"
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What a run directory holds.

    Commands are the words of each that ran in it, without 'ofa-pose'; all but the first resumed it. Metrics are the
    records of metrics.jsonl, of which so many lines are unreadable, without a last one that was cut off. The recipe is
    the text of recipe.yaml, '' where there is none.
    """

    path: Path
    commands: tuple[tuple[str, ...], ...]
    metrics: tuple[Mapping[str, Any], ...]
    recipe: str
    unreadable: int = 0

    @property
    def name(self) -> str:
        """Command and folder, such as 'finetune in final/'."""
        return f"{self.job} in {files.real(self.path).name}/"

    @property
    def job(self) -> str:
        """The command's name, such as 'finetune'."""
        return self._words[0] if self._words else "run"

    @property
    def _words(self) -> tuple[str, ...]:
        return self.commands[-1] if self.commands else ()

    def option(self, name: str) -> str | None:
        """The value that the command which began the run gave an option, else one that resumed it; None: none did."""
        began = max((place for place, words in enumerate(self.commands) if "--resume" not in words), default=0)
        for words in self.commands[began:]:
            found = [after for word, after in itertools.pairwise(words) if word == name]
            found += [word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}=")]
            if found:
                return found[-1]
        return None

    def locate(self, value: str) -> Path | None:
        """What a path of the command means now: seen from the run, which may have moved with it; else as it stands."""
        out = self.option("--out")
        place = Path(value)
        if out and place.is_absolute() == Path(out).is_absolute():
            place = Path(moved(value, out, self.path))
        return place if os.path.exists(place) else None

    @property
    def sources(self) -> dict[str, str]:
        """What the run started from, by option; see `SOURCES`."""
        return {option: value for option in SOURCES if (value := self.option(option))}

    @property
    def lost(self) -> dict[str, str]:
        """Of its sources those that are not found from here; what ships with the package always is."""
        shipped = files.shipped_weights()
        return {name: one for name, one in self.sources.items() if one not in shipped and self.locate(one) is None}

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """The records of training steps: a step and a finite loss."""
        return [r for r in self.metrics if _is_step(r.get("step")) and _is_finite(r.get("loss"))]

    @property
    def validated(self) -> list[Mapping[str, Any]]:
        """The records of validations: a step and 'val', metrics by name, of which one is an AP."""
        records = [r for r in self.metrics if _is_step(r.get("step")) and isinstance(r.get("val"), Mapping)]
        return [r for r in records if is_share(r["val"].get("AP")) or is_share(r["val"].get("AP_largest"))]

    @property
    def aps(self) -> list[tuple[int, float]]:
        """Steps and APs of its validations."""
        return [(r["step"], r["val"]["AP"]) for r in self.validated if is_share(r["val"].get("AP"))]

    def best(self) -> dict[str, Any] | None:
        """The contents of a search's best.yaml, 'spec' an ArchSpec; None where there is none. Raises InputError."""
        path = self.path / BEST
        if not path.exists():
            return None
        found = files.read_yaml(path)
        if not isinstance(found, dict) or not is_share(found.get("AP")) or "spec" not in found:
            raise InputError("is not a chosen subnet", path, RESTORE)
        return {**found, "spec": ArchSpec.from_dict(found["spec"], path)}

    def table(self, name: str) -> dict[str, Any]:
        """The object in one of its JSON files; empty where there is none. Raises InputError."""
        found = files.read_json(self.path / name) if (self.path / name).exists() else {}
        if not isinstance(found, dict):
            raise InputError("holds no JSON object", self.path / name, RESTORE)
        try:
            json.dumps(found, allow_nan=False)  # as every one of them was written
        except ValueError:
            raise InputError("holds a number that is none (NaN, Infinity)", self.path / name, RESTORE) from None
        return found


def check_inside(folder: Path) -> None:
    """Raise InputError where a file of a run is a link to one elsewhere, which the page would show."""
    own = files.real(folder)
    for name in SHOWN:
        if not files.real(folder / name).is_relative_to(own):
            raise InputError("is a link that leads out of the run", folder / name, "put a copy there")


def read_run(path: str | Path) -> Run:
    """The run in a directory. Raises InputError where it holds none, or a study's."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("is not a run directory" if folder.exists() else "no such run directory", folder, HINT)
    if not (folder / COMMAND).exists():
        raise InputError(f"holds no run ({COMMAND} is missing)", folder, HINT)
    check_inside(folder)
    commands = tuple(map(_split, read_command(folder / COMMAND)))
    recipe = files.read_text(folder / RECIPE) if (folder / RECIPE).exists() else ""
    metrics, unreadable = read_log(folder / METRICS) if (folder / METRICS).exists() else ([], 0)
    run = Run(folder, commands, tuple(record for _, record in metrics), recipe, unreadable)
    if run.job in STUDIES:
        raise InputError(f"holds a {run.job} study", folder, HINT)
    return run


def source(run: Run, option: str) -> Run | None:
    """The run that one of a run's sources lies in, such as runs/a of runs/a/checkpoints/best.pt, where it is found."""
    value = run.option(option)
    path = run.locate(value) if value else None
    places = (path, *path.absolute().parents[:2]) if path is not None else ()
    return next((read_run(folder) for folder in places if (folder / COMMAND).is_file()), None)


def chain(run: Run) -> list[tuple[Run, str]]:
    """The runs that a run started from, as far as found, and it itself, last; each with its role, such as 'teacher'."""
    found: list[tuple[Run, str]] = []
    seen: set[Path] = set()

    def follow(run: Run, role: str) -> None:
        seen.add(files.real(run.path))
        for option, what in SOURCES.items():
            other = source(run, option)
            if other is not None and files.real(other.path) not in seen:
                follow(other, what)
        found.append((run, role))

    follow(run, "")
    return found


def _split(line: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(line)[1:])
    except ValueError:  # a quote that is not closed
        return tuple(line.split()[1:])


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_finite(value: Any) -> bool:
    return are_numbers([value], 1)


def attempt(make: Callable[[], T], problems: list[str]) -> T | None:
    """What a function makes of a run's files; where they are at fault None, and one more of the problems."""
    try:
        return make()
    except InputError as error:
        note(str(error), problems)
        return None


def note(problem: str, problems: list[str]) -> None:
    """Keep what is to be said of a file on the page, and warn of it, once."""
    if problem not in problems:
        warn(problem)
        problems.append(problem)


@contextmanager
def values_of(path: Path) -> Iterator[None]:
    """What is raised where a run's file holds values that the run did not write, as an InputError that names it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        what = f"holds values that no run writes ({type(error).__name__}: {error})"
        raise InputError(what, path, RESTORE) from None
