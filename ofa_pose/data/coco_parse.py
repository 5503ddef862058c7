"""The checked contents of a COCO keypoint annotation file, and a line for every record that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.coco_category import choose_skeleton, keypoint_category
from ofa_pose.pose.regions import Region, box_region, box_round, segment_region
from ofa_pose.skeleton import AREA_OF_BOX, CROWDPOSE, Skeleton
from ofa_pose.utils.errors import Fault, InputError
from ofa_pose.utils.numbers import are_numbers, finite_array, is_id, positive

NAMED_IN_WARNING = 3
_VISIBILITIES = frozenset((0, 1, 2))
_NO_RECORD = "write it as an object of fields"


@dataclass(frozen=True, eq=False)
class ParsedPerson:
    """keypoints (J, 3) float32, box (x, y, width, height) and area in image pixels; area None where not usable."""

    keypoints: NDArray[np.float32]
    box: tuple[float, ...]
    area: float | None


@dataclass(eq=False)
class ParsedImage:
    """An image record while its annotations are gathered."""

    id: int | str
    file_name: str
    width: int
    height: int
    crowd_index: float | None
    people: list[ParsedPerson] = field(default_factory=list)
    ignore: list[Region] = field(default_factory=list)


@dataclass(frozen=True)
class Parsed:
    """The contents of an annotation file: the images are valid where `faults` is empty."""

    skeleton: Skeleton
    category: Mapping[str, Any]
    other_categories: frozenset[int | str]  # ids
    images: tuple[ParsedImage, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]


def parse(path: Path, value: Any, skeleton: Skeleton | None, trained: Skeleton | None = None) -> Parsed:
    """Check the value of an annotation file. Raises InputError only where nothing can be read on.

    Args:
        skeleton, trained: see `choose_skeleton`.
    """
    _check_layout(path, value)
    category = keypoint_category(path, value["categories"])
    chosen, warnings = choose_skeleton(path, category, skeleton, trained)
    faults: list[Fault] = []
    images = _parse_images(path, value["images"], faults)
    reader = _Annotations(path, images, value["categories"], category["id"], chosen.joints, faults)
    for place, annotation in enumerate(value["annotations"]):
        reader.read(annotation, place)
    if not value["images"]:
        faults.append(Fault("holds no images", str(path), "name a file with images"))
    others = reader.categories - {category["id"]}
    return Parsed(chosen, category, others, tuple(images.values()), tuple(faults), (*warnings, *reader.warnings()))


def _check_layout(path: Path, value: Any) -> None:
    keys = ("images", "annotations", "categories")
    hint = "give a COCO keypoint annotation file: an object of images, annotations and categories"
    if not isinstance(value, dict):
        raise InputError("is not a COCO annotation file", path, hint)
    faults = [Fault(f"has no list '{key}'", str(path), hint) for key in keys if not isinstance(value.get(key), list)]
    if faults:
        raise InputError.of(faults)


def _parse_images(path: Path, records: Sequence[Any], faults: list[Fault]) -> dict[int | str, ParsedImage]:
    images: dict[int | str, ParsedImage] = {}
    for place, record in enumerate(records):
        known: Mapping[str, Any] = record if isinstance(record, dict) else {}
        where = f"{path}: image {known.get('id', f'at place {place}')}"
        if known is not record:
            faults.append(Fault("is not a record", where, _NO_RECORD))
            continue

        def fault(what: str, hint: str, where: str = where) -> None:
            faults.append(Fault(what, where, hint))

        sides: list[Any] = [known.get("width"), known.get("height")]
        if not is_id(known.get("id")):
            fault("has no id", "give it an id that no other image has")
            continue
        if known["id"] in images:
            fault("its id is used twice", "give each image its own id")
            continue
        if not isinstance(known.get("file_name"), str) or not known["file_name"]:
            fault("has no file_name", "name its file, relative to the images folder")
        if not are_numbers(sides, 2) or min(sides) < 1 or any(side % 1 for side in sides):
            fault(f"width and height are {sides[0]} and {sides[1]}", "give the file's size in whole pixels")
            sides = [1, 1]
        crowding = [known.get("crowdIndex")]
        images[known["id"]] = ParsedImage(
            known["id"],
            str(known.get("file_name")),
            int(sides[0]),
            int(sides[1]),
            float(crowding[0]) if are_numbers(crowding, 1) else None,
        )
    return images


class _Annotations:
    """Reads annotations one by one into their images, gathering faults and what to warn of."""

    def __init__(
        self,
        path: Path,
        images: Mapping[int | str, ParsedImage],
        categories: Sequence[Any],
        category: int | str,
        joints: tuple[str, ...],
        faults: list[Fault],
    ) -> None:
        self._path, self._images, self._category = path, images, category
        self._joints, self._faults = joints, faults
        self.categories = frozenset(c["id"] for c in categories if isinstance(c, dict) and is_id(c.get("id")))
        self._ids: set[int | str] = set()
        self._outside: list[str] = []
        self._other_categories = self._bad_segments = self._no_area = self._no_box = 0

    def read(self, annotation: Any, place: int) -> None:
        """Check one annotation and add it to its image."""
        known: Mapping[str, Any] = annotation if isinstance(annotation, dict) else {}
        where = f"{self._path}: annotation {known.get('id', f'at place {place}')}"
        if known is not annotation:
            self._faults.append(Fault("is not a record", where, _NO_RECORD))
            return
        before = len(self._faults)

        def fault(what: str, hint: str) -> None:
            self._faults.append(Fault(what, where, hint))

        self._check_ids(known, fault)
        category = known.get("category_id")
        if is_id(category) and category in self.categories and category != self._category:
            self._other_categories += 1
            return
        crowd = known.get("iscrowd", 0)
        if crowd not in (0, 1):
            fault(f"iscrowd is {crowd!r:.40}", "give 0 or 1")
        box: Any = known.get("bbox")
        area: Any = known.get("area")
        if box is not None and (not are_numbers(box, 4) or min(box[2:]) < 0):
            fault(f"bbox is {box!r:.60}", "give [x, y, width, height] in pixels, or leave it out")
        if area is not None and type(area) not in (int, float):  # of what is not an area 0.53 of the box is taken
            fault(f"area is {area!r:.40}", "give the person's area in square pixels, or leave it out")
        count = known.get("num_keypoints")
        if count is not None and (not are_numbers([count], 1) or count < 0 or count % 1):
            fault(f"num_keypoints is {count!r:.40}", "give the number of its labelled joints, or leave it out")
        keypoints = self._keypoints(known.get("keypoints"), bool(crowd), fault)
        if len(self._faults) == before:
            self._add(self._images[known["image_id"]], known, keypoints)

    def _check_ids(self, known: Mapping[str, Any], fault: Callable[[str, str], None]) -> None:
        if not is_id(known.get("id")):
            fault("has no id", "give it an id that no other annotation has")
        elif known["id"] in self._ids:
            fault("its id is used twice", "give each annotation its own id")
        else:
            self._ids.add(known["id"])
        image, category = known.get("image_id"), known.get("category_id")
        if not is_id(image) or image not in self._images:
            fault(f"its image_id {image!r:.40} is not among the images", "list that image or remove the annotation")
        if not is_id(category) or category not in self.categories:
            fault(f"its category_id {category!r:.40} is not among the categories", f"give {self._category!r}")

    def _keypoints(self, raw: Any, crowd: bool, fault: Callable[[str, str], None]) -> NDArray[np.float64] | None:
        """(J, 3) float64 as they stand, or None where there are none or they are wrong."""
        if crowd and not raw:
            return None
        count = 3 * len(self._joints)
        if not isinstance(raw, list):
            fault("has no keypoints", f"give {count} numbers: x, y, visibility of each joint (zeros where unlabelled)")
            return None
        if len(raw) != count:
            fault(
                f"has {len(raw)} keypoint numbers, not {count}", f"give x, y, visibility of {len(self._joints)} joints"
            )
            return None
        values = finite_array(raw)
        if values is None:
            odd = next(i for i, number in enumerate(raw) if not are_numbers([number], 1))
            fault(f"keypoint {self._joints[odd // 3]} holds {raw[odd]!r:.40}", "give a finite number")
            return None
        keypoints = values.reshape(-1, 3)
        if not _VISIBILITIES.issuperset(raw[2::3]):
            joint, flag = next((j, flag) for j, flag in enumerate(raw[2::3]) if flag not in _VISIBILITIES)
            fault(
                f"keypoint {self._joints[joint]} has visibility {flag:g}",
                "give 0 (unlabelled), 1 (hidden) or 2 (visible)",
            )
            return None
        return keypoints

    def _add(self, image: ParsedImage, known: Mapping[str, Any], keypoints: NDArray[np.float64] | None) -> None:
        given = known.get("bbox")
        self._no_box += given is None
        places = np.zeros((0, 2)) if keypoints is None else keypoints[keypoints[:, 2] > 0, :2]
        box = box_round(places) if given is None else tuple(float(side) for side in given)
        crowd = bool(known.get("iscrowd", 0))
        labelled = self._inside(image, known, keypoints) if keypoints is not None and not crowd else None
        if labelled is not None and labelled[:, 2].any():
            area: Any = known.get("area")
            usable = positive(area)
            self._no_area += not usable
            image.people.append(ParsedPerson(labelled.astype(np.float32), box, float(area) if usable else None))
        else:
            segmentation = known.get("segmentation")
            region = segment_region(segmentation, image.width, image.height, crowd)
            self._bad_segments += bool(segmentation) and region is None
            known_box = given is not None or len(places)
            image.ignore.append(region or (box_region(box, crowd) if known_box else Region(crowd=crowd)))

    def _inside(
        self, image: ParsedImage, known: Mapping[str, Any], keypoints: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Keypoints with those that are unlabelled or outside the image zeroed."""
        xs, ys, flags = keypoints.T
        labelled = flags > 0
        kept = labelled & (xs >= 0) & (ys >= 0) & (xs <= image.width) & (ys <= image.height)
        for joint in (labelled & ~kept).nonzero()[0].tolist():
            where = f"{self._joints[joint]} at ({xs[joint]:g}, {ys[joint]:g})"
            self._outside.append(f"annotation {known['id']} {where}")
        return keypoints * kept[:, None]

    def warnings(self) -> list[str]:
        """What is odd in the annotations, a line each."""
        lines = []
        if self._outside:
            named = ", ".join(self._outside[:NAMED_IN_WARNING]) + (
                ", …" if len(self._outside) > NAMED_IN_WARNING else ""
            )
            lines.append(
                f"{self._path}: {len(self._outside)} labelled joints lie outside their image and are left out of "
                f"training ({named})"
            )
        if self._no_box:
            lines.append(
                f"{self._path}: {self._no_box} annotations have no bbox; the box round their labelled joints stands in"
            )
        if self._no_area and self._joints != CROWDPOSE.joints:  # CrowdPose's files have none, and need none
            lines.append(
                f"{self._path}: {self._no_area} people have no usable area; {AREA_OF_BOX} of their box stands in for it"
            )
        if self._bad_segments:
            lines.append(
                f"{self._path}: {self._bad_segments} ignored regions have a bad segmentation; their box is used"
            )
        if self._other_categories:
            lines.append(
                f"{self._path}: {self._other_categories} annotations of categories without keypoints are left out"
            )
        return lines
