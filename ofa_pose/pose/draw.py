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

    Each person has a colour: its left limbs in a tint, its right limbs in a shade of it. Lines are as wide as the
    person is large.

    Args:
        keypoints: (P, J, 3) x, y in image pixels and a score.
        skeleton: gives limbs and sides.
        threshold: joints with a score below it, or of zero, are left out.
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
    short = min(canvas.shape[:2])
    extent = float(np.ptp(xy[seen], axis=0).max())
    width = max(1, round(min(LINE_OF_PERSON * extent, LINE_OF_IMAGE * short)))
    rim = max(1, round(width / 3))
    colours = _side_colours(colour)
    side = _sides(skeleton)
    # OpenCV's pixel centres are whole numbers; places far outside would overflow its integers
    points = np.round((np.clip(xy, -4 * max(canvas.shape), 5 * max(canvas.shape)) - 0.5) * 2**SHIFT, 0)
    points = np.where(seen[:, None], points, 0).astype(int)
    limbs = [(a, b) for a, b in skeleton.limbs if seen[a] and seen[b]]
    for under in (True, False):
        for a, b in limbs:
            # a limb from the middle to a side, such as neck to shoulder, belongs to that side
            sides = {side[a], side[b]} - {0}
            paint = OUTLINE if under else colours[sides.pop() if len(sides) == 1 else 0]
            thick = width + 2 * rim if under else width
            cv2.line(canvas, points[a].tolist(), points[b].tolist(), paint, thick, cv2.LINE_AA, SHIFT)
    radius = round(JOINT_OF_LINE * width * 2**SHIFT)
    for joint in np.flatnonzero(seen):
        cv2.circle(canvas, points[joint].tolist(), radius + rim * 2**SHIFT, OUTLINE, -1, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas, points[joint].tolist(), radius, colours[side[joint]], -1, cv2.LINE_AA, SHIFT)


def _side_colours(colour: tuple[int, int, int]) -> dict[int, tuple[int, ...]]:
    tint = tuple(round(c + (255 - c) * LEFT_TINT) for c in colour)
    shade = tuple(round(c * (1 - RIGHT_SHADE)) for c in colour)
    return {1: tint, 0: colour, -1: shade}


def _sides(skeleton: Skeleton) -> list[int]:
    """1 for each left joint, -1 for each right one, 0 for those in the middle."""
    side = [0] * len(skeleton.joints)
    for left, right in skeleton.flip_pairs:
        side[left], side[right] = 1, -1
    return side
