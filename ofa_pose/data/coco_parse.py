"""The checked contents of a COCO keypoint annotation file, and a line for every record that is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.records import ImageRecord, Region, box_region, finite_array, segment_region
from ofa_pose.pose.geometry import LARGEST_SIDE, box_round, has_area, has_extent
from ofa_pose.skeleton import AREA_OF_BOX, CROWDPOSE, Skeleton, check_size, draft, one_sided, same_joints
from ofa_pose.utils.errors import Fault, InputError, nearest
from ofa_pose.utils.numbers import are_numbers, as_id, find_id, id_order

LISTS = ("images", "annotations", "categories")
NAMED_IN_WARNING = 3
VISIBILITIES = frozenset((0, 1, 2))
NORMALISED_SIDE = 8  # pixels of an image from which a file of numbers up to 1 cannot be in pixels
ODD = {  # what is counted and warned of, but no fault
    "box": "annotations have no bbox, or an empty one; the box round their labelled joints stands in",
    "area": f"people have no usable area; {AREA_OF_BOX} of their box stands in for it",
    "count": "people have num_keypoints 0 beside labelled joints: training learns them, an evaluation leaves them out",
    "label": "people have num_keypoints above 0 and no labelled joint: an evaluation counts them, training cannot",
    "id": "annotations name their image or category by a number for a text, or a text for a number; read as the same",
    "segment": "ignored regions have a bad segmentation; their box is used",
    "category": "annotations of categories without keypoints are left out",
}


@dataclass(frozen=True)
class Parsed:
    """The contents of an annotation file: the images are valid where `faults` is empty."""

    skeleton: Skeleton
    category: Mapping[str, Any]
    other_categories: frozenset[int | str]  # ids of those without these joints
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
    own, *alike = keypoint_categories(path, value["categories"])
    chosen, warnings = choose_skeleton(path, own, skeleton, trained)
    if alike:
        names = ", ".join(str(category.get("name", category["id"])) for category in alike)
        warnings = (
            *warnings,
            f"{path}: has {1 + len(alike)} categories of the same joints; {names} are read as the first",
        )
    ids = {as_id(category["id"]) for category in (own, *alike)}
    found = (as_id(c.get("id")) for c in value["categories"] if isinstance(c, dict))
    categories = frozenset(one for one in found if one is not None)
    reader = _Reader(path, folder, chosen.joints, ids, categories)
    for place, record in enumerate(value["images"]):
        reader.read_image(record, place)
    for place, record in enumerate(value["annotations"]):
        reader.read_annotation(record, place)
    if not value["images"]:
        reader.faults.append(Fault("holds no images", str(path), "name a file with images"))
    records = tuple(reader.records())
    reader.check_pixels(records)
    category = {**own, "id": as_id(own["id"])}
    return Parsed(chosen, category, categories - ids, records, tuple(reader.faults), (*warnings, *reader.warnings()))


def keypoint_categories(path: Path, categories: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The categories of an annotation file that have keypoints, all the same. Raises InputError where they have not."""
    found: list[Mapping[str, Any]] = [c for c in categories if isinstance(c, dict) and c.get("keypoints")]
    if not found:
        hint = "list the joint names in order under 'keypoints' of the category"
        raise InputError("has no category with keypoints", path, hint)
    differing = [c for c in found if c["keypoints"] != found[0]["keypoints"]]
    if differing:
        names = ", ".join(str(c.get("name", c.get("id"))) for c in (found[0], *differing))
        raise InputError(f"has categories of different keypoints ({names})", path, "keep one of them")
    where, names = f"{path}: category {found[0].get('id')}", found[0]["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError("keypoints must be a list of distinct joint names", where, "correct the list")
    limbs = found[0].get("skeleton")
    check_size(names, limbs if isinstance(limbs, list) else [], where)
    for category in found:
        if as_id(category.get("id")) is None:
            raise InputError(_id_fault(category), where, "number the category, and name that id in category_id")
    return found


def resolved(value: Mapping[str, Any], own: int | str, others: Set[int | str]) -> Iterator[dict[str, Any]]:
    """The annotations of checked lists with ids of images and categories as `parse` reads them.

    Args:
        own: the id of the category with the joints, which stands for all of the same joints.
        others: the ids of the other categories.
    """
    images = {as_id(image["id"]) for image in value["images"]}
    categories = {as_id(category.get("id")) for category in value["categories"] if isinstance(category, dict)}
    for annotation in value["annotations"]:
        category = find_id(annotation["category_id"], categories)
        ids = {"image_id": find_id(annotation["image_id"], images), "category_id": own}
        yield {**annotation, **ids, **({"category_id": category} if category in others else {})}


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
        return skeleton, ((unlike,) if differing else ()) + _mirror_warning(path, skeleton)
    suggested, warnings = _suggested(path, category)
    differing = suggested.differences(trained) if trained else ""
    if trained is None or trained.joints != suggested.joints:
        return suggested, (*warnings, *_mirror_warning(path, suggested))
    if not differing:
        return trained, _mirror_warning(path, trained)
    origin = "guessed from the file" if warnings else f"those of skeleton {suggested.name}"
    unlike = f"{path}: its {differing} are those that the network was trained with, not {origin}"
    return trained, (unlike, *_mirror_warning(path, trained))


def _mirror_warning(path: Path, skeleton: Skeleton) -> tuple[str, ...]:
    """What to say where images are not mirrored."""
    if skeleton.mirror:
        return ()
    alone = one_sided(skeleton.joints)
    why = f"the other side of {', '.join(alone)} is not named" if alone else "no two joints are named as left and right"
    how = "write flip_pairs and mirror: true in the skeleton (data check --write-skeleton FILE drafts one)"
    return (f"{path}: {why}, so images are not mirrored, neither in training nor in a flip test; {how}",)


def _suggested(path: Path, category: Mapping[str, Any]) -> tuple[Skeleton, tuple[str, ...]]:
    """What a file's own joint names lead to."""
    names = category["keypoints"]
    built_in = same_joints(names)
    if built_in is not None:
        return built_in, ()
    listed = category.get("skeleton")
    limbs = [[int(end) for end in limb] for limb in listed if are_numbers(limb, 2)] if isinstance(listed, list) else []
    guess = draft(str(category.get("name", "custom")), names, limbs)
    from_0 = (f"{path}: its limbs count joints from 0, and are read so",) if any(0 in limb for limb in limbs) else ()
    pairs = _stated_pairs(category.get("flip_pairs"), names)
    flips = "guessed from left and right in their names" if pairs is None else "the file's"
    warning = (
        f"{path}: its {len(names)} joints are those of no built-in skeleton: flip pairs are {flips}, sigmas are "
        "defaults; check both: data check --write-skeleton FILE, then name it as data.skeleton or --skeleton"
    )
    if pairs is not None:
        guess = replace(guess, flip_pairs=pairs, mirror=True)
    return guess, (warning, *from_0)


def _stated_pairs(value: Any, names: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
    """The flip pairs that a category states by names, as `data convert` writes them; None where it states none."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return None
    ends = [str(end) for pair in value for end in pair]
    if len(set(ends)) < len(ends) or not set(ends) <= set(names):
        return None
    return tuple((names.index(str(a)), names.index(str(b))) for a, b in value)


def _id_fault(known: Mapping[str, Any]) -> str:
    return (
        f"its id is {known['id']!r:.40}, neither a whole number nor a text"
        if known.get("id") is not None
        else "has no id"
    )


def _are_shares(values: NDArray[np.floating]) -> bool:
    return bool(values.max() <= 1 and (values % 1).any())


class _Reader:
    """Reads records one by one, gathering images, their people, faults and what to warn of."""

    def __init__(self, path: Path, folder: Path, joints: Sequence[str], own: Set[Any], categories: Set[Any]) -> None:
        self._path, self._folder, self._joints = path, folder, joints
        self._own, self._categories = own, categories
        self.faults: list[Fault] = []
        self._where = str(path)  # of the record that is read
        self._images: dict[int | str, ImageRecord] = {}
        self._people: dict[int | str, list[tuple[Any, ...]]] = defaultdict(list)  # keypoints, box and area of each
        self._ignore: dict[int | str, list[Region]] = defaultdict(list)
        self._counted: Counter[int | str] = Counter()
        self._annotations: set[int | str] = set()
        self._outside: list[str] = []
        self._flat: list[str] = []  # people whom nothing gives an extent
        self._given_boxes: list[Sequence[float]] = []
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
        image_id = as_id(known.get("id"))
        if image_id is None:
            self._fault(_id_fault(known), "give it an id that no other image has")
            return
        if image_id in self._images:
            self._fault("its id is used twice", "give each image its own id")
            return
        name, crowding = known.get("file_name"), [known.get("crowdIndex")]
        sides: list[Any] = [known.get("width"), known.get("height")]
        if not isinstance(name, str) or not name:
            self._fault("has no file_name", "name its file, relative to the images folder")
        if not are_numbers(sides, 2) or min(sides) < 1 or any(side % 1 for side in sides):
            what = f"width and height are {sides[0]!r:.40} and {sides[1]!r:.40}"
            self._fault(what, "give the file's size as whole numbers of pixels")
            sides = [1, 1]
        crowd_index = float(crowding[0]) if are_numbers(crowding, 1) else None  # type: ignore[arg-type]
        nobody = np.zeros((0, len(self._joints), 3), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        size = int(sides[0]), int(sides[1])
        path = self._folder / str(name)
        self._images[image_id] = ImageRecord(image_id, path, *size, *nobody, crowd_index=crowd_index)

    def read_annotation(self, record: Any, place: int) -> None:
        """Check one annotation and add it to its image."""
        known = self._fields("annotation", record, place)
        if known is None:
            return
        before = len(self.faults)
        image_id, category = self._read_ids(known)
        if category is not None and category not in self._own:
            self._odd["category"] += 1
            return
        crowd = known.get("iscrowd") or 0
        if crowd not in (0, 1):
            self._fault(f"iscrowd is {crowd!r:.40}", "give 0 or 1")
        box, area, count = known.get("bbox"), known.get("area"), known.get("num_keypoints")
        if box is not None and (not are_numbers(box, 4) or min(box[2:]) < 0 or max(map(abs, box)) > LARGEST_SIDE):
            self._fault(f"bbox is {box!r:.60}", "give [x, y, width, height] in pixels, or leave it out")
        if area is not None and type(area) not in (int, float):  # of what is not an area 0.53 of the box is taken
            self._fault(f"area is {area!r:.40}", "give the person's area in square pixels, or leave it out")
        if count is not None and (not are_numbers([count], 1) or count < 0 or count % 1):
            self._fault(f"num_keypoints is {count!r:.40}", "give the number of its labelled joints, or leave it out")
        keypoints = self._keypoints(known.get("keypoints"), bool(crowd))
        if len(self.faults) == before:
            assert image_id is not None
            self._add(self._images[image_id], known, keypoints)

    def _read_ids(self, known: Mapping[str, Any]) -> tuple[int | str | None, int | str | None]:
        """The ids of an annotation's image and category; None where that is not among them."""
        own = as_id(known.get("id"))
        if own is None:
            self._fault(_id_fault(known), "give it an id that no other annotation has")
        elif own in self._annotations:
            self._fault("its id is used twice", "give each annotation its own id")
        else:
            self._annotations.add(own)
        image, category = (
            find_id(known.get("image_id"), self._images),
            find_id(known.get("category_id"), self._categories),
        )
        if image is None:
            hint = "list that image or remove the annotation"
            self._fault(f"its image_id {known.get('image_id')!r:.40} is not among the images", hint)
        if category is None:
            hint = f"give {min(self._own, key=id_order)!r}"
            self._fault(f"its category_id {known.get('category_id')!r:.40} is not among the categories", hint)
        named = as_id(known.get("image_id")), as_id(known.get("category_id"))
        self._odd["id"] += image is not None and category is not None and named != (image, category)
        return image, category

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
        area, segmentation = known.get("area"), known.get("segmentation")
        places = np.zeros((0, 2)) if keypoints is None else keypoints[keypoints[:, 2] > 0, :2]
        given = has_extent(known.get("bbox"))
        self._odd["box"] += not given
        box = tuple(float(side) for side in known["bbox"]) if given else box_round(places)
        if given:
            self._given_boxes.append(box)
        crowd = bool(known.get("iscrowd"))
        count = known.get("num_keypoints")
        self._counted[image.id] += not crowd and (len(places) if count is None else count) > 0
        labelled = self._inside(image, known, keypoints) if keypoints is not None and not crowd else None
        if labelled is not None and labelled[:, 2].any():
            self._odd["area"] += not has_area(area)
            self._odd["count"] += known.get("num_keypoints") == 0
            area = area if has_area(area) else AREA_OF_BOX * box[2] * box[3]
            if not area:
                self._flat.append(f"annotation {known['id']}")
            self._people[image.id].append((labelled.astype(np.float32), box, area))
        else:
            self._odd["label"] += not crowd and not len(places) and (count or 0) > 0
            region = segment_region(segmentation, image.width, image.height, crowd)
            self._odd["segment"] += bool(segmentation) and region is None
            known_box = given or len(places)
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

    def check_pixels(self, records: Sequence[ImageRecord]) -> None:
        """Report coordinates that can only be shares of the image: all up to 1, on images of many pixels."""
        seen = [record for record in records if len(record.keypoints)]
        if not seen or min(min(record.size) for record in seen) < NORMALISED_SIDE:
            return
        places = np.concatenate([record.keypoints[record.keypoints[..., 2] > 0, :2] for record in seen])
        shares = "as if they were shares of the image"
        if _are_shares(places):
            what = f"all {len(places)} labelled joints lie within 1 pixel of the corner, {shares}"
        elif self._given_boxes and _are_shares(np.array(self._given_boxes)):
            what = f"all {len(self._given_boxes)} boxes end within 1 pixel of the corner, {shares}"
        else:
            return
        self.faults.append(Fault(what, str(self._path), "multiply by the image's width and height"))

    def records(self) -> Iterator[ImageRecord]:
        """The images with their people."""
        for image in self._images.values():
            found: dict[str, Any] = {"ignore": tuple(self._ignore[image.id]), "counted": self._counted[image.id]}
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
        if self._flat:
            named = ", ".join(self._flat[:NAMED_IN_WARNING] + ["…"] * (len(self._flat) > NAMED_IN_WARNING))
            what = "people have no extent: neither an area nor a box, and one joint or joints in a row"
            how = "no prediction can match them; give them a bbox or an area"
            yield f"{self._path}: {len(self._flat)} {what} ({named}); {how}"
        for key, what in ODD.items():
            # CrowdPose's files have no areas and need none, and leave head and neck out of the count.
            needless = key in ("area", "count") and tuple(self._joints) == CROWDPOSE.joints
            if self._odd[key] and not needless:
                yield f"{self._path}: {self._odd[key]} {what}"
