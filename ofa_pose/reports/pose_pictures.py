"""Poses on some images of an evaluation, from the worst to the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.keypoint_dataset import DataSettings, KeypointDataset, Source, load_splits
from ofa_pose.inference.evaluate import read_results
from ofa_pose.pose.draw import draw_poses
from ofa_pose.reports.findings import Evaluated
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError

RESULTS = "results.json"
SIDE = 360  # the longer one of a picture, in pixels
QUALITY = 82
SCORE = 0.2  # poses and joints below it are not drawn, as by predict


@dataclass(frozen=True)
class PosePicture:
    """An image with the poses found on it.

    Attributes:
        place: 'worst', 'median' or 'best' of those evaluated.
        file: its file's name.
        similarity: the mean over its people of the object keypoint similarity with the pose that fits best.
        jpeg: the picture.
    """

    place: str
    file: str
    similarity: float
    people: int
    jpeg: bytes


@dataclass(frozen=True)
class EvaluatedPoses:
    """What an evaluation found, with the truth: of every image with people its similarity, see `PosePicture`."""

    dataset: KeypointDataset
    found: Mapping[Any, NDArray[np.float64]]
    people: Mapping[Any, list[Mapping[str, Any]]]
    similarity: Mapping[Any, float]


def read_poses(evaluated: Evaluated) -> EvaluatedPoses:
    """Read an evaluation's images and poses. Raises InputError where they are not there, or are others now."""
    source = Source(annotations=evaluated.annotations, images=evaluated.images)
    data = DataSettings(test=source, metric=evaluated.metric)
    (dataset,) = load_splits(data, "test", check_images="none")
    if evaluated.truth and dataset.fingerprint != evaluated.truth:
        raise InputError("is another one than the AP was taken on", dataset.annotations_path, "evaluate again")
    detections = read_results(evaluated.folder / RESULTS, dataset)
    places: dict[Any, list[int]] = {}
    for place in np.argsort(-np.asarray(detections.scores), kind="stable").tolist():
        places.setdefault(detections.image_ids[place], []).append(place)
    found = {name: detections.keypoints[those] for name, those in places.items()}
    people: dict[Any, list[Mapping[str, Any]]] = {}
    for one in dataset.ground_truth["annotations"]:
        if not one["iscrowd"] and any(one["keypoints"][2::3]):
            people.setdefault(one["image_id"], []).append(one)
    empty = np.zeros((0, len(dataset.skeleton.joints), 3))
    similarity = {
        name: float(np.mean([_best_match(one, found.get(name, empty), dataset.skeleton) for one in those]))
        for name, those in people.items()
    }
    return EvaluatedPoses(dataset, found, people, similarity)


def pose_pictures(poses: EvaluatedPoses) -> list[PosePicture]:
    """Two images each of the worst, the median and the best. Raises InputError where one cannot be read."""
    order = sorted(poses.similarity, key=lambda name: (poses.similarity[name], str(name)))
    middle = max(0, len(order) // 2 - 1)
    chosen: dict[Any, str] = {}
    for place, names in (("worst", order[:2]), ("best", order[-2:]), ("median", order[middle : middle + 2])):
        chosen |= {name: place for name in names if name not in chosen}
    records = {record.id: record for record in poses.dataset.images}
    empty = np.zeros((0, len(poses.dataset.skeleton.joints), 3))
    pictures = []
    for name in sorted(chosen, key=order.index):
        picture = _drawn(records[name].read(), poses.found.get(name, empty), poses.dataset.skeleton)
        people = len(poses.people[name])
        file = records[name].path.name
        pictures.append(PosePicture(chosen[name], file, poses.similarity[name], people, picture))
    return pictures


def _best_match(person: Mapping[str, Any], poses: NDArray[np.float64], skeleton: Skeleton) -> float:
    """The similarity of a person with the pose (of (P, J, 3)) that is most similar; 0 where there is none."""
    if not len(poses):
        return 0.0
    joints = np.array(person["keypoints"], np.float64).reshape(-1, 3)
    labelled = joints[:, 2] > 0
    squared = ((poses[:, labelled, :2] - joints[labelled, :2]) ** 2).sum(axis=2)
    variances = (2 * np.asarray(skeleton.sigmas)[labelled]) ** 2
    return float(np.exp(-squared / (2 * variances * max(float(person["area"]), 1e-6))).mean(axis=1).max())


def _drawn(image: NDArray[np.uint8], poses: NDArray[np.float64], skeleton: Skeleton) -> bytes:
    height, width = image.shape[:2]
    scale = min(SIDE / max(height, width), 2.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    good = poses[poses[..., 2].mean(axis=1) >= SCORE] if len(poses) else poses
    placed = good * np.array([scale, scale, 1.0])
    drawn = draw_poses(small, placed, skeleton, SCORE)
    _, jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes()
