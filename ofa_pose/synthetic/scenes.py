"""One synthetic scene: people placed, painted from back to front, hidden by things, and annotated from the pixels.

Coordinates are continuous image pixels: pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ofa_pose.skeleton import BUILT_IN, Skeleton
from ofa_pose.synthetic.backdrops import new_canvas, photograph, put_thing
from ofa_pose.synthetic.figures import Array, pick, sample_figure
from ofa_pose.synthetic.outfits import Outfit
from ofa_pose.synthetic.painting import FACTOR, OBJECT, Canvas, Model, Painted
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.seeding import generator

SIZES = (64, 1024)
_PEOPLE_ODDS = (0.2, 0.27, 0.25, 0.15, 0.08, 0.05)
MOST_PEOPLE = len(_PEOPLE_ODDS)
_THING_ODDS = (0.45, 0.35, 0.15, 0.05)
_LEAST_HEIGHT, _MOST_HEIGHT = 0.25, 0.9
_LEAST_AREA = 4e-4  # of the image; less of a person is not a person

NEIGHBOURHOOD = 0.1  # standing heights; a hidden joint is guessed if so near to it something of the person is seen
_FACE = ("nose", "face", "head")
_SHOWS = {  # the parts through which a joint shows, of its own side where they have one
    "nose": _FACE,
    "eye": _FACE,
    "ear": ("ear", "head"),
    "head": ("head", "hair", "hat", "face"),
    "neck": ("neck", "torso"),
    "shoulder": ("torso", "neck", "upper_arm"),
    "elbow": ("upper_arm", "forearm"),
    "wrist": ("forearm", "hand"),
    "hip": ("torso", "pelvis", "skirt", "thigh"),
    "knee": ("thigh", "shin", "skirt"),
    "ankle": ("shin", "foot"),
}
_TRUNK = ("torso", "pelvis", "skirt", "neck")
# How far behind the trunk's middle (standing heights) a joint may lie and still show through its surface.
_BEHIND = {"shoulder": 0.075, "hip": 0.048}
# Nearness on the unit head from which a facial joint can be seen, and from which an annotator would guess it.
_SEEN = {"nose": (-0.12, 0.05), "eye": (0.0, 0.15), "ear": (-0.3, 0.0)}


@dataclass(frozen=True)
class Person:
    """One annotated person.

    Attributes:
        keypoints: (J, 3) x, y in image pixels and v: 2 visible, 1 hidden but near something visible of this person,
            0 not labelled (then x = y = 0).
        bbox, area, segmentation: of the visible pixels: x, y, w, h, their number, and polygons, flat x, y lists.
        height: vertical extent of the whole figure in pixels, hidden and cropped parts included.
        facing: 1 for a chest that faces the camera, -1 for a back.
    """

    keypoints: Array
    bbox: tuple[float, float, float, float]
    area: float
    segmentation: tuple[tuple[float, ...], ...]
    height: float
    facing: float


@dataclass(frozen=True)
class Scene:
    """One picture, (size, size, 3) RGB uint8, its one to six people, and who is on top where.

    The owner, (size, size) uint8, is i + 1 of people[i], 255 of a thing in front, 0 of the background.
    """

    image: Array
    people: tuple[Person, ...]
    owner: Array

    @property
    def crowd_index(self) -> float:
        """The mean over people of others' joints to own joints inside the box, at most 1 (Li et al., CVPR 2019)."""
        ratios = []
        for person in self.people:
            own, *inside = (_inside(other.keypoints, person.bbox) for other in (person, *self.people))
            ratios.append((sum(inside) - own) / own if own else 0.0)
        return min(float(np.mean(ratios)), 1.0)


