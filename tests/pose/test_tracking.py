"""People over films of known motion: who is who, and joints without jitter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ofa_pose.pose.decode import Poses
from ofa_pose.pose.tracking import NOBODY, Smoother, Tracker
from ofa_pose.skeleton import BUILT_IN

SIGMAS = BUILT_IN["coco"].sigmas
# Somebody upright, 1 high: x and y from the middle, in COCO's order of joints.
UPRIGHT = np.array(
    [(0, -0.45), (0.03, -0.47), (-0.03, -0.47), (0.06, -0.45), (-0.06, -0.45)]
    + [(0.12, -0.32), (-0.12, -0.32), (0.16, -0.15), (-0.16, -0.15), (0.17, 0.0), (-0.17, 0.0)]
    + [(0.08, 0.02), (-0.08, 0.02), (0.09, 0.27), (-0.09, 0.27), (0.09, 0.5), (-0.09, 0.5)]
)
SWINGS = ((9, 14, 16), (10, 13, 15))  # joints that swing together as somebody walks


@dataclass(frozen=True)
class Frame:
    """A film's frame as a network would give it: who is where, in an order that says nothing."""

    time_s: float
    poses: Poses
    people: tuple[int, ...]
    truth: np.ndarray  # (P, 17, 2)


def film(
    seed: int, seconds: float, fps: float, crossing: bool, people: int = 4, noise: float = 0.02, gap_s: float = 0.9
) -> Iterator[Frame]:
    """People who walk about, beside each other or across; each is lost once for `gap_s`, and now and then for a frame.

    Args:
        noise: of a joint's place, as a share of the person's height.
    """
    rng = np.random.default_rng(seed)
    height, phase, pace = rng.uniform(80, 200, people), rng.uniform(0, 2 * np.pi, people), rng.uniform(0.2, 0.6, people)
    away = rng.uniform(0, seconds, people)
    for number in range(round(seconds * fps)):
        time_s = number / fps
        across = np.stack([400 + 300 * np.sin(phase + pace * time_s), 300 + 20.0 * np.arange(people)], 1)
        beside = np.stack(
            [
                150 + 260.0 * np.arange(people) + 60 * np.sin(phase + 2 * pace * time_s),
                300 + 30 * np.cos(phase + time_s),
            ],
            1,
        )
        middles = across if crossing else beside
        seen = [p for p in range(people) if not away[p] <= time_s < away[p] + gap_s and rng.random() > 0.03]
        seen = [int(p) for p in rng.permutation(seen)]
        truth, keypoints = np.zeros((len(seen), 17, 2)), np.zeros((len(seen), 17, 3), np.float32)
        for place, person in enumerate(seen):
            shape, swing = UPRIGHT.copy(), 0.12 * np.sin(2 * np.pi * 1.2 * time_s + phase[person])
            for joints, sign in zip(SWINGS, (1, -1), strict=True):
                shape[list(joints), 0] += sign * swing
            truth[place] = shape * height[person] + middles[person]
            keypoints[place, :, :2] = truth[place] + rng.normal(0, noise * height[person], (17, 2))
            keypoints[place, :, 2] = rng.uniform(0.3, 0.9, 17) * (rng.random(17) > 0.05)
        yield Frame(time_s, Poses(keypoints, np.full(len(seen), 0.5, np.float32)), tuple(seen), truth)


def switches(frames: Iterator[Frame]) -> tuple[int, int]:
    """How often somebody's number changed, and how many numbers there were."""
    tracker, known, changed = Tracker(SIGMAS, 0.2), dict[int, int](), 0
    for frame in frames:
        for person, number in zip(frame.people, tracker.update(frame.poses, frame.time_s).tolist(), strict=True):
            changed += known.get(person, number) != number
            known[person] = number
    return changed, tracker.count


