"""Run directories read back: what each did, and which others it started from."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose import files
from ofa_pose.errors import InputError
from ofa_pose.run import RECIPE

COMMAND, METRICS, HISTORY, PARETO, BEST = "command.txt", "metrics.jsonl", "history.csv", "pareto.csv", "best.yaml"
SOURCES = {  # options that name what a run starts from, and what that is to it
    "--init": "starting weights",
    "--supernet": "supernet",
    "--subnet": "choice of the subnet",
    "--teacher": "teacher",
}


@dataclass(frozen=True)
class Run:
    """What a run directory tells.

    Attributes:
        command: the words of the last command that ran in it, without 'ofa-pose'; it may have been resumed before.
        metrics: the records of metrics.jsonl, in their order.
        recipe: the text of recipe.yaml; empty where there is none.
    """

    path: Path
    command: tuple[str, ...]
    metrics: tuple[Mapping[str, Any], ...]
    recipe: str

    @property
    def job(self) -> str:
        """The command's name, such as 'finetune'."""
        return self.command[0] if self.command else "run"

    @property
    def sources(self) -> dict[str, str]:
        """What the command names of SOURCES: option and value."""
        pairs: list[tuple[str, str]] = []
        for word, after in zip(self.command, (*self.command[1:], ""), strict=True):
            option, equals, value = word.partition("=")
            pairs.append((option, value if equals else after))
        return {option: value for option, value in pairs if option in SOURCES and value}

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """The records of training steps."""
        return [record for record in self.metrics if isinstance(record.get("loss"), float)]

    @property
    def validated(self) -> list[Mapping[str, Any]]:
        """The records of validations: each has a step and 'val', metrics by name."""
        return [record for record in self.metrics if isinstance(record.get("val"), Mapping)]

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of one of a search's CSV files; none where there is no such file."""
        path = self.path / name
        return list(csv.DictReader(io.StringIO(files.read_text(path)))) if path.exists() else []

    def best(self) -> dict[str, Any]:
        """What best.yaml of a search tells; empty where there is none."""
        found = files.read_yaml(self.path / BEST) if (self.path / BEST).exists() else {}
        return found if isinstance(found, dict) else {}


def read_run(path: str | Path) -> Run:
    """The run in a directory. Raises InputError where it holds none."""
    folder = Path(path)
    if not folder.is_dir():
        what = "is no run directory" if folder.exists() else "no such run directory"
        raise InputError(what, folder, "name a folder that pretrain, train-supernet, search or finetune wrote")
    if not (folder / COMMAND).exists():
        mend = "name a folder that pretrain, train-supernet, search or finetune wrote"
        raise InputError(f"holds no run ({COMMAND} is missing)", folder, mend)
    lines = files.read_text(folder / COMMAND).splitlines()
    try:
        words = shlex.split(lines[-1]) if lines else []
    except ValueError:
        words = []
    recipe = files.read_text(folder / RECIPE) if (folder / RECIPE).exists() else ""
    return Run(folder, tuple(words[1:]), tuple(_records(folder / METRICS)), recipe)


def chain(path: str | Path) -> list[tuple[Run, str]]:
    """A run and those that it started from, where they can still be found: the earliest first, it itself last.

    Each comes with what it is to the run that names it, such as 'teacher'; the last with ''.
    """
    found: dict[Path, tuple[Run, str]] = {}
    _follow(read_run(path), "", found, set())
    return list(found.values())


def _follow(run: Run, role: str, found: dict[Path, tuple[Run, str]], seen: set[Path]) -> None:
    seen.add(run.path.resolve())
    for option, value in run.sources.items():
        folder = run_of(value)
        if folder is not None and folder.resolve() not in seen:
            _follow(read_run(folder), SOURCES[option], found, seen)
    found[run.path.resolve()] = run, role


def run_of(value: str) -> Path | None:
    """The run directory that a path lies in, such as runs/a/checkpoints/best.pt or runs/a/front/001.yaml."""
    path = Path(value)
    if not path.exists():
        return None
    return next((folder for folder in (path, *path.absolute().parents[:2]) if (folder / COMMAND).is_file()), None)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The records of metrics.jsonl, but for a line that was being written when the run was killed."""
    for line in files.read_text(path).splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            yield record
