"""Peaks of heatmaps, and their places below the cell, for a batch of images at once.

A batch's heatmaps are numbered planes: plane = image · J + joint. Heatmaps are (B, J, h, w) at stride 4 and
(B, J, 2h, 2w) at stride 2, tags (B, T, J, h, w) at stride 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ofa_pose.pose.geometry import HIGH_STRIDE, Array

REACH = 2  # a peak is the highest of 5 × 5 cells
DOWN, ACROSS = (np.indices((2 * REACH + 1,) * 2) - REACH).reshape(2, -1, 1)
FAR_TAG = 1e6
LEAST_HEAT, MOST_HEAT = 1e-3, 1e3  # smaller heats are noise, whose logarithms say nothing; larger ones are broken
SIDEWAYS, UPDOWN = np.array([[-1, 1, 0, 0], [0, 0, -1, 1]])[..., None]  # to a cell's four neighbours
STEPS = np.array([[-1], [0], [1]])


@dataclass(frozen=True)
class Maps:
    """A batch's maps: fused heatmaps float32 (B · J, 2h, 2w), tags (B, T, J, h, w)."""

    fused: Array
    tags: Array

    def split(self, cells: Array) -> tuple[Array, Array, Array]:
        """Plane, x and y of flat indices of the fused maps."""
        _, height, width = self.fused.shape
        row = cells // width  # divmod is several times slower
        plane = row // height
        return plane, cells - row * width, row - plane * height

    def heat_at(self, plane: Array, x: Array, y: Array) -> Array:
        """Heat of cells of the fused maps; beyond an edge, of the cell at it. The arguments are broadcast."""
        _, height, width = self.fused.shape
        x, y = np.minimum(np.maximum(x, 0), width - 1), np.minimum(np.maximum(y, 0), height - 1)
        return self.fused.ravel().take((plane * height + y) * width + x)

    def tags_at(self, plane: Array, x: Array, y: Array) -> Array:
        """Tags float64 (N, T) of N cells of the fused maps; a broken tag becomes a far one."""
        joints = self.tags.shape[2]
        image = plane // joints
        joint = plane - image * joints
        tags = self.tags[image, :, joint, y // 2, x // 2].astype(np.float64)
        if not np.isfinite(tags).all():
            tags = np.nan_to_num(tags, nan=FAR_TAG, posinf=FAR_TAG, neginf=-FAR_TAG)
        return tags


@dataclass(frozen=True)
class Spots:
    """Cells of the fused maps, sorted by plane: plane (N,), x and y cell (N,), heat (N,), tags (N, T)."""

    plane: Array
    x: Array
    y: Array
    heat: Array
    tags: Array

    def take(self, index: Array) -> Spots:
        """The cells with these indices."""
        return Spots(self.plane[index], self.x[index], self.y[index], self.heat[index], self.tags[index])


def fuse(low: Array, high: Array) -> Array:
    """The mean of both heatmaps at stride 2, float32 (B · J, 2h, 2w)."""
    batch, joints, height, width = high.shape
    fused = np.empty((batch * joints, height, width), np.float32)
    upsampled = np.empty((height, width), np.float32)
    low = np.ascontiguousarray(low, np.float32).reshape(-1, *low.shape[2:])
    high = np.ascontiguousarray(high, np.float32).reshape(fused.shape)
    for coarse, fine, mean in zip(low, high, fused, strict=True):
        cv2.resize(coarse, (width, height), dst=upsampled, interpolation=cv2.INTER_LINEAR)
        cv2.addWeighted(upsampled, 0.5, fine, 0.5, 0, dst=mean)
    return fused


def warm_cells(fused: Array, floor: float) -> tuple[Array, Array]:
    """Rising flat indices of the cells with finite heat above the floor, and their heats."""
    warm = np.flatnonzero(fused > floor)
    heat = fused.ravel().take(warm)
    finite = np.isfinite(heat)
    return (warm, heat) if finite.all() else (warm[finite], heat[finite])


def find_peaks(maps: Maps, warm: Array, heat: Array, threshold: float, candidates: int) -> Spots:
    """The local maxima of the `warm_cells` above the threshold, at most so many of a plane, highest first."""
    high = heat > threshold
    plane, x, y = maps.split(warm[high])
    heat = heat[high]
    # most cells have a higher neighbour: only what beats those four is compared with the whole window
    above = heat >= np.fmax.reduce(maps.heat_at(plane, x + SIDEWAYS, y + UPDOWN), axis=0)
    plane, x, y, heat = plane[above], x[above], y[above], heat[above]
    peak = np.flatnonzero(heat >= np.fmax.reduce(maps.heat_at(plane, x + ACROSS, y + DOWN), axis=0))
    rank = peak[np.lexsort((-heat[peak], plane[peak]))]
    sorted_plane = plane[rank]
    rank = rank[np.arange(len(rank)) - np.searchsorted(sorted_plane, sorted_plane) < candidates]
    plane, x, y, heat = plane[rank], x[rank], y[rank], heat[rank]
    keep = ~_doubled(plane, x, y, heat)
    plane, x, y = plane[keep], x[keep], y[keep]
    return Spots(plane, x, y, heat[keep], maps.tags_at(plane, x, y))


def _doubled(plane: Array, x: Array, y: Array, heat: Array) -> Array:
    """Which sorted peaks lie on one plateau with an earlier one: coarse number formats make equal neighbours."""
    doubled = np.zeros(len(plane), bool)
    again = 1 + np.flatnonzero((plane[1:] == plane[:-1]) & (heat[1:] == heat[:-1]))
    if len(again):
        near = (abs(x[again, None] - x) <= REACH) & (abs(y[again, None] - y) <= REACH)
        same = (plane[again, None] == plane) & (heat[again, None] == heat)
        doubled[again] = (near & same & (np.arange(len(plane)) < again[:, None])).any(axis=1)
    return doubled


def place(maps: Maps, spots: Spots) -> Array:
    """Spots as (N, 3) x, y in input pixels and heat, refined below the cell; exact for a Gaussian.

    Along each axis the vertex of the parabola through the logarithms of the spot's cell and its neighbours.
    """
    _, height, width = maps.fused.shape
    x, y = (np.maximum(np.minimum(at, side - 2), 1) for at, side in ((spots.x, width), (spots.y, height)))
    along_x = maps.heat_at(spots.plane, x + STEPS, spots.y)
    along_y = maps.heat_at(spots.plane, spots.x, y + STEPS)
    heat = np.fmin(np.fmax(np.stack([along_x, along_y], axis=1), LEAST_HEAT), MOST_HEAT, dtype=np.float64)
    before, here, after = np.log(heat)
    bend = np.minimum(before + after - 2 * here, -1e-9)
    inner, cell = np.stack([x, y]), np.stack([spots.x, spots.y])
    shift = np.minimum(np.maximum(inner - cell + 0.5 * (before - after) / bend, -0.5), 0.5)
    return np.stack([*((cell + 0.5 + shift) * HIGH_STRIDE), spots.heat], axis=1)
