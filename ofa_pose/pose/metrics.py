"""Object keypoint similarity AP and AR, as COCO and as CrowdPose define them.

faster-coco-eval's figures are pycocotools' for COCO and, for CrowdPose (Li et al., 2019), those of its authors' code;
there a person's area is 0.53 × its box and AP is also given by how crowded the images are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_pose.pose.bootstrap import draw_images, resampled_ap, standard_error
from ofa_pose.pose.geometry import box_round
from ofa_pose.pose.oks import Found, People, Score, Scorer
from ofa_pose.skeleton import AREA_OF_BOX, Skeleton
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.numbers import id_order

METRICS = ("coco", "crowdpose")
CROWD_SPLITS = {"AP_easy": (-np.inf, 0.2), "AP_medium": (0.2, 0.8), "AP_hard": (0.8, np.inf)}
EVERY_SIZE = (0.0, 1e5**2)
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}  # areas, both ends in
MOST_PEOPLE = 20  # detections an image that count
CATEGORY_ID = 1
DECIMALS = 3  # of image pixels in a results file


@dataclass(frozen=True, eq=False)
class Detections:
    """N people found on any number of images.

    Attributes:
        image_ids: the image of each person.
        keypoints: (N, J, 3): x, y in image pixels and the joint's score; float32 of a network are scored as they are
            written (to 3 decimals), float64 of a file as they stand.
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
        entries = list(entries)
        rows = [joint_array(entry["keypoints"], joints, f"detection {n}") for n, entry in enumerate(entries, 1)]
        ids, scores = [entry["image_id"] for entry in entries], [entry["score"] for entry in entries]
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


