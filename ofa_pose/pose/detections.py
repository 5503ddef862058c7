"""Found people: as arrays while they are many, as the entries of a COCO results file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_pose.utils.errors import InputError

CATEGORY_ID = 1
DECIMALS = 3  # of image pixels in a results file


@dataclass(frozen=True, eq=False)
class Detections:
    """N people found on any number of images.

    Attributes:
        image_ids: the image of each person, N ids.
        keypoints: (N, J, 3): x, y in image pixels and the joint's score. float32 as a network found them, to be scored
            as they are written (to 3 decimals); float64 as a file gave them, scored as they stand.
        scores: (N,), of whole people.
    """

    image_ids: Sequence[int | str]
    keypoints: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def places(self) -> np.ndarray:
        """x and y in image pixels as a results file holds them, float64 (N, J, 2)."""
        return _written(self.keypoints[..., :2])

    def entries(self, category: int | str = CATEGORY_ID) -> list[dict[str, Any]]:
        """The entries of a COCO results file, with this category_id."""
        flat = _written(self.keypoints).reshape(len(self), 3 * self.keypoints.shape[1]).tolist()
        return [
            {"image_id": image_id, "category_id": category, "keypoints": person, "score": score}
            for image_id, person, score in zip(self.image_ids, flat, self.scores.tolist(), strict=True)
        ]

    @classmethod
    def read(cls, entries: Iterable[Mapping[str, Any]], joints: int) -> Detections:
        """From entries of a COCO results file. Raises InputError naming the first with another number of joints."""
        rows, ids, scores = [], [], []
        for number, entry in enumerate(entries, start=1):
            rows.append(joint_array(entry["keypoints"], joints, f"detection {number}"))
            ids.append(entry["image_id"])
            scores.append(entry["score"])
        return cls(ids, np.array(rows, np.float64).reshape(-1, joints, 3), np.array(scores, np.float64))

    @classmethod
    def join(cls, parts: Sequence[tuple[int | str, np.ndarray, np.ndarray]], joints: int) -> Detections:
        """From (id, keypoints (P, J, 3), scores (P,)) of single images, kept as float32."""
        ids = [image_id for image_id, _, scores in parts for _ in range(len(scores))]
        keypoints = [np.zeros((0, joints, 3), np.float32), *(keypoints for _, keypoints, _ in parts)]
        scores = [np.zeros(0, np.float32), *(scores for _, _, scores in parts)]
        return cls(ids, np.concatenate(keypoints, dtype=np.float32), np.concatenate(scores, dtype=np.float32))


def to_results(image_id: int | str, keypoints: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """COCO results entries of one image's poses: keypoints (P, J, 3) in image pixels, scores (P,)."""
    rounded = np.round(np.asarray(keypoints, np.float64), DECIMALS)
    return Detections([image_id] * len(scores), rounded, np.asarray(scores, np.float64)).entries()


def joint_array(numbers: Sequence[float], joints: int, where: str) -> np.ndarray:
    """x, y, v of every joint as float64 (J, 3). Raises InputError naming `where` if they are not so many."""
    if len(numbers) != 3 * joints:
        hint = "give x, y, v of every joint"
        raise InputError(f"holds {len(numbers)} keypoint numbers instead of {3 * joints}", where, hint)
    return np.array(numbers, np.float64).reshape(-1, 3)


def _written(values: np.ndarray) -> np.ndarray:
    exact = values.astype(np.float64)
    return np.round(exact, DECIMALS) if values.dtype == np.float32 else exact
