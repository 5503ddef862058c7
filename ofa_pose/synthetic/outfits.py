"""What a figure wears, on both sides by one rule, so that only the view tells left from right, and its shapes."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from ofa_pose.synthetic.figures import PERSPECTIVE, SIDES, Array, Figure, pick, project

CLOUD = 24  # points of a shape's outline
_CIRCLE, _RING = (
    np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for angles in (np.linspace(0, 2 * np.pi, count, endpoint=False) for count in (CLOUD // 2, CLOUD // 3))
)
_SKINS = np.array([(58, 36, 26), (96, 62, 44), (141, 96, 66), (186, 134, 98), (222, 172, 136), (244, 208, 180)], float)
_HAIRS = np.array(
    [(22, 18, 16), (48, 34, 24), (92, 60, 36), (150, 104, 58), (206, 170, 104), (130, 56, 28), (170,) * 3]
)
_PATTERNS = ("stripes", "checks", "dots", "gradient", "noise")
# Part, material, joints at both ends, radii there (but of feet and hands for a girth of 1), and how far it is in front.
_BARE_LIMBS = (
    ("foot", "shoes", "heel", "toe", 0.026, 0.018, -0.056),
    ("shin", "skin", "knee", "ankle", 0.041, 0.024, -0.053),
    ("thigh", "skin", "hip", "knee", 0.062, 0.042, -0.052),
    ("hand", "skin", "wrist", "hand", 0.02, 0.019, 0.002),
    ("forearm", "skin", "elbow", "wrist", 0.029, 0.02, 0.001),
    ("upper_arm", "skin", "shoulder", "elbow", 0.038, 0.03, 0.0),
)


@dataclass(frozen=True)
class Material:
    """A surface: two RGB colours, (3,) from 0 to 255, mixed by a pattern."""

    colour: Array
    second: Array
    pattern: str = "plain"  # or one of _PATTERNS
    period: float = 0.05  # of the pattern, in standing heights
    turn: float = 0.0  # of the pattern against the part's axis, in radians

    def mix(self, along: Array, across: Array, period: float) -> Array:
        """The share of the second colour (0 to 1) at part coordinates in pixels; arrays broadcast to (h, w)."""
        c, s = math.cos(self.turn) / period, math.sin(self.turn) / period
        along, across = along.astype(np.float32), across.astype(np.float32)
        u = along * c + across * s
        if self.pattern == "gradient":
            return np.clip(0.5 + 0.12 * u, 0, 1)
        if self.pattern == "stripes":
            return _fraction(u) < 0.45
        v = across * c - along * s
        if self.pattern == "checks":
            return (_fraction(u) < 0.5) ^ (_fraction(v) < 0.5)
        if self.pattern == "dots":
            return (_fraction(u) - 0.5) ** 2 + (_fraction(v) - 0.5) ** 2 < 0.08
        return 0.5 + 0.25 * (np.sin(6 * u + 2 * np.sin(4 * v)) + np.sin(5 * v + 2 * np.sin(7 * u)))


@dataclass(frozen=True)
class Shape:
    """A convex outline of one body part, filled in order of depth."""

    part: str  # 'torso', 'left_forearm', … as visibility goes by it
    material: str  # a key of the outfit's materials
    depth: float  # nearness of its middle; larger is in front
    cloud: Array  # (CLOUD, 2) outline points in standing heights
    spine: Array  # (CLOUD, 2) the axis points that they shrink to


@dataclass(frozen=True)
class Outfit:
    """Materials by name ('skin', 'hair', 'top', 'bottom', 'shoes', 'hat') and the cut of the clothes."""

    materials: dict[str, Material]
    sleeve: float  # 0 none, up to 1 to the elbow, 2 to the wrist
    leg: float  # 1 to the knee, 2 to the ankle
    skirt: float  # share of the thigh, 0 for none
    loose: float
    hem: float
    hair: str  # 'bald', 'short', 'long', 'bun'
    hat: bool

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Outfit:
        """Random clothes, skin and hair."""
        share, low = math.modf(rng.uniform(0, len(_SKINS) - 1.001))
        dark, fair = _SKINS[int(low)], _SKINS[int(low) + 1]
        skin = dark + share * (fair - dark) + rng.normal(0, 6, 3)
        hair = _HAIRS[rng.integers(len(_HAIRS))] + rng.normal(0, 8, 3)
        top = cloth(rng)
        skirt = rng.uniform(0.45, 1.15) if rng.random() < 0.16 else 0.0
        whole = rng.random() < (0.5 if skirt else 0.08)  # a dress or an overall
        materials = {
            "skin": Material(_rgb(skin), _rgb(skin * 0.8)),
            "hair": Material(_rgb(hair), _rgb(hair * 0.7), "noise", 0.05),
            "top": top,
            "bottom": top if whole else cloth(rng, plain=0.75),
            "shoes": cloth(rng, plain=1.0),
            "hat": cloth(rng, plain=0.8),
            "dark": Material(np.array((35.0, 26, 24)), np.zeros(3)),
            "lips": Material(_rgb(skin * (0.8, 0.55, 0.55)), np.zeros(3)),
            "nose": Material(_rgb(skin * 0.93), np.zeros(3)),
        }
        return cls(
            materials=materials,
            sleeve=pick(rng, (0.0, 0.55, 0.9, 2.0), (0.08, 0.4, 0.07, 0.45)),
            leg=pick(rng, (0.5, 0.9, 2.0), (0.12, 0.16, 0.72)) if not skirt else 0.0,
            skirt=skirt,
            loose=rng.uniform(1.0, 1.22),
            hem=rng.uniform(-0.05, 0.05),
            hair=pick(rng, ("bald", "short", "long", "bun"), (0.1, 0.52, 0.28, 0.1)),
            hat=rng.random() < 0.13,
        )


def cloth(rng: np.random.Generator, plain: float = 0.5) -> Material:
    """A random fabric; `plain` is the chance that it has no pattern."""
    colour = vivid(rng)
    second = vivid(rng) if rng.random() < 0.6 else _rgb(colour * pick(rng, (0.55, 0.7, 1.5), (1, 1, 1)))
    pattern = "plain" if rng.random() < plain else pick(rng, _PATTERNS, (0.32, 0.2, 0.16, 0.16, 0.16))
    turn = pick(rng, (0.0, math.pi / 2, rng.uniform(0, math.pi)), (0.55, 0.25, 0.2))
    return Material(colour, second, pattern, rng.uniform(0.022, 0.075), turn)


def vivid(rng: np.random.Generator) -> Array:
    """(3,) a random RGB colour: greys, muted and saturated ones."""
    kind = rng.random()
    saturation = 0.06 * rng.random() if kind < 0.3 else rng.uniform(0.2, 0.6) if kind < 0.7 else rng.uniform(0.6, 1.0)
    value = rng.uniform(0.12, 1.0) if kind < 0.7 else rng.uniform(0.4, 1.0)
    return _rgb(255 * np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value)))


def body_shapes(figure: Figure, outfit: Outfit) -> list[Shape]:
    """All shapes of a dressed figure but the head and its face, unordered."""
    return [*_torso(figure, outfit), *_limbs(figure, outfit), *_hair_and_ears(figure, outfit)]


def capsule(part: str, material: str, a: Array, b: Array, ra: float, rb: float, bias: float = 0.0) -> Shape:
    """A tapered limb from `a` to `b` ((3,) right, up, near)."""
    spine, cloud, depth = np.empty((CLOUD, 2)), np.empty((CLOUD, 2)), 0.0
    for half, (x, y, z), radius in ((slice(0, 12), a.tolist(), ra), (slice(12, 24), b.tolist(), rb)):
        grow = 1.0 / (1.0 - PERSPECTIVE * z)
        spine[half] = (grow * x, -grow * y)
        cloud[half] = spine[half] + (grow * radius) * _CIRCLE
        depth += 0.5 * z
    return Shape(part, material, depth + bias, cloud, spine)


def _rings(part: str, material: str, rings: list[tuple[Array, Array, float, float]], bias: float) -> Shape:
    """A trunk through three elliptic sections: (centre, rotation, half width, half depth) each."""
    cloud, spine, depth = np.empty((CLOUD, 3)), np.empty((CLOUD, 3)), bias
    for row, (centre, turn, wide, deep) in zip(range(0, CLOUD, 8), rings, strict=True):
        spine[row : row + 8] = centre
        cloud[row : row + 8] = centre + _RING[:, :1] * (wide * turn[:, 0]) + _RING[:, 1:] * (deep * turn[:, 2])
        depth += float(centre[2]) / 3
    return Shape(part, material, depth, project(cloud)[0], project(spine)[0])


def _torso(figure: Figure, outfit: Outfit) -> list[Shape]:
    p, body, girth = figure.points, figure.body, figure.body.girth
    wide, loose = body.shoulder, 0.92 + 0.08 * outfit.loose
    hips = (body.hip + 0.026 * girth) * (0.9 + 0.1 * outfit.loose)
    shoulders = p["neck"] + figure.chest @ (0, -0.018, 0)
    hem = p["pelvis"] + figure.pelvis @ (0, 0.03 + outfit.hem, 0)
    crotch = p["pelvis"] + figure.pelvis @ (0, -0.035, 0)
    belt = p["pelvis"] + figure.pelvis @ (0, 0.07, 0)
    top = [
        (shoulders, figure.chest, wide * 0.93, 0.042 * girth),
        (p["chest"], figure.chest, wide * 0.94 * loose, 0.066 * girth * loose),
        (hem, figure.pelvis, hips, 0.06 * girth * loose),
    ]
    bottom = [
        (belt, figure.pelvis, hips * 0.92, 0.056 * girth),
        (p["pelvis"], figure.pelvis, hips, 0.062 * girth),
        (crotch, figure.pelvis, hips * 0.72, 0.05 * girth),
    ]
    neck = capsule("neck", "skin", p["neck"] + figure.chest @ (0, -0.01, 0), p["skull_base"], 0.034, 0.03, -0.03)
    collar = p["neck"] + figure.chest @ (0, -0.012, 0)
    pads = [capsule("torso", "top", p[f"{s}_shoulder"], collar, 0.04, 0.03, -0.021) for s, _ in SIDES]
    trunk = [neck, _rings("torso", "top", top, -0.02), _rings("pelvis", "bottom", bottom, -0.04), *pads]
    return [*trunk, _skirt(figure, outfit)] if outfit.skirt else trunk


def _limbs(figure: Figure, outfit: Outfit) -> list[Shape]:
    """Arms and legs, and what is worn over them."""
    points, girth = figure.points, figure.body.girth
    sleeve, leg = min(outfit.sleeve, 1.0), min(outfit.leg, 1.0)
    rows: list[tuple[str, str, str, str, float, float, float]] = list(_BARE_LIMBS)
    if outfit.leg:
        rows.append(("thigh", "bottom", "hip", "knee", 0.066, 0.062 - 0.018 * leg, -0.05))
    if outfit.leg > 1:
        rows.append(("shin", "bottom", "knee", "ankle", 0.044, 0.031, -0.0505))
    if outfit.sleeve:
        rows.append(("upper_arm", "top", "shoulder", "elbow", 0.041, 0.035, 0.0005))
    if outfit.sleeve > 1:
        rows.append(("forearm", "top", "elbow", "wrist", 0.033, 0.026, 0.003))
    shapes = []
    for side, _ in SIDES:
        for part, material, start, stop, ra, rb, bias in rows:
            a, b = points[f"{side}_{start}"], points[f"{side}_{stop}"]
            grow = 1.0 if part in ("foot", "hand") else girth
            if material in ("top", "bottom"):
                grow = girth * outfit.loose
                if part in ("thigh", "upper_arm"):
                    b = a + (b - a) * (leg if part == "thigh" else sleeve)
            shapes.append(capsule(f"{side}_{part}", material, a, b, ra * grow, rb * grow, bias))
    return shapes


def _skirt(figure: Figure, outfit: Outfit) -> Shape:
    p = figure.points
    stops = [p[f"{s}_hip"] + outfit.skirt * (p[f"{s}_knee"] - p[f"{s}_hip"]) for s, _ in SIDES]
    wide = figure.body.hip + 0.03 * figure.body.girth
    waist = p["pelvis"] + figure.pelvis @ (0, 0.06, 0)
    radius = (0.06 + 0.02 * outfit.skirt) * figure.body.girth * outfit.loose
    rings = [(waist, figure.pelvis, wide * 0.9, 0.055)] + [(stop, figure.pelvis, radius, radius) for stop in stops]
    return _rings("skirt", "bottom", rings, -0.03)


def _hair_and_ears(figure: Figure, outfit: Outfit) -> list[Shape]:
    """Hair that stands off the head; long hair hides the ears."""
    points, skull, head, turn = figure.points, figure.points["skull"], figure.body.head, figure.skull
    if outfit.hair == "long":
        back = skull + turn @ (0, 0.1 * head, -0.35 * head)
        tip = skull + figure.chest @ (0, -1.75 * head, -0.6 * head)
        return [capsule("hair", "hair", back, tip, 0.74 * head, 0.55 * head, 2.0 * (back[2] - skull[2]))]
    shapes = []
    if outfit.hair == "bun" and not outfit.hat:
        tip = skull + turn @ (0, 0.75 * head, -0.85 * head)
        shapes.append(capsule("hair", "hair", tip, tip, 0.34 * head, 0.34 * head, 0.5 * (tip[2] - skull[2])))
    for side, _ in SIDES:
        ear, step = points[f"{side}_ear"], turn @ (0, 0.12 * head, 0)
        bias = 0.002 * np.sign(ear[2] - skull[2] + 0.1 * head) - ear[2] + skull[2]
        shapes.append(capsule(f"{side}_ear", "skin", ear + step, ear - step, 0.17 * head, 0.13 * head, bias))
    return shapes


def _fraction(value: Array) -> Array:
    """The part after the point; much faster than `% 1.0`, for values above -4096."""
    value = value + np.float32(4096)
    return value - value.astype(np.int32)


def _rgb(colour: Array) -> Array:
    return np.array([min(max(float(channel), 0.0), 255.0) for channel in colour])