def draw_scene(seed: int, index: int, size: int, skeleton: Skeleton, most: int = MOST_PEOPLE) -> Scene:
    """Scene `index` of the endless set `seed`, `size` pixels square: the same on any machine, in any order.

    `skeleton` names the joints to label, all of them known to COCO or CrowdPose, `most` the number of people.
    Raises InputError on others.
    """
    check_scenes(size, most)
    unknown = [name for name in skeleton.joints if not any(name in known.joints for known in BUILT_IN.values())]
    if unknown:
        raise InputError(f"synthetic figures have no joint '{unknown[0]}'", hint="use coco or crowdpose")
    rng = generator(seed, "scene", index)
    while True:
        canvas = new_canvas(rng, size)
        painted = _paint_people(rng, canvas, size, most)
        owner = np.ascontiguousarray(canvas.owner[FACTOR // 2 :: FACTOR, FACTOR // 2 :: FACTOR])
        found = [_annotate(canvas, owner, number, one, skeleton) for number, one in enumerate(painted, 1)]
        people = tuple(person for person in found if person is not None)
        if people:
            break
    new_number = np.zeros(256, np.uint8)
    new_number[OBJECT] = OBJECT
    new_number[[number for number, person in enumerate(found, 1) if person]] = np.arange(1, len(people) + 1)
    image = cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA)
    return Scene(photograph(rng, image), people, new_number[owner])


def _paint_people(rng: np.random.Generator, canvas: Canvas, size: int, most: int) -> list[Painted]:
    """Place one to `most` people and things in front of them, and paint them from back to front."""
    count = pick(rng, range(1, most + 1), _PEOPLE_ODDS[:most])
    near = (0.65, 0.9) if count < 3 else (0.5, 0.85)
    middle = rng.uniform(*((0.27, 0.5) if rng.random() < 0.1 else near))
    gather = rng.uniform(0.25, 0.75) if rng.random() < 0.5 else None
    boxes: list[Array] = []
    placed = []
    for _ in range(count):
        model = Model(sample_figure(rng), Outfit.sample(rng))
        wide, tall = model.high - model.low
        share = float(np.clip(middle * np.exp(rng.normal(0, 0.15)), _LEAST_HEIGHT + 0.005, _MOST_HEIGHT))
        scale = max(min(share / tall, 0.96 / wide), (_LEAST_HEIGHT + 0.005) / tall) * size
        boxes.append(_place(rng, (model.high - model.low) * scale, share, size, gather, boxes))
        offset = boxes[-1][:2] - model.low * scale
        placed.append((boxes[-1][3] + rng.normal(0, 0.06) * size, model, scale, offset, boxes[-1]))
    placed.sort(key=lambda one: one[0])
    things = np.bincount(rng.integers(0, count, pick(rng, range(4), _THING_ODDS)), minlength=count)
    painted = []
    for number, (_, model, scale, offset, box) in enumerate(placed):
        painted.append(model.paint(canvas, number + 1, scale, offset))
        for _ in range(int(things[number])):
            put_thing(rng, canvas, box * FACTOR)
    return painted


def _place(
    rng: np.random.Generator, extent: Array, share: float, size: int, gather: float | None, boxes: list[Array]
) -> Array:
    """The box (x0, y0, x1, y1) of a figure of this extent, in image pixels; seldom right behind one of the others."""
    least, best = math.inf, np.zeros(4)
    for _ in range(16):
        across = rng.uniform(0.06, 0.94) if gather is None else gather + rng.normal(0, 0.25)
        foot = 0.5 + 0.48 * share + rng.normal(0, 0.07)
        corner = np.array([across * size - extent[0] / 2, foot * size - extent[1]])
        corner = np.clip(corner, -0.22 * extent, size - 0.78 * extent)
        box = np.concatenate([corner, corner + extent])
        hidden = max((_overlap(box, other) for other in boxes), default=0.0)
        if hidden < least:
            least, best = hidden, box
        if hidden < 0.2:
            break
    return best


def _overlap(box: Array, other: Array) -> float:
    """The shared area over the smaller of the two boxes."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    return float(shared / min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod()))


def _annotate(canvas: Canvas, owner: Array, number: int, painted: Painted, skeleton: Skeleton) -> Person | None:
    """The annotation of one person, or None where next to nothing of it can be seen."""
    mask = (owner == number).view(np.uint8)
    area = cv2.countNonZero(mask)
    if area < max(_LEAST_AREA * owner.size, 8):
        return None
    keypoints = label_joints(painted, owner, number, skeleton.joints)
    if not keypoints[:, 2].any():
        return None
    x, y, w, h = map(float, cv2.boundingRect(mask))
    bbox = (x, y, w, h)
    facing = float(painted.figure.chest[2, 2])
    return Person(keypoints, bbox, float(area), _polygons(canvas, number, bbox), painted.height, facing)


def label_joints(painted: Painted, owner: Array, number: int, joints: Sequence[str]) -> Array:
    """(J, 3) x, y in image pixels and visibility of person `number` under COCO's rules; zeros where unlabelled.

    `owner` is the image-sized map of who is on top: v = 2 lies on a pixel of the person's own.
    """
    labels = np.zeros((len(joints), 3))
    for row, name in enumerate(joints):
        x, y = painted.joints[name][:2]
        if 0 <= x < len(owner) and 0 <= y < len(owner) and (seen := _visibility(painted, owner, number, name)):
            # two decimals, as stored, must not round a joint out of the image or off its pixel
            labels[row] = (np.floor(x * 100) / 100, np.floor(y * 100) / 100, seen)
    return labels


def _visibility(painted: Painted, owner: Array, number: int, name: str) -> int:
    x, y = (int(value) for value in painted.joints[name][:2])
    side, _, kind = name.rpartition("_")
    seen_from, guessed_from = _SEEN.get(kind, (-math.inf, -math.inf))
    nearness = painted.nearness(name)
    if nearness < seen_from:
        return 0
    part = painted.part_at(x * FACTOR + FACTOR // 2, y * FACTOR + FACTOR // 2).removeprefix(f"{side}_")
    depth = painted.joints["neck" if kind == "shoulder" else "pelvis"][2] - painted.joints[name][2]
    behind = part in _TRUNK and depth > _BEHIND.get(kind, math.inf)
    if part in _SHOWS[kind] and not behind and owner[y, x] == number:
        return 2
    if nearness < guessed_from:  # the far side of a head, and something in front of it as well
        return 0
    reach = max(2.0, NEIGHBOURHOOD * painted.scale)
    around = owner[max(int(y - reach), 0) : int(y + reach) + 1, max(int(x - reach), 0) : int(x + reach) + 1]
    return int((around == number).any())


def _polygons(canvas: Canvas, number: int, bbox: tuple[float, float, float, float]) -> tuple[tuple[float, ...], ...]:
    """Outer contours of a person's visible pixels, in image pixels, taken from the finer canvas."""
    x, y, w, h = (int(value) * FACTOR for value in bbox)
    x0, y0 = max(x - FACTOR, 0), max(y - FACTOR, 0)
    mask = (canvas.owner[y0 : y + h + FACTOR, x0 : x + w + FACTOR] == number).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rims = [cv2.approxPolyDP(contour, 0.8, True).reshape(-1, 2) + (x0 + 0.5, y0 + 0.5) for contour in contours]
    left, top, wide, tall = bbox
    box = (left, top, left + wide, top, left + wide, top + tall, left, top + tall)
    return tuple(tuple((rim / FACTOR).ravel().tolist()) for rim in rims if len(rim) >= 3) or (box,)


def _inside(keypoints: Array, bbox: tuple[float, float, float, float]) -> int:
    x, y, w, h = bbox
    in_x = (keypoints[:, 0] >= x) & (keypoints[:, 0] <= x + w)
    return int(np.count_nonzero((keypoints[:, 2] > 0) & in_x & (keypoints[:, 1] >= y) & (keypoints[:, 1] <= y + h)))


def check_scenes(size: int, people: int) -> None:
    """Raises InputError on an image size, or a number of people at most, that is out of range."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"the image size is {size}", hint=f"choose {SIZES[0]} to {SIZES[1]} pixels")
    if not 1 <= people <= MOST_PEOPLE:
        raise InputError(f"scenes of at most {people} people were asked for", hint=f"choose 1 to {MOST_PEOPLE}")
