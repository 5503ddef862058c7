"""From heatmaps and tags to poses: peaks, then grouping by associative embedding.

Associative embedding: Newell, Huang and Deng, 2017. Two resolutions, filling from tags: HigherHRNet, Cheng et al., 2020.
Nothing is upsampled to the input's size: peaks are found at half of it and refined below the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ofa_pose.pose.geometry import HIGH_STRIDE

PEAK_WINDOW = np.ones((5, 5), np.uint8)
NEARNESS = 0.1  # heat that a missing joint's place loses for each extent of the person it lies from the person's middle
MIN_EXTENT = 32.0  # input pixels: a person of one joint has no extent of its own
WARM_CELLS = 4096  # cells a joint that may hold a missing joint: more only where a net says "everywhere"


@dataclass(frozen=True)
class DecodeConfig:
    """How poses are read from maps.

    Attributes:
        max_people: at most so many poses an image, the best ones.
        candidates: at most so many peaks a joint, the highest ones.
        threshold: the height above which a peak is a joint.
        tag_threshold: joints of one person have tags nearer than this.
        recover: look for a person's missing joints by its mean tag.
        recover_floor: heat below this holds no missing joint.
    """

    max_people: int = 30
    candidates: int = 30
    threshold: float = 0.1
    tag_threshold: float = 1.0
    recover: bool = True
    recover_floor: float = 0.05


@dataclass(frozen=True)
class Poses:
    """The people of one image, best first.

    Attributes:
        keypoints: float32 (P, J, 3): x, y in input pixels and the joint's score; a missing joint is all zeros.
        scores: float32 (P,): the mean over all J joints of the scores of the joints that were found as peaks.
    """

    keypoints: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class _Spots:
    """Places on one image's fused map, sorted by joint: joint (N,), x and y cell (N,), heat (N,), tags (N, T)."""

    joint: np.ndarray
    x: np.ndarray
    y: np.ndarray
    heat: np.ndarray
    tags: np.ndarray


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
    fused, highest = _fuse(low, high)
    joints = len(fused)
    peaks = _peaks(fused, highest, tags, config)
    member, tag_sum = _group(peaks, joints, order, config)
    if not len(member):
        return Poses(np.zeros((0, joints, 3), np.float32), np.zeros(0, np.float32))
    found = member >= 0
    heat = np.where(found, peaks.heat[member], 0.0)
    scores = heat.mean(axis=1)
    best = np.argsort(-scores, kind="stable")[: config.max_people]
    member, found, scores = member[best], found[best], scores[best]
    keypoints = np.zeros((*member.shape, 3), np.float32)
    keypoints[found] = _place(fused, peaks)[member[found]]
    if config.recover:
        _recover(keypoints, found, tag_sum[best] / found.sum(axis=1)[:, None], fused, tags, config)
    return Poses(keypoints, scores.astype(np.float32))