class KeypointEvaluator:
    """Scores detections against one ground truth, any number of times.

    Args:
        images: COCO image records; `crowdIndex` is read for CrowdPose's splits.
        annotations: COCO person annotations, in image pixels. A missing `bbox` is drawn round the labelled joints, an
            `area` that is not a positive number is 0.53 × the box. People with `num_keypoints` 0 and crowds (`iscrowd`)
            are neither wanted nor wrong; the stored count is trusted (CrowdPose's leaves out head and neck).
        metric: 'coco' or 'crowdpose'.

    Raises InputError on an unknown metric, or naming an annotation that does not fit the images or the skeleton.
    """

    def __init__(
        self,
        images: Sequence[Mapping[str, Any]],
        annotations: Sequence[Mapping[str, Any]],
        skeleton: Skeleton,
        metric: str = "coco",
    ) -> None:
        if metric not in METRICS:
            raise InputError(f"unknown metric '{metric}'", hint=nearest(metric, METRICS))
        self.metric = metric
        self._skeleton = skeleton
        # The evaluator needs integer ids, datasets may have any. Sorted, because ties of scores go by image id.
        ids = sorted((image["id"] for image in images), key=id_order)
        self._number = {image_id: number for number, image_id in enumerate(ids)}
        crowding = {self._number[image["id"]]: image.get("crowdIndex") for image in images}
        self._crowd_index = {n: c for n, c in crowding.items() if isinstance(c, int | float)}
        self._people = self._gather(annotations)

    def score(self, detections: Detections | Iterable[Mapping[str, Any]]) -> Score:
        """AP and AR of detections, given as such or as COCO results entries; the best 20 an image count.

        Keys: AP, AP50, AP75, AR, AR50, AR75; of coco also AP_medium, AP_large, AR_medium, AR_large (by area); of
        crowdpose also AP_easy, AP_medium, AP_hard (by crowdIndex). A figure of people that are not there is None.
        """
        return self._score(self._scorer(detections))

    def score_resampled(self, detections: Detections | Iterable[Mapping[str, Any]]) -> tuple[Score, np.ndarray]:
        """`score` with the key AP_stderr, the AP's standard error, and the APs it is made of.

        These are of images drawn with replacement, see `bootstrap`; NaN where nobody is wanted on those drawn. The
        same draws are taken for all detections, so that two lists of them can be compared one by one.
        """
        scorer = self._scorer(detections)
        draws = resampled_ap(scorer.matches(EVERY_SIZE), draw_images(len(self._number)))
        return {**self._score(scorer), "AP_stderr": standard_error(draws)}, draws

    def _score(self, scorer: Scorer) -> Score:
        if self.metric == "crowdpose":
            score = scorer.run([EVERY_SIZE])[0]
            for name, (least, most) in CROWD_SPLITS.items():
                members = [number for number, crowd in self._crowd_index.items() if least <= crowd < most]
                score[name] = scorer.run([EVERY_SIZE], members)[0]["AP"]
            return score
        score, medium, large = scorer.run([EVERY_SIZE, SIZES["medium"], SIZES["large"]])
        parts = {"medium": medium, "large": large}
        return score | {f"{key}_{size}": part[key] for size, part in parts.items() for key in ("AP", "AR")}

    def breakdown(self, detections: Detections | Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Score]]:
        """AP, AR and the number of people of every joint and size: {'joints': {name: …}, 'sizes': {'small': …, …}}.

        A joint is scored as if it were the skeleton's only one, with the person's area and the detection's score.
        People without it are ignored, and so is one detection on each of them: of OKS 0.5 by the other joints, or with
        the joint in the doubled box. Sizes go by the metric's area; a person just on a border is of both. `people` is
        how many are wanted; where there are none, AP and AR are None.

        A joint that has an opposite (a flip pair) also has `swapped`, the share of its predictions that lie nearer to
        the opposite joint's true place than to its own, and `compared`, of how many: see `Scorer.swaps`.
        """
        scorer, people = self._scorer(detections), self._people
        joints, sizes = {}, {}
        opposite = dict(self._skeleton.flip_pairs) | {right: left for left, right in self._skeleton.flip_pairs}
        for number, name in enumerate(self._skeleton.joints):
            wanted = people.wanted & people.labelled[:, number]
            joints[name] = _summary(scorer.run([EVERY_SIZE], joint=number)[0], wanted)
            if number in opposite:
                swapped, compared = scorer.swaps(number, opposite[number])
                joints[name] |= {"swapped": swapped / compared if compared else None, "compared": compared}
        for (name, (least, most)), score in zip(SIZES.items(), scorer.run(list(SIZES.values())), strict=True):
            sizes[name] = _summary(score, people.wanted & (least <= people.area) & (people.area <= most))
        return {"joints": joints, "sizes": sizes}

    def _scorer(self, detections: Detections | Iterable[Mapping[str, Any]]) -> Scorer:
        """Of the detections that count, in order; what is not a number is 0."""
        joints = len(self._skeleton.joints)
        if not isinstance(detections, Detections):
            detections = Detections.read(detections, joints)
        if len(detections) and detections.keypoints.shape[1] != joints:
            raise ValueError(f"detections {detections.keypoints.shape} are not of {joints} joints")
        image = np.array([self._image(i, f"detection {n}") for n, i in enumerate(detections.image_ids, 1)], np.int64)
        score = np.nan_to_num(detections.scores.astype(np.float64))
        order = np.lexsort((-score, image))  # stable: of equal ones the first
        rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
        order = order[rank < MOST_PEOPLE]
        xy = np.nan_to_num(detections.places[order])
        with np.errstate(over="ignore", invalid="ignore"):
            area = np.ptp(xy, axis=1).prod(axis=1) if len(xy) else np.zeros(0)
        predicted = np.asarray(detections.keypoints[order].any(axis=2))  # what is absent is written as 0, 0, 0
        found = Found(image[order], xy, score[order], area, predicted)
        return Scorer(self._people, found, self._skeleton.sigmas, len(self._number))

    def _gather(self, annotations: Sequence[Mapping[str, Any]]) -> People:
        count = len(annotations)
        image, joints = np.zeros(count, np.int64), np.zeros((count, len(self._skeleton.joints), 3))
        box, area, wanted, crowd = np.zeros((count, 4)), np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
        for n, record in enumerate(annotations):
            where = f"annotation {record.get('id', n + 1)}"
            image[n] = self._image(record["image_id"], where)
            if record.get("keypoints"):
                joints[n] = joint_array(record["keypoints"], joints.shape[1], where)
            labelled = joints[n, joints[n, :, 2] > 0, :2]
            given, size, stored = record.get("bbox"), record.get("area"), record.get("num_keypoints")
            box[n] = box_round(labelled)
            if given:
                with suppress(OverflowError):  # of a whole number beyond any float
                    stated_box = np.array(given, np.float64)
                    box[n] = stated_box if np.isfinite(stated_box).all() else box[n]
            stated = self.metric == "coco" and size is not None and 0 < size < np.inf
            area[n] = size if stated else box[n, 3] * box[n, 2] * AREA_OF_BOX
            crowd[n] = bool(record.get("iscrowd"))
            wanted[n] = not crowd[n] and (len(labelled) if stored is None else stored) > 0
        order = np.argsort(image, kind="stable")
        parts = (image, joints[..., :2], joints[..., 2] > 0, box, area, wanted, crowd)
        return People(*(part[order] for part in parts))

    def _image(self, image_id: Any, where: str) -> int:
        number = self._number.get(image_id)
        if number is None:
            raise InputError(f"is of image {image_id!r}, which the ground truth does not list", where)
        return number


def _summary(score: Score, wanted: np.ndarray) -> Score:
    return {"AP": score["AP"], "AR": score["AR"], "people": int(wanted.sum())}
