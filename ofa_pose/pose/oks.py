"""Object keypoint similarity (OKS) of all detections with all people of their images at once, and AP and AR from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from faster_coco_eval import COCO as Index
from faster_coco_eval import COCOeval_faster

from ofa_pose.pose.bootstrap import THRESHOLDS, Matches, assign

CHUNK = 1 << 16  # pairs at a time: their temporaries stay in a processor's cache
LEAST_MATCH = 0.5  # the lowest of the metrics' thresholds
CATEGORY = 1
Score = dict[str, float | None]
FIGURES = {  # name -> what is averaged, and at which threshold; None: at all of them
    f"{name}{suffix}": (key, threshold)
    for name, key in (("AP", "precision"), ("AR", "recall"))
    for suffix, threshold in (("", None), ("50", 0.5), ("75", 0.75))
}


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


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in the order of their images' numbers and, on an image, from the best to the worst.

    Arrays are (M,), xy (M, J, 2) in image pixels, predicted (M, J): the joints that are there. The area of the box
    round all joints is the size of a wrong one.
    """

    image: np.ndarray
    xy: np.ndarray
    score: np.ndarray
    area: np.ndarray
    predicted: np.ndarray


class Scorer:
    """Scores detections against people, both in the order of their images, numbers 0 to `images` - 1."""

    def __init__(self, people: People, found: Found, sigmas: Sequence[float], images: int) -> None:
        self._people, self._found, self._images = people, found, images
        self._detections = self._index(image_id=found.image, score=found.score, area=found.area)
        self._variances = (2 * np.asarray(sigmas, np.float64)) ** 2
        # Every detection is paired with every person of its image.
        first_found, first_person = (np.searchsorted(part.image, np.arange(images + 1)) for part in (found, people))
        self._shapes = np.stack([np.diff(first_found), np.diff(first_person)], axis=1)
        counts = self._shapes.prod(axis=1)
        self._ends = np.cumsum(counts)
        image = np.repeat(np.arange(images), counts)
        place = np.arange(len(image)) - np.repeat(self._ends - counts, counts)
        detection, person = np.divmod(place, self._shapes[image, 1])
        self._detection, self._person = detection + first_found[image], person + first_person[image]

    def run(
        self, areas: Sequence[tuple[float, float]], images: Sequence[int] | None = None, joint: int | None = None
    ) -> list[Score]:
        """AP, AP50, AP75, AR, AR50, AR75 within each range of areas; None where it holds no people to find.

        Args:
            areas: (least, most) in square pixels; people, and wrong detections, outside of it are ignored.
            images: the numbers of the images that count; all by default.
            joint: the only joint that counts; people without it are ignored. All joints by default.
        """
        numbers = range(self._images) if images is None else images
        if not numbers:
            return [dict.fromkeys(FIGURES) for _ in areas]
        people, similarity, wanted = self._people, self._whole, self._people.wanted
        if joint is not None:
            similarity, wanted = self._alone(joint), wanted & people.labelled[:, joint]
        parts = zip(np.split(similarity, self._ends[:-1]), self._shapes, strict=True)
        # of num_keypoints only whether it is 0 matters
        columns = {"image_id": people.image, "area": people.area, "iscrowd": people.crowd, "num_keypoints": wanted}
        truth = self._index(**columns)
        evaluation = _Evaluation(truth, self._detections, [part.reshape(shape) for part, shape in parts])
        evaluation.params.imgIds, evaluation.params.catIds = list(numbers), [CATEGORY]
        evaluation.params.areaRng = [list(area) for area in areas]
        evaluation.evaluate()
        return [evaluation.score(index) for index in range(len(areas))]

    def matches(self, area: tuple[float, float]) -> Matches:
        """What each detection is within a range of areas, as `run` takes it for the AP, for the resampling of images.

        Args:
            area: (least, most) in square pixels.
        """
        people, found, (least, most) = self._people, self._found, area
        wanted = people.wanted & (people.area >= least) & (people.area <= most)
        matched = self._matched(wanted, THRESHOLDS)
        right = np.zeros(matched.shape, bool)
        right[matched >= 0] = wanted[matched[matched >= 0]]
        outside = (found.area < least) | (found.area > most)
        ignored = np.where(matched >= 0, ~right, outside[:, None])
        count = np.bincount(people.image[wanted], minlength=self._images)
        return Matches(found.image, found.score, right, ignored, count)

    def swaps(self, joint: int, opposite: int) -> tuple[int, int]:
        """How many of a joint's predictions lie nearer to the true place of its opposite than to its own.

        Detections are matched with people at OKS 0.5. Of those people count the ones who have both joints labelled, so
        far apart that the metric tells them apart: a joint at its opposite's place has a similarity below 0.5.

        Returns:
            How many are swapped, and of how many.
        """
        people, found = self._people, self._found
        matched = self._matched(people.wanted, THRESHOLDS[:1])[:, 0]
        detection = np.flatnonzero(matched >= 0)
        detection = detection[people.wanted[matched[detection]]]
        person = matched[detection]
        own, other, place = people.xy[person, joint], people.xy[person, opposite], found.xy[detection, joint]
        with np.errstate(over="ignore"):  # whatever lies too far to be squared is as far from both
            apart, error, swapped = (
                ((a - b) ** 2).sum(axis=1) for a, b in ((own, other), (place, own), (place, other))
            )
            scale = 2 * self._variances[joint] * (people.area[person] + np.spacing(1))
            compared = people.labelled[person][:, [joint, opposite]].all(axis=1) & found.predicted[detection, joint]
            compared &= np.exp(-apart / scale) < LEAST_MATCH
        return int((compared & (swapped < error)).sum()), int(compared.sum())

    def _matched(self, wanted: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Whom each detection is matched with, see `assign`."""
        people, found = self._people, self._found
        rank = np.arange(len(found.image)) - np.searchsorted(found.image, found.image)
        return assign(self._detection, self._person, self._whole, rank, wanted, people.crowd, thresholds)

    @cached_property
    def _whole(self) -> np.ndarray:
        """The OKS of each pair, over all joints."""
        return self._similarity(range(len(self._variances)))

    def _alone(self, joint: int) -> np.ndarray:
        """The OKS of each pair if this were the only joint; 1 for whole detections of people without it."""
        without = ~self._people.labelled[self._person, joint]
        return np.where(without & (self._whole >= LEAST_MATCH), 1.0, self._similarity([joint]))

    def _similarity(self, joints: Sequence[int]) -> np.ndarray:
        """The OKS of each pair by these joints; where none is labelled, by how far outside the doubled box they lie."""
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

    def _index(self, **columns: np.ndarray) -> Index:
        """An index of annotations with these values, one a row."""
        count = len(columns["image_id"])
        columns |= {"id": np.arange(1, count + 1), "category_id": np.full(count, CATEGORY)}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        index = Index()
        index.dataset = {
            "images": [{"id": number} for number in range(self._images)],
            "annotations": [dict(zip(columns, row, strict=True)) for row in rows],
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

    def score(self, area: int) -> Score:
        """The figures within one range of areas."""
        score: Score = {}
        for name, (key, threshold) in FIGURES.items():
            values = np.asarray(self.eval[key])[..., area, :]
            of = slice(None) if threshold is None else np.isclose(self.params.iouThrs, threshold)
            known = values[of][values[of] > -1]  # -1: nobody to find
            score[name] = float(known.mean()) if known.size else None
        return score