def _fuse(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of both heatmaps at stride 2, and each cell's maximum over 5 × 5 cells; both float32 (J, 2h, 2w)."""
    fused = np.empty(high.shape, np.float32)
    highest = np.empty_like(fused)
    size = (high.shape[2], high.shape[1])
    for coarse, fine, mean, window in zip(low, high, fused, highest, strict=True):
        upsampled = cv2.resize(np.ascontiguousarray(coarse, np.float32), size, interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(upsampled, 0.5, np.ascontiguousarray(fine, np.float32), 0.5, 0, dst=mean)
        cv2.dilate(mean, PEAK_WINDOW, dst=window)
    return fused, highest


def _peaks(fused: np.ndarray, highest: np.ndarray, tags: np.ndarray, config: DecodeConfig) -> _Spots:
    """The highest local maxima above the threshold, at most `candidates` a joint, by joint and falling heat."""
    where = np.flatnonzero((fused == highest) & (fused > config.threshold))
    heat = fused.ravel()[where]
    joint, cell = np.divmod(where, fused[0].size)
    rank = np.lexsort((-heat, joint))
    heat, joint, cell = heat[rank], joint[rank], cell[rank]
    first = np.searchsorted(joint, np.arange(len(fused)))
    keep = np.arange(len(joint)) - first[joint] < config.candidates
    heat, joint, cell = heat[keep], joint[keep], cell[keep]
    y, x = np.divmod(cell, fused.shape[2])
    keep = ~_doubled(joint, x, y, heat)
    joint, x, y, heat = joint[keep], x[keep], y[keep], heat[keep]
    return _Spots(joint, x, y, heat, _tags_at(tags, joint, x, y))


def _doubled(joint: np.ndarray, x: np.ndarray, y: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Which sorted peaks lie on one plateau with an earlier one: coarse number formats make equal neighbours."""
    doubled = np.zeros(len(joint), bool)
    again = 1 + np.flatnonzero((joint[1:] == joint[:-1]) & (heat[1:] == heat[:-1]))
    if len(again):
        reach = PEAK_WINDOW.shape[0] // 2
        near = (abs(x[again, None] - x) <= reach) & (abs(y[again, None] - y) <= reach)
        same = (joint[again, None] == joint) & (heat[again, None] == heat)
        doubled[again] = (near & same & (np.arange(len(joint)) < again[:, None])).any(axis=1)
    return doubled


def _group(peaks: _Spots, joints: int, order: Sequence[int], config: DecodeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Who the peaks belong to, joint by joint: (P, J) index of a person's peak or -1, and (P, T) sums of its tags.

    A joint's peaks go to the people so that the sum of the costs is least. A pair of tags within half the threshold
    costs nothing, so that the higher peak decides between equally good tags; every other pair costs the same, so that
    hopeless pairs do not push good ones apart. A peak without a person within the threshold starts a new person.
    """
    member = np.full((0, joints), -1)
    tag_sum = np.zeros((0, peaks.tags.shape[1]))
    starts = np.searchsorted(peaks.joint, np.arange(joints + 1))
    for joint in order:
        mine = np.arange(starts[joint], starts[joint + 1])
        fresh = np.ones(len(mine), bool)
        if len(mine) and len(member):
            mean = tag_sum / (member >= 0).sum(axis=1)[:, None]
            distance = np.linalg.norm(peaks.tags[mine, None] - mean, axis=2)
            steps = np.round(np.minimum(distance / config.tag_threshold, 1))
            peak, person = linear_sum_assignment(steps * 100 - peaks.heat[mine, None])
            near = distance[peak, person] < config.tag_threshold
            peak, person = peak[near], person[near]
            member[person, joint] = mine[peak]
            tag_sum[person] += peaks.tags[mine[peak]]
            fresh[peak] = False
        added = np.full((int(fresh.sum()), joints), -1)
        added[:, joint] = mine[fresh]
        member = np.concatenate([member, added])
        tag_sum = np.concatenate([tag_sum, peaks.tags[mine[fresh]]])
    return member, tag_sum


def _place(fused: np.ndarray, spots: _Spots) -> np.ndarray:
    """Spots as (N, 3) x, y in input pixels and heat, refined below the cell.

    Along each axis the vertex of the parabola through the logarithms of three cells: exact for a Gaussian.
    """
    _, height, width = fused.shape

    def log_heat(dx: int, dy: int) -> np.ndarray:
        x, y = np.clip(spots.x + dx, 0, width - 1), np.clip(spots.y + dy, 0, height - 1)
        return np.log(np.maximum(fused[spots.joint, y, x], 1e-3, dtype=np.float64))

    centre = log_heat(0, 0)
    placed = np.empty((len(centre), 3))
    for axis, cell in enumerate((spots.x, spots.y)):
        before, after = log_heat(axis - 1, -axis), log_heat(1 - axis, axis)
        bend = np.minimum(before + after - 2 * centre, -1e-9)
        placed[:, axis] = cell + 0.5 + np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    placed[:, :2] *= HIGH_STRIDE
    placed[:, 2] = spots.heat
    return placed


def _recover(
    keypoints: np.ndarray, found: np.ndarray, tag: np.ndarray, fused: np.ndarray, tags: np.ndarray, config: DecodeConfig
) -> None:
    """Fill in place the missing joints of keypoints (P, J, 3) from the cells with tags nearest to tag (P, T).

    A cell's worth is its heat less its tag distance in whole steps (HigherHRNet), less a little for its distance from
    the person. A cell that the person's tag does not reach is only a guess at the place: it gets no score.
    """
    places = np.ma.masked_array(keypoints[..., :2], np.broadcast_to(~found[..., None], (*found.shape, 2)))
    centre = places.mean(axis=1).filled(0)
    extent = np.maximum(np.ptp(places, axis=1).filled(0).max(axis=1), MIN_EXTENT)
    for joint, heat in enumerate(fused):
        missing = np.flatnonzero(~found[:, joint])
        cell = _warm(heat, config.recover_floor) if len(missing) else missing
        if not len(cell):
            continue
        y, x = np.divmod(cell, heat.shape[1])
        warm = _Spots(np.full(len(cell), joint), x, y, heat.ravel()[cell], _tags_at(tags, np.array(joint), x, y))
        steps = np.round(np.linalg.norm(tag[missing, None] - warm.tags, axis=2))
        far_x, far_y = ((HIGH_STRIDE * (c + 0.5) - centre[missing, None, i]) for i, c in enumerate((x, y)))
        far = np.hypot(far_x, far_y) / extent[missing, None]
        best = np.argmax(warm.heat - steps - NEARNESS * far, axis=1)
        placed = _place(fused, warm)[best]
        placed[steps[np.arange(len(missing)), best] > 0, 2] = 0
        keypoints[missing, joint] = placed


def _warm(heat: np.ndarray, floor: float) -> np.ndarray:
    """Flat indices of the cells above the floor, the warmest WARM_CELLS where there are more."""
    cell = np.flatnonzero(heat > floor)
    if len(cell) > WARM_CELLS:
        cell = cell[np.argpartition(-heat.ravel()[cell], WARM_CELLS)[:WARM_CELLS]]
    return cell


def _tags_at(tags: np.ndarray, joint: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N, T) tags of these joints at cells x, y of the high map, read between the four cells of the low map."""
    height, width = tags.shape[2:]
    # the centre of high cell x lies at (x + 0.5) / 2 low cells, a quarter cell from the centre of low cell x // 2
    left, above = (x - 1) // 2, (y - 1) // 2
    right_weight = np.where(x % 2, 0.25, 0.75)[:, None]
    below_weight = np.where(y % 2, 0.25, 0.75)[:, None]
    total = np.zeros((len(x), tags.shape[1]))
    for dy, weight_y in ((0, 1 - below_weight), (1, below_weight)):
        row = np.clip(above + dy, 0, height - 1)
        for dx, weight_x in ((0, 1 - right_weight), (1, right_weight)):
            total += weight_y * weight_x * tags[joint, :, row, np.clip(left + dx, 0, width - 1)]
    return total
