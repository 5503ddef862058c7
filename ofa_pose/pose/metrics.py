"""Object keypoint similarity AP and AR, as COCO and as CrowdPose define them.

Both are matched and summed up by faster-coco-eval, whose figures are pycocotools' for COCO and for CrowdPose (Li et
al., 2019) those of its authors' code; there a person's area is 0.53 × its box and AP is also given by how crowded the
images are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa_pose.pose.detections import Detections, joint_array, to_results
from ofa_pose.pose.matching import Judge, Score
from ofa_pose.pose.regions import box_round
from ofa_pose.pose.similarity import Found, People
from ofa_pose.skeleton import AREA_OF_BOX, Skeleton
from ofa_pose.utils.errors import InputError, nearest

__all__ = ["METRICS", "Detections", "KeypointEvaluator", "Score", "evaluate_keypoints", "to_results"]

METRICS = ("coco", "crowdpose")
CROWD_SPLITS = {"AP_easy": (-np.inf, 0.2), "AP_medium": (0.2, 0.8), "AP_hard": (0.8, np.inf)}
EVERY_SIZE = (0.0, 1e5**2)
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}  # areas, both ends in
MOST_PEOPLE = 20  # detections an image that count


def evaluate_keypoints(
    ground_truth: Mapping[str, Any],
    detections: Detections | Iterable[Mapping[str, Any]],
    skeleton: Skeleton,
    metric: str = "coco",
) -> Score:
    """Score detections once against a COCO-format ground truth; see `KeypointEvaluator`."""
    return KeypointEvaluator(ground_truth["images"], ground_truth["annotations"], skeleton, metric).score(detections)


class KeypointEvaluator:
    """Scores detections against one ground truth, any number of times.

    Args:
        images: COCO image records; `crowdIndex` is read for CrowdPose's splits.
        annotations: COCO person annotations, in image pixels. A missing `bbox` is drawn round the labelled joints; a
            missing `area`, or one that is not a positive number, is 0.53 × the box. People with `num_keypoints` 0 and
            crowds (`iscrowd`) are ignored, neither wanted nor wrong; the stored count is trusted (CrowdPose's leaves
            out head and neck), a missing one is made.
        skeleton: gives the joints and their sigmas.
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
        ids = sorted((image["id"] for image in images), key=lambda i: (isinstance(i, str), i))
        self._number = {image_id: number for number, image_id in enumerate(ids)}
        crowding = {self._number[image["id"]]: image.get("crowdIndex") for image in images}
        self._crowd_index = {n: c for n, c in crowding.items() if isinstance(c, int | float)}
        self._people = self._gather(annotations)

    def score(self, detections: Detections | Iterable[Mapping[str, Any]]) -> Score:
        """AP and AR of detections, given as such or as COCO results entries; the best 20 an image count.

        Keys: AP, AP50, AP75, AR, AR50, AR75; of coco also AP_medium, AP_large, AR_medium, AR_large (by area); of
        crowdpose also AP_easy, AP_medium, AP_hard (by crowdIndex). A figure that the ground truth cannot give, because
        it holds no such people, is None; without detections the others are 0.
        """
        judge = self._judge(detections)
        if self.metric == "crowdpose":
            score = judge.run([EVERY_SIZE])[0]
            for name, (least, most) in CROWD_SPLITS.items():
                members = [number for number, crowd in self._crowd_index.items() if least <= crowd < most]
                score[name] = judge.run([EVERY_SIZE], members)[0]["AP"]
            return score
        score, medium, large = judge.run([EVERY_SIZE, SIZES["medium"], SIZES["large"]])
        parts = {"medium": medium, "large": large}
        return score | {f"{key}_{size}": part[key] for size, part in parts.items() for key in ("AP", "AR")}

    def breakdown(self, detections: Detections | Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Score]]:
        """AP, AR and the number of people of every joint and size: {'joints': {name: …}, 'sizes': {'small': …, …}}.

        A joint is judged as if it were the skeleton's only one: the similarity is this joint's, with the person's area
        and the detection's score. People without it are ignored, and so is one detection on each of them: of OKS 0.5
        by the other joints, or with the joint in the doubled box. Sizes go by the area that the metric takes; a person
        just on a border is of both. `people` is how many are wanted; where there are none, AP and AR are None.
        """
        judge, people = self._judge(detections), self._people
        joints = {}
        for number, name in enumerate(self._skeleton.joints):
            count = int((people.wanted & people.labelled[:, number]).sum())
            joints[name] = _summary(judge.run([EVERY_SIZE], joint=number)[0], count)
        sizes = {}
        for (name, (least, most)), score in zip(SIZES.items(), judge.run(list(SIZES.values())), strict=True):
            fitting = people.wanted & (least <= people.area) & (people.area <= most)
            sizes[name] = _summary(score, int(fitting.sum()))
        return {"joints": joints, "sizes": sizes}

    def _judge(self, detections: Detections | Iterable[Mapping[str, Any]]) -> Judge:
        if not isinstance(detections, Detections):
            detections = Detections.read(detections, len(self._skeleton.joints))
        return Judge(self._people, self._best(detections), self._skeleton.sigmas, len(self._number))

    def _best(self, detections: Detections) -> Found:
        """The detections that count, in order; what is not a number is 0."""
        if len(detections) and detections.keypoints.shape[1] != len(self._skeleton.joints):
            raise ValueError(f"detections {detections.keypoints.shape} are not of {len(self._skeleton.joints)} joints")
        image = np.array([self._image(i, f"detection {n}") for n, i in enumerate(detections.image_ids, 1)], np.int64)
        score = np.nan_to_num(detections.scores.astype(np.float64))
        order = np.lexsort((-score, image))  # stable: of equal ones the first
        rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
        order = order[rank < MOST_PEOPLE]
        xy = np.nan_to_num(detections.places[order])
        with np.errstate(over="ignore", invalid="ignore"):
            area = np.ptp(xy, axis=1).prod(axis=1) if len(xy) else np.zeros(0)
        return Found(image[order], xy, score[order], area)

    def _gather(self, annotations: Sequence[Mapping[str, Any]]) -> People:
        count = len(annotations)
        wheres = [f"annotation {record.get('id', number)}" for number, record in enumerate(annotations, start=1)]
        image = np.array([self._image(a["image_id"], w) for a, w in zip(annotations, wheres, strict=True)], np.int64)
        joints = np.zeros((count, len(self._skeleton.joints), 3))
        box, area, wanted, crowd = np.zeros((count, 4)), np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
        for n, (record, where) in enumerate(zip(annotations, wheres, strict=True)):
            if record.get("keypoints"):
                joints[n] = joint_array(record["keypoints"], joints.shape[1], where)
            labelled = joints[n, joints[n, :, 2] > 0, :2]
            given = record.get("bbox")
            box[n] = given if given and np.isfinite(given).all() else box_round(labelled)
            area[n] = self._area(record, box[n])
            crowd[n] = bool(record.get("iscrowd"))
            stored = record.get("num_keypoints")
            wanted[n] = not crowd[n] and (len(labelled) if stored is None else stored) > 0
        order = np.argsort(image, kind="stable")
        parts = (image, joints[..., :2], joints[..., 2] > 0, box, area, wanted, crowd)
        return People(*(part[order] for part in parts))

    def _area(self, record: Mapping[str, Any], box: np.ndarray) -> float:
        given = record.get("area") if self.metric == "coco" else None
        return float(given) if given is not None and 0 < given < np.inf else float(box[3] * box[2] * AREA_OF_BOX)

    def _image(self, image_id: Any, where: str) -> int:
        number = self._number.get(image_id)
        if number is None:
            raise InputError(f"is of image {image_id!r}, which the ground truth does not list", where)
        return number


def _summary(score: Score, people: int) -> Score:
    return {"AP": score["AP"], "AR": score["AR"], "people": people}
