"""The shape of values and files: keys, types, headers, schemas; and where one shape lacks something of another."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

NAMES = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
VARYING = {"seconds", "latency", "bytes"}
LARGE = 20_000  # a text of more bytes is data, such as annotations
NEWER = re.compile(  # files that later versions write besides
    r"checkpoints/last-\d+\.pt|export\.json|poses\.jpg|provenance\.jsonl|samples/\d+\.jpg"
)


def shape(value: Any) -> Any:
    """Nested keys with the names of types; of a list the shape of its first element."""
    if isinstance(value, dict):
        return {str(key): shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return NAMES[type(value)]


def figures(value: Any, where: str = "") -> dict[str, float]:
    """The numbers in a value by their places, but for those that another machine may give otherwise."""
    if isinstance(value, dict):
        inner = (figures(one, f"{where}.{key}") for key, one in value.items() if key not in VARYING)
        return {place: number for told in inner for place, number in told.items()}
    return {where: round(value, 6)} if isinstance(value, int | float) else {}


def missing(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """What the shape `before` has and `now` has not, a line each; more keys do no harm, nor does a whole number."""
    if isinstance(before, dict):
        if not isinstance(now, dict):
            yield f"{where}: was an object, is {now}"
            return
        for key, inner in before.items():
            if key not in now:
                yield f"{where}.{key}: is gone"
            else:
                yield from missing(inner, now[key], f"{where}.{key}")
    elif isinstance(before, list):
        if not isinstance(now, list) or (before and not now):
            yield f"{where}: was a list, is {now}"
        elif before:
            yield from missing(before[0], now[0], f"{where}[0]")
    elif before != now and (before, now) != ("float", "int"):
        yield f"{where}: was {before}, is {now}"


def shapes_of_files(path: Path) -> dict[str, Any]:
    """The files in a folder, or one file, by name; with the shape of what is in those whose form is known."""
    if path.is_file():
        return {path.name: shape_of_file(path)}
    found = sorted(inner for inner in path.rglob("*") if inner.is_file())
    return {str(inner.relative_to(path)): shape_of_file(inner) for inner in found}


def shape_of_file(path: Path) -> Any:
    """The shape of one file; None where all that counts is that it is there."""
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as archive:
            rows = archive.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
            pragmas = [archive.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            return {"schema": [sql for (sql,) in rows], "application_id, user_version": pragmas}
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [""])
        return None if header[0].startswith("#") else {"header": header}  # there, columns have no names
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {"records": sorted({json.dumps(shape(record), sort_keys=True) for record in records})}
    if path.suffix == ".json" and path.stat().st_size < LARGE:
        return {"json": shape(json.loads(path.read_text(encoding="utf-8")))}
    if path.suffix == ".yaml":
        return {"yaml": shape(yaml.safe_load(path.read_text(encoding="utf-8")))}
    return None


def changed_files(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Files that have gone or come, and what those that are there lack."""
    now = {name: told for name, told in now.items() if not NEWER.fullmatch(name)}
    for name in sorted(before.keys() ^ now.keys()):
        yield f"{name}: {'is gone' if name in before else 'was not written before'}"
    for name in before.keys() & now.keys():
        told = before[name]
        if told is None:
            continue
        for kind, value in told.items():
            if kind in ("json", "yaml"):
                yield from missing(value, (now[name] or {}).get(kind), name)
            elif kind == "records":
                yield from missing_records(value, now[name][kind], name)
            elif value != now[name][kind]:
                yield f"{name}: {kind} was {value}, is {now[name][kind]}"


def missing_records(before: list[str], now: list[str], where: str) -> Iterator[str]:
    """Records of which none that is there now has all the keys, and records of a kind that was not there before."""
    old, new = ([json.loads(record) for record in records] for records in (before, now))
    for record in old:
        if all(any(missing(record, other)) for other in new):
            yield f"{where}: no record is as {json.dumps(record)}"
    for record in new:
        if all(any(missing(other, record)) for other in old):
            yield f"{where}: records like {json.dumps(record)} were not written before"
