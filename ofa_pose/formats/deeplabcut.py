"""DeepLabCut: CollectedData files, CSV or HDF5, of one or several animals, and a project's config.yaml."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.formats.annotated import (
    AnnotatedImages,
    AnnotationFormat,
    Gathered,
    Given,
    Joints,
    Point,
    finite,
    in_order,
)
from ofa_pose.formats.image_files import ImageFinder, size_of
from ofa_pose.formats.sleap import open_hdf5, whole
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_text, read_yaml, real

_CONFIG, _LABELLED, _FILES = "config.yaml", "labeled-data", "CollectedData_*"
_UNIQUE = "single"  # stands for the individual of body parts that are there once an image
_ONE = ""  # the individual of a file of one animal
_HINT = "name a CollectedData file of DeepLabCut, or the project's folder"
_CSV_HINT = "name the CSV file that DeepLabCut writes beside it"


@dataclass(frozen=True)
class _Table:
    """The contents of one CollectedData file.

    Attributes:
        columns: individual, body part and coordinate of each column.
        rows: the image and the cells of each row; cells that hold nothing are empty text or NaN.
    """

    path: Path
    columns: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, Sequence[Any]], ...]


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and "scorer" in value and ("bodyparts" in value or "multianimalbodyparts" in value)


def _config(given: Given) -> Path | None:
    """The project's config: named, in the folder that was named, or two folders above a CollectedData file."""
    path = given.path / _CONFIG if given.path.is_dir() else given.path
    if path.suffix in (".yaml", ".yml"):
        return path if path.is_file() and _is_config(read_yaml(path)) else None
    above = real(given.path).parent.parent.parent / _CONFIG
    return above if above.is_file() and _is_config(read_yaml(above)) else None


def _files(given: Given) -> list[Path]:
    """CollectedData files; where one is there as CSV and HDF5, the CSV."""
    if given.suffix in (".csv", ".h5"):
        return [given.path]
    found: dict[Path, Path] = {}
    for pattern in (f"{_FILES}.csv", f"{_FILES}.h5"):
        for place in (given.root, given.root / _LABELLED):
            for path in sorted([*place.glob(pattern), *place.glob(f"*/{pattern}")]):
                found.setdefault(path.with_suffix(""), path)
    return [found[key] for key in sorted(found)]


