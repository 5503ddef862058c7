"""Writing Ultralytics' YOLO-pose: the lines of label files and data.yaml, of records in COCO's form."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa_pose.pose.geometry import has_extent
from ofa_pose.skeleton import AREA_OF_BOX, Skeleton
from ofa_pose.utils.numbers import positive

SPLITS = ("train", "val", "test")
_NAMED = re.compile(r"(train|val|test)", re.IGNORECASE)
_CLIPPED = 1e-3  # pixels by which a box must reach beyond its image to be counted


def split_for_yolo(name: str) -> str | None:
    """'val' of 'val', 'Validation' or 'crowdpose_val'; 'train' where nothing is split; None of what says neither."""
    if not name:
        return SPLITS[0]
    found = {match.lower() for match in _NAMED.findall(name)}
    return found.pop() if len(found) == 1 else None


def data_yaml(splits: Iterable[str], skeleton: Skeleton, category: str) -> dict[str, Any]:
    """The contents of data.yaml; images/SPLIT and labels/SPLIT lie beside it."""
    value: dict[str, Any] = {split: f"images/{split}" for split in splits}
    value["kpt_shape"] = [len(skeleton.joints), 3]
    if skeleton.mirror:  # without flip_idx Ultralytics mirrors no image
        value["flip_idx"] = list(skeleton.flip_index)
    return value | {"names": {0: category}, "kpt_names": {0: list(skeleton.joints)}}


def label_files(value: Mapping[str, Any], category: Any, joints: int) -> tuple[list[str], Counter[str]]:
    """The text of each image's label file, and what YOLO cannot hold, by a key of `LOSSES`.

    Args:
        value: checked COCO lists.
        category: the id of the category with the joints.
        joints: their number.
    """
    losses: Counter[str] = Counter()
    people: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for place, record in enumerate(value["annotations"], start=1):
        people[record["image_id"]].append(record)
        losses["ids"] += record["id"] != place
    texts = []
    for place, image in enumerate(value["images"], start=1):
        losses["ids"] += image["id"] != place
        losses["crowd_indices"] += image.get("crowdIndex") is not None
        size = np.array([image["width"], image["height"]], np.float64)
        lines = (_line(record, category, joints, size, losses) for record in people[image["id"]])
        texts.append("".join(f"{line}\n" for line in lines if line))
    return texts, losses


def _line(
    record: Mapping[str, Any], category: Any, joints: int, size: np.ndarray[Any, Any], losses: Counter[str]
) -> str:
    """A person's line, '' of what is left out: class, the box's centre and sides, x, y and visibility of each joint."""
    if record["category_id"] != category:
        losses["other_categories"] += 1
        return ""
    if record.get("iscrowd"):
        losses["crowds"] += 1
        return ""
    points = np.array(record.get("keypoints") or [0] * (3 * joints), np.float64).reshape(-1, 3)
    labelled = points[:, 2] > 0
    inside = labelled & (points[:, :2] >= 0).all(1) & (points[:, :2] <= size).all(1)
    losses["joints_outside"] += int((labelled & ~inside).sum())
    box = _box(record.get("bbox"), points[labelled, :2], size, losses)
    if box is None:
        losses["people_without_box"] += 1
        return ""
    low, high = box
    area: Any = record.get("area")
    usual = AREA_OF_BOX * float(np.prod(high - low))
    losses["areas"] += positive(area) and abs(area - usual) > 1e-6 * max(usual, 1)
    losses["segmentations"] += bool(record.get("segmentation"))
    losses["tracks"] += record.get("track_id") is not None
    losses["attributes"] += bool(record.get("attributes")) + (record.get("individual") is not None)
    points = np.where(inside[:, None], points, 0)
    words = ["0", *_words((low + high) / 2 / size), *_words((high - low) / size)]
    for point in points:
        words += [*_words(point[:2] / size), str(int(point[2]))]
    return " ".join(words)


def _box(
    given: Sequence[float] | None, labelled: np.ndarray[Any, Any], size: np.ndarray[Any, Any], losses: Counter[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """The first and the last corner of a person's box inside the image; None where nothing says where it is."""
    if given is not None and has_extent(given):
        low, high = np.array(given[:2], np.float64), np.array(given[:2], np.float64) + given[2:]
    elif len(labelled):
        low, high = labelled.min(0), labelled.max(0)
    else:
        return None
    kept = np.clip(low, 0, size), np.clip(high, 0, size)
    losses["boxes_clipped"] += bool(max(abs(kept[0] - low).max(), abs(kept[1] - high).max()) > _CLIPPED)
    return kept


def _words(numbers: np.ndarray[Any, Any]) -> list[str]:
    return [f"{number:.9f}".rstrip("0").rstrip(".") for number in numbers]
