"""People over the frames of a film: numbers that last, by pose and motion, and joints without jitter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ofa_pose.pose.decode import Poses

LOST_S = 1.0  # somebody who is not seen so long is not known any more
LEAST = 0.3  # of the similarity of two poses of one person
SHARP = 0.7  # OKS constants are so many times as wide: poses beside each other are kept apart
GROWTH = 4.0  # and become so many times wider in each second that somebody is not seen
TURN_S = 0.3  # a velocity follows changes in about such a time
CUTOFF_HZ, SPEED_HZ = 1.0, 6.0  # One-Euro: the cutoff at rest, and what a person's extent a second adds to it
SPEED_CUTOFF_HZ = 1.0  # of the speed itself
NOBODY = -1


@dataclass
class _Track:
    """Somebody who was seen: where (J, 3) in image pixels, when, and how fast, in pixels a second."""

    number: int
    keypoints: NDArray[np.float64]
    velocity: NDArray[np.float64]
    time_s: float
    fresh: bool = True

    def at(self, time_s: float) -> NDArray[np.float64]:
        """Where the joints (J, 2) would be by now."""
        return self.keypoints[:, :2] + self.velocity * (time_s - self.time_s)


class Tracker:
    """Numbers people over the frames of one film.

    The people of a frame are assigned to those who were seen before, so that the sum of similarities is the largest
    (scipy's linear_sum_assignment): those of the last frame first, then those who were lost for up to a second. Two
    poses are as similar as their object keypoint similarity, with the first moved on as fast as it went.
    """

    def __init__(self, sigmas: Sequence[float], threshold: float, lost_s: float = LOST_S) -> None:
        """
        Args:
            sigmas: J OKS constants, `Skeleton.sigmas`.
            threshold: the least score of somebody who is followed.
            lost_s: seconds after which somebody who is not seen is forgotten.
        """
        self._variances = (2 * SHARP * np.asarray(sigmas, np.float64)) ** 2
        self._threshold, self._lost_s = threshold, lost_s
        self._tracks: list[_Track] = []
        self.count = 0  # of the numbers that were given
        self._last_s = -math.inf

    def update(self, poses: Poses, time_s: float) -> NDArray[np.int64]:
        """The numbers (P,) of the people of the next frame, from 0; -1 of those below the threshold.

        Args:
            poses: of the frame, in image pixels.
            time_s: of the frame, later than the last one's; a frame that is not begins anew, as after a cut.
        """
        if time_s <= self._last_s:
            self._tracks = []
        found = np.asarray(poses.keypoints, np.float64)
        numbers = np.full(len(poses), NOBODY, np.int64)
        free = [int(place) for place in np.flatnonzero(poses.scores >= self._threshold)]
        self._tracks = [track for track in self._tracks if time_s - track.time_s <= self._lost_s]
        seen = [track for track in self._tracks if track.time_s == self._last_s]
        lost = [track for track in self._tracks if track.time_s != self._last_s]
        for tracks in (seen, lost):
            for track, place in self._assigned(tracks, found, free, time_s):
                numbers[place] = track.number
                free.remove(place)
                self._move(track, found[place], time_s)
        for place in free:
            numbers[place] = self.count
            self._tracks.append(_Track(self.count, found[place], np.zeros(2), time_s))
            self.count += 1
        self._last_s = time_s
        return numbers

    def _assigned(
        self, tracks: Sequence[_Track], found: NDArray[np.float64], free: Sequence[int], time_s: float
    ) -> list[tuple[_Track, int]]:
        if not tracks or not free:
            return []
        likeness = np.array([[self._likeness(track, found[place], time_s) for place in free] for track in tracks])
        rows, columns = linear_sum_assignment(np.where(likeness >= LEAST, likeness, 0.0), maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(tracks[row], free[column]) for row, column in pairs if likeness[row, column] >= LEAST]

    def _likeness(self, track: _Track, person: NDArray[np.float64], time_s: float) -> float:
        """The similarity, 0 to 1, of where somebody would be by now with a person; 0 where they share no joint."""
        both = (track.keypoints[:, 2] > 0) & (person[:, 2] > 0)
        if not both.any():
            return 0.0
        squared = ((track.at(time_s)[both] - person[both, :2]) ** 2).sum(1)
        wider = 1 + GROWTH * (time_s - track.time_s)
        area = max(extent(track.keypoints), extent(person)) ** 2
        return float(np.exp(-squared / (2 * area * self._variances[both] * wider**2)).mean())

    def _move(self, track: _Track, person: NDArray[np.float64], time_s: float) -> None:
        both = (track.keypoints[:, 2] > 0) & (person[:, 2] > 0)
        speed = (person[both, :2] - track.keypoints[both, :2]).mean(0) / (time_s - track.time_s)
        share = 1 if track.fresh else 1 - math.exp(-(time_s - track.time_s) / TURN_S)
        track.velocity = track.velocity + share * (speed - track.velocity)
        track.fresh = False
        track.keypoints, track.time_s = person, time_s


class Smoother:
    """Takes the jitter off joints by the One-Euro filter (Casiez et al., CHI 2012).

    A slow joint is smoothed much, a fast one little. Speeds count in people's extents a second, so that near and far
    people are smoothed alike.
    """

    def __init__(self) -> None:
        self._joints: dict[int, _Joints] = {}

    def update(self, poses: Poses, time_s: float) -> Poses:
        """The people of the next frame, smoothed; those without a number, and joints not seen before, as they are."""
        assert poses.ids is not None
        keypoints = np.array(poses.keypoints)
        for place, number in enumerate(poses.ids.tolist()):
            if number == NOBODY:
                continue
            before = self._joints.get(number)
            if before is None or not 0 < time_s - before.time_s <= LOST_S:
                before = _Joints(np.zeros((keypoints.shape[1], 2)), np.zeros((keypoints.shape[1], 2)), None, time_s)
            self._joints[number] = before.moved(keypoints[place].astype(np.float64), time_s)
            keypoints[place, :, :2] = self._joints[number].xy
        return replace(poses, keypoints=keypoints)


@dataclass(frozen=True)
class _Joints:
    """The filter's state of one person: places and velocities (J, 2), and which joints (J,) were seen (None: none)."""

    xy: NDArray[np.float64]
    velocity: NDArray[np.float64]
    seen: NDArray[np.bool_] | None
    time_s: float

    def moved(self, person: NDArray[np.float64], time_s: float) -> _Joints:
        """The state after the next keypoints (J, 3)."""
        now = person[:, 2] > 0
        known = now & self.seen if self.seen is not None else np.zeros_like(now)
        step, size = time_s - self.time_s, max(extent(person), 1.0)
        xy, velocity = person[:, :2].copy(), np.zeros_like(self.velocity)
        if known.any():
            raw = (person[known, :2] - self.xy[known]) / step
            velocity[known] = self.velocity[known] + _share(SPEED_CUTOFF_HZ, step) * (raw - self.velocity[known])
            speed = np.linalg.norm(velocity[known], axis=1, keepdims=True) / size
            xy[known] = self.xy[known] + _share(CUTOFF_HZ + SPEED_HZ * speed, step) * (xy[known] - self.xy[known])
        return _Joints(xy, velocity, now, time_s)


def extent(person: NDArray[np.float64]) -> float:
    """The longer side of the box round the joints (J, 3) that were seen, in pixels; at least 1."""
    seen = person[person[:, 2] > 0, :2]
    return max(float(np.ptp(seen, axis=0).max()), 1.0) if len(seen) else 1.0


def _share(cutoff_hz: float | NDArray[np.float64], step_s: float) -> float | NDArray[np.float64]:
    """What a low-pass filter of this cutoff takes of a new value."""
    return 1 / (1 + 1 / (2 * math.pi * np.asarray(cutoff_hz) * step_s))
