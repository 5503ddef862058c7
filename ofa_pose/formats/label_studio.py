"""Label Studio's JSON export: keypoints and rectangles in percent, joined by parentID or relations to people."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ofa_pose.formats.annotated import (
    AnnotatedImages,
    AnnotationFormat,
    Gathered,
    Given,
    Joints,
    Point,
    finite,
    in_order,
    turned_box,
)
from ofa_pose.formats.image_files import IMAGE_SUFFIXES, ImageFinder, size_of
from ofa_pose.utils.errors import InputError

_EXPORT = "export the project as JSON (not JSON-MIN)"
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file
_JOINTS, _BOX = "keypointlabels", "rectanglelabels"


def _accepts(given: Given) -> bool:
    if given.suffix != ".json" or not isinstance(given.json, list) or not given.json:
        return False
    first = given.json[0]
    return isinstance(first, dict) and isinstance(first.get("data"), dict)


def _read(given: Given) -> list[AnnotatedImages]:
    tasks = given.json
    regions = [
        region
        for place, task in enumerate(tasks)
        for one in _annotations(task, _where(given, task, place))
        for region in _results(one, _where(given, task, place))
    ]
    names = in_order(_label(region, _JOINTS) for region in regions if region.get("type") == _JOINTS)
    boxes = [_label(region, _BOX) for region in regions if region.get("type") == _BOX]
    joints = Joints(boxes[0] if boxes else "person", _ordered(names)).check(given.path)
    reader = _Tasks(given, Gathered(joints))
    for place, task in enumerate(tasks):
        reader.read_task(task, _where(given, task, place))
    return [reader.finish()]


def _ordered(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a built-in skeleton in its order; others as they come: an export knows no order."""
    from ofa_pose.skeleton import BUILT_IN

    same = (skeleton.joints for skeleton in BUILT_IN.values() if set(skeleton.joints) == set(names))
    return next(same, names)


def _where(given: Given, task: Any, place: int) -> str:
    number = task.get("id") if isinstance(task, dict) else None
    return f"{given.path}: task {f'at place {place}' if number is None else number}"


def _annotations(task: Any, where: str) -> list[Any]:
    known = isinstance(task, dict) and isinstance(task.get("data"), dict)
    found = task.get("annotations", task.get("completions")) if known else None
    if not isinstance(found, list):
        raise InputError("has no annotations", where, _EXPORT)
    return found


def _results(annotation: Any, where: str) -> list[dict[str, Any]]:
    found = annotation.get("result") if isinstance(annotation, dict) else None
    if not isinstance(found, list) or not all(isinstance(region, dict) for region in found):
        raise InputError("has an annotation without a result", where, _EXPORT)
    for region in found:
        odd = [
            key for key in ("id", "parentID", "from_id", "to_id") if not isinstance(region.get(key), str | int | None)
        ]
        if odd:
            raise InputError(f"a region's {odd[0]} is {region[odd[0]]!r:.40}", where, _EXPORT)
    return found


def _label(region: dict[str, Any], kind: str) -> str:
    value = region.get("value")
    labels = value.get(kind) if isinstance(value, dict) else None
    return str(labels[0]) if isinstance(labels, list) and labels else ""


