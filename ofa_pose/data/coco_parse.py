"""The checked contents of a COCO keypoint annotation file, and a line for every record that is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.records import ImageRecord, Region, box_region, finite_array, segment_region
from ofa_pose.pose.geometry import box_round
from ofa_pose.skeleton import AREA_OF_BOX, CROWDPOSE, Skeleton, draft, same_joints
from ofa_pose.utils.errors import Fault, InputError, nearest
from ofa_pose.utils.numbers import are_numbers, is_id, positive

LISTS = ("images", "annotations", "categories")
NAMED_IN_WARNING = 3
VISIBILITIES = frozenset((0, 1, 2))
ODD = {  # what is counted and warned of, but no fault
    "box": "annotations have no bbox; the box round their labelled joints stands in",
    "area": f"people have no usable area; {AREA_OF_BOX} of their box stands in for it",
    "segment": "ignored regions have a bad segmentation; their box is used",
    "category": "annotations of categories without keypoints are left out",
}


@dataclass(frozen=True)
class Parsed:
    """The contents of an annotation file: the images are valid where `faults` is empty."""

    skeleton: Skeleton
    category: Mapping[str, Any]
    other_categories: frozenset[int | str]  # ids
    images: tuple[ImageRecord, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]


def parse(path: Path, folder: Path, value: Any, skeleton: Skeleton | None, trained: Skeleton | None = None) -> Parsed:
    """Check the value of an annotation file; `folder` is that of the images, for the rest see `load_dataset`.

    Raises InputError only where nothing can be read on.
    """
    hint = "give a COCO keypoint annotation file: an object of images, annotations and categories"
    if not isinstance(value, dict):
        raise InputError("is not a COCO annotation file", path, hint)
    faults = [Fault(f"has no list '{key}'", str(path), hint) for key in LISTS if not isinstance(value.get(key), list)]
    if faults:
        raise InputError.of(faults)
    category = keypoint_category(path, value["categories"])
    chosen, warnings = choose_skeleton(path, category, skeleton, trained)
    categories = frozenset(c["id"] for c in value["categories"] if isinstance(c, dict) and is_id(c.get("id")))
    reader = _Reader(path, folder, chosen.joints, category["id"], categories)
    for place, record in enumerate(value["images"]):
        reader.read_image(record, place)
    for place, record in enumerate(value["annotations"]):
        reader.read_annotation(record, place)
    if not value["images"]:
        reader.faults.append(Fault("holds no images", str(path), "name a file with images"))
    others, warnings = categories - {category["id"]}, (*warnings, *reader.warnings())
    return Parsed(chosen, category, others, tuple(reader.records()), tuple(reader.faults), warnings)


def keypoint_category(path: Path, categories: Sequence[Any]) -> Mapping[str, Any]:
    """The one category of an annotation file that has keypoints. Raises InputError where that cannot be."""
    found = [c for c in categories if isinstance(c, dict) and c.get("keypoints")]
    if not found:
        hint = "list the joint names in order under 'keypoints' of the category"
        raise InputError("has no category with keypoints", path, hint)
    if len(found) > 1:
        names = ", ".join(str(c.get("name", c.get("id"))) for c in found)
        raise InputError(f"has {len(found)} categories with keypoints ({names})", path, "keep one of them")
    where, names = f"{path}: category {found[0].get('id')}", found[0]["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError("keypoints must be a list of distinct joint names", where, "correct the list")
    if not is_id(found[0].get("id")):
        raise InputError("has no id", where, "number the category, and name that id in category_id")
    return found[0]


def choose_skeleton(
    path: Path, category: Mapping[str, Any], skeleton: Skeleton | None, trained: Skeleton | None = None
) -> tuple[Skeleton, tuple[str, ...]]:
    """The skeleton given, else a network's, else the built-in one, else a draft; and what to warn of.

    A network's skeleton, `trained`, counts where it has the category's joints; a difference from what else would be
    taken is warned of.

    Raises InputError where the skeleton given has other joints than the category.
    """
    names = category["keypoints"]
    if skeleton is not None:
        unknown = [joint for joint in skeleton.joints if joint not in names]
        if unknown:
            where = f"skeleton {skeleton.name}"
            raise InputError.of(
                [Fault(f"unknown joint '{j}', not in {path}", where, nearest(j, names)) for j in unknown]
            )
        if skeleton.joints != tuple(names):
            hint = f"list its joints in the file's order: {', '.join(names)}"
            raise InputError(f"skeleton {skeleton.name} has other joints than the file", path, hint)
        differing = skeleton.differences(trained) if trained else ""
        unlike = f"{path}: its {differing} are the given skeleton's, not those that the network was trained with"
        return skeleton, (unlike,) if differing else ()
    suggested, warnings = _suggested(path, category)
    differing = suggested.differences(trained) if trained else ""
    if trained is None or not differing:
        return suggested, warnings
    origin = "guessed from the file" if warnings else f"those of skeleton {suggested.name}"
    return trained, (f"{path}: its {differing} are those that the network was trained with, not {origin}",)


def _suggested(path: Path, category: Mapping[str, Any]) -> tuple[Skeleton, tuple[str, ...]]:
    """What a file's own joint names lead to."""
    names = category["keypoints"]
    built_in = same_joints(names)
    if built_in is not None:
        return built_in, ()
    listed = category.get("skeleton")
    limbs = [[int(end) for end in limb] for limb in listed if are_numbers(limb, 2)] if isinstance(listed, list) else []
    guess = draft(str(category.get("name", "custom")), names, limbs)
    warning = (
        f"{path}: its {len(names)} joints are those of no built-in skeleton: flip pairs are guessed from left and "
        "right in their names, sigmas are defaults; check both: data check --write-skeleton FILE, then name it as "
        "data.skeleton or --skeleton"
    )
    return guess, (warning,)


