"""Peaks of heatmaps, and their places below the cell.

All maps are one image's: heatmaps (J, h, w) at stride 4 and (J, 2h, 2w) at stride 2, tags (J, T, h, w) at stride 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ofa_pose.pose.geometry import HIGH_STRIDE

PEAK_WINDOW = np.ones((5, 5), np.uint8)
FAR_TAG = 1e6
LEAST_HEAT, MOST_HEAT = 1e-3, 1e3  # smaller heats are noise, whose logarithms say nothing; larger ones are broken


@dataclass(frozen=True)
class Spots:
    """Places on one image's fused map, sorted by joint: joint (N,), x and y cell (N,), heat (N,), tags (N, T)."""

    joint: np.ndarray
    x: np.ndarray
    y: np.ndarray
    heat: np.ndarray
    tags: np.ndarray

    def take(self, index: np.ndarray) -> Spots:
        """The places with these indices."""
        return Spots(self.joint[index], self.x[index], self.y[index], self.heat[index], self.tags[index])


def fuse(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of both heatmaps at stride 2, and each cell's maximum over 5 × 5 cells; both float32 (J, 2h, 2w)."""
    fused = np.empty(high.shape, np.float32)
    highest = np.empty_like(fused)
    size = (high.shape[2], high.shape[1])
    for coarse, fine, mean, window in zip(low, high, fused, highest, strict=True):
        upsampled = cv2.resize(np.ascontiguousarray(coarse, np.float32), size, interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(upsampled, 0.5, np.ascontiguousarray(fine, np.float32), 0.5, 0, dst=mean)
        cv2.dilate(mean, PEAK_WINDOW, dst=window)
    return fused, highest


def warm_cells(fused: np.ndarray, floor: float) -> np.ndarray:
    """Rising flat indices of the cells with finite heat above the floor."""
    warm = np.flatnonzero(fused > floor)
    return warm[np.isfinite(fused.ravel()[warm])]


def find_peaks(
    fused: np.ndarray, highest: np.ndarray, warm: np.ndarray, tags: np.ndarray, threshold: float, candidates: int
) -> Spots:
    """Those warm cells that are local maxima above the threshold, the highest of each joint, by joint and falling heat.

    Args:
        fused, highest: as `fuse` gives them.
        warm: the cells worth a look, as `warm_cells` gives them.
        tags: (J, T, h, w).
        candidates: at most so many peaks a joint.
    """
    heat = fused.ravel()[warm]
    peak = (heat == highest.ravel()[warm]) & (heat > threshold)
    heat = heat[peak]
    joint, cell = np.divmod(warm[peak], fused[0].size)
    rank = np.lexsort((-heat, joint))
    rank = rank[np.arange(len(rank)) - np.searchsorted(joint, joint) < candidates]
    heat, joint, cell = heat[rank], joint[rank], cell[rank]
    y, x = np.divmod(cell, fused.shape[2])
    keep = ~_doubled(joint, x, y, heat)
    return spots_at(joint[keep], x[keep], y[keep], heat[keep], tags)


def spots_at(joint: np.ndarray, x: np.ndarray, y: np.ndarray, heat: np.ndarray, tags: np.ndarray) -> Spots:
    """Places with the tags (J, T, h, w) of the low map's cells that they lie in; a broken tag becomes a far one."""
    tag = tags[joint, :, y // 2, x // 2].astype(np.float64)
    return Spots(joint, x, y, heat, np.nan_to_num(tag, nan=FAR_TAG, posinf=FAR_TAG, neginf=-FAR_TAG))


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


def place(fused: np.ndarray, spots: Spots) -> np.ndarray:
    """Spots as (N, 3) x, y in input pixels and heat, refined below the cell.

    Along each axis the vertex of the parabola through the logarithms of three cells: exact for a Gaussian.
    """
    _, height, width = fused.shape

    def log_heat(dx: int, dy: int) -> np.ndarray:
        x, y = np.clip(spots.x + dx, 0, width - 1), np.clip(spots.y + dy, 0, height - 1)
        return np.log(np.fmin(np.fmax(fused[spots.joint, y, x], LEAST_HEAT), MOST_HEAT, dtype=np.float64))

    centre = log_heat(0, 0)
    placed = np.empty((len(centre), 3))
    for axis, cell in enumerate((spots.x, spots.y)):
        before, after = log_heat(axis - 1, -axis), log_heat(1 - axis, axis)
        bend = np.minimum(before + after - 2 * centre, -1e-9)
        placed[:, axis] = cell + 0.5 + np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    placed[:, :2] *= HIGH_STRIDE
    placed[:, 2] = spots.heat
    return placed
