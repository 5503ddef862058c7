"""CVAT's XML for images 1.1: skeletons, or single points and boxes that a group id holds together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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
from ofa_pose.formats.image_files import ImageFinder
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_text

_NAME = "annotations.xml"
_HEAD = 4096  # characters in which the root element begins
_EXPORT = "export the task as 'CVAT for images 1.1'"


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree; a document type, which alone can declare entities, is refused."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError("declares a document type, whose entities are not expanded", hint="remove its <!DOCTYPE")


def parse_xml(text: str, where: object) -> ElementTree.Element:
    """The root of an XML text. Raises InputError, also where it declares entities."""
    try:
        return ElementTree.fromstring(text, ElementTree.XMLParser(target=_NoDoctype()))
    except ElementTree.ParseError as error:
        line, column = error.position
        what = f"is not valid XML ({str(error).partition(':')[0]})"
        raise InputError(what, f"{where}:{line}:{column + 1}", "export it again") from None
    except InputError as error:
        raise InputError(error.faults[0].what, where, error.faults[0].hint) from None


def _file(given: Given) -> Path | None:
    path = given.path / _NAME if given.path.is_dir() else given.path
    if path.suffix.lower() != ".xml" or not path.is_file():
        return None
    return path if given.path == path or "<annotations" in read_text(path)[:_HEAD] else None


def _read(given: Given) -> list[AnnotatedImages]:
    path = _file(given)
    assert path is not None
    root = parse_xml(read_text(path), path)
    if root.tag != "annotations":
        raise InputError(f"its root is <{root.tag}>, not <annotations>", path, _EXPORT)
    if root.find("track") is not None:
        raise InputError("holds tracks, as CVAT for video 1.1", path, _EXPORT)
    images = root.findall("image")
    joints = _joints(path, root, images)
    by_split: dict[str, list[ElementTree.Element]] = defaultdict(list)
    for image in images:
        by_split[image.get("subset", "")].append(image)
    if not images:
        raise InputError("holds no images", path, _EXPORT)
    parts = []
    for split, several in by_split.items():
        folder = given.root / "images"
        finder = ImageFinder(given.root, given.images, [folder / split, folder] if split else [folder])
        parts.append(_Images(path, joints, finder).read_split(split if len(by_split) > 1 else "", several))
    return parts


def _joints(path: Path, root: ElementTree.Element, images: list[ElementTree.Element]) -> Joints:
    """The joints of the skeleton that is used most, as the task's labels have them, else as they come."""
    used: dict[str, int] = defaultdict(int)
    for image in images:
        for skeleton in image.findall("skeleton"):
            used[skeleton.get("label", "")] += 1
    labels = list(root.iter("label"))
    if not used:
        singles = (points for image in images for points in image.findall("points") if _is_single(points))
        names = in_order(points.get("label", "") for points in singles)
        if not names:
            hint = "label people with a skeleton, or with single points that a group holds together"
            raise InputError("holds neither skeletons nor single points", path, hint)
        declared = in_order(label.findtext("name", "") for label in labels if label.findtext("name", "") in names)
        return Joints("person", declared if set(declared) == set(names) else names).check(path)
    name = max(used, key=lambda label: used[label])
    own = [label for label in labels if label.findtext("parent") == name]
    elements = (e for image in images for s in image.findall("skeleton") if s.get("label") == name for e in s)
    seen = in_order(e.get("label", "") for e in elements if e.tag == "points")
    declared = in_order(label.findtext("name", "") for label in own)
    names = declared if set(seen) <= set(declared) else seen
    svg = next((label.findtext("svg") for label in labels if label.findtext("name") == name), None)
    return Joints(name, names, tuple(_limbs(svg or "", path))).check(path)


def _limbs(svg: str, path: Path) -> Iterator[tuple[str, str]]:
    """The edges of the drawing of a skeleton, as pairs of joint names."""
    if not svg.strip():
        return
    text = svg if re.match(r"\s*<svg[\s>]", svg) else f"<svg>{svg}</svg>"
    drawing = list(parse_xml(text, f"{path}: the skeleton's svg").iter())
    names = {one.get("data-node-id"): one.get("data-label-name") for one in drawing if one.get("data-label-name")}
    for one in drawing:
        ends = names.get(one.get("data-node-from")), names.get(one.get("data-node-to"))
        if ends[0] and ends[1]:
            yield ends[0], ends[1]