class _Reader:
    """Reads records one by one, gathering images, their people, faults and what to warn of."""

    def __init__(
        self, path: Path, folder: Path, joints: Sequence[str], category: int | str, categories: frozenset[int | str]
    ) -> None:
        self._path, self._folder, self._joints = path, folder, joints
        self._category, self._categories = category, categories
        self.faults: list[Fault] = []
        self._where = str(path)  # of the record that is read
        self._images: dict[int | str, ImageRecord] = {}
        self._people: dict[int | str, list[tuple[Any, ...]]] = defaultdict(list)  # keypoints, box and area of each
        self._ignore: dict[int | str, list[Region]] = defaultdict(list)
        self._annotations: set[int | str] = set()
        self._outside: list[str] = []
        self._odd: Counter[str] = Counter()

    def _fault(self, what: str, hint: str) -> None:
        self.faults.append(Fault(what, self._where, hint))

    def _fields(self, kind: str, record: Any, place: int) -> Mapping[str, Any] | None:
        """A record's fields, or None where it has none; faults are then reported of it."""
        known = record if isinstance(record, dict) else {}
        self._where = f"{self._path}: {kind} {known.get('id', f'at place {place}')}"
        if known is not record:
            self._fault("is not a record", "write it as an object of fields")
            return None
        return known

    def read_image(self, record: Any, place: int) -> None:
        """Check one image record and add it."""
        known = self._fields("image", record, place)
        if known is None:
            return
        if not is_id(known.get("id")):
            self._fault("has no id", "give it an id that no other image has")
            return
        if known["id"] in self._images:
            self._fault("its id is used twice", "give each image its own id")
            return
        name, crowding = known.get("file_name"), [known.get("crowdIndex")]
        sides: list[Any] = [known.get("width"), known.get("height")]
        if not isinstance(name, str) or not name:
            self._fault("has no file_name", "name its file, relative to the images folder")
        if not are_numbers(sides, 2) or min(sides) < 1 or any(side % 1 for side in sides):
            self._fault(f"width and height are {sides[0]} and {sides[1]}", "give the file's size in whole pixels")
            sides = [1, 1]
        crowd_index = float(crowding[0]) if are_numbers(crowding, 1) else None  # type: ignore[arg-type]
        nobody = np.zeros((0, len(self._joints), 3), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        size = int(sides[0]), int(sides[1])
        path = self._folder / str(name)
        self._images[known["id"]] = ImageRecord(known["id"], path, *size, *nobody, crowd_index=crowd_index)

    def read_annotation(self, record: Any, place: int) -> None:
        """Check one annotation and add it to its image."""
        known = self._fields("annotation", record, place)
        if known is None:
            return
        before = len(self.faults)
        self._check_ids(known)
        category = known.get("category_id")
        if is_id(category) and category in self._categories and category != self._category:
            self._odd["category"] += 1
            return
        crowd = known.get("iscrowd", 0)
        if crowd not in (0, 1):
            self._fault(f"iscrowd is {crowd!r:.40}", "give 0 or 1")
        box, area, count = known.get("bbox"), known.get("area"), known.get("num_keypoints")
        if box is not None and (not are_numbers(box, 4) or min(box[2:]) < 0):
            self._fault(f"bbox is {box!r:.60}", "give [x, y, width, height] in pixels, or leave it out")
        if area is not None and type(area) not in (int, float):  # of what is not an area 0.53 of the box is taken
            self._fault(f"area is {area!r:.40}", "give the person's area in square pixels, or leave it out")
        if count is not None and (not are_numbers([count], 1) or count < 0 or count % 1):
            self._fault(f"num_keypoints is {count!r:.40}", "give the number of its labelled joints, or leave it out")
        keypoints = self._keypoints(known.get("keypoints"), bool(crowd))
        if len(self.faults) == before:
            self._add(self._images[known["image_id"]], known, keypoints)

    def _check_ids(self, known: Mapping[str, Any]) -> None:
        if not is_id(known.get("id")):
            self._fault("has no id", "give it an id that no other annotation has")
        elif known["id"] in self._annotations:
            self._fault("its id is used twice", "give each annotation its own id")
        else:
            self._annotations.add(known["id"])
        image, category = known.get("image_id"), known.get("category_id")
        if not is_id(image) or image not in self._images:
            hint = "list that image or remove the annotation"
            self._fault(f"its image_id {image!r:.40} is not among the images", hint)
        if not is_id(category) or category not in self._categories:
            hint = f"give {self._category!r}"
            self._fault(f"its category_id {category!r:.40} is not among the categories", hint)

    def _keypoints(self, raw: Any, crowd: bool) -> NDArray[np.float64] | None:
        """(J, 3) float64 as they stand, or None where there are none or they are wrong."""
        if crowd and not raw:
            return None
        joints, count = self._joints, 3 * len(self._joints)
        if not isinstance(raw, list):
            hint = f"give {count} numbers: x, y, visibility of each joint (zeros where unlabelled)"
            self._fault("has no keypoints", hint)
            return None
        if len(raw) != count:
            hint = f"give x, y, visibility of {len(joints)} joints"
            self._fault(f"has {len(raw)} keypoint numbers, not {count}", hint)
            return None
        values = finite_array(raw)
        if values is None:
            odd = next(i for i, number in enumerate(raw) if not are_numbers([number], 1))
            self._fault(f"keypoint {joints[odd // 3]} holds {raw[odd]!r:.40}", "give a finite number")
            return None
        if not VISIBILITIES.issuperset(raw[2::3]):
            joint, flag = next((j, flag) for j, flag in enumerate(raw[2::3]) if flag not in VISIBILITIES)
            hint = "give 0 (unlabelled), 1 (hidden) or 2 (visible)"
            self._fault(f"keypoint {joints[joint]} has visibility {flag:g}", hint)
            return None
        return values.reshape(-1, 3)

    def _add(self, image: ImageRecord, known: Mapping[str, Any], keypoints: NDArray[np.float64] | None) -> None:
        given, area, segmentation = known.get("bbox"), known.get("area"), known.get("segmentation")
        self._odd["box"] += given is None
        places = np.zeros((0, 2)) if keypoints is None else keypoints[keypoints[:, 2] > 0, :2]
        box = box_round(places) if given is None else tuple(float(side) for side in given)
        crowd = bool(known.get("iscrowd", 0))
        labelled = self._inside(image, known, keypoints) if keypoints is not None and not crowd else None
        if labelled is not None and labelled[:, 2].any():
            self._odd["area"] += not positive(area)
            area = area if positive(area) else AREA_OF_BOX * box[2] * box[3]
            self._people[image.id].append((labelled.astype(np.float32), box, area))
        else:
            region = segment_region(segmentation, image.width, image.height, crowd)
            self._odd["segment"] += bool(segmentation) and region is None
            known_box = given is not None or len(places)
            self._ignore[image.id].append(region or (box_region(box, crowd) if known_box else Region(crowd=crowd)))

    def _inside(
        self, image: ImageRecord, known: Mapping[str, Any], keypoints: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Keypoints with those that are unlabelled or outside the image zeroed."""
        xs, ys, flags = keypoints.T
        labelled = flags > 0
        kept = labelled & (xs >= 0) & (ys >= 0) & (xs <= image.width) & (ys <= image.height)
        for joint in (labelled & ~kept).nonzero()[0].tolist():
            where = f"{self._joints[joint]} at ({xs[joint]:g}, {ys[joint]:g})"
            self._outside.append(f"annotation {known['id']} {where}")
        return keypoints * kept[:, None]

    def records(self) -> Iterator[ImageRecord]:
        """The images with their people."""
        for image in self._images.values():
            found: dict[str, Any] = {"ignore": tuple(self._ignore[image.id])}
            if self._people[image.id]:
                columns = zip(*self._people[image.id], strict=True)
                found["keypoints"], found["boxes"], found["areas"] = (np.array(one, np.float32) for one in columns)
            yield replace(image, **found)

    def warnings(self) -> Iterator[str]:
        """What is odd in the annotations, a line each."""
        if self._outside:
            named = ", ".join(self._outside[:NAMED_IN_WARNING] + ["…"] * (len(self._outside) > NAMED_IN_WARNING))
            what = f"labelled joints lie outside their image and are left out of training ({named})"
            yield f"{self._path}: {len(self._outside)} {what}"
        for key, what in ODD.items():
            needless = key == "area" and tuple(self._joints) == CROWDPOSE.joints  # its files have none, and need none
            if self._odd[key] and not needless:
                yield f"{self._path}: {self._odd[key]} {what}"
