"""Ultralytics' YOLO-pose: a data.yaml, and beside each image's folder one of label files, coordinates from 0 to 1."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.formats.annotated import AnnotatedImages, AnnotationFormat, Gathered, Given, Joints, Point, finite
from ofa_pose.formats.image_files import IMAGE_SUFFIXES, list_images, size_of
from ofa_pose.skeleton import MOST_JOINTS
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_text, read_yaml

SPLITS = ("train", "val", "test")
_BOX = 5  # numbers of a line before its joints: class, and the box's centre, width and height
_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True)
class _Declared:
    """What a data.yaml says of its labels."""

    path: Path
    count: int  # joints
    numbers: int  # of a joint: 2 or 3
    classes: tuple[str, ...]
    joints: Joints
    unnamed: bool
    borrowed: bool  # the names are the caller's


def _file(given: Given) -> Path | None:
    """The data.yaml that was named, or that lies in the folder that was."""
    if given.path.is_dir():
        named = (given.path / name for name in _NAMES)
        return next((path for path in named if path.is_file() and _is_pose(read_yaml(path))), None)
    return given.path if given.suffix in (".yaml", ".yml") and _is_pose(given.yaml) else None


def _is_pose(value: Any) -> bool:
    return isinstance(value, dict) and ("kpt_shape" in value or ("names" in value and "train" in value))


def _read(given: Given) -> list[AnnotatedImages]:
    path = _file(given)
    assert path is not None
    value = read_yaml(path)
    declared = _declared(path, value, given.joints)
    splits = [split for split in SPLITS if value.get(split)]
    if not splits:
        raise InputError("names neither train, val nor test", path, "name the folders of its images")
    return [_read_split(declared, value, split) for split in splits]


def _declared(path: Path, value: Mapping[str, Any], names: tuple[str, ...]) -> _Declared:
    shape = value.get("kpt_shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or type(shape[0]) is not int
        or not 1 <= shape[0] <= MOST_JOINTS
        or shape[1] not in (2, 3)
    ):
        hint = f"write kpt_shape: [joints, 2 or 3], of at most {MOST_JOINTS:,} joints; boxes alone show no poses"
        raise InputError(f"kpt_shape is {shape!r:.40}", path, hint)
    count = shape[0]
    listed = value.get("names")
    classes = tuple(
        map(str, listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else ())
    )
    own = _joint_names(path, value.get("kpt_names"), count)
    given = names if len(names) == count else ()
    joints = own or given or tuple(str(number) for number in range(1, count + 1))
    pairs = _pairs(path, value.get("flip_idx"), count)
    flips = None if pairs is None else tuple((joints[a], joints[b]) for a, b in pairs)
    described = Joints(classes[0] if classes else "person", joints, flip_pairs=flips).check(path)
    return _Declared(path, count, shape[1], classes, described, not own, bool(given))


def _joint_names(path: Path, value: Any, count: int) -> tuple[str, ...]:
    """The joints' names: a list of them, or such a list for each class."""
    if value is None:
        return ()
    lists = list(value.values()) if isinstance(value, dict) else [value]
    if lists and not isinstance(lists[0], list):  # {0: nose, 1: …}
        lists = [lists]
    names = tuple(map(str, lists[0])) if lists else ()
    if len(names) != count or any(tuple(map(str, other)) != names for other in lists[1:]):
        raise InputError(f"kpt_names are not {count} names, the same for each class", path, f"name {count} joints")
    return names


def _pairs(path: Path, index: Any, count: int) -> list[tuple[int, int]] | None:
    """Joints that change places in a mirror; None where nothing says it: Ultralytics mirrors no image then."""
    if index in (None, []):
        return None
    is_list = isinstance(index, list) and len(index) == count and all(type(j) is int and 0 <= j < count for j in index)
    if not is_list or any(index[index[j]] != j for j in range(count)):
        raise InputError("flip_idx does not pair the joints", path, f"give {count} numbers that swap pairs of joints")
    return [(j, mirror) for j, mirror in enumerate(index) if j < mirror]


