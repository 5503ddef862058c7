"""Articulated figures: body proportions, poses within joint limits, and their projection to the image plane.

Body frame: x to the person's left, y up, z forward; unit: the person's standing height.
Camera frame: x right, y down, z towards the camera. Facing the camera, a person has the left side on the image's right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

Array = np.ndarray
SIDES = (("left", 1.0), ("right", -1.0))
T = TypeVar("T")
PERSPECTIVE = 0.14  # how much nearer points grow, per standing height of depth

# Hip flexion, abduction, twist and knee bend, in degrees, of the leading and of the other leg.
_LEGS = {
    "stand": (((-6, 8), (0, 10), (-5, 15), (0, 8)), ((-6, 8), (0, 10), (-5, 15), (0, 8))),
    "walk": (((12, 34), (-2, 4), (-5, 8), (0, 18)), ((-26, -6), (-2, 4), (-5, 8), (8, 50))),
    "run": (((30, 75), (-2, 6), (-5, 8), (40, 105)), ((-32, -5), (-2, 6), (-5, 8), (15, 80))),
    "sit": (((72, 100), (0, 18), (-10, 15), (65, 110)), ((72, 100), (0, 18), (-10, 15), (65, 110))),
    "crouch": (((75, 125), (5, 30), (0, 25), (95, 145)), ((60, 125), (5, 30), (0, 25), (90, 145))),
    "bend": (((-5, 25), (0, 14), (-5, 15), (0, 40)), ((-5, 25), (0, 14), (-5, 15), (0, 40))),
    "kick": (((35, 95), (-5, 30), (-5, 20), (0, 70)), ((-10, 8), (0, 10), (-5, 10), (0, 12))),
    "wide": (((-5, 20), (14, 40), (0, 25), (0, 35)), ((-5, 20), (14, 40), (0, 25), (0, 35))),
    "free": (((-20, 100), (-5, 40), (-10, 25), (0, 120)), ((-20, 60), (-5, 40), (-10, 25), (0, 100))),
}
_LEG_ODDS = {"stand": 48, "walk": 26, "run": 4, "sit": 5, "crouch": 1, "bend": 2, "kick": 3, "wide": 10, "free": 1}
_LEANS = {"run": (5, 25), "sit": (-8, 18), "crouch": (10, 45), "bend": (30, 85), "kick": (-15, 12), "free": (-10, 40)}
# Shoulder flexion, abduction, inward twist and elbow bend.
_ARMS = {
    "hang": ((-18, 15), (3, 20), (-20, 40), (0, 32)),
    "hip": ((-28, 0), (25, 52), (40, 85), (75, 118)),
    "raise": ((125, 175), (-8, 28), (-20, 40), (0, 70)),
    "spread": ((-12, 20), (55, 160), (-30, 30), (0, 80)),
    "reach": ((35, 100), (-12, 25), (-10, 40), (0, 60)),
    "fold": ((0, 55), (0, 25), (-10, 65), (70, 142)),
    "swing": ((-40, 45), (0, 15), (0, 20), (10, 95)),
    "free": ((-40, 160), (0, 95), (-40, 70), (0, 142)),
}
_ARM_ODDS = {"hang": 38, "hip": 10, "raise": 14, "spread": 15, "reach": 6, "fold": 6, "swing": 9, "free": 2}


@dataclass(frozen=True)
class Body:
    """Proportions in standing heights; `shoulder` and `hip` are half widths, `girth` thickens the limbs."""

    head: float = 0.066
    neck: float = 0.05
    shoulder: float = 0.112
    trunk: float = 0.29
    hip: float = 0.066
    upper_arm: float = 0.172
    forearm: float = 0.145
    hand: float = 0.06
    thigh: float = 0.242
    shin: float = 0.238
    foot: float = 0.115
    girth: float = 1.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Body:
        """A body: each length varies by itself, adults and children, thin and stout."""
        jitter = np.clip(rng.normal(1.0, 0.06, len(fields(cls))), 0.85, 1.15).tolist()
        size = {f.name: f.default * j for f, j in zip(fields(cls), jitter, strict=True)}
        size["head"] = 0.066 * rng.uniform(1.0, 1.18)
        size["girth"] = math.exp(rng.normal(0.06, 0.16))
        if rng.random() < 0.15:  # a child: larger head, shorter limbs
            size["head"] *= rng.uniform(1.2, 1.4)
            for name in ("thigh", "shin", "upper_arm", "forearm"):
                size[name] *= rng.uniform(0.84, 0.94)
            size["girth"] *= 1.1
        for name in ("shoulder", "hip"):
            size[name] *= 0.75 + 0.25 * size["girth"]
        return cls(**size)


@dataclass(frozen=True)
class Figure:
    """A posed body before perspective; rotations (3, 3) go from a part's own frame to (right, up, near)."""

    body: Body
    points: dict[str, Array]  # joint name -> (3,); COCO's and CrowdPose's joints, and what drawing needs besides
    pelvis: Array
    chest: Array
    skull: Array


def project(points: Array) -> tuple[Array, Array]:
    """Points (..., 3) (right, up, near) -> image-plane positions (..., 2), x right, y down, and magnification (...)."""
    grow = 1.0 / (1.0 - PERSPECTIVE * points[..., 2])
    plane = points[..., :2] * grow[..., None]
    plane[..., 1] *= -1.0
    return plane, grow


