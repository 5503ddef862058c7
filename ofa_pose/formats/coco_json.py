"""COCO's own format: one annotation file, or a folder of them, as COCO, CVAT and our own `data synth` write it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ofa_pose.formats.annotated import AnnotatedImages, AnnotationFormat, Given
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json

_HINT = "name a COCO keypoint annotation file, or a folder of them"
_OTHERS = ("instances_", "captions_", "image_info_")  # COCO's files without keypoints
_ALONE = "annotations"  # a file of all that its folder holds, as `data synth` and `data convert` write it


def _files(folder: Path) -> list[tuple[str, Path, Any]]:
    """The name of a split, its file and the file's value, for each annotation file with keypoints in a folder.

    Where there is none, the folder may hold one for each split, with an annotations.json of its own.
    """
    beside = [path for place in (folder, folder / "annotations") for path in sorted(place.glob("*.json"))]
    found = [(_split_of(path.stem), path, value) for path, value in _with_keypoints(beside)]
    if [path.stem for _, path, _ in found] == [_ALONE]:
        return [("", *found[0][1:])]
    below = sorted(folder.glob(f"*/{_ALONE}.json"))
    return found or [(path.parent.name, path, value) for path, value in _with_keypoints(below)]


def _with_keypoints(paths: Iterable[Path]) -> Iterator[tuple[Path, Any]]:
    for path in paths:
        value = None if path.name.startswith(_OTHERS) else read_json(path)
        categories = value.get("categories") if isinstance(value, dict) else None
        if isinstance(categories, list) and any(isinstance(c, dict) and c.get("keypoints") for c in categories):
            yield path, value


def _split_of(stem: str) -> str:
    """'train' of person_keypoints_train2017; of other names what is left without these parts."""
    return re.sub(r"(?<=[a-z])\d{4}$", "", re.sub(r"^person_keypoints_", "", stem)) or stem


def _read(given: Given) -> list[AnnotatedImages]:
    if not given.path.is_dir():
        return [AnnotatedImages("", given.json)]
    found = _files(given.path)
    if not found:
        raise InputError("holds no annotations of a known format", given.path, _HINT)
    names = [split for split, _, _ in found]
    names = [split if names.count(split) == 1 else path.stem for split, path, _ in found]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"holds two files {doubled}.json", given.path, "name one of them")
    return [AnnotatedImages(split, value) for split, (_, _, value) in zip(names, found, strict=True)]


def image_folder(given: Given, split: str, value: Any) -> Path:
    """The folder that file_name starts from: the first one that has the first image.

    It is the one that the caller named, or a usual one, of which those of the split come first. Above the file's folder
    only these count, unless it is called 'annotations': what else lies there may be another split's.
    """
    listed = value.get("images") if isinstance(value, Mapping) else None
    names = [one.get("file_name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    first = str(names[0]) if names else ""
    stem = given.path.stem if given.suffix else split
    below = [name for part in (split, _split_of(stem), stem) if part for name in (part, f"{part}2017")]
    own = [name for one in below for name in (f"{one}/images", f"images/{one}", one)]
    usual = [*own, "images", ""]
    if given.images:
        places = [given.images, *(given.images / name for name in usual)]
    else:
        above = usual if given.root.name == _ALONE else own
        places = [*(given.root / name for name in usual), *(given.root.parent / name for name in above)]
    found = next((place for place in places if first and place.is_dir() and (place / first).is_file()), None)
    return found or given.images or given.root / "images"


FORMAT = AnnotationFormat("COCO", lambda given: given.suffix == ".json" or given.path.is_dir(), _read)
