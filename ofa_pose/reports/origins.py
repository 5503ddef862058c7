"""Where the runs of a report come from: their commands, dates, versions, machines, data and digests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ofa_pose.checkpoints.checkpoint import find_checkpoint
from ofa_pose.reports.findings import Evaluated
from ofa_pose.reports.html_parts import command, details, element, section, table
from ofa_pose.reports.runs import SOURCES, Run, attempt, values_of
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import PROVENANCE, read_records

DIGITS = 12  # of a SHA-256
DATA = ("split", "annotations", "images", "people", "joints labelled", "of these hidden", "SHA-256")


def origins(
    runs: Sequence[tuple[Run, str]], evaluations: Sequence[tuple[str, Evaluated]], problems: list[str]
) -> list[str]:
    """The HTML about a chain of runs, each with its role, and evaluations, each with what it is of."""
    body: list[str] = []
    for run, role in runs:
        body.append(element("h3", run.name + (f": {role}" if role else "")))
        body += [command(shlex.join(["ofa-pose", *words])) for words in run.commands]
        body += attempt(partial(_kept, run), problems) or []
        body += _lost(run)
        if run.recipe:
            body.append(details("recipe.yaml", run.recipe))
    if evaluations:
        rows = [[what, str(one.folder), one.made, _short(one.sha256), _short(one.truth)] for what, one in evaluations]
        head = ("evaluation of", "folder", "made", "SHA-256 of its checkpoint", "of the annotations")
        body += [element("h3", "Evaluations"), table("Evaluations", head, rows)]
    return section("Where it comes from", body)


def _lost(run: Run) -> list[str]:
    """What a run started from and is not found from here."""
    lost = [f"{name} {value} ({SOURCES[name]})" for name, value in run.lost.items()]
    if not lost:
        return []
    warn(f"{run.path}: what it started from is not found from here: {', '.join(lost)}")
    return [element("p", f"Not found when this page was made: {', '.join(lost)}.")]


def _kept(run: Run) -> list[str]:
    """What the run's commands kept as they began and ended. Raises InputError where that is damaged."""
    path = run.path / PROVENANCE
    if not path.exists():
        return []
    records = [record for _, record in read_records(path)]
    with values_of(path):
        begun = [record for record in records if "started" in record]
        body = [element("p", sentence) for sentence in _sessions(records)]
        if begun:
            body += _data(begun[-1])
            body += [element("p", sentence) for sentence in _inputs(run, begun[-1])]
    if (best := run.path / "checkpoints" / "best.pt").is_file() or (best := run.path / "best.pt").is_file():
        body.append(element("p", f"{best.name}: SHA-256 {files.sha256(best)}", "note"))
    return body


def _sessions(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each command: when, how long, on what."""
    for number, record in enumerate(records):
        if "started" not in record:
            continue
        after = records[number + 1] if number + 1 < len(records) else {}
        took = f"took {_duration(after['seconds'])}" if "ended" in after else "did not come to its end"
        machine, versions = record["machine"], record["versions"]
        gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
        where = f"{gpu}{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['system']}"
        shared = f", {record['processes']} processes" if record["processes"] > 1 else ""
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield f"Started {_time(record['started'])}, {took}. On {where}{shared}. With {packages}."


def _data(record: Mapping[str, Any]) -> list[str]:
    """The table of the splits that a run used."""
    rows = []
    for split, one in record["data"].items():
        background = f" + {one['background']:,} without people" if one["background"] else ""
        counts = [f"{one['images']:,}{background}", f"{one['people']:,}", f"{one['joints']:,}"]
        hidden = f"{one['hidden'] / one['joints']:.0%}" if one["joints"] else ""
        rows.append([split, one["annotations"], *counts, hidden, _short(one["sha256"])])
    return [table("Data", DATA, rows)] if rows else []


def _inputs(run: Run, record: Mapping[str, Any]) -> Iterator[str]:
    """The files that it started from, and whether these are still the same."""
    for option, one in record["inputs"].items():
        path = run.locate(one["path"])
        try:
            now = files.sha256(path if path is not None and path.is_file() else find_checkpoint(path or one["path"]))
        except InputError:
            now = ""
        state = "not found now" if not now else "still the same" if now == one["sha256"] else "another file now"
        yield f"{option} {one['path']}: SHA-256 {_short(one['sha256'])}, {state}."


def _short(digest: str) -> str:
    return digest[:DIGITS]


def _time(text: str) -> str:
    """An ISO 8601 time to the minute, such as '2026-11-27 00:30 UTC'."""
    return f"{text[:16].replace('T', ' ')} UTC"


def _duration(seconds: float) -> str:
    """Such as '48 s', '12 min' or '3 h 05 min'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