def _is_single(points: ElementTree.Element) -> bool:
    return ";" not in points.get("points", "")


class _Images:
    """Reads <image> elements."""

    def __init__(self, path: Path, joints: Joints, finder: ImageFinder) -> None:
        self._path, self._joints, self._finder = path, joints, finder

    def read_split(self, split: str, images: list[ElementTree.Element]) -> AnnotatedImages:
        """The images of one subset."""
        gathered = Gathered(self._joints)
        for place, image in enumerate(images):
            self._read_image(gathered, image, place)
        gathered.notes += self._finder.note()
        return gathered.finish(split, self._path)

    def _read_image(self, gathered: Gathered, image: ElementTree.Element, place: int) -> None:
        name = image.get("name")
        where = f"{self._path}: image {name or image.get('id') or f'at place {place}'}"
        if not name:
            raise InputError("has no name", where, _EXPORT)
        size = [finite(image.get(side), side, where) for side in ("width", "height")]
        number = gathered.add_image(name, size, self._finder.find(name, where), where)
        people: dict[str, _Grouped] = defaultdict(_Grouped)
        for order, shape in enumerate(image):
            self._sort(gathered, shape, people, order, where)
        for person in people.values():
            if person.is_skeleton or person.points:
                gathered.add_person(number, person.points, person.box)
            else:
                gathered.losses["other_shapes"] += person.box is not None

    def _sort(
        self, gathered: Gathered, shape: ElementTree.Element, people: dict[str, _Grouped], order: int, where: str
    ) -> None:
        """Add one shape of an image to the person that it belongs to."""
        group = shape.get("group_id") or "0"
        if group != "0":
            person = people[group]
        elif shape.tag == "points":
            person = people["all"]
        else:
            person = people[f"alone {order}"]
        gathered.losses["attributes"] += len(shape.findall(".//attribute"))
        if shape.tag == "skeleton" and shape.get("label") == self._joints.category:
            if person.is_skeleton:  # a group may hold several people
                person = people[f"alone {order}"]
            person.is_skeleton = True
            for element in shape.findall("points"):
                self._add_point(gathered, element, person, f"{where}: skeleton at place {order}")
        elif shape.tag == "skeleton":
            gathered.losses["other_categories"] += 1
        elif shape.tag == "points" and _is_single(shape) and shape.get("label") in self._joints.names:
            self._add_point(gathered, shape, person, f"{where}: points at place {order}")
        elif shape.tag == "box" and person.box is None:
            person.box = self._box(gathered, shape, f"{where}: box at place {order}")
        elif shape.tag != "tag":
            gathered.losses["other_shapes"] += 1

    def _add_point(self, gathered: Gathered, element: ElementTree.Element, person: _Grouped, where: str) -> None:
        label = element.get("label", "")
        if element.get("outside") == "1":
            return
        if label in person.points:
            gathered.losses["repeated_joints"] += 1
            return
        words = element.get("points", "").split(",")
        if len(words) != 2:
            raise InputError(f"joint {label} has the points {element.get('points')!r:.40}", where, "give 'x,y'")
        x, y = (finite(word, f"joint {label}", where) for word in words)
        person.points[label] = (x, y, 1 if element.get("occluded") == "1" else 2)

    def _box(self, gathered: Gathered, shape: ElementTree.Element, where: str) -> list[float]:
        left, top, right, bottom = (finite(shape.get(side), side, where) for side in ("xtl", "ytl", "xbr", "ybr"))
        if right < left or bottom < top:
            raise InputError("the box ends before it begins", where, "draw it again")
        degrees = finite(shape.get("rotation", "0"), "rotation", where)
        gathered.losses["turned_boxes"] += degrees != 0
        return turned_box((left, top, right - left, bottom - top), degrees, ((left + right) / 2, (top + bottom) / 2))


class _Grouped:
    """What belongs to one person."""

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}
        self.box: list[float] | None = None
        self.is_skeleton = False


FORMAT = AnnotationFormat("CVAT for images 1.1", lambda given: _file(given) is not None, _read)
