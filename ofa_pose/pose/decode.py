"""From heatmaps and tags to poses: peaks, then grouping by associative embedding.

Associative embedding: Newell, Huang and Deng, 2017; two resolutions and filling: HigherHRNet, Cheng et al., 2020.
Nothing is upsampled to the input's size: peaks are found at half of it and refined below the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ofa_pose.pose.geometry import HIGH_STRIDE
from ofa_pose.pose.peaks import Spots, find_peaks, fuse, place, spots_at, warm_cells

STEP_COST = 100.0  # of a pair of tags that do not fit: no difference of heats outweighs it
TIE_WEIGHT = 1e-3  # of heat times heat, against heat: decides ties only
NEARNESS = 0.2  # heat that a missing joint's place loses for each extent of the person it lies from the person's middle
MIN_EXTENT = 32.0  # input pixels: a person of one joint has no extent of its own
WARM_CELLS = 4096  # a joint, on average, that may hold a missing joint: only a useless net has more


@dataclass(frozen=True)
class DecodeConfig:
    """How poses are read from maps.

    Attributes:
        max_people: at most so many poses an image, the best ones.
        candidates: at most so many peaks a joint, the highest ones.
        threshold: the height above which a peak is a joint. The paper's code takes 0.1; 0.2 loses nothing on good nets
            and gains on weak ones.
        tag_threshold: joints of one person have tags nearer than this.
        recover: look for a person's missing joints by its mean tag.
        recover_floor: heat below this holds no missing joint.
    """

    max_people: int = 30
    candidates: int = 30
    threshold: float = 0.2
    tag_threshold: float = 1.0
    recover: bool = True
    recover_floor: float = 0.05


@dataclass(frozen=True)
class Poses:
    """The people of one image, best first.

    Attributes:
        keypoints: float32 (P, J, 3): x, y in input pixels and the joint's score, its heat. A joint that was not found
            has score 0; its x, y are then a guess for metrics that ask for every joint, or 0, 0.
        scores: float32 (P,): the mean over all J joints of the scores of the joints that were found as peaks.
    """

    keypoints: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def decode(low: np.ndarray, high: np.ndarray, order: Sequence[int], config: DecodeConfig | None = None) -> list[Poses]:
    """The poses of each image of a batch.

    Args:
        low: (B, J + J·T, h, w), J heatmaps, then T blocks of J tag maps (T = 1 without a flip test), at stride 4.
        high: (B, J, 2h, 2w), heatmaps at stride 2.
        order: the joints' indices in the order of grouping, `Skeleton.grouping_order`.
        config: thresholds and limits.
    """
    batch, joints = high.shape[:2]
    if low.ndim != 4 or low.shape[1] % joints or low.shape[1] < 2 * joints:
        raise ValueError(f"low {low.shape} does not hold heatmaps and tags of the {joints} joints of high {high.shape}")
    tags = low[:, joints:].reshape(batch, -1, joints, *low.shape[2:]).swapaxes(1, 2)
    return decode_maps(low[:, :joints], high, tags, order, config)


def decode_maps(
    heat_low: np.ndarray,
    heat_high: np.ndarray,
    tags: np.ndarray,
    order: Sequence[int],
    config: DecodeConfig | None = None,
) -> list[Poses]:
    """`decode` with the maps apart: heat_low (B, J, h, w), heat_high (B, J, 2h, 2w), tags (B, J, T, h, w)."""
    config = config or DecodeConfig()
    batch, joints, height, width = heat_low.shape
    if heat_high.shape != (batch, joints, 2 * height, 2 * width) or tags.shape[:2] != (batch, joints):
        raise ValueError(f"maps do not fit each other: {heat_low.shape}, {heat_high.shape}, {tags.shape}")
    if sorted(order) != list(range(joints)):
        raise ValueError(f"order {tuple(order)} is no order of {joints} joints")
    return [_decode_image(heat_low[b], heat_high[b], tags[b], order, config) for b in range(batch)]


def _decode_image(
    low: np.ndarray, high: np.ndarray, tags: np.ndarray, order: Sequence[int], config: DecodeConfig
) -> Poses:
    """One image's poses from low (J, h, w), high (J, 2h, 2w) and tags (J, T, h, w)."""
    joints = len(low)
    fused, highest = fuse(low, high)
    warm = warm_cells(fused, min(config.recover_floor, config.threshold))
    peaks = find_peaks(fused, highest, warm, tags, config.threshold, config.candidates)
    member, tag_sum = _group(peaks, joints, order, config)
    if not len(member):
        return Poses(np.zeros((0, joints, 3), np.float32), np.zeros(0, np.float32))
    found = member >= 0
    scores = np.where(found, peaks.heat[member], 0.0).mean(axis=1)
    best = np.argsort(-scores, kind="stable")[: config.max_people]
    member, found, tag_sum, scores = member[best], found[best], tag_sum[best], scores[best]
    keypoints = np.zeros((*member.shape, 3), np.float32)
    keypoints[found] = place(fused, peaks)[member[found]]
    if config.recover:
        mean_tag = tag_sum / found.sum(axis=1)[:, None]
        _recover(keypoints, found, mean_tag, fused, warm, tags, config.tag_threshold)
    return Poses(keypoints, scores.astype(np.float32))


