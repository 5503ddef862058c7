"""Object keypoint similarity (OKS) of all detections with all people of their images at once, and AP and AR from it.

The similarities are of any set of joints; matching and summing up are faster-coco-eval's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from faster_coco_eval import COCO as Index
from faster_coco_eval import COCOeval_faster

CHUNK = 1 << 16  # pairs at a time: their temporaries stay in a processor's cache
LEAST_MATCH = 0.5  # the lowest of the metrics' thresholds
CATEGORY = 1
Score = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class People:
    """The labelled people of a ground truth, in the order of their images' numbers (0, 1, …).

    Attributes:
        image: (N,) image number.
        xy: (N, J, 2) in image pixels; labelled: (N, J) bool.
        box: (N, 4) x, y, width, height in image pixels; area: (N,) in square pixels, for similarity and sizes.
        wanted: (N,) bool, neither a crowd nor without joints; crowd: (N,) bool.
    """

    image: np.ndarray
    xy: np.ndarray
    labelled: np.ndarray
    box: np.ndarray
    area: np.ndarray
    wanted: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in the order of their images' numbers and, on an image, from the best to the worst.

    Attributes:
        image: (M,) image number; xy: (M, J, 2) in image pixels; score: (M,).
        area: (M,) of the box round all joints, in square pixels: it says of which size a wrong detection is.
    """

    image: np.ndarray
    xy: np.ndarray
    score: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


class Pairs:
    """Every detection with every person of its image."""

    def __init__(self, people: People, found: Found, sigmas: Sequence[float], images: int) -> None:
        self._people, self._found = people, found
        self._variances = (2 * np.asarray(sigmas, np.float64)) ** 2
        first_person, first_found = (np.searchsorted(part.image, np.arange(images + 1)) for part in (people, found))
        self._people_on, self._found_on = np.diff(first_person), np.diff(first_found)
        counts = self._people_on * self._found_on
        self._ends = np.cumsum(counts)
        image = np.repeat(np.arange(images), counts)
        place = np.arange(len(image)) - np.repeat(self._ends - counts, counts)
        detection, person = np.divmod(place, self._people_on[image])
        self._detection, self._person = detection + first_found[image], person + first_person[image]

    def split(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """Values of all pairs, image by image: (detections, people)."""
        for part, *shape in zip(np.split(values, self._ends[:-1]), self._found_on, self._people_on, strict=True):
            yield part.reshape(shape)

    @cached_property
    def whole(self) -> np.ndarray:
        """The OKS of each pair, over all joints."""
        return self._similarity(range(len(self._variances)))

    def alone(self, joint: int) -> np.ndarray:
        """The OKS of each pair if this were the only joint.

        A detection that is, as a whole, one of a person without this joint is on that person wherever it has the joint:
        nobody knows the right place.
        """
        without = ~self._people.labelled[self._person, joint]
        return np.where(without & (self.whole >= LEAST_MATCH), 1.0, self._similarity([joint]))

    def _similarity(self, joints: Sequence[int]) -> np.ndarray:
        """The OKS of each pair, counting these joints only.

        As in COCO's evaluation, a detection's joints are compared with the labelled ones of the person; with a person
        that has none of them labelled, by how far they lie outside its box, doubled.
        """
        people, found = self._people, self._found
        corner, sides = people.box[:, :2], people.box[:, 2:]
        labelled = people.labelled[:, joints]
        bare = np.logical_not(labelled.any(axis=1))
        counted = labelled | bare[:, None]
        scale = people.area + np.spacing(1)
        total = np.zeros(len(self._person))
        with np.errstate(over="ignore"):  # whatever lies too far to be squared has no similarity
            for joint, counts in zip(joints, counted.T, strict=True):
                least = np.where(bare[:, None], corner - sides, people.xy[:, joint])
                most = np.where(bare[:, None], corner + 2 * sides, people.xy[:, joint])
                for start in range(0, len(total), CHUNK):
                    part = slice(start, start + CHUNK)
                    person, xy = self._person[part], found.xy[self._detection[part], joint]
                    away = np.maximum(least[person] - xy, 0) + np.maximum(xy - most[person], 0)
                    error = (away[:, 0] ** 2 + away[:, 1] ** 2) / self._variances[joint] / scale[person] / 2
                    total[part] += np.exp(-error) * counts[person]
        return total / counted.sum(axis=1)[self._person]


class Scorer:
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
            {"id": n, "image_id": image, "category_id": CATEGORY, "area": area, "iscrowd": int(crowd)}
            | {"num_keypoints": int(counts)}  # only whether it is 0 matters
            for n, (image, area, crowd, counts) in enumerate(rows, start=1)
        )

    def _index(self, records: Iterable[Mapping[str, Any]]) -> Index:
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
