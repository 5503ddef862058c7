"""Backgrounds, things that stand in front of people, and what a camera does to a picture."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from ofa_pose.synthetic.figures import Array, pick
from ofa_pose.synthetic.outfits import cloth, vivid
from ofa_pose.synthetic.painting import FACTOR, OBJECT, Canvas, overlay

THINGS = ("box", "pole", "plant", "blob", "table", "chair", "fence")


def new_canvas(rng: np.random.Generator, size: int) -> Canvas:
    """A canvas for a `size`-pixel image with its background painted, clutter and limb-like distractors included."""
    side = size * FACTOR
    folds = _octaves(rng, side, (6, 24, 70), (10.0, 9.0, 7.0))
    angle = rng.uniform(-np.pi, 0) if rng.random() < 0.85 else rng.uniform(0, np.pi)
    light = np.array([np.cos(angle), np.sin(angle)])
    image = cv2.resize(_ground(rng, size), (side, side), interpolation=cv2.INTER_LINEAR)
    canvas = Canvas(image, np.zeros((side, side), np.uint8), light, folds)
    for _ in range(int(rng.integers(1, 6))):
        _clutter(rng, image)
    for _ in range(int(rng.integers(0, 4))):
        _distractor(rng, canvas)
    if rng.random() < 0.8:
        texture = _octaves(rng, side, (12, 90), (7.0, rng.uniform(2, 12)))
        image[:] = cv2.multiply(image, cv2.merge([texture] * 3), scale=1 / 128)
    return canvas


def _octaves(rng: np.random.Generator, side: int, cells: tuple[int, ...], strengths: tuple[float, ...]) -> Array:
    """(side, side) uint8 smooth noise around 128: one random grid of each number of cells, enlarged."""
    half = side // 2
    total = np.full((half, half), 128.0, np.float32)
    for count, strength in zip(cells, strengths, strict=True):
        grid = rng.standard_normal((count, count), np.float32) * np.float32(strength)
        total += cv2.resize(grid, (half, half), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(cv2.convertScaleAbs(total), (side, side), interpolation=cv2.INTER_LINEAR)


def _ground(rng: np.random.Generator, side: int) -> Array:
    """(side, side, 3) the base: a smooth mix of colours, a wall and a floor, tiles, or a mosaic of noise."""
    cells = pick(rng, (2, 3, 5, 16, 40), (0.3, 0.25, 0.2, 0.15, 0.1))
    base, spread = vivid(rng), rng.uniform(8, 40)
    grey = rng.normal(0, spread, (cells, cells, 1))
    hue = rng.normal(0, spread * rng.uniform(0.1, 0.8), (cells, cells, 3))
    grid = np.clip(base + grey + hue, 0, 255).astype(np.uint8)
    image = cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR if rng.random() < 0.8 else cv2.INTER_NEAREST)
    if rng.random() < 0.2:
        _pattern(rng, image, 0, side)
    if rng.random() < 0.55:
        horizon = int(rng.uniform(0.3, 0.85) * side)
        floor = np.clip(vivid(rng) + rng.normal(0, 25, (3, 3, 3)), 0, 255).astype(np.uint8)
        image[horizon:] = cv2.resize(floor, (side, side - horizon), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.2:
            _pattern(rng, image, horizon, side)
    return image


def _pattern(rng: np.random.Generator, image: Array, top: int, side: int) -> None:
    fabric = cloth(rng, plain=0.0)
    mix = fabric.mix(np.arange(side)[None, :], np.arange(top, side)[:, None], rng.uniform(0.03, 0.16) * side)
    share = rng.uniform(0.25, 0.9)
    mixed = cv2.addWeighted(image[top:], 1 - share, np.full_like(image[top:], fabric.second), share, 0)
    if mix.dtype == bool:
        np.copyto(image[top:], mixed, where=mix[..., None])
    else:
        mix = np.ascontiguousarray(np.broadcast_to(mix, mixed.shape[:2]), np.float32)
        image[top:] = cv2.blendLinear(mixed, image[top:], mix, 1 - mix)


def _clutter(rng: np.random.Generator, image: Array) -> None:
    side = image.shape[0]
    x, y = (int(v) for v in rng.uniform(0, side, 2))
    w, h = (int(v) for v in rng.uniform(0.03, 0.4, 2) * side)
    kind, colour = rng.integers(5), vivid(rng).tolist()
    if kind == 0:
        cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
        cv2.rectangle(image, (x, y), (x + w, y + h), vivid(rng).tolist(), max(1, side // 120))
    elif kind == 1:
        cv2.ellipse(image, (x, y), (w // 2, h // 2), rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    elif kind == 2:
        points = np.array((x, y)) + rng.uniform(-0.2, 0.2, (int(rng.integers(3, 7)), 2)) * side
        cv2.fillPoly(image, [points.astype(np.int32)], colour, cv2.LINE_AA)
    elif kind == 3:
        cv2.line(image, (x, y), (x + w - h, y + h), colour, int(rng.integers(1, 2 + side // 60)), cv2.LINE_AA)
    else:  # shelves, windows, bricks
        rows, columns = rng.integers(1, 5, 2)
        for r in range(rows):
            for c in range(columns):
                a, b = x + c * w // columns, y + r * h // rows
                cv2.rectangle(image, (a, b), (a + w // columns * 3 // 4, b + h // rows * 3 // 4), colour, -1)


def _distractor(rng: np.random.Generator, canvas: Canvas) -> None:
    """A chain of tapered, shaded strokes or a ball in skin or cloth colours: looks like a limb, is none."""
    image, side = canvas.image, canvas.side
    skin = np.array((70, 45, 32.0)) + rng.random() * np.array((165, 150, 140.0))
    colour = skin if rng.random() < 0.4 else vivid(rng)
    width = float(rng.uniform(0.006, 0.03) * side)
    chain = [rng.uniform(0, side, 2)]
    ball = rng.random() < 0.3
    if not ball:
        angle = rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(1, 4))):
            angle += rng.uniform(-1.4, 1.4)
            chain.append(chain[-1] + rng.uniform(3, 9) * width * np.array((np.cos(angle), np.sin(angle))))
    for share, shift, bright in ((1.0, 0.0, 0.72), (0.74, 0.12, 0.94), (0.42, 0.24, 1.1)):
        tone = tuple(np.clip(colour * bright, 0, 255).tolist())
        moved = [p + canvas.light * shift * width * (1.6 if ball else 1) for p in chain]
        points = [(round(float(x)), round(float(y))) for x, y in moved]
        if ball:
            cv2.circle(image, points[0], int(width * 1.6 * share), tone, -1, cv2.LINE_AA)
        for a, b in itertools.pairwise(points):
            cv2.line(image, a, b, tone, max(1, int(2 * width * share)), cv2.LINE_AA)


def put_thing(rng: np.random.Generator, canvas: Canvas, box: Array, kind: str | None = None) -> None:
    """Paint a thing in front of what is there, over part of `box` (x0, y0, x1, y1 in canvas pixels).

    Args:
        kind: one of `THINGS`; None: any.
    """
    side, kind = canvas.side, kind or THINGS[int(rng.integers(len(THINGS)))]
    mask = np.zeros((side, side), np.uint8)
    w, h = box[2] - box[0], box[3] - box[1]
    x, y = box[0] + rng.uniform(0.1, 0.9) * w, box[1] + rng.uniform(0.25, 0.95) * h
    reach = float(np.clip(max(w, 0.5 * h) * rng.uniform(0.3, 0.75), 0.06 * side, 0.45 * side))
    _outline(rng, mask, kind, float(x), float(y), reach, h)
    left, top, wide, high = cv2.boundingRect(mask)
    if not wide:
        return
    window = np.s_[top : top + high, left : left + wide]
    inside = mask[window]
    fabric = cloth(rng, plain=0.6)
    fill = np.empty((*inside.shape, 3), np.float32)
    fill[:] = fabric.colour
    if fabric.pattern != "plain":
        mix = fabric.mix(np.arange(fill.shape[1])[None, :], np.arange(fill.shape[0])[:, None], reach * 0.35)
        fill += (fabric.second - fabric.colour) * np.broadcast_to(mix, inside.shape)[..., None]
    ramp = np.linspace(rng.uniform(0.75, 1.1), rng.uniform(0.6, 1.0), fill.shape[1], dtype=np.float32)
    tone = ramp[None, :] * canvas.folds[window] / 128
    if kind == "plant":  # the leaves differ in brightness: the mask holds which leaf is on top
        tone = tone * (0.55 + inside / 400)
    painted = np.minimum(fill * tone[..., None], 255).astype(np.uint8)
    overlay(canvas, window, painted, np.ascontiguousarray(inside), OBJECT)


def _outline(rng: np.random.Generator, mask: Array, kind: str, x: float, y: float, reach: float, tall: float) -> None:
    """Draw a thing's silhouette into `mask`; every bar and leaf counts, so people show between them."""

    def bar(left: float, top: float, right: float, bottom: float) -> None:
        cv2.rectangle(mask, (int(left), int(top)), (int(right), int(bottom)), 255, -1)

    thin = max(2.0, 0.12 * reach)
    if kind == "box":
        bar(x - 0.5 * reach, y - rng.uniform(0.2, 0.6) * reach, x + 0.5 * reach, y + 0.5 * reach)
    elif kind == "pole":
        wide, lean = rng.uniform(0.05, 0.16) * reach + 2, rng.uniform(-0.05, 0.05) * tall
        top, foot = y - rng.uniform(0.6, 1.6) * tall, y + rng.uniform(0.4, 1.5) * tall
        points = [(x - wide, top), (x + wide, top), (x + wide + lean, foot), (x - wide + lean, foot)]
        cv2.fillPoly(mask, [np.array(points, np.int32)], 255)
    elif kind == "plant":
        for _ in range(int(rng.integers(8, 22))):
            centre = (int(x + rng.normal(0, 0.3) * reach), int(y + rng.normal(0, 0.3) * reach))
            axes = (max(2, int(rng.uniform(0.12, 0.32) * reach)), max(2, int(rng.uniform(0.04, 0.12) * reach)))
            cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, int(rng.integers(60, 256)), -1)
    elif kind == "blob":
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(0.3, 0.55, 9) * reach
        rim = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
        cv2.fillPoly(mask, [rim.astype(np.int32)], 255)
    elif kind == "table":
        bar(x - 0.8 * reach, y, x + 0.8 * reach, y + 1.4 * thin)
        for leg in (-0.72, 0.65):
            bar(x + leg * reach, y, x + leg * reach + 0.7 * thin, y + 0.8 * reach)
        if rng.random() < 0.5:
            bar(x - 0.8 * reach, y, x + 0.8 * reach, y + 0.45 * reach)
    elif kind == "chair":
        for slat in np.linspace(-0.4, 0.4, int(rng.integers(3, 6))):
            bar(x + slat * reach - 0.4 * thin, y - 0.5 * reach, x + slat * reach + 0.4 * thin, y + 0.4 * reach)
        bar(x - 0.45 * reach, y - 0.55 * reach, x + 0.45 * reach, y - 0.38 * reach)
        bar(x - 0.45 * reach, y + 0.2 * reach, x + 0.45 * reach, y + 0.4 * reach)
    else:
        for rail in rng.uniform(-0.4, 0.4, 2):
            bar(0, y + rail * reach, mask.shape[1], y + rail * reach + 0.5 * thin)
        for post in np.arange(x % (0.5 * reach), mask.shape[1], 0.5 * reach):
            bar(post, y - 0.5 * reach, post + 0.4 * thin, y + 0.6 * reach)


def photograph(rng: np.random.Generator, image: Array) -> Array:
    """(size, size, 3) uint8 with light, colour cast, blur, noise and compression as cameras give them."""
    gain = rng.uniform(0.85, 1.2) * rng.uniform(0.94, 1.06, 3)
    gamma, lift = np.exp(rng.normal(0, 0.1)), rng.uniform(-8, 16)
    ramp = (np.arange(256) / 255)[:, None] ** gamma * 255 * gain + lift
    image = cv2.LUT(image, np.clip(ramp, 0, 255).astype(np.uint8).reshape(256, 1, 3))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.8))
    elif rng.random() < 0.08:
        kernel = np.zeros((3, 3), np.float32)
        kernel[1] = 1 / 3
        image = cv2.filter2D(image, -1, kernel if rng.random() < 0.5 else kernel.T)
    if rng.random() < 0.4:
        strength = rng.uniform(0.01, 0.03)
        grain = rng.integers(0, 256, image.shape, dtype=np.uint8)
        image = cv2.addWeighted(image, 1.0, grain, strength * 2, -255 * strength)
    if rng.random() < 0.3:
        code = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 90))))[1]
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return image
