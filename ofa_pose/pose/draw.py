"""Poses drawn over an image."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from ofa_pose.skeleton import Skeleton

GOLDEN_RATIO = 0.6180339887  # steps of it round the hue circle keep any number of people apart
FIRST_HUE = 0.95
LEFT_TINT, RIGHT_SHADE = 0.45, 0.35  # a person's left side is lighter, its right side darker than its colour
OUTLINE = (25, 25, 25)
OPACITY = 0.9
SHIFT = 4  # OpenCV draws at whole pixels unless given bits of fraction
JOINT_OF_LINE = 1.1  # a joint's radius by the line width
LINE_OF_PERSON, LINE_OF_IMAGE = 0.022, 0.012  # line width by the person's extent, at most by the image's short side


def draw_poses(image: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton, threshold: float = 0.1) -> np.ndarray:
    """A copy of an RGB uint8 image (H, W, 3) with poses over it, the first on top.

    Keypoints are (P, J, 3) x, y in image pixels and a score; joints whose score is below the threshold, or zero, are
    left out. Left limbs have a tint, right limbs a shade of the person's colour, and lines are as wide as it is large.
    """
    poses = np.asarray(keypoints, np.float64).reshape(-1, len(skeleton.joints), 3)
    canvas = np.array(image, np.uint8, order="C")
    for number in reversed(range(len(poses))):
        seen = np.isfinite(poses[number]).all(axis=1)
        seen &= (poses[number, :, 2] >= threshold) & (poses[number, :, 2] > 0)
        if seen.any():
            _draw_person(canvas, poses[number, :, :2], seen, skeleton, person_colour(number))
    return cv2.addWeighted(canvas, OPACITY, image, 1 - OPACITY, 0) if len(poses) else canvas


def person_colour(number: int) -> tuple[int, int, int]:
    """The RGB colour of the person with this number: bright, and unlike its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((FIRST_HUE + number * GOLDEN_RATIO) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_person(
    canvas: np.ndarray, xy: np.ndarray, seen: np.ndarray, skeleton: Skeleton, colour: tuple[int, int, int]
) -> None:
    """Draw one person's joints xy (J, 2), where seen (J,), into the canvas."""
    extent = float(np.ptp(xy[seen], axis=0).max())
    width = max(1, round(min(LINE_OF_PERSON * extent, LINE_OF_IMAGE * min(canvas.shape[:2]))))
    rim = max(1, round(width / 3))
    tint, shade = ([round(c + (to - c) * by) for c in colour] for to, by in ((255, LEFT_TINT), (0, RIGHT_SHADE)))
    colours, side = {1: tint, 0: colour, -1: shade}, np.zeros(len(skeleton.joints), int)
    for left, right in skeleton.flip_pairs:
        side[left], side[right] = 1, -1
    # OpenCV's pixel centres are whole numbers; places far outside would overflow its integers
    points = np.round((np.clip(xy, -4 * max(canvas.shape), 5 * max(canvas.shape)) - 0.5) * 2**SHIFT, 0)
    points = np.where(seen[:, None], points, 0).astype(int)
    for under in (True, False):
        for a, b in skeleton.limbs:
            if seen[a] and seen[b]:
                # a limb from the middle to a side, such as neck to shoulder, belongs to that side
                paint = OUTLINE if under else colours[np.sign(side[a] + side[b])]
                thick = width + 2 * rim if under else width
                cv2.line(canvas, points[a].tolist(), points[b].tolist(), paint, thick, cv2.LINE_AA, SHIFT)
    radius = round(JOINT_OF_LINE * width * 2**SHIFT)
    for joint in np.flatnonzero(seen):
        cv2.circle(canvas, points[joint].tolist(), radius + rim * 2**SHIFT, OUTLINE, -1, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas, points[joint].tolist(), radius, colours[side[joint]], -1, cv2.LINE_AA, SHIFT)