@pytest.mark.parametrize("fps", [10, *(pytest.param(fps, marks=pytest.mark.slow) for fps in (25, 30))])
@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_people_beside_each_other_keep_their_numbers(fps: float, noise: float) -> None:
    for seed in range(3):
        assert switches(film(seed, 40, fps, crossing=False, noise=noise)) == (0, 4)


@pytest.mark.parametrize("fps", [10, pytest.param(25, marks=pytest.mark.slow)])
def test_people_who_cross_change_numbers_once_a_minute_at_most(fps: float) -> None:
    found = [switches(film(seed, 60, fps, crossing=True))[0] for seed in range(4)]
    assert sum(found) <= len(found)


def test_somebody_who_is_away_for_long_is_somebody_new() -> None:
    assert switches(film(0, 40, 25, crossing=False, gap_s=1.5))[1] > 4


def test_a_frame_says_who_is_not_followed() -> None:
    (frame,) = film(0, 1, 1, crossing=False, people=3)
    scores = np.array([0.9, 0.1, 0.3][: len(frame.poses)], np.float32)
    numbers = Tracker(SIGMAS, 0.2).update(replace(frame.poses, scores=scores), 0.0)
    assert (numbers[scores < 0.2] == NOBODY).all() and sorted(numbers[scores >= 0.2]) == [0, 1]


def test_a_frame_without_people_and_a_film_that_begins_anew() -> None:
    tracker, (first, *_) = Tracker(SIGMAS, 0.2), film(0, 1, 10, crossing=False)
    nobody = Poses(np.zeros((0, 17, 3), np.float32), np.zeros(0, np.float32))
    assert tracker.update(nobody, 0.0).shape == (0,)
    assert tracker.update(first.poses, 0.1).tolist() == list(range(len(first.poses)))
    assert tracker.update(nobody, 0.2).shape == (0,)
    assert tracker.update(first.poses, 0.3).tolist() == list(range(len(first.poses)))
    assert min(tracker.update(first.poses, 0.3)) == len(first.poses)  # no later than the last one: another film
    unseen = replace(first.poses, keypoints=first.poses.keypoints * [1, 1, 0])
    assert tracker.update(unseen, 0.4).min() >= 2 * len(first.poses) - 1


@pytest.mark.parametrize("fps", [15, 30])
def test_smoothing_takes_a_third_off_the_jitter_for_a_pixel_at_most(fps: float) -> None:
    tracker, smoother = Tracker(SIGMAS, 0.2), Smoother()
    raw: dict[int, list[np.ndarray]] = {}
    smooth: dict[int, list[np.ndarray]] = {}
    for frame in film(5, 20, fps, crossing=False, gap_s=0, noise=0.015):
        poses = replace(frame.poses, ids=tracker.update(frame.poses, frame.time_s))
        done = smoother.update(poses, frame.time_s)
        assert np.array_equal(done.keypoints[..., 2], poses.keypoints[..., 2])
        for place, person in enumerate(frame.people):
            raw.setdefault(person, []).append(poses.keypoints[place, :, :2] - frame.truth[place])
            smooth.setdefault(person, []).append(done.keypoints[place, :, :2] - frame.truth[place])

    def jitter(errors: dict[int, list[np.ndarray]]) -> float:
        return float(np.mean([np.square(np.diff(one, axis=0)).mean() for one in errors.values()]) ** 0.5)

    def error(errors: dict[int, list[np.ndarray]]) -> float:
        return float(np.mean([np.linalg.norm(one, axis=-1).mean() for one in errors.values()]))

    assert jitter(smooth) < 0.7 * jitter(raw)
    assert error(smooth) < error(raw) + 1


def test_smoothing_leaves_what_it_does_not_know() -> None:
    (frame,) = film(1, 1, 1, crossing=False, people=2)
    poses = replace(frame.poses, ids=np.array([3, NOBODY][: len(frame.poses)]))
    smoother = Smoother()
    for time_s in (0.0, 5.0):  # the first time, and after so long that nothing is known any more
        assert np.array_equal(smoother.update(poses, time_s).keypoints, poses.keypoints)
