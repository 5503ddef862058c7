"""Other ways to place a peak below its cell, to be put in the place of `ofa_pose.pose.decode.place`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from ofa_pose.pose.geometry import HIGH_STRIDE
from ofa_pose.pose.peaks import LEAST_HEAT, MOST_HEAT, Maps, Spots, place

Place = Callable[[Maps, Spots], np.ndarray]
QUARTER = 0.25  # cells
FURTHEST = 1.0  # cells; where the maps are no Gaussian, Taylor's step can lead anywhere
SMOOTHING = (11, 2.0)  # window and sigma in cells of the paper's smoothing, with the sigma of the targets


def cell_centre(maps: Maps, spots: Spots) -> np.ndarray:
    """No refinement."""
    return _placed(spots, np.zeros(len(spots.x)), np.zeros(len(spots.x)))


def quarter_offset(maps: Maps, spots: Spots) -> np.ndarray:
    """A quarter of a cell towards the higher neighbour along each axis (Newell et al., 2016)."""
    right = _at(maps, spots, 1, 0) > _at(maps, spots, -1, 0)
    below = _at(maps, spots, 0, 1) > _at(maps, spots, 0, -1)
    return _placed(spots, np.where(right, QUARTER, -QUARTER), np.where(below, QUARTER, -QUARTER))


def taylor(maps: Maps, spots: Spots) -> np.ndarray:
    """The top of the second-order Taylor expansion of the log heat, as DARK (Zhang et al., CVPR 2020) has it.

    Where the log heat is not bent downwards, the cell's centre stays.
    """

    def log_heat(dx: int, dy: int) -> np.ndarray:
        return np.log(np.clip(_at(maps, spots, dx, dy), LEAST_HEAT, MOST_HEAT))

    slope_x = (log_heat(1, 0) - log_heat(-1, 0)) / 2
    slope_y = (log_heat(0, 1) - log_heat(0, -1)) / 2
    bend_x = (log_heat(2, 0) - 2 * log_heat(0, 0) + log_heat(-2, 0)) / 4
    bend_y = (log_heat(0, 2) - 2 * log_heat(0, 0) + log_heat(0, -2)) / 4
    mixed = (log_heat(1, 1) - log_heat(-1, 1) - log_heat(1, -1) + log_heat(-1, -1)) / 4
    area = bend_x * bend_y - mixed**2
    top = (area > 1e-9) & (bend_x < 0)
    area = np.where(top, area, 1)
    right = np.where(top, (mixed * slope_y - bend_y * slope_x) / area, 0)
    down = np.where(top, (mixed * slope_x - bend_x * slope_y) / area, 0)
    return _placed(spots, np.clip(right, -FURTHEST, FURTHEST), np.clip(down, -FURTHEST, FURTHEST))


def smooth_taylor(maps: Maps, spots: Spots) -> np.ndarray:
    """`taylor` on heatmaps smoothed by the targets' Gaussian, which is the whole of DARK."""
    window, sigma = SMOOTHING
    smooth = np.stack([cv2.GaussianBlur(heat, (window, window), sigma) for heat in maps.fused])
    return taylor(replace(maps, fused=smooth), spots)


WAYS: dict[str, Place] = {
    "none, the cell's centre": cell_centre,
    "quarter offset": quarter_offset,
    "Taylor": taylor,
    "Taylor after smoothing (DARK)": smooth_taylor,
    "parabola of log heat (ours)": place,
}


def _at(maps: Maps, spots: Spots, dx: int, dy: int) -> np.ndarray:
    """The heat beside each spot; beyond the border that of the border."""
    return maps.heat_at(spots.plane, spots.x + dx, spots.y + dy).astype(np.float64)


def _placed(spots: Spots, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    x, y = (spots.x + 0.5 + right) * HIGH_STRIDE, (spots.y + 0.5 + down) * HIGH_STRIDE
    return np.stack([x, y, spots.heat], axis=1)
