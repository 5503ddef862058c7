"""What every format is read as: COCO's three lists, where each image comes from, and what could not be kept.

Keypoints are positions in image pixels as the tool shows them, with COCO's visibility: 0 unlabelled, 1 hidden and 2
visible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.skeleton import AREA_OF_BOX, check_size
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json, read_yaml

LOSSES = {  # what a conversion may not keep: keys of its result, and what they count in words
    "annotators": "further annotations of an image, by another annotator or skipped",
    "areas": "areas of people",
    "attributes": "attributes and flags of people and joints",
    "boxes_clipped": "boxes that reached beyond their image, now cut at its edge",
    "classes": "classes that share the joints, now one category",
    "crowd_indices": "images' crowdIndex",
    "crowds": "crowd regions",
    "ids": "ids of images and people",
    "joints_of_nobody": "joints that belong to no person",
    "joints_outside": "labelled joints outside their image, now unlabelled",
    "limbs": "limbs",
    "other_categories": "annotations of categories with other joints or none",
    "other_shapes": "regions that are neither joints nor boxes of people",
    "people_without_box": "people without joints and box",
    "people_without_label": "people of whom nothing is labelled",
    "predictions": "predicted people, which nobody has confirmed",
    "repeated_joints": "joints given twice for one person; the first counts",
    "segmentations": "segmentations of people",
    "tracks": "track ids of people",
    "turned_boxes": "boxes that were turned, now upright boxes around them",
    "unlabelled_frames": "frames without people",
}


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video file."""

    video: Path
    index: int


@dataclass(frozen=True)
class StoredImage:
    """An encoded image that stands in a dataset of an HDF5 file."""

    file: Path
    dataset: str
    row: int


Origin = Path | VideoFrame | StoredImage


@dataclass(frozen=True)
class AnnotatedImages:
    """One split of a dataset.

    Attributes:
        split: its name, such as 'train'; '' where the source has one part.
        value: COCO's images, annotations and categories. A category may have `flip_pairs`, pairs of joint names, where
            the source says them.
        origins: where each image comes from; None: nothing says so, and its file_name starts at the images folder.
        notes: what a reader should know of the data, a line each.
        losses: how many things could not be kept, by a key of `LOSSES`.
        folder: what every file_name starts from, where the split was read by `ofa_pose.formats.reading`.
    """

    split: str
    value: dict[str, Any]
    origins: tuple[Origin, ...] | None = None
    notes: tuple[str, ...] = ()
    losses: Mapping[str, int] = field(default_factory=dict)
    folder: Path = Path()


@dataclass(frozen=True)
class Given:
    """What a caller named: a file or a folder of annotations.

    Attributes:
        path: the file or folder.
        images: the folder of the images, where the caller says it.
        joints: names for joints that have none in the source.
    """

    path: Path
    images: Path | None = None
    joints: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that holds everything that the source may name."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def suffix(self) -> str:
        """The file's suffix in small letters; '' of a folder."""
        return "" if self.path.is_dir() else self.path.suffix.lower()

    @cached_property
    def json(self) -> Any:
        """The JSON file's value."""
        return read_json(self.path)

    @cached_property
    def yaml(self) -> Any:
        """The YAML file's value."""
        return read_yaml(self.path)


@dataclass(frozen=True)
class AnnotationFormat:
    """One way to write annotations down.

    Attributes:
        title: what it is called.
        accepts: whether a file or folder looks like it.
        read: its splits. Raises InputError naming file and record.
    """

    title: str
    accepts: Callable[[Given], bool]
    read: Callable[[Given], list[AnnotatedImages]]


