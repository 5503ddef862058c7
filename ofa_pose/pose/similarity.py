"""Object keypoint similarity (OKS) of all detections with all people of their images at once, of any set of joints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

CHUNK = 1 << 16  # pairs at a time: their temporaries stay in a processor's cache
LEAST_MATCH = 0.5  # the lowest of the metrics' thresholds


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
