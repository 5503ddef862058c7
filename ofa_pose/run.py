"""The run directory: recipe.yaml, command.txt, metrics.jsonl and checkpoints/, the same for every command."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa_pose import files
from ofa_pose.console import warn
from ofa_pose.errors import InputError

PROGRESS = ("checkpoints/last.pt", "history.csv")  # of a training; of a search


class RunDir:
    """A directory that holds one run. Create it with `open_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.metrics = path / "metrics.jsonl"

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl; NaN and infinities are written as null."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(record), allow_nan=False) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the records of steps after `step`: a resumed run writes them again."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when the run was killed
                continue
            if record.get("step", 0) <= step:
                kept.append(line)
        files.write_text(self.metrics, "".join(line + "\n" for line in kept))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def open_run(
    out: str | Path,
    recipe: str,
    resume: bool = False,
    argv: Sequence[str] | None = None,
    progress: str = PROGRESS[0],
) -> RunDir:
    """Make the run directory `out` with the resolved recipe and the exact command.

    Args:
        progress: the file, inside `out`, that holds what a run has done so far, and that a resumed one goes on from;
            one of `PROGRESS`.

    Raises:
        InputError: `out` holds a run already and `resume` is not asked for, there is nothing to resume, or `out`
            cannot be made.
    """
    run = RunDir(Path(out))
    if run.path.exists() and not run.path.is_dir():
        raise InputError("is a file, not a folder", out, "choose another --out")
    begun = (run.path / progress).exists()
    if resume and not begun:
        raise InputError(f"holds no {progress} to resume from", out, "start without --resume")
    if not resume and any((run.path / name).exists() for name in PROGRESS):
        raise InputError("holds a run already", out, "add --resume to go on, or choose another --out")
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made ({error.strerror})", out, "choose another --out") from None
    if not begun:  # what a run left that was killed before its first checkpoint
        run.metrics.unlink(missing_ok=True)
    resolved = run.path / "recipe.yaml"
    if resume and resolved.exists() and files.read_text(resolved) != recipe:
        warn(f"{resolved}: the recipe is not the one that this run began with")
    files.write_text(resolved, recipe)
    command = shlex.join(["ofa-pose", *(sys.argv[1:] if argv is None else argv)])
    with (run.path / "command.txt").open("a", encoding="utf-8") as file:
        file.write(command + "\n")
    return run
