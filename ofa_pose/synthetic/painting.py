"""Paints figures on a supersampled canvas that remembers which person, and which part of the body, is on top."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ofa_pose.synthetic.figures import Array, Figure, on_sphere, project, skull_radii
from ofa_pose.synthetic.outfits import Material, Outfit, Shape, body_shapes, capsule

FACTOR = 2  # canvas pixels a side per image pixel
OBJECT = 255  # the owner of pixels of things that stand in front of people
_SHIFT = 4
_LAYERS = ((1.0, 0.0, 92), (0.74, 0.12, 120), (0.42, 0.24, 140))  # share of the radius, shift to the light, brightness
_FLAT = 118
_HEAD = (("head", "skin"), ("hair", "hair"), ("hat", "hat"))  # its parts, coded after the shapes, and their materials


@dataclass(frozen=True)
class Canvas:
    """What is being painted: `side` canvas pixels square, `FACTOR` times the image."""

    image: Array  # (side, side, 3) RGB uint8
    owner: Array  # (side, side) uint8; 0 background, i + 1 person i, OBJECT a thing in front
    light: Array  # (2,) unit vector in the image plane towards the light
    folds: Array  # (side, side) uint8 brightness texture around 128, for cloth and skin

    @property
    def side(self) -> int:
        """Of the square, in canvas pixels."""
        return int(self.image.shape[0])


def overlay(canvas: Canvas, window: tuple[slice, slice], layer: Array, mask: Array, owner: int) -> None:
    """Put the pixels of `layer` where `mask` (uint8, the window's size) is not 0, and note whose they are."""
    # through contiguous copies: cv2's masked copy is many times faster than NumPy's
    canvas.image[window] = cv2.copyTo(layer, mask, np.ascontiguousarray(canvas.image[window]))
    np.copyto(canvas.owner[window], owner, where=mask > 0)


@dataclass(frozen=True)
class Painted:
    """One painted person."""

    figure: Figure
    joints: dict[str, Array]  # name -> (3,) x, y in image pixels and nearness in standing heights
    codes: Array  # (h, w) uint8 window of the canvas: which shape of this person is on top of its others; 0 none
    corner: Array  # canvas x, y of that window
    parts: tuple[str, ...]  # part name by code
    scale: float  # image pixels per standing height
    height: float  # vertical extent of the whole figure in image pixels

    def nearness(self, joint: str) -> float:
        """Of the place of a facial joint on the unit head, -1 to 1."""
        points = self.figure.points
        return float((points[joint] - points["skull"])[2]) / self.figure.body.head

    def part_at(self, x: int, y: int) -> str:
        """The part at a canvas pixel, as if nobody and nothing else were in the way; '' for none."""
        column, row = x - self.corner[0], y - self.corner[1]
        if 0 <= row < self.codes.shape[0] and 0 <= column < self.codes.shape[1]:
            return self.parts[self.codes[row, column]]
        return ""


class Model:
    """A dressed figure ready to paint at any place and size; `low` and `high` are its extents in standing heights."""

    def __init__(self, figure: Figure, outfit: Outfit) -> None:
        self.figure, self.outfit = figure, outfit
        skull = figure.points["skull"]
        # From back to front; the head is painted before shape `head_at`.
        self.shapes = sorted(body_shapes(figure, outfit), key=lambda shape: shape.depth)
        self.head_at = sum(shape.depth < skull[2] for shape in self.shapes)
        self.shapes[self.head_at : self.head_at] = _face(figure, outfit, float(skull[2]))
        self.clouds = np.stack([shape.cloud for shape in self.shapes])
        self.spines = np.stack([shape.spine for shape in self.shapes])
        centre, grow = project(skull)
        reach = grow * figure.body.head
        self.low = np.minimum(self.clouds.min((0, 1)), centre - reach)
        self.high = np.maximum(self.clouds.max((0, 1)), centre + reach)

    def paint(self, canvas: Canvas, owner: int, scale: float, offset: Array) -> Painted:
        """Paint it over the canvas; standing height `scale` and pelvis at `offset` (x, y), in image pixels."""
        corner = np.clip(np.floor((self.low * scale + offset) * FACTOR) - 2, 0, canvas.side - 1).astype(int)
        end = np.clip(np.ceil((self.high * scale + offset) * FACTOR) + 2, corner + 1, canvas.side).astype(int)
        window = np.s_[corner[1] : end[1], corner[0] : end[0]]
        size = (end[1] - corner[1], end[0] - corner[0])
        codes, shade = np.zeros(size, np.uint8), np.full(size, _FLAT, np.uint8)
        surfaces = [("", "skin"), *((shape.part, shape.material) for shape in self.shapes), *_HEAD]
        inner = offset - corner / FACTOR
        outlines = self._outlines(canvas.light, scale, inner)
        for code in range(1, len(self.shapes) + 2):
            if code == self.head_at + 1:
                self._paint_head(codes, shade, canvas.light, scale, inner)
            if code <= len(self.shapes):
                hulls = [cv2.convexHull(outline) for outline in outlines[code - 1]]
                cv2.fillConvexPoly(codes, hulls[0], code, cv2.LINE_8, _SHIFT)
                for hull, (_, _, brightness) in zip(hulls, _LAYERS, strict=True):
                    if surfaces[code][0] != "face":
                        cv2.fillConvexPoly(shade, hull, brightness, cv2.LINE_8, _SHIFT)
        table = np.zeros((256, 1, 3), np.uint8)
        materials = [self.outfit.materials[name] for _, name in surfaces]
        table[: len(materials), 0] = np.stack([material.colour for material in materials]).astype(np.uint8)
        layer = cv2.LUT(cv2.merge([codes] * 3), table)
        for code, (shape, outline) in enumerate(zip(self.shapes, outlines, strict=True), 1):
            if materials[code].pattern != "plain":
                _weave(layer, codes, code, outline[0], materials[code], shape.spine[-1] - shape.spine[0], scale)
        blur = max(1, int(scale * FACTOR * 0.012)) | 1
        shade = cv2.multiply(cv2.blur(shade, (blur, blur)), canvas.folds[window], scale=1 / 128)
        layer = cv2.multiply(layer, cv2.merge([shade] * 3), scale=1 / 128)
        overlay(canvas, window, layer, (codes > 0).view(np.uint8), owner)
        points = np.stack(list(self.figure.points.values()))
        places = np.concatenate([project(points)[0] * scale + offset, points[:, 2:]], axis=1)
        joints = dict(zip(self.figure.points, places, strict=True))
        height = float((self.high - self.low)[1] * scale)
        return Painted(self.figure, joints, codes, corner, tuple(part for part, _ in surfaces), scale, height)

    def _outlines(self, light: Array, scale: float, offset: Array) -> Array:
        """(P, layers, 24, 2) fixed-point outlines for cv2, pixel centres at integers."""
        arms = self.clouds - self.spines
        width = np.linalg.norm(arms, axis=2).mean(1)[:, None, None]
        layers = [self.spines + share * arms + shift * width * light for share, shift, _ in _LAYERS]
        points = (np.stack(layers, axis=1) * scale + offset) * FACTOR - 0.5
        return np.round(points * (1 << _SHIFT)).astype(np.int32)

    def _paint_head(self, codes: Array, shade: Array, light: Array, scale: float, offset: Array) -> None:
        """Paint the head as an ellipsoid, pixel by pixel, so that hair and hat sit right from every side."""
        head, turn, radii = self.figure.body.head, self.figure.skull, skull_radii(self.figure.body)
        form = turn @ np.diag(1 / radii**2) @ turn.T
        plane, grow = project(self.figure.points["skull"])
        centre, limit = (plane * scale + offset) * FACTOR, codes.shape[::-1]
        for hat in (False, True)[: 1 + self.outfit.hat]:
            unit = float(grow) * (scale * 1.12 if hat else scale) * FACTOR
            x0, y0 = np.maximum(np.floor(centre - unit * head * 1.02), 0).astype(int)
            x1, y1 = np.clip(np.ceil(centre + unit * head * 1.02), 0, limit).astype(int)
            x = ((np.arange(x0, x1) + 0.5 - centre[0]) / unit)[None, :]
            y = (-(np.arange(y0, y1) + 0.5 - centre[1]) / unit)[:, None]
            half = form[0, 2] * x + form[1, 2] * y
            rest = form[0, 0] * x * x + 2 * form[0, 1] * x * y + form[1, 1] * y * y - 1
            room = half * half - form[2, 2] * rest
            z = (np.sqrt(np.maximum(room, 0)) - half) / form[2, 2]
            up, front = ((turn[0, k] * x + turn[1, k] * y + turn[2, k] * z) / radii[k] for k in (1, 2))
            inside = (room > 0) & (up > 0.22) if hat else room > 0
            line = -0.04 + 0.58 * front
            if self.outfit.hair == "long":
                line -= 1.3 * (front < 0.28)
            hairy = (up > line) & (self.outfit.hair != "bald")
            part = 2 if hat else hairy[inside]  # of _HEAD
            codes[y0:y1, x0:x1][inside] = len(self.shapes) + 1 + part
            glow = 116 + 26 * (x / head * light[0] + -y / head * light[1])
            shade[y0:y1, x0:x1][inside] = glow[inside].astype(np.uint8)


def _face(figure: Figure, outfit: Outfit, skull: float) -> list[Shape]:
    """Eyes, brows, nose, mouth and a hat's brim, as far as they face the camera."""
    head, radii = figure.body.head, skull_radii(figure.body)

    def place(azimuth: float, elevation: float, radius: float = 1.0) -> Array:
        return figure.points["skull"] + figure.skull @ (on_sphere(azimuth, elevation, radius) * radii)

    lines = [("nose", place(0, 4, 0.95), place(0, -14, 1.06), 0.07, 0.13)]
    lines.append(("lips", place(-17, -42), place(17, -42), 0.05, 0.05))
    for sign in (1, -1):
        lines.append(("dark", place(sign * 20, 6), place(sign * 30, 6), 0.085, 0.085))
        lines.append(("hair", place(sign * 12, 22), place(sign * 38, 20), 0.045, 0.035))
    shapes = [
        capsule("nose" if name == "nose" else "face", name, a, b, ra * head, rb * head)
        for name, a, b, ra, rb in lines
        if min(a[2], b[2]) - skull > (-0.12 if name == "nose" else 0.08) * head
    ]
    if outfit.hat:
        brim = [capsule("hat", "hat", place(0, 25, 0.7), place(0, 18, 1.7), 0.6 * head, 0.45 * head)]
        shapes = shapes + brim if brim[0].depth > skull - 0.1 * head else brim + shapes
    return shapes


def _weave(
    layer: Array, codes: Array, code: int, outline: Array, material: Material, axis: Array, scale: float
) -> None:
    """Mix a material's second colour into the pixels of one shape, in the frame of the shape's own axis."""
    low = np.maximum(outline.min(0) // (1 << _SHIFT), 0)
    high = np.minimum(outline.max(0) // (1 << _SHIFT) + 1, (codes.shape[1], codes.shape[0]))
    if (low >= high).any():
        return
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    origin = outline[0] / (1 << _SHIFT)
    length = float(np.hypot(*axis))
    c, s = axis / length if length > 1e-3 else (0.0, 1.0)
    x = (np.arange(low[0], high[0]) - origin[0])[None, :]
    y = (np.arange(low[1], high[1]) - origin[1])[:, None]
    mix = material.mix(x * c + y * s, y * c - x * s, max(material.period * scale * FACTOR, 3.0))
    mine = codes[window] == code
    view = layer[window]
    if mix.dtype == bool:
        view[mine & mix] = material.second.astype(np.uint8)
    else:
        share = mix[mine][:, None]
        view[mine] = (material.colour + (material.second - material.colour) * share).astype(np.uint8)
