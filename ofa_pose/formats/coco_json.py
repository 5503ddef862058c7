"""COCO's own format: one annotation file, or a folder with one for each split, as CVAT and COCO itself have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ofa_pose.formats.annotated import AnnotatedImages, AnnotationFormat, Given
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json

_HINT = "name a COCO keypoint annotation file, or a folder of them"
_OTHERS = ("instances_", "captions_", "image_info_")  # COCO's files without keypoints


def _files(folder: Path) -> Iterator[tuple[str, Path, Any]]:
    """The name of a split, its file and the file's value, for each annotation file with keypoints in a folder."""
    for place in (folder, folder / "annotations"):
        for path in sorted(place.glob("*.json")):
            if path.name.startswith(_OTHERS):
                continue
            value = read_json(path)
            categories = value.get("categories") if isinstance(value, dict) else None
            if isinstance(categories, list) and any(isinstance(c, dict) and c.get("keypoints") for c in categories):
                yield _split_of(path.stem), path, value


def _split_of(stem: str) -> str:
    """'train' of person_keypoints_train2017; of other names what is left without these parts."""
    return re.sub(r"(?<=[a-z])\d{4}$", "", re.sub(r"^person_keypoints_", "", stem)) or stem


def _read(given: Given) -> list[AnnotatedImages]:
    if not given.path.is_dir():
        return [AnnotatedImages("", given.json)]
    found = list(_files(given.path))
    if not found:
        raise InputError("holds no annotations of a known format", given.path, _HINT)
    names = [split for split, _, _ in found]
    names = [split if names.count(split) == 1 else path.stem for split, path, _ in found]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"holds two files {doubled}.json", given.path, "name one of them")
    return [AnnotatedImages(split, value) for split, (_, _, value) in zip(names, found, strict=True)]


def image_folder(given: Given, split: str, value: Any) -> Path:
    """The folder that file_name starts from: the one that the caller named, else the first usual one with an image."""
    listed = value.get("images") if isinstance(value, Mapping) else None
    names = [one.get("file_name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    first = str(names[0]) if names else ""
    stem = given.path.stem if given.suffix else split
    tops = [given.images] if given.images else [given.root, given.root.parent]
    below = [name for part in (split, _split_of(stem), stem) if part for name in (part, f"{part}2017")]
    places = [top / name for top in tops for name in ("", "images", *below, *(f"images/{one}" for one in below))]
    found = next((place for place in places if first and (place / first).is_file()), None)
    return found or given.images or places[1]


FORMAT = AnnotationFormat("COCO", lambda given: given.suffix == ".json" or given.path.is_dir(), _read)