@dataclass(frozen=True)
class Joints:
    """The joints that a source declares: names, limbs as pairs of names, mirror pairs where it says them."""

    category: str
    names: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...] = ()
    flip_pairs: tuple[tuple[str, str], ...] | None = None

    def check(self, where: object) -> Joints:
        """Itself. Raises InputError where the names cannot be joints."""
        if not self.names:
            raise InputError("names no joints", where, "label some joints, or name another file")
        check_size(self.names, self.limbs, where)
        doubled = [name for name, count in Counter(self.names).items() if count > 1]
        if doubled:
            raise InputError(f"names the joint '{doubled[0]}' twice", where, "give each joint a name of its own")
        return self

    def to_category(self) -> dict[str, Any]:
        """COCO's category; limbs and pairs of unknown joints are left out."""
        place = {name: number for number, name in enumerate(self.names, start=1)}
        limbs = [[place[a], place[b]] for a, b in self.limbs if a in place and b in place]
        category: dict[str, Any] = {"id": 1, "name": self.category, "supercategory": self.category}
        category |= {"keypoints": list(self.names), "skeleton": limbs}
        if self.flip_pairs is not None:
            category["flip_pairs"] = [[a, b] for a, b in self.flip_pairs if a in place and b in place]
        return category


Point = tuple[float, float, int]  # x, y in image pixels, visibility


class Gathered:
    """COCO's lists of one split, gathered image by image and person by person."""

    def __init__(self, joints: Joints) -> None:
        self.joints = joints
        self.losses: Counter[str] = Counter()
        self.notes: list[str] = []
        self._images: list[dict[str, Any]] = []
        self._origins: list[Origin] = []
        self._annotations: list[dict[str, Any]] = []

    def add_image(self, name: str, size: Sequence[float], origin: Origin, where: object) -> int:
        """The id of a new image. Raises InputError where its size cannot be one."""
        width, height = size
        if not (min(width, height) >= 1 and width % 1 == height % 1 == 0):
            raise InputError(f"its width and height are {width} and {height}", where, "give the image's size in pixels")
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": name, "width": int(width), "height": int(height)})
        self._origins.append(origin)
        return number

    def add_person(
        self,
        image: int,
        points: Mapping[str, Point],
        box: Sequence[float] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """A person on an image, by joint name; box: x, y, width, height, else that round the labelled joints.

        more: further keys of its record."""
        labelled = [point[:2] for point in points.values() if point[2]]
        if box is None and not labelled:
            self.losses["people_without_label"] += 1
            return
        if box is None:
            low, high = np.min(labelled, axis=0), np.max(labelled, axis=0)
            box = [*low.tolist(), *(high - low).tolist()]
        area = AREA_OF_BOX * box[2] * box[3]
        flat = [number for name in self.joints.names for number in points.get(name, (0, 0, 0))]
        record: dict[str, Any] = {"id": len(self._annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0}
        record |= {"keypoints": flat, "num_keypoints": len(labelled), "bbox": [float(side) for side in box]}
        self._annotations.append(record | ({"area": area} if area > 0 else {}) | dict(more or {}))

    def finish(self, split: str, where: object) -> AnnotatedImages:
        """The split. Raises InputError where it has no images."""
        if not self._images:
            raise InputError("holds no images", where, "name another file or folder")
        value: dict[str, Any] = {"images": self._images, "annotations": self._annotations}
        value["categories"] = [self.joints.to_category()]
        losses = {key: count for key, count in sorted(self.losses.items()) if count}
        return AnnotatedImages(split, value, tuple(self._origins), tuple(self.notes), losses)


def finite(value: Any, what: str, where: object) -> float:
    """A number of a file, given as a number or as text. Raises InputError where it is none."""
    try:
        number = float("nan") if isinstance(value, bool) or value is None else float(value)
    except (ValueError, TypeError, OverflowError):
        number = float("nan")
    if not np.isfinite(number):
        raise InputError(f"{what} is {value!r:.40}, not a number", where, "correct it, or remove the record")
    return number


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in the order of their first appearance."""
    return tuple(dict.fromkeys(names))


def turned_box(box: Sequence[float], degrees: float, pivot: tuple[float, float]) -> list[float]:
    """x, y, width, height of the upright box around one that is turned clockwise about a pivot."""
    x, y, width, height = box
    if not degrees:
        return [x, y, width, height]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(px - pivot[0], py - pivot[1]) for px in (x, x + width) for py in (y, y + height)]
    xs = [pivot[0] + a * cos - b * sin for a, b in corners]
    ys = [pivot[1] + a * sin + b * cos for a, b in corners]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