def _read_split(declared: _Declared, value: Mapping[str, Any], split: str) -> AnnotatedImages:
    gathered, seen, flags = Gathered(declared.joints), Counter[int](), Counter[int]()
    for image in _images(declared.path, value, split):
        size = size_of(image)
        number = gathered.add_image(image.name, size, image, image)
        label = _label_file(image)
        if not label.is_file():
            continue
        for line, text in enumerate(read_text(label).splitlines(), start=1):
            if text.strip():
                kind, box, points = _person(declared, text.split(), size, f"{label}:{line}")
                gathered.add_person(number, dict(zip(declared.joints.names, points, strict=True)), box)
                seen[kind] += 1
                flags.update(point[2] for point in points)
    gathered.losses["classes"] = max(len(seen) - 1, 0)
    if declared.unnamed and not declared.borrowed:
        how = "name them with --skeleton coco, in a recipe with --set data.skeleton=coco, or another skeleton"
        what = f"names no joints (kpt_names): they are numbered from 1; {how}"
        gathered.notes.append(f"{declared.path} {what}")
    if declared.unnamed and declared.borrowed:
        what = "names no joints (kpt_names): they are taken for those of the skeleton given"
        gathered.notes.append(f"{declared.path} {what}")
    if declared.numbers == 3 and flags[1] and not flags[2]:
        gathered.notes.append(f"{declared.path}: no joint of {split} is visible (2); 1 is read as hidden, as in COCO")
    return gathered.finish(split, declared.path)


def _images(path: Path, value: Mapping[str, Any], split: str) -> Iterator[Path]:
    """The images of a split: folders, or text files that list images, from the dataset's folder."""
    base = path.parent
    stated = value.get("path")
    if isinstance(stated, str) and stated:
        named = base / stated
        base = named if os.path.isdir(named) else base
    entries = value[split] if isinstance(value[split], list) else [value[split]]
    for entry in map(str, entries):
        options = [base / entry, *([base / entry[3:]] if entry.startswith("../") else [])]  # as Ultralytics does
        place = next((option for option in options if os.path.exists(option)), None)
        if place is None:
            raise InputError(f"{split}: no such folder of images: {options[0]}", path, "correct path, or that entry")
        if place.is_dir():
            yield from (Path(os.path.normpath(image)) for image in list_images(place))
        elif place.suffix.lower() in IMAGE_SUFFIXES:
            yield place
        else:
            lines = (line.strip() for line in read_text(place).splitlines())
            for number, line in enumerate(lines, start=1):
                if line:
                    yield _listed(place, number, line, base)


def _listed(file: Path, number: int, line: str, base: Path) -> Path:
    """An image that a line of a text file names, from that file's folder or the dataset's."""
    options = [Path(os.path.normpath(folder / line)) for folder in (file.parent, base)]
    found = next((option for option in options if os.path.isfile(option)), None)
    if found is None:
        raise InputError(f"no such image: {options[0]}", f"{file}:{number}", "restore it, or remove the line")
    return found


def _label_file(image: Path) -> Path:
    """Where an image's labels lie: its last folder 'images' is 'labels' there."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _person(
    declared: _Declared, words: list[str], size: tuple[int, int], where: str
) -> tuple[int, list[float], list[Point]]:
    """One line of a label file: its class, its box and its joints in image pixels."""
    wanted = _BOX + declared.count * declared.numbers
    if len(words) != wanted:
        hint = f"kpt_shape asks for a class, a box and {declared.count} times {declared.numbers} numbers"
        raise InputError(f"has {len(words)} numbers, not {wanted}", where, hint)
    numbers = [finite(word, "an entry", where) for word in words]
    if numbers[0] % 1 or not 0 <= numbers[0] < (len(declared.classes) or 1e9):
        hint = "use the number of a class in names"
        raise InputError(f"class {words[0]} is none of the {len(declared.classes)} classes", where, hint)
    (width, height), (x, y, w, h) = size, numbers[1:_BOX]
    if min(w, h) < 0:
        raise InputError(f"the box is {w:g} wide and {h:g} high", where, "give sides of 0 and more")
    box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
    step = declared.numbers
    places = [numbers[at : at + step] for at in range(_BOX, wanted, step)]
    return int(numbers[0]), box, [_point(place, width, height, where) for place in places]


def _point(place: list[float], width: int, height: int, where: str) -> Point:
    x, y = place[:2]
    unlabelled = min(x, y) < 0 or x == y == 0  # where no third number says it
    flag = place[2] if len(place) == 3 else 0 if unlabelled else 2
    if flag not in (0, 1, 2):
        hint = "give 0 (unlabelled), 1 (hidden) or 2 (visible)"
        raise InputError(f"a joint has visibility {flag:g}", where, hint)
    return (x * width, y * height, int(flag)) if flag else (0, 0, 0)


FORMAT = AnnotationFormat("Ultralytics YOLO-pose", lambda given: _file(given) is not None, _read)