def _group(peaks: Spots, joints: int, order: Sequence[int], config: DecodeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Who the peaks belong to, joint by joint: (P, J) index of a person's peak or -1, and (P, T) sums of its tags.

    A joint's peaks go to the people so that the sum of the costs is least. A pair of tags within half the threshold
    costs nothing, so that the higher peak decides between equally good tags; every other pair costs the same, so that
    hopeless pairs do not push good ones apart. Among equal sums the higher peaks go to the people with more heat, or
    the chance of a second peak beside a joint would tear a person in two. A peak without a person within the threshold
    starts a new person.
    """
    member = np.full((0, joints), -1)
    tag_sum = np.zeros((0, peaks.tags.shape[1]))
    strength = np.zeros(0)
    starts = np.searchsorted(peaks.joint, np.arange(joints + 1))
    for joint in order:
        mine = np.arange(starts[joint], starts[joint + 1])
        heat, tag = peaks.heat[mine], peaks.tags[mine]
        fresh = np.ones(len(mine), bool)
        if len(mine) and len(member):
            distance = _distance(tag, tag_sum / (member >= 0).sum(axis=1)[:, None]) / config.tag_threshold
            near = distance < 0.5
            cost = np.where(near, -TIE_WEIGHT * heat[:, None] * strength, STEP_COST) - heat[:, None]
            peak, person = linear_sum_assignment(cost)
            taken = distance[peak, person] < 1
            peak, person = peak[taken], person[taken]
            member[person, joint] = mine[peak]
            tag_sum[person] += tag[peak]
            strength[person] += heat[peak]
            fresh[peak] = False
        added = np.full((int(fresh.sum()), joints), -1)
        added[:, joint] = mine[fresh]
        member = np.concatenate([member, added])
        tag_sum = np.concatenate([tag_sum, tag[fresh]])
        strength = np.concatenate([strength, heat[fresh]])
    return member, tag_sum


def _recover(
    keypoints: np.ndarray,
    found: np.ndarray,
    mean_tag: np.ndarray,
    fused: np.ndarray,
    warm: np.ndarray,
    tags: np.ndarray,
    tag_threshold: float,
) -> None:
    """Fill in place the missing joints of keypoints (P, J, 3) from the warm cells with tags nearest to mean_tag (P, T).

    A cell's worth is its heat less its tag distance in whole thresholds (HigherHRNet), less a little for its distance
    from the person. A cell whose tag is not the person's is only a guess at the place: it gets no score.
    """
    middle, extent = _middle_and_extent(keypoints[..., :2], found)
    most = WARM_CELLS * len(fused)
    if len(warm) > most:
        warm = np.sort(warm[np.argpartition(-fused.ravel()[warm], most)[:most]])
    joint, cell = np.divmod(warm, fused[0].size)
    y, x = np.divmod(cell, fused.shape[2])
    spots = spots_at(joint, x, y, fused.ravel()[warm], tags)
    centre = np.stack([x + 0.5, y + 0.5], axis=1) * HIGH_STRIDE
    starts = np.searchsorted(joint, np.arange(len(fused) + 1))
    chosen = np.full(found.shape, -1)
    guessed = np.zeros(found.shape, bool)
    for j, missing in enumerate(~found.T):
        who, where = np.flatnonzero(missing), slice(starts[j], starts[j + 1])
        if not len(who) or where.start == where.stop:
            continue
        steps = np.round(_distance(mean_tag[who], spots.tags[where]) / tag_threshold)
        away = _distance(middle[who], centre[where]) / extent[who, None]
        best = np.argmax(spots.heat[where] - steps - NEARNESS * away, axis=1)
        chosen[who, j] = best + where.start
        guessed[who, j] = steps[np.arange(len(who)), best] > 0
    filled = chosen >= 0
    keypoints[filled] = place(fused, spots.take(chosen[filled]))
    keypoints[guessed, 2] = 0


def _middle_and_extent(xy: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean place (P, 2) and the longer side (P,) of each person's found joints, of places xy (P, J, 2)."""
    here = found[..., None]
    middle = np.where(here, xy, 0).sum(axis=1) / found.sum(axis=1)[:, None]
    sides = np.where(here, xy, -np.inf).max(axis=1) - np.where(here, xy, np.inf).min(axis=1)
    return middle, np.maximum(sides.max(axis=1), MIN_EXTENT)


def _distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, M) Euclidean distances between rows of left (N, D) and right (M, D)."""
    if left.shape[1] == 1:
        return np.abs(left - right.T)
    return np.sqrt(sum((left[:, None, d] - right[:, d]) ** 2 for d in range(left.shape[1])))