def sample_figure(rng: np.random.Generator) -> Figure:
    """A figure in a random pose and view, its pelvis at the origin."""
    body = Body.sample(rng)
    view = pick(rng, (0.0, 180.0, 90.0, -90.0), (0.89, 0.05, 0.03, 0.03))
    yaw = view + rng.normal(0, 20)
    roll = rng.normal(0, 20 if rng.random() < 0.03 else 3)
    tilt = min(max(rng.normal(6, 9), -10), 32)
    root = _rotation("x", tilt) @ _rotation("z", roll) @ _rotation("y", yaw)
    pose = pick(rng, tuple(_LEG_ODDS), tuple(_LEG_ODDS.values()))
    lean = rng.uniform(*_LEANS.get(pose, (-7, 12)))
    pelvis = root @ _rotation("x", 0.5 * lean)
    chest = root @ _rotation("x", lean) @ _rotation("y", rng.normal(0, 12)) @ _rotation("z", rng.normal(0, 6))
    nod = min(max(rng.normal(0, 12), -25), 25) - 0.4 * max(lean, 0.0) * rng.random()
    turn = min(max(rng.normal(0, 26), -65), 65)
    skull = chest @ _rotation("y", turn) @ _rotation("x", nod) @ _rotation("z", rng.normal(0, 6))
    points = _trunk(body, pelvis, chest, skull)
    _legs(rng, body, root, pose, points)
    _arms(rng, body, chest, pose, points)
    return Figure(body, points, pelvis, chest, skull)


def _trunk(body: Body, pelvis: Array, chest: Array, skull: Array) -> dict[str, Array]:
    hip, shoulder, head = body.hip, body.shoulder, body.head
    points = {"pelvis": np.zeros(3)}
    points["waist"] = pelvis @ (0, 0.35 * body.trunk, 0)
    points["neck"] = points["waist"] + chest @ (0, 0.67 * body.trunk, 0)
    points["chest"] = points["waist"] + chest @ (0, 0.4 * body.trunk, 0)
    points["skull_base"] = points["neck"] + chest @ (0, body.neck, 0.008)
    points["skull"] = points["skull_base"] + skull @ (0, 0.72 * head, 0.14 * head)
    points["head"] = points["skull"] + skull @ (0, 0.92 * head, 0)
    face: dict[str, tuple[float, float, float]] = {"nose": (0, -14, 1.06)}
    for side, sign in SIDES:
        points[f"{side}_hip"] = pelvis @ (sign * hip, 0, 0)
        points[f"{side}_shoulder"] = points["neck"] + chest @ (sign * shoulder, -0.028, 0)
        face |= {f"{side}_eye": (sign * 25, 6, 0.98), f"{side}_ear": (sign * 93, -2, 0.98)}
    for name, place in face.items():
        points[name] = points["skull"] + skull @ (on_sphere(*place) * skull_radii(body))
    return points


def skull_radii(body: Body) -> Array:
    """(3,) half axes of the head's ellipsoid: across, up, forward."""
    return body.head * np.array([0.76, 1.0, 0.88])


def on_sphere(azimuth: float, elevation: float, radius: float) -> Array:
    """(3,) the place in these directions (degrees to the left and up) of the unit head."""
    a, e = math.radians(azimuth), math.radians(elevation)
    flat = radius * math.cos(e)
    return np.array([flat * math.sin(a), radius * math.sin(e), flat * math.cos(a)])


def _legs(rng: np.random.Generator, body: Body, root: Array, pose: str, points: dict[str, Array]) -> None:
    limits = _LEGS[pose] if rng.random() < 0.5 else _LEGS[pose][::-1]
    for (side, sign), limit in zip(SIDES, limits, strict=True):
        flex, abduct, twist, bend = (rng.uniform(*pair) for pair in limit)
        thigh = root @ _rotation("z", sign * abduct) @ _rotation("x", -flex) @ _rotation("y", sign * twist)
        shin = thigh @ _rotation("x", bend)
        lift = rng.uniform(-8, 30 if bend > 40 else 8)
        foot = shin @ _rotation("x", lift) @ _rotation("y", sign * rng.uniform(0, 15))
        knee = points[f"{side}_hip"] + thigh @ (0, -body.thigh, 0)
        ankle = knee + shin @ (0, -body.shin, 0)
        points[f"{side}_knee"], points[f"{side}_ankle"] = knee, ankle
        points[f"{side}_heel"] = ankle + foot @ (0, -0.022, -0.012)
        points[f"{side}_toe"] = ankle + foot @ (0, -0.03, body.foot)


def _arms(rng: np.random.Generator, body: Body, chest: Array, pose: str, points: dict[str, Array]) -> None:
    same = rng.random() < 0.4
    style, first = "", None
    for side, sign in SIDES:
        if not (same and style):
            walking = pose in ("walk", "run") and rng.random() < 0.55
            style = "swing" if walking else pick(rng, tuple(_ARM_ODDS), tuple(_ARM_ODDS.values()))
        angles = np.array([rng.uniform(*pair) for pair in _ARMS[style]])
        if same and first is not None:
            angles = 0.75 * first + 0.25 * angles
        first = angles
        flex, abduct, twist, bend = angles
        upper = chest @ _rotation("z", sign * abduct) @ _rotation("x", -flex) @ _rotation("y", -sign * twist)
        fore = upper @ _rotation("x", -bend)
        hand = fore @ _rotation("x", rng.uniform(-25, 15))
        elbow = points[f"{side}_shoulder"] + upper @ (0, -body.upper_arm, 0)
        wrist = elbow + fore @ (0, -body.forearm, 0)
        points[f"{side}_elbow"], points[f"{side}_wrist"] = elbow, wrist
        points[f"{side}_hand"] = wrist + hand @ (0, -body.hand, 0)


def pick(rng: np.random.Generator, options: Sequence[T], odds: Sequence[float]) -> T:
    """One of the options; much faster than `rng.choice` for a few."""
    place = rng.random() * sum(odds)
    for option, share in zip(options, odds, strict=True):
        place -= share
        if place < 0:
            return option
    return options[-1]


def _rotation(axis: str, degrees: float) -> Array:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == "x":
        return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
