"""Object keypoint similarity AP and AR, as COCO and as CrowdPose define them.

COCO's figures are pycocotools' own. CrowdPose's (Li et al., 2019) come from faster-coco-eval, which equals the authors'
code; there a person's area is 0.53 × its box and AP is also given by how crowded the images are.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ofa_pose.errors import InputError, nearest
from ofa_pose.skeleton import AREA_OF_BOX, Skeleton

METRICS = ("coco", "crowdpose")
CROWD_SPLITS = {"AP_easy": (-np.inf, 0.2), "AP_medium": (0.2, 0.8), "AP_hard": (0.8, np.inf)}
CATEGORY = {"id": 1, "name": "person"}

Score = dict[str, float | None]


def to_results(image_id: int | str, keypoints: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """COCO results entries of one image's poses: keypoints (P, J, 3) in image pixels, scores (P,)."""
    flat = np.round(np.asarray(keypoints, np.float64), 3).reshape(len(scores), 3 * keypoints.shape[1]).tolist()
    return [
        {"image_id": image_id, "category_id": CATEGORY["id"], "keypoints": person, "score": float(score)}
        for person, score in zip(flat, scores, strict=True)
    ]


def evaluate_keypoints(
    ground_truth: Mapping[str, Any], detections: Iterable[Mapping[str, Any]], skeleton: Skeleton, metric: str = "coco"
) -> Score:
    """Score detections once against a COCO-format ground truth; see `KeypointEvaluator`."""
    return KeypointEvaluator(ground_truth["images"], ground_truth["annotations"], skeleton, metric).score(detections)