class _Tasks:
    """Reads tasks one by one."""

    def __init__(self, given: Given, gathered: Gathered) -> None:
        self._given, self._gathered = given, gathered
        self._finder = ImageFinder(given.root, given.images, [given.root / "images"])
        self._turned = self._placed = 0

    def read_task(self, task: Any, where: str) -> None:
        """One image and its people."""
        annotations = _annotations(task, where)
        kept = [one for one in annotations if not one.get("was_cancelled")]
        self._gathered.losses["annotators"] += len(annotations) - len(kept[:1])
        if not kept:
            return
        name = _image_name(task, where)
        path = self._finder.find(name, where, _UPLOADED.sub("", PurePosixPath(name).name))
        regions = _results(kept[0], where)
        sized = next((region for region in regions if "original_width" in region), None)
        if sized is None:
            size = size_of(path)
        else:
            sides = [finite(sized.get(key), key, where) for key in ("original_width", "original_height")]
            size = int(sides[0]), int(sides[1])
        self._turned += any(region.get("image_rotation") for region in regions)
        number = self._gathered.add_image(path.name, size, path, where)
        for points, box in self._people(regions, size, where):
            self._gathered.add_person(number, points, box)

    def finish(self) -> AnnotatedImages:
        """What was read, with its notes."""
        if self._turned:
            what = "images were turned in Label Studio; their joints are turned back to the files' own sides"
            self._gathered.notes.append(f"{self._turned} {what}")
        if self._placed:
            what = "joints are joined to no person by parentID or relation; each was given to the one box it lies in"
            self._gathered.notes.append(f"{self._placed} {what}")
        self._gathered.notes += self._finder.note()
        return self._gathered.finish("", self._given.path)

    def _people(
        self, regions: list[dict[str, Any]], size: tuple[int, int], where: str
    ) -> Iterator[tuple[dict[str, Point], list[float] | None]]:
        """The joints and the box of each person."""
        groups = _groups(regions)
        points: dict[Any, list[tuple[str, Point]]] = defaultdict(list)
        boxes: dict[Any, list[float]] = {}
        for place, region in enumerate(regions):
            kind, at = region.get("type"), f"{where}: region {region.get('id', f'at place {place}')}"
            group = groups.get(region.get("id"), ("alone", place))
            if kind == _JOINTS:
                x, y = self._turn_back(region, _percent(region, ("x", "y"), at), size, at)
                points[group].append((_label(region, _JOINTS), (x, y, 2)))
            elif kind == _BOX:
                box = self._box(region, size, at)
                boxes[group if group not in boxes else ("alone", place)] = box
            elif kind == "choices":
                self._gathered.losses["attributes"] += 1
            elif kind != "relation":
                self._gathered.losses["other_shapes"] += 1
        self._place_single_joints(points, boxes)
        for group in in_order([*boxes, *points]):
            person = dict(reversed(points.get(group, [])))
            self._gathered.losses["repeated_joints"] += len(points.get(group, [])) - len(person)
            yield person, boxes.get(group)

    def _place_single_joints(self, points: dict[Any, Any], boxes: dict[Any, list[float]]) -> None:
        """Give joints that nothing joins to a person to the one that they can be of, if there is one."""
        joined = {group for group in points if group in boxes or len(points[group]) > 1}
        single = [group for group in points if group not in joined]
        if len(boxes) + len([group for group in joined if group not in boxes]) == 0:
            for group in single:
                points["all"] += points.pop(group)
            return
        for group in single:
            ((name, (x, y, flag)),) = points.pop(group)
            near = {} if joined else boxes  # else it was left apart on purpose
            around = [key for key, (bx, by, w, h) in near.items() if bx <= x <= bx + w and by <= y <= by + h]
            if len(around) == 1:
                points[around[0]].append((name, (x, y, flag)))
                self._placed += 1
            else:
                self._gathered.losses["joints_of_nobody"] += 1

    def _box(self, region: dict[str, Any], size: tuple[int, int], where: str) -> list[float]:
        x, y, w, h = _percent(region, ("x", "y", "width", "height"), where)
        turned = _turned_sides(region, size, where)
        width, height = turned[0] / 100 * w, turned[1] / 100 * h
        left, top = turned[0] / 100 * x, turned[1] / 100 * y
        degrees = finite(region["value"].get("rotation") or 0, "rotation", where)
        self._gathered.losses["turned_boxes"] += degrees != 0
        left, top, width, height = turned_box((left, top, width, height), degrees, (left, top))
        corners = [(left, top), (left + width, top + height)]
        shares = [(100 * cx / turned[0], 100 * cy / turned[1]) for cx, cy in corners]
        xs, ys = zip(*(self._turn_back(region, share, size, where) for share in shares), strict=True)
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]

    def _turn_back(
        self, region: dict[str, Any], percent: Sequence[float], size: tuple[int, int], where: str
    ) -> tuple[float, float]:
        """Image pixels of a position in percent of the image as it was shown, turned by image_rotation clockwise."""
        (width, height), (shown_width, shown_height) = size, _turned_sides(region, size, where)
        px, py = shown_width / 100 * percent[0], shown_height / 100 * percent[1]
        turned = {0: (px, py), 90: (py, height - px), 180: (width - px, height - py), 270: (width - py, px)}
        return turned[_rotation(region, where)]


def _percent(region: dict[str, Any], keys: tuple[str, ...], where: str) -> list[float]:
    value = region.get("value")
    if not isinstance(value, dict):
        raise InputError("has no value", where, _EXPORT)
    return [finite(value.get(key), key, where) for key in keys]


def _rotation(region: dict[str, Any], where: str) -> int:
    degrees = finite(region.get("image_rotation") or 0, "image_rotation", where) % 360
    if degrees % 90:
        raise InputError(f"image_rotation is {degrees:g}", where, "give 0, 90, 180 or 270")
    return int(degrees)


def _turned_sides(region: dict[str, Any], size: tuple[int, int], where: str) -> tuple[int, int]:
    """Width and height of the image as it was shown."""
    return size[::-1] if _rotation(region, where) % 180 else size


def _groups(regions: list[dict[str, Any]]) -> dict[Any, Any]:
    """Of each region that belongs with others by its id, one key for all of them."""
    leader: dict[Any, Any] = {}

    def top(one: Any) -> Any:
        found = one
        while leader[found] != found:
            found = leader[found]
        while one != found:  # a chain is walked once
            leader[one], one = found, leader[one]
        return found

    for region in regions:
        is_relation = region.get("type") == "relation"
        a, b = (
            (region.get("from_id"), region.get("to_id")) if is_relation else (region.get("id"), region.get("parentID"))
        )
        if a and b:
            leader.setdefault(a, a)
            leader.setdefault(b, b)
            leader[top(a)] = top(b)
    return {one: top(one) for one in leader}


def _image_name(task: dict[str, Any], where: str) -> str:
    """The file that a task's data names: the path of local files, else that in its address."""
    values = [value for value in task["data"].values() if isinstance(value, str)] if task.get("data") else []
    named = task["data"].get("image") if task.get("data") else None
    for address in [named, *values] if isinstance(named, str) else values:
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d", [""])[0]
        name = local or unquote(parts.path)
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            return name
    raise InputError("its data names no image file", where, "give it an image, or export it with its files")


FORMAT = AnnotationFormat("Label Studio's JSON", _accepts, _read)