def _of_one_scorer(files: list[Path], scorer: object) -> list[Path]:
    """The files but for those that lie beside one of the project's scorer. Raises InputError where that is unclear."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        by_folder[path.parent].append(path)
    kept = []
    for folder, several in by_folder.items():
        own = [path for path in several if len(several) == 1 or path.stem == f"CollectedData_{scorer}"]
        if not own:
            names = ", ".join(path.name for path in several)
            raise InputError(f"holds labels of several scorers ({names})", folder, "name one of the files")
        kept += own
    return kept


def _accepts(given: Given) -> bool:
    if given.suffix == ".csv":
        with given.path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.read(len("scorer")) == "scorer"
    if given.suffix == ".h5":
        return True
    if given.path.is_dir():
        return bool(_files(given))
    return given.suffix in (".yaml", ".yml") and _is_config(given.yaml)


def _read(given: Given) -> list[AnnotatedImages]:
    files = _files(given)
    if not files:
        hint = f"keep it above {_LABELLED}/, where the CollectedData files are"
        raise InputError("has no CollectedData files beside it", given.path, hint)
    config_path = _config(given)
    config = read_yaml(config_path) if config_path else {}
    kept = _of_one_scorer(files, config.get("scorer"))
    tables = [_read_table(path) for path in kept]
    gathered = Gathered(_joints(given, tables, config))
    if len(kept) < len(files):
        what = f"{len(files) - len(kept)} files of other scorers than {config['scorer']} are left out"
        gathered.notes.append(f"{given.path}: {what}")
    project = given.root if given.suffix in ("", ".yaml", ".yml") else real(given.root).parent.parent
    if config_path is None:
        gathered.notes.append(f"{given.path}: no {_CONFIG} is near, so that no limbs are known")
    finder = ImageFinder(
        project if config_path else given.root, given.images, [project, *(t.path.parent for t in tables)]
    )
    for table in tables:
        _add(gathered, table, finder)
    gathered.notes += finder.note()
    return [gathered.finish("", given.path)]


def _joints(given: Given, tables: list[_Table], config: dict[str, Any]) -> Joints:
    several = _are_several(tables)
    columns = [column for table in tables for column in table.columns]
    names = in_order(part for who, part, _ in columns if not several or who != _UNIQUE)
    listed = config.get("multianimalbodyparts" if several else "bodyparts")
    declared = in_order(map(str, listed)) if isinstance(listed, list) else ()
    edges = config.get("skeleton")
    limbs = [tuple(map(str, edge)) for edge in edges if isinstance(edge, list)] if isinstance(edges, list) else []
    order = declared if set(names) <= set(declared) else names
    return Joints("animal", order, tuple((limb[0], limb[1]) for limb in limbs if len(limb) == 2)).check(given.path)


def _are_several(tables: list[_Table]) -> bool:
    """Whether the tables tell animals apart."""
    return any(who not in (_ONE, _UNIQUE) for table in tables for who, _, _ in table.columns)


def _add(gathered: Gathered, table: _Table, finder: ImageFinder) -> None:
    several = _are_several([table])
    for image, cells in table.rows:
        where = f"{table.path}: row {image}"
        found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for (who, part, axis), cell in zip(table.columns, cells, strict=False):
            if cell != "" and not (isinstance(cell, float) and math.isnan(cell)):
                found[who][part][axis] = finite(cell, f"{part} {axis}", where)
        path = finder.find(image, where)
        number = gathered.add_image(image, size_of(path), path, where)
        for who, parts in found.items():
            points: dict[str, Point] = {
                part: (at["x"], at["y"], 2) for part, at in parts.items() if {"x", "y"} <= at.keys()
            }
            mine = {part: point for part, point in points.items() if part in gathered.joints.names}
            if several and who == _UNIQUE:
                gathered.losses["joints_of_nobody"] += len(points)
            elif mine:
                gathered.add_person(number, mine, more={"individual": who} if who else None)


def _read_table(path: Path) -> _Table:
    table = _read_h5(path) if path.suffix.lower() == ".h5" else _read_csv(path)
    if any(axis == "likelihood" for _, _, axis in table.columns):
        raise InputError("holds what a network predicted, not labels", path, _HINT)
    if not table.rows:
        raise InputError("has no rows", path, "label some images")
    return table


def _read_csv(path: Path) -> _Table:
    try:
        lines = list(csv.reader(read_text(path).splitlines()))
    except csv.Error as error:
        raise InputError(f"is not valid CSV ({error})", path, "save the file again") from None
    heads: dict[str, list[str]] = {}
    for line in lines:
        if not line or line[0] not in ("scorer", "individuals", "bodyparts", "coords"):
            break
        heads[line[0]] = line
    body = len(heads)
    if "bodyparts" not in heads or "coords" not in heads:
        raise InputError("has no rows bodyparts and coords at its head", path, _HINT)
    axes = heads["coords"]
    first = next((at for at, word in enumerate(axes) if at and word), len(axes))  # 1 column names an image, or 3
    people = heads.get("individuals", [_ONE] * len(axes))
    columns = tuple(zip(people[first:], heads["bodyparts"][first:], axes[first:], strict=False))
    rows = []
    for number, line in enumerate(lines[body:], start=body + 1):
        if line and any(line):
            if len(line) > len(axes):  # fewer: those at the end are empty
                raise InputError(f"has {len(line)} cells, not {len(axes)}", f"{path}:{number}", "save the file again")
            rows.append(("/".join(line[:first]), line[first:]))
    return _Table(path, columns, tuple(rows))


def _read_h5(path: Path) -> _Table:
    """A table that pandas wrote in its 'fixed' layout; its other layout holds pickles, which are not read."""
    with open_hdf5(path) as file:
        group = next((one for one in file.values() if hasattr(one, "keys") and "block0_values" in one), None)
        if group is None:
            beside = path.with_suffix(".csv")
            if beside.is_file():
                return _read_csv(beside)
            raise InputError("is not a table in pandas' fixed layout", path, _CSV_HINT)
        try:
            levels = list(_levels(group, "block0_items"))
            people = levels[1] if len(levels) > 3 else [_ONE] * len(levels[0])
            columns = tuple(zip(people, levels[-2], levels[-1], strict=True))
            rows = ["/".join(parts) for parts in zip(*_levels(group, "axis1"), strict=True)]
            values = whole(group["block0_values"])
        except (KeyError, ValueError, IndexError, TypeError, AttributeError):
            raise InputError("is not a table in pandas' fixed layout", path, _CSV_HINT) from None
    if values.shape != (len(rows), len(columns)):
        raise InputError("is not a table of numbers alone", path, _CSV_HINT)
    return _Table(path, columns, tuple(zip(rows, values.tolist(), strict=True)))


def _levels(group: Any, axis: str) -> Iterator[list[str]]:
    """The labels along an axis, a list each level."""

    def words(dataset: Any) -> list[str]:
        return [word.decode() if isinstance(word, bytes) else str(word) for word in whole(dataset).tolist()]

    if axis in group:
        yield words(group[axis])
        return
    level = 0
    while f"{axis}_level{level}" in group:
        names = words(group[f"{axis}_level{level}"])
        codes = whole(group[f"{axis}_{'codes' if f'{axis}_codes{level}' in group else 'label'}{level}"])
        if min(codes, default=0) < 0:  # pandas' of what is missing
            raise ValueError(f"{axis} lacks labels")
        yield [names[code] for code in codes]
        level += 1


FORMAT = AnnotationFormat("DeepLabCut", _accepts, _read)