class KeypointEvaluator:
    """Scores detections against one ground truth, any number of times.

    Args:
        images: COCO image records; `crowdIndex` is read for CrowdPose's splits.
        annotations: COCO person annotations, in image pixels. A missing `bbox` is drawn round the labelled joints; a
            missing `area` is 0.53 × the box. People with `num_keypoints` 0 and crowds (`iscrowd`) are ignored, neither
            wanted nor wrong; the stored count is trusted (CrowdPose's leaves out head and neck), a missing one is made.
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
            raise InputError(f"unknown metric '{metric}'", mend=nearest(metric, METRICS))
        self.metric = metric
        self._skeleton = skeleton
        # The evaluators need integer ids, datasets may have any. Sorted, because ties of scores go by image id.
        ids = sorted((image["id"] for image in images), key=lambda i: (isinstance(i, str), i))
        self._number = {image_id: number for number, image_id in enumerate(ids, start=1)}
        crowding = {self._number[image["id"]]: image.get("crowdIndex") for image in images}
        self._crowd_index = {n: c if isinstance(c, int | float) else None for n, c in crowding.items()}
        people = [self._person(number, record) for number, record in enumerate(annotations, start=1)]
        self._truth = self._indexed(people)

    def score(self, detections: Iterable[Mapping[str, Any]]) -> Score:
        """AP and AR of COCO results entries (image_id, keypoints in image pixels, score), at most 20 an image.

        Keys: AP, AP50, AP75, AR, AR50, AR75; of coco also AP_medium, AP_large, AR_medium, AR_large (by area); of
        crowdpose also AP_easy, AP_medium, AP_hard (by crowdIndex). A figure that the ground truth cannot give, because
        it holds no such people, is None; without detections the others are 0.
        """
        found = self._indexed([self._detection(number, d) for number, d in enumerate(detections, start=1)])
        sigmas = np.array(self._skeleton.sigmas)
        with contextlib.redirect_stdout(io.StringIO()):
            if self.metric == "crowdpose":
                return self._score_crowdpose(
                    COCOeval_faster(self._truth, found, "keypoints_crowd", kpt_oks_sigmas=sigmas, use_area=False)
                )
            judge = COCOeval(self._truth, found, "keypoints")
            judge.params.kpt_oks_sigmas = sigmas
            return self._score_coco(judge)

    def _score_coco(self, judge: COCOeval) -> Score:
        score = _run(judge, list(self._number.values()))
        for index, size in enumerate(judge.params.areaRngLbl[1:], start=1):
            score[f"AP_{size}"] = _mean(judge.eval["precision"][..., index, :]) if judge.eval else None
            score[f"AR_{size}"] = _mean(judge.eval["recall"][..., index, :]) if judge.eval else None
        return score

    def _score_crowdpose(self, judge: COCOeval_faster) -> Score:
        score = _run(judge, list(self._number.values()))
        for name, (least, most) in CROWD_SPLITS.items():
            members = [n for n, crowd in self._crowd_index.items() if crowd is not None and least <= crowd < most]
            score[name] = _run(judge, members)["AP"]
        return score

    def _indexed(self, annotations: list[dict[str, Any]]) -> Any:
        """The evaluator's own index over these annotations."""
        index = FasterCOCO() if self.metric == "crowdpose" else COCO()
        index.dataset = {
            "images": [{"id": number} for number in self._number.values()],
            "annotations": annotations,
            "categories": [CATEGORY],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            index.createIndex()
        return index

    def _person(self, number: int, record: Mapping[str, Any]) -> dict[str, Any]:
        where = f"annotation {record.get('id', number)}"
        joints = self._joints(record.get("keypoints") or [0] * 3 * len(self._skeleton.joints), where)
        labelled = joints[joints[:, 2] > 0, :2]
        box = record.get("bbox") or _box(labelled)
        area = AREA_OF_BOX * box[2] * box[3]
        if self.metric == "coco":
            area = record.get("area") or area
        return {
            "id": number,
            "image_id": self._image(record, where),
            "category_id": CATEGORY["id"],
            "keypoints": joints.ravel().tolist(),
            "num_keypoints": int(record.get("num_keypoints", len(labelled))),
            "bbox": [float(side) for side in box],
            "area": float(area),
            "iscrowd": int(record.get("iscrowd") or 0),
        }

    def _detection(self, number: int, record: Mapping[str, Any]) -> dict[str, Any]:
        joints = np.nan_to_num(self._joints(record["keypoints"], f"detection {number}"))
        box = _box(joints[:, :2])
        return {
            "id": number,
            "image_id": self._image(record, f"detection {number}"),
            "category_id": CATEGORY["id"],
            "keypoints": joints.ravel().tolist(),
            "bbox": box,
            "area": box[2] * box[3],
            "score": float(np.nan_to_num(record["score"])),
        }

    def _joints(self, keypoints: Sequence[float], where: str) -> np.ndarray:
        wanted = 3 * len(self._skeleton.joints)
        if len(keypoints) != wanted:
            raise InputError(
                f"holds {len(keypoints)} keypoint numbers instead of {wanted}", where, "give x, y, v of every joint"
            )
        return np.array(keypoints, np.float64).reshape(-1, 3)

    def _image(self, record: Mapping[str, Any], where: str) -> int:
        if record["image_id"] not in self._number:
            raise InputError(f"is of image {record['image_id']!r}, which the ground truth does not list", where)
        return self._number[record["image_id"]]


def _box(xy: np.ndarray) -> list[float]:
    """x, y, width, height of the box round places (N, 2), as COCO makes it for keypoint results."""
    if not len(xy):
        return [0.0, 0.0, 0.0, 0.0]
    least, most = xy.min(axis=0), xy.max(axis=0)
    return [*least.tolist(), *(most - least).tolist()]


def _run(judge: Any, images: Sequence[int]) -> Score:
    if not images:
        return dict.fromkeys(("AP", "AP50", "AP75", "AR", "AR50", "AR75"))
    judge.params.imgIds = list(images)
    judge.evaluate()
    judge.accumulate()
    score: Score = {}
    for name, values in (("AP", judge.eval["precision"]), ("AR", judge.eval["recall"])):
        every = np.asarray(values)[..., 0, :]  # all areas
        for suffix, threshold in (("", None), ("50", 0.5), ("75", 0.75)):
            of = slice(None) if threshold is None else np.isclose(judge.params.iouThrs, threshold)
            score[name + suffix] = _mean(every[of])
    return score


def _mean(values: np.ndarray) -> float | None:
    """The mean where there was anything to find: the evaluators mark the rest with -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None
