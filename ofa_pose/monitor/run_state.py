"""How far a training or a search is, read from its run directory: nothing of it is written, nor is the run asked."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ofa_pose.utils import atomic, files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import are_numbers
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import COMMAND, METRICS, POSES, PROVENANCE, RECIPE, RunDir, read_command, read_records

TRAININGS, SEARCH = ("pretrain", "train-supernet", "finetune"), "search"
HISTORY, RESULT = "history.csv", "result.json"
CURVES = ("loss", "lr", "data_wait")  # of a training's steps; those of its evaluations follow
RECENT = 50  # steps by which the speed is measured
MOST = 2**53  # steps, of which a float holds every one
Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class RunState(Result):
    """How far a training or a search is.

    Attributes:
        run: its directory; command: such as 'finetune'.
        unit: 'steps' of a training, 'subnets' of a search.
        done, total: how many of them; the total is None where its recipe does not say it.
        ended: whether nothing is left to do.
        speed: units a second, of late; None where that is not known yet.
        seconds_left: at that speed; None where it is not known.
        seconds_silent: since it wrote anything.
        last: the figures of the newest step, evaluation or generation, by name.
        best: the highest AP until now and its step, or its place in the search: {'AP', 'at'}; None before the first.
        curves: by name (step, value) pairs: 'loss', 'lr', 'data_wait' and 'val/AP' …, or a search's 'AP', 'best AP'.
        poses: the picture of what the net finds on validation images; None where there is none yet.
        running: whether a process works on it, as its lock shows: one of this machine, or of another one whose locks
            this file system has; None where it has none.
        go_on: how to go on with it, in words.
    """

    run: Path
    command: str
    unit: str
    done: int
    total: int | None
    ended: bool
    speed: float | None
    seconds_left: float | None
    seconds_silent: float
    last: dict[str, float]
    best: dict[str, float] | None
    curves: dict[str, Curve] = field(repr=False)
    poses: Path | None
    running: bool | None = None
    go_on: str = ""


def is_awaited(run: str | Path) -> bool:
    """Whether no run is in a directory yet, but one may begin there: it is not there, or empty, or just being made."""
    folder = Path(run)
    if (folder / COMMAND).is_file():
        return not read_command(folder / COMMAND)
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def read_state(run: str | Path) -> RunState:
    """How far the run in a directory is. Raises InputError where there is no training and no search in it."""
    folder = Path(run)
    if not (folder / COMMAND).is_file():
        what = "holds no run" if folder.is_dir() else "no such run directory"
        raise InputError(what, folder, "name a folder that pretrain, train-supernet, finetune or search writes")
    lines = read_command(folder / COMMAND)
    try:
        words = shlex.split(lines[-1])[1:] if lines else []
    except ValueError:
        words = []
    command = words[0] if words else ""
    if command not in (*TRAININGS, SEARCH):
        what = f"holds no training and no search ({COMMAND} names {command or 'none'})"
        raise InputError(what, folder, "name a run of another command")
    path = folder / METRICS
    records = [record for _, record in read_records(path)] if path.is_file() else []
    recipe = _recipe(folder)
    read = _search_state if command == SEARCH else _training_state
    state = read(folder, command, [one for one in records if _is_count(one.get("step"))], recipe)
    return replace(state, running=atomic.is_locked(folder / COMMAND), go_on=RunDir(folder, command=words).go_on)


def warn_if_cut_off(checkpoint: Path | None) -> None:
    """Warn where the training that a checkpoint lies in has gone fewer steps than its recipe asks for."""
    if checkpoint is None or checkpoint.parent.name != "checkpoints":
        return
    try:
        state = read_state(checkpoint.parent.parent)
    except InputError:  # the checkpoint was copied without its run
        return
    if state.total is not None and state.done < state.total and not state.ended:
        steps = f"{state.done:,} of {state.total:,} steps"
        cut = f"its training was cut off after {steps}; {state.go_on}"
        warn(f"{state.run}: " + (f"its training goes on, {steps} are done" if state.running else cut))


def _training_state(folder: Path, command: str, records: Sequence[Mapping[str, Any]], recipe: Any) -> RunState:
    steps = [one for one in records if "val" not in one and "calibration" not in one]
    evaluated = [one for one in records if isinstance(one.get("val"), dict)]
    curves = {name: _curve(steps, name) for name in CURVES}
    for metric in dict.fromkeys(metric for one in evaluated for metric in one["val"] if metric.startswith("AP")):
        found = _curve([{"step": one["step"], metric: one["val"].get(metric)} for one in evaluated], metric)
        curves[f"val/{metric}"] = tuple(pair for pair in found if 0 <= pair[1] <= 1)
    done, total = max((one["step"] for one in records), default=0), _whole(recipe, "train", "steps")
    sessions = folder / PROVENANCE  # it ends with a record after the decoder was calibrated
    if sessions.is_file():
        ended = any("ended" in record for _, record in [*read_records(sessions)][-1:])
    else:
        ended = total is not None and any(one["step"] >= total for one in evaluated)
    aps = curves.get("val/AP", ())
    last = dict(_numbers(steps[-1])) if steps else {}
    last |= {f"val/{name}": value for name, value in _numbers(evaluated[-1]["val"])} if evaluated else {}
    speed = _speed([(one["step"], one.get("seconds")) for one in steps[-RECENT:]])
    best = max(aps, key=lambda pair: pair[1], default=None)
    return _state(folder, command, "steps", done, total, ended, speed, last, best, curves)


def _search_state(folder: Path, command: str, records: Sequence[Mapping[str, Any]], recipe: Any) -> RunState:
    """Its total is what population and generations make; a search ends sooner where nothing is left in the budget."""
    rows = _history(folder / HISTORY)
    aps = [(place, float(row["AP"])) for place, row in enumerate(rows, start=1) if row.get("AP")]
    best: list[tuple[int, float]] = []
    for place, ap in aps:
        best.append((place, max(ap, best[-1][1]) if best else ap))
    population, generations = _whole(recipe, "search", "population"), _whole(recipe, "search", "generations")
    total = None if population is None or generations is None else population * (generations + 1)
    if total is not None and total < len(rows):  # uniformly scaled nets made the first population larger
        total = None
    # Of a resumed search the evaluations that it looks up again take no time: only what it measures shows its speed.
    counts = [(one.get("measured", one.get("evaluations")), one.get("seconds")) for one in records]
    speed = _speed([(0, 0.0), *counts][-2:])
    if speed is None:
        speed = _rate(len(rows), sum(float(row.get("seconds") or 0) for row in rows))
    last = dict(_numbers(records[-1])) if records else {}
    found = max(aps, key=lambda pair: pair[1], default=None)
    curves = {"AP": tuple(aps), "best AP": tuple(best)}
    ended = (folder / RESULT).is_file()
    return _state(folder, command, "subnets", len(rows), total, ended, speed, last, found, curves)


def _state(
    folder: Path,
    command: str,
    unit: str,
    done: int,
    total: int | None,
    ended: bool,
    speed: float | None,
    last: dict[str, float],
    best: tuple[int, float] | None,
    curves: dict[str, Curve],
) -> RunState:
    left = (total - done) / speed if total is not None and done <= total and speed and not ended else None
    wrote = [path.stat().st_mtime for name in (METRICS, HISTORY, COMMAND) if (path := folder / name).is_file()]
    return RunState(
        run=folder,
        command=command,
        unit=unit,
        done=done,
        total=total,
        ended=ended,
        speed=speed,
        seconds_left=left,
        seconds_silent=max(0.0, time.time() - max(wrote, default=time.time())),
        last=last,
        best=None if best is None else {"AP": best[1], "at": best[0]},
        curves=curves,
        poses=folder / POSES if (folder / POSES).is_file() else None,
    )


def _curve(records: Sequence[Mapping[str, Any]], name: str) -> Curve:
    return tuple((one["step"], one[name]) for one in records if _is_number(one.get(name)))


def _numbers(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in record.items() if _is_number(value)]


def _is_number(value: Any) -> bool:
    return are_numbers([value], 1)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _speed(points: Sequence[tuple[Any, Any]]) -> float | None:
    """Units a second between the first and the last of (count, seconds), since a resumed run began to count anew."""
    known = [(count, float(seconds)) for count, seconds in points if _is_count(count) and _is_number(seconds)]
    for place in range(len(known) - 1, 0, -1):
        if known[place - 1][1] > known[place][1]:
            known = known[place:]
            break
    if len(known) < 2 or known[-1][1] <= known[0][1] or known[-1][0] <= known[0][0]:
        return None
    return _rate(known[-1][0] - known[0][0], known[-1][1] - known[0][1])


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if 1e-9 < seconds < 1e15 else None  # else no run's


def _recipe(folder: Path) -> Any:
    try:
        return files.read_yaml(folder / RECIPE)
    except InputError:
        return {}


def _whole(recipe: Any, section: str, key: str) -> int | None:
    value = recipe.get(section) if isinstance(recipe, dict) else None
    found = value.get(key) if isinstance(value, dict) else None
    return found if _is_count(found) else None


def _history(path: Path) -> list[dict[str, str]]:
    """The whole rows of history.csv; one that is being written is left out."""
    if not path.is_file():
        return []
    rows = []
    for row in files.read_csv(path)[1]:
        try:
            ap, seconds = (float(row.get(name) or 0) for name in ("AP", "seconds"))
        except (TypeError, ValueError):
            continue
        if 0 <= ap <= 1 and math.isfinite(seconds):
            rows.append(row)
    return rows
