"""LabelMe: one JSON file an image; points and a rectangle of one group id are a person."""

from __future__ import annotations

from collections.abc import Iterator
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
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json

_HINT = "save it in LabelMe again"


def _accepts(given: Given) -> bool:
    if given.path.is_dir():
        faults = []
        for path in _files(given.path):
            try:
                return _is_labelme(read_json(path))
            except InputError as error:  # some other tool's, perhaps
                faults.append(error)
        if faults:
            raise faults[0]
        return False
    return given.suffix == ".json" and _is_labelme(given.json)


def _files(folder: Path) -> list[Path]:
    """The JSON files in a folder, but for those of hidden folders, such as an editor's settings."""
    inside = ((path, path.relative_to(folder).parts) for path in folder.rglob("*.json"))
    return sorted(path for path, parts in inside if not any(part.startswith(".") for part in parts))


def _is_labelme(value: Any) -> bool:
    return isinstance(value, dict) and "shapes" in value and "imagePath" in value


def _read(given: Given) -> list[AnnotatedImages]:
    files = _files(given.path) if given.path.is_dir() else [given.path]
    values = [(path, value) for path in files for value in [read_json(path)] if _is_labelme(value)]
    names = in_order(
        str(shape["label"])
        for path, value in values
        for shape in _shapes(path, value)
        if shape["shape_type"] == "point"
    )
    joints = Joints("person", _ordered(names)).check(given.path)
    finder = ImageFinder(given.root, given.images)
    gathered = Gathered(joints)
    for path, value in values:
        _read_image(gathered, finder, path, value, given)
    gathered.notes += finder.note()
    return [gathered.finish("", given.path)]


def _ordered(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a built-in skeleton in its order; others as they come: LabelMe itself knows no order."""
    from ofa_pose.skeleton import BUILT_IN

    same = (skeleton.joints for skeleton in BUILT_IN.values() if set(skeleton.joints) == set(names))
    return next(same, names)


def _shapes(path: Path, value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The shapes of a file, each with the fields that LabelMe writes."""
    shapes = value["shapes"]
    if not isinstance(shapes, list):
        raise InputError("shapes is not a list", path, _HINT)
    for place, shape in enumerate(shapes):
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list) or "label" not in shape:
            raise InputError("has no label and points", f"{path}: shape at place {place}", _HINT)
        if not isinstance(shape.get("group_id"), int | str | None):
            raise InputError(f"group_id is {shape['group_id']!r:.40}", f"{path}: shape at place {place}", _HINT)
        yield {"shape_type": "polygon", "group_id": None, **shape}


def _read_image(gathered: Gathered, finder: ImageFinder, path: Path, value: dict[str, Any], given: Given) -> None:
    name = value["imagePath"]
    if not isinstance(name, str):
        raise InputError(f"imagePath is {name!r:.40}", path, _HINT)
    beside = path.parent.relative_to(given.root) / name.replace("\\", "/")
    image = finder.find(beside.as_posix(), path)
    sides = [value.get("imageWidth"), value.get("imageHeight")]
    size = [finite(side, "imageWidth or imageHeight", path) for side in sides] if all(sides) else size_of(image)
    number = gathered.add_image(beside.as_posix(), size, image, path)
    points: dict[Any, dict[str, Point]] = {}
    boxes: dict[Any, list[float]] = {}
    gathered.losses["attributes"] += _flags(value)
    for place, shape in enumerate(_shapes(path, value)):
        where, group = f"{path}: shape at place {place}", shape["group_id"]
        corners = [_corner(corner, where) for corner in shape["points"]]
        gathered.losses["attributes"] += _flags(shape)
        if shape["shape_type"] == "point" and len(corners) == 1:
            person, label = points.setdefault(group, {}), str(shape["label"])
            gathered.losses["repeated_joints"] += label in person
            person.setdefault(label, (*corners[0], 2))
        elif shape["shape_type"] == "rectangle" and len(corners) in (2, 4) and group not in boxes:
            xs, ys = zip(*corners, strict=True)
            boxes[group] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        else:
            gathered.losses["other_shapes"] += 1
    for group in in_order([*points, *boxes]):
        gathered.add_person(number, points.get(group, {}), boxes.get(group))


def _flags(holder: dict[str, Any]) -> int:
    """How many flags of an image or a shape are set."""
    flags = holder.get("flags")
    return sum(map(bool, flags.values())) if isinstance(flags, dict) else 0


def _corner(corner: Any, where: str) -> tuple[float, float]:
    if not isinstance(corner, list) or len(corner) != 2:
        raise InputError(f"a point is {corner!r:.40}", where, "give [x, y]")
    return finite(corner[0], "x", where), finite(corner[1], "y", where)


FORMAT = AnnotationFormat("LabelMe", _accepts, _read)
