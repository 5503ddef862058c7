"""Poses drawn over an image, and labels, by which data is checked."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from ofa_pose.skeleton import Skeleton

Colour = tuple[int, int, int]  # RGB
GOLDEN_RATIO = 0.6180339887  # steps of it round the hue circle keep any number of people apart
FIRST_HUE = 0.95
LEFT_TINT, RIGHT_SHADE = 0.45, 0.35  # a person's left side is lighter, its right side darker than its colour
OUTLINE = (25, 25, 25)
OPACITY = 0.9
SHIFT = 4  # OpenCV draws at whole pixels unless given bits of fraction
JOINT_OF_LINE = 1.1  # a joint's radius by the line width
LABEL_OF_PERSON, LABEL_RADIUS = 0.025, (2, 6)  # a label's radius by the person's extent, and its range in pixels
NO_EXTENT = 16  # pixels, the radius of what marks people without extent
DOT_STEP = 6  # pixels between the dots of a dotted line
LINE_OF_PERSON, LINE_OF_IMAGE = 0.022, 0.012  # line width by the person's extent, at most by the image's short side


def draw_poses(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.1,
    ids: Sequence[int] | None = None,
) -> np.ndarray:
    """A copy of an RGB uint8 image (H, W, 3) with poses over it, the first on top.

    Keypoints are (P, J, 3) x, y in image pixels and a score; joints whose score is below the threshold, or zero, are
    left out. Left limbs have a tint, right limbs a shade of the person's colour, and lines are as wide as it is large.
    With ids (P,) a person's colour follows from its number, which stands above it.
    """
    poses = np.asarray(keypoints, np.float64).reshape(-1, len(skeleton.joints), 3)
    canvas = np.array(image, np.uint8, order="C")
    for number in reversed(range(len(poses))):
        seen = np.isfinite(poses[number]).all(axis=1)
        seen &= (poses[number, :, 2] >= threshold) & (poses[number, :, 2] > 0)
        if seen.any():
            colour = person_colour(number if ids is None else ids[number])
            _draw_person(canvas, poses[number, :, :2], seen, skeleton, colour)
            if ids is not None:
                _draw_number(canvas, poses[number, seen, :2], ids[number], colour)
    return cv2.addWeighted(canvas, OPACITY, image, 1 - OPACITY, 0) if len(poses) else canvas


def draw_labels(
    image: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton, boxes: np.ndarray | None = None
) -> np.ndarray:
    """A copy of an RGB uint8 image (H, W, 3) with labels over it, each joint in its colour of `joint_colours`.

    A visible joint is a dot, a hidden one a ring. A dotted white line joins the two of a flip pair; limbs and boxes
    are in the person's colour. A labelled joint outside the image is a cross at the edge; round the joints of a person
    whose box is empty there are circles.

    Args:
        keypoints: (P, J, 3) x, y in image pixels and visibility.
        boxes: (P, 4) x, y, width, height in image pixels.
    """
    canvas = np.array(image, np.uint8, order="C")
    height, width = canvas.shape[:2]
    last = np.array([width, height]) - 1.0
    colours = joint_colours(skeleton)
    for number, person in enumerate(np.asarray(keypoints, np.float64).reshape(-1, len(skeleton.joints), 3)):
        labelled = person[:, 2] > 0
        outside = labelled & ((person[:, :2] < 0) | (person[:, :2] > last + 1)).any(1)
        places = [tuple(place) for place in np.round(np.clip(person[:, :2] - 0.5, 0, last)).astype(int).tolist()]
        own, extent = person_colour(number), float(np.ptp(person[labelled, :2], axis=0).max()) if labelled.any() else 0
        if boxes is not None:
            x, y, w, h = np.asarray(boxes, np.float64)[number].tolist()
            corners = np.clip([(x, y), (x + w, y + h)], -width - height, 2 * (width + height)).round().astype(int)
            cv2.rectangle(canvas, corners[0].tolist(), corners[1].tolist(), own, 1)
            extent = max(extent, w, h)
            if not (w > 0 and h > 0):
                for joint in np.flatnonzero(labelled).tolist():
                    cv2.circle(canvas, places[joint], NO_EXTENT, OUTLINE, 5, cv2.LINE_AA)
                    cv2.circle(canvas, places[joint], NO_EXTENT, own, 2, cv2.LINE_AA)
        radius = int(np.clip(extent * LABEL_OF_PERSON, *LABEL_RADIUS))
        for a, b in skeleton.limbs:
            if labelled[a] and labelled[b]:
                cv2.line(canvas, places[a], places[b], OUTLINE, 3, cv2.LINE_AA)
                cv2.line(canvas, places[a], places[b], own, 1, cv2.LINE_AA)
        for a, b in skeleton.flip_pairs:
            if labelled[a] and labelled[b]:
                _dot_line(canvas, places[a], places[b])
        for joint in np.flatnonzero(labelled).tolist():
            place, paint = places[joint], colours[joint]
            if outside[joint]:
                cv2.drawMarker(canvas, place, OUTLINE, cv2.MARKER_TILTED_CROSS, 4 * radius + 4, 5)
                cv2.drawMarker(canvas, place, paint, cv2.MARKER_TILTED_CROSS, 4 * radius + 4, 2)
                continue
            cv2.circle(canvas, place, radius + 1, OUTLINE, -1, cv2.LINE_AA)
            cv2.circle(canvas, place, radius, paint, -1 if person[joint, 2] > 1 else max(1, radius // 2), cv2.LINE_AA)
    return canvas


def joint_colours(skeleton: Skeleton) -> list[Colour]:
    """RGB colours, one a joint: a hue for each flip pair, light on the left and dark on the right, and for each other
    joint."""
    partner = dict(skeleton.flip_pairs)
    hues: list[int] = [joint for joint in range(len(skeleton.joints)) if joint not in partner.values()]
    tones = dict.fromkeys(hues, (0.85, 1.0)) | dict.fromkeys(partner, (0.5, 1.0))
    colours: dict[int, Colour] = {}
    for place, joint in enumerate(hues):
        for one, (saturation, value) in ((joint, tones[joint]), (partner.get(joint, joint), (1.0, 0.7))):
            if one not in colours:
                colours[one] = _rgb(place / len(hues), saturation, value)
    return [colours[joint] for joint in range(len(skeleton.joints))]


def person_colour(number: int) -> Colour:
    """The RGB colour of the person with this number: bright, and unlike its neighbours'."""
    return _rgb((FIRST_HUE + number * GOLDEN_RATIO) % 1, 0.85, 1.0)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _dot_line(canvas: np.ndarray, start: Sequence[int], end: Sequence[int]) -> None:
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    for share in np.linspace(0, 1, max(int(length / DOT_STEP), 1) + 1):
        at = (round(start[0] + share * (end[0] - start[0])), round(start[1] + share * (end[1] - start[1])))
        cv2.circle(canvas, at, 2, OUTLINE, -1, cv2.LINE_AA)
        cv2.circle(canvas, at, 1, (255, 255, 255), -1, cv2.LINE_AA)


def _draw_number(canvas: np.ndarray, xy: np.ndarray, number: int, colour: Colour) -> None:
    """Write a person's number above its joints xy (N, 2), inside the image."""
    scale = max(0.4, min(canvas.shape[:2]) / 900)
    (width, height), _ = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left, top = (xy[:, 0].min() + xy[:, 0].max() - width) / 2, xy[:, 1].min() - height / 2
    place = (
        int(np.clip(left, 0, max(0, canvas.shape[1] - width))),
        int(np.clip(top, height + 1, max(height + 1, canvas.shape[0] - 1))),
    )
    for paint, thick in ((OUTLINE, 4), (colour, 1)):
        cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, scale, paint, thick, cv2.LINE_AA)


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
