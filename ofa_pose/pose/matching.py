"""AP and AR from similarities: faster-coco-eval's matching and summing up, over OKS computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO as Index
from faster_coco_eval import COCOeval_faster

from ofa_pose.pose.similarity import Found, Pairs, People

Score = dict[str, float | None]
CATEGORY = 1


class Judge:
    """Scores one set of detections against the people on `images` images, whose numbers are 0, 1, …

    Args:
        people, found: in the order of their images' numbers.
        sigmas: of the J joints.
        images: how many.
    """

    def __init__(self, people: People, found: Found, sigmas: Sequence[float], images: int) -> None:
        self._people, self._images = people, images
        self._pairs = Pairs(people, found, sigmas, images)
        self._found = self._index(
            {"id": n, "image_id": image, "category_id": CATEGORY, "score": score, "area": area}
            for n, (image, score, area) in enumerate(_rows(found.image, found.score, found.area), start=1)
        )

    def run(
        self, areas: Sequence[tuple[float, float]], images: Sequence[int] | None = None, joint: int | None = None
    ) -> list[Score]:
        """AP, AP50, AP75, AR, AR50, AR75 within each of some ranges of areas.

        Args:
            areas: (least, most) in square pixels; people, and wrong detections, outside of it are ignored.
            images: the numbers of the images that count; all by default.
            joint: the only joint that counts; people without it are ignored. All joints by default.

        Returns:
            A score for each range; its figures are None where it holds no people to find.
        """
        numbers = range(self._images) if images is None else images
        if not numbers:
            return [_score(None, 0) for _ in areas]
        wanted = self._people.wanted if joint is None else self._people.wanted & self._people.labelled[:, joint]
        similarity = self._pairs.whole if joint is None else self._pairs.alone(joint)
        evaluation = _Evaluation(self._truth(wanted), self._found, list(self._pairs.split(similarity)))
        evaluation.params.imgIds, evaluation.params.catIds = list(numbers), [CATEGORY]
        evaluation.params.areaRng = [list(area) for area in areas]
        evaluation.evaluate()
        return [_score(evaluation, index) for index in range(len(areas))]

    def _truth(self, wanted: np.ndarray) -> Index:
        people = self._people
        rows = _rows(people.image, people.area, people.crowd, wanted)
        return self._index(
            {
                "id": n,
                "image_id": image,
                "category_id": CATEGORY,
                "area": area,
                "iscrowd": int(crowd),
                "num_keypoints": int(counts),  # nobody asks but whether it is 0
            }
            for n, (image, area, crowd, counts) in enumerate(rows, start=1)
        )

    def _index(self, records: Any) -> Index:
        index = Index()
        index.dataset = {
            "images": [{"id": number} for number in range(self._images)],
            "annotations": list(records),
            "categories": [{"id": CATEGORY, "name": "person"}],
        }
        index.createIndex()
        return index


class _Evaluation(COCOeval_faster):
    """The evaluation of similarities (detections, people) that are there already, one array an image."""

    def __init__(self, truth: Index, found: Index, similarity: Sequence[np.ndarray]) -> None:
        super().__init__(truth, found, "keypoints")
        self._similarity = similarity

    def computeOks(self, imgId: int, catId: int) -> np.ndarray:
        return self._similarity[imgId]


def _rows(*columns: np.ndarray) -> Any:
    return zip(*(column.tolist() for column in columns), strict=True)


def _score(evaluation: _Evaluation | None, area: int) -> Score:
    score: Score = {}
    for name, key in (("AP", "precision"), ("AR", "recall")):
        for suffix, threshold in (("", None), ("50", 0.5), ("75", 0.75)):
            if evaluation is None:
                score[name + suffix] = None
                continue
            values = np.asarray(evaluation.eval[key])[..., area, :]
            of = slice(None) if threshold is None else np.isclose(evaluation.params.iouThrs, threshold)
            known = values[of][values[of] > -1]  # -1: nobody to find
            score[name + suffix] = float(known.mean()) if known.size else None
    return score
