"""The decoder's settings that suit a network and its training images.

Its thresholds, by the AP on images with known people for each pair of a small grid: how high a network's peaks are and
how far apart it sets people's tags depends on its data and its training, so that a recipe's values can be far from the
best ones. The network sees an image once, the decoder takes its maps for each pair. And how long a person can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ofa_pose.backends.runners import Runner
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.inference.evaluate import Part, read_inputs
from ofa_pose.inference.pose_model import Inputs, with_mirrored
from ofa_pose.pose.decode import DecodeConfig, decode
from ofa_pose.pose.geometry import box_round
from ofa_pose.pose.metrics import Detections, KeypointEvaluator
from ofa_pose.utils.console import progress
from ofa_pose.utils.process import map_ahead

IMAGES = 100
FEWEST = 20  # images with people, below which an AP says too little
THRESHOLDS = (0.67, 1.0, 1.33)  # times the one to start from
TAG_THRESHOLDS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
SURE = 2.0  # standard errors of a difference, below which two pairs are as good as each other
REACH_MARGIN = 1.5  # times the largest person of the training images: others are larger, and augmentation shows them so
WORTH = 0.003  # the least gain in AP for which thresholds are changed


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        config: the decoder's settings to use: those that it started from where no others are surely better.
        start: those that it started from.
        AP, start_AP: of both on the calibration images, the mean without and with the flip test; None where they were
            too few.
        images: how many there were.
    """

    config: DecodeConfig
    start: DecodeConfig
    AP: float | None
    start_AP: float | None
    images: int

    def __str__(self) -> str:
        old, new = (
            f"threshold {c.threshold:g} and tag threshold {c.tag_threshold:g}" for c in (self.start, self.config)
        )
        if self.AP is None or self.start_AP is None:
            return f"decoder: {old} stay: {self.images} training images with people are too few to tell"
        if self.config == self.start:
            return f"decoder: {old} stay: none are surely better on {self.images} training images"
        figures = f"AP {self.start_AP:.4f} to {self.AP:.4f} on {self.images} training images"
        return f"decoder: {new} suit the net better than the recipe's {old}: {figures}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        pairs = {"decode": self.config, "recipe": self.start}
        chosen = {key: {"threshold": c.threshold, "tag_threshold": c.tag_threshold} for key, c in pairs.items()}
        return {**chosen, "AP": self.AP, "recipe_AP": self.start_AP, "images": self.images}


def longest_reach(dataset: KeypointDataset) -> float | None:
    """`DecodeConfig.reach` for networks trained on these images; None where people fill an image, or are too few.

    Where all people are small, as animals filmed from afar, joints that lie far apart are two people's, even where a
    network gives both the same tags because it has never seen them so far from each other.
    """
    counted, longest = 0, 0.0
    for record in dataset.images:
        counted += len(record.keypoints) > 0
        for person in record.keypoints:
            sides = box_round(person[person[:, 2] > 0, :2])[2:]
            longest = max(longest, max(sides) / min(record.width, record.height))
        if REACH_MARGIN * longest >= 1:
            return None
    return round(REACH_MARGIN * longest, 3) if longest and counted >= FEWEST else None


def calibrate(
    runner: Runner, dataset: KeypointDataset, resolution: int, start: DecodeConfig, images: int = IMAGES
) -> Calibration:
    """The threshold and the tag threshold that are best on images of `dataset`, not augmented.

    Of all pairs that are as good as the best one but for noise the nearest to `start` is taken: on training images a
    network's tags are crisper than on others, so that small differences mean nothing.

    Args:
        dataset: the images that the network learnt from, not those on which it is evaluated.
        images: so many of those that hold people at most; a fixed choice, from the whole file.
    """
    chosen = dataset.choose_people(images, "calibrate decoding")
    counted = sum(record.counted > 0 for record in chosen.images)
    if counted < FEWEST:
        return Calibration(start, start, None, None, counted)
    grid = _grid(start)
    truth = chosen.ground_truth
    evaluator = KeypointEvaluator(truth["images"], truth["annotations"], chosen.skeleton, chosen.metric)
    aps, draws = [], []
    for ways in _found(runner, chosen, resolution, grid):
        scores = [evaluator.score_resampled(detections) for detections in ways]
        aps.append(float(np.mean([score["AP"] for score, _ in scores])))
        draws.append(np.mean([drawn for _, drawn in scores], axis=0))
    best = int(np.argmax(aps))
    errors = [float(np.nanstd(draws[best] - drawn)) for drawn in draws]
    good = (n for n, ap in enumerate(aps) if aps[best] - ap <= SURE * errors[n])
    nearest = next(good)  # the grid begins with `start` and goes away from it
    taken = nearest if aps[nearest] - aps[0] >= WORTH else 0
    return Calibration(grid[taken], start, aps[taken], aps[0], counted)


def _grid(start: DecodeConfig) -> list[DecodeConfig]:
    """The pairs, the nearest to `start` first."""
    factors = sorted(product(THRESHOLDS, TAG_THRESHOLDS), key=lambda pair: sum(abs(math.log(each)) for each in pair))
    pairs = ((round(start.threshold * one, 4), round(start.tag_threshold * other, 4)) for one, other in factors)
    return [start, *(replace(start, threshold=one, tag_threshold=other) for one, other in list(pairs)[1:])]


def _found(
    runner: Runner, dataset: KeypointDataset, resolution: int, grid: Sequence[DecodeConfig]
) -> list[list[Detections]]:
    """For each pair who is found without the flip test and, where the skeleton allows it, with it."""
    skeleton = dataset.skeleton

    def work(batch: Inputs) -> list[list[list[Part]]]:
        low, high = runner(batch.images)
        ways = [(low, high)]
        if skeleton.mirror:
            ways.append(with_mirrored(low, high, *runner(batch.images[:, :, ::-1]), skeleton.flip_index))
        order = skeleton.grouping_order
        return [[_parts(batch, low, high, order, config) for low, high in ways] for config in grid]

    parts: list[list[list[Part]]] = [[[] for _ in range(1 + skeleton.mirror)] for _ in grid]
    inputs, streams = read_inputs(dataset, resolution), runner.streams
    with closing(map_ahead(work, inputs, streams, streams + 1)) as done, progress("calibrate", len(dataset)) as meter:
        for batch in done:
            for of_pair, more in zip(parts, batch, strict=True):
                for of_way, added in zip(of_pair, more, strict=True):
                    of_way += added
            meter.step(len(batch[0][0]))
    joints = len(skeleton.joints)
    return [[Detections.join(of_way, joints) for of_way in of_pair] for of_pair in parts]


def _parts(batch: Inputs, low: np.ndarray, high: np.ndarray, order: Sequence[int], config: DecodeConfig) -> list[Part]:
    poses = decode(low, high, order, config)
    placed = zip(batch.ids, batch.frames, poses, strict=True)
    return [(image_id, frame.poses_to_image(found.keypoints), found.scores) for image_id, frame, found in placed]
