"""What a good but imperfect network would give on images whose people are known; no network and no picture needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE, InputFrame, input_frame
from ofa_pose.pose.metrics import KeypointEvaluator
from ofa_pose.skeleton import BUILT_IN, CROWDPOSE, Skeleton
from ofa_pose.synthetic.dataset import Scene, draw_scene
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json
from ofa_pose.utils.seeding import generator
from tests.pose.maps import gaussian

CANVAS = (640, 480)  # of a drawn crowd, in image pixels
SCENE_SIDE = 96  # of the scenes that a crowd is put together from
FAINTEST = 0.01  # heat below which a peak says nothing, so that it paints no tag


@dataclass(frozen=True)
class Output:
    """A network's outputs on one image and what was put into them.

    Attributes:
        low: float32 (2J, h, w), heatmaps and tags at stride 4.
        high: float32 (J, 2h, 2w), heatmaps at stride 2.
        frame: where the image lies in the input.
        placed: (P, J, 3) x, y in input pixels and height of each person's own peaks; 0 where the joint was missed.
    """

    low: np.ndarray
    high: np.ndarray
    frame: InputFrame
    placed: np.ndarray


class Maker(Protocol):
    """Makes an image's outputs; `people` (P, J, 3) are x, y in image pixels and v, 0 for unlabelled joints."""

    def __call__(
        self,
        image: Mapping[str, Any],
        people: np.ndarray,
        seed: int,
        resolution: int = 512,
        tag_step: float = 1.8,
        tag_offset: float = 0.0,
    ) -> Output: ...


@dataclass(frozen=True)
class Faults:
    """How imperfect the network is.

    Attributes:
        noise: standard deviation of a peak's place, in input pixels.
        missed, doubled: shares of joints without a peak, and with a second one beside it.
        false_peaks: how many an image, on average.
        person_spread, joint_spread: standard deviations of a person's tag, and of its joints' tags round it.
        background: the most heat where nothing is.
    """

    noise: float = 1.0
    missed: float = 0.06
    doubled: float = 0.03
    false_peaks: float = 3.0
    person_spread: float = 0.1
    joint_spread: float = 0.12
    background: float = 0.04


@dataclass(frozen=True)
class Truth:
    """Annotated images: their records in order, and each one's people (P, J, 3), x, y in image pixels and v."""

    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    skeleton: Skeleton
    people: Mapping[int, np.ndarray] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Truth:
        """From a document in COCO's layout; images without labelled people are left out. Raises InputError."""
        people: dict[int, list[np.ndarray]] = {}
        for record in document["annotations"]:
            joints = np.array(record.get("keypoints") or [], np.float64).reshape(-1, 3)
            if len(joints):
                people.setdefault(record["image_id"], []).append(joints)
        counts = {len(joints) for several in people.values() for joints in several}
        skeletons = [s for s in BUILT_IN.values() if counts == {len(s.joints)}]
        if not skeletons:
            raise InputError("the annotations hold no people with COCO's or CrowdPose's joints", hint="give others")
        stacked = {key: np.stack(several) for key, several in people.items()}
        images = [
            image for image in document["images"] if image["id"] in stacked and stacked[image["id"]][..., 2].any()
        ]
        return cls(images, document["annotations"], skeletons[0], stacked)

    def take(self, indices: Sequence[int] | slice) -> Truth:
        """Only these images."""
        images = self.images[indices] if isinstance(indices, slice) else [self.images[i] for i in indices]
        ids = {image["id"] for image in images}
        return replace(self, images=images, annotations=[a for a in self.annotations if a["image_id"] in ids])

    def score(self, results: Sequence[Mapping[str, Any]]) -> float | None:
        """AP of results entries on these images, by CrowdPose's metric where the joints are CrowdPose's."""
        metric = "crowdpose" if self.skeleton is CROWDPOSE else "coco"
        wanted = {image["id"] for image in self.images}
        evaluator = KeypointEvaluator(self.images, self.annotations, self.skeleton, metric)
        return evaluator.score([entry for entry in results if entry["image_id"] in wanted])["AP"]


def load_truth(path: Path) -> Truth:
    """Annotations in COCO's layout. Raises InputError."""
    document = read_json(path)
    if not isinstance(document, dict) or not {"images", "annotations"} <= document.keys():
        raise InputError("holds no images and annotations", path, "give annotations in COCO's layout")
    return Truth.of(document)


def draw_crowds(count: int, seed: int = 0, scenes: int = 4) -> Truth:
    """Crowds of about ten people: several drawn scenes' people, resized and shuffled into one image."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        crowd = _draw_crowd(seed, number, scenes)
        size = {"width": CANVAS[0], "height": CANVAS[1]}
        images.append({"id": number, "file_name": f"{number}.jpg", **size, "crowdIndex": round(crowd.crowd_index, 2)})
        for person in crowd.people:
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": list(person.bbox)}
            annotations.append(entry | {"keypoints": person.keypoints.ravel().tolist()})
    return Truth.of({"images": images, "annotations": annotations})


def _draw_crowd(seed: int, number: int, scenes: int) -> Scene:
    rng = generator(seed, "crowd", number)
    people = []
    for part in range(scenes):
        scene = draw_scene(seed, number * scenes + part, SCENE_SIDE, CROWDPOSE)
        scale = rng.uniform(0.5, 1.0) * min(CANVAS) / SCENE_SIDE
        corner = rng.uniform(0, np.array(CANVAS) - SCENE_SIDE * scale)
        for person in scene.people:
            joints, (x, y, w, h) = person.keypoints.copy(), person.bbox
            joints[joints[:, 2] > 0, :2] = joints[joints[:, 2] > 0, :2] * scale + corner
            box = (x * scale + corner[0], y * scale + corner[1], w * scale, h * scale)
            people.append(replace(person, keypoints=joints, bbox=box))
    return replace(scene, people=tuple(people))


def make_output(
    image: Mapping[str, Any],
    people: np.ndarray,
    seed: int,
    resolution: int = 512,
    tag_step: float = 1.8,
    tag_offset: float = 0.0,
    faults: Faults | None = None,
) -> Output:
    """Our own outputs of an image; people's mean tags are tag_step apart, the first at tag_offset."""
    faults = faults or Faults()
    rng = np.random.default_rng(seed)
    frame = input_frame(image["width"], image["height"], resolution)
    placed = _place_peaks(rng, people, frame, faults)
    tags = tag_offset + tag_step * np.arange(len(people)) + rng.normal(0, faults.person_spread, len(people))
    painter = _Painter(people.shape[1], frame)
    for person, tag in zip(placed, tags, strict=True):
        for joint, (x, y, height) in enumerate(person):
            if not height:
                continue
            painter.peak(joint, x, y, height, tag + rng.normal(0, faults.joint_spread))
            if rng.random() < faults.doubled:
                angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(10, 15)
                across, down = away * np.cos(angle), away * np.sin(angle)
                painter.peak(joint, x + across, y + down, height / 2, tag + rng.normal(0, faults.joint_spread))
    for _ in range(rng.poisson(faults.false_peaks)):
        x, y = rng.uniform(0, (frame.width, frame.height))
        tag = rng.uniform(tags.min() - 1, tags.max() + 1)
        painter.peak(int(rng.integers(people.shape[1])), x, y, rng.uniform(0.15, 0.35), tag)
    for heat in (painter.low[: people.shape[1]], painter.high):
        heat += rng.uniform(0, faults.background, heat.shape).astype(np.float32)
    return Output(painter.low, painter.high, frame, placed)


def _place_peaks(rng: np.random.Generator, people: np.ndarray, frame: InputFrame, faults: Faults) -> np.ndarray:
    """Where the people's peaks are and how high: (P, J, 3), zeros where there is none."""
    shape = people.shape[:2]
    placed = np.empty(people.shape)
    placed[..., :2] = frame.to_input(people[..., :2]) + rng.normal(0, faults.noise, (*shape, 2))
    placed[..., 2] = rng.uniform(0.45, 1.0, shape)
    placed[(people[..., 2] <= 0) | (rng.random(shape) < faults.missed)] = 0
    return placed


class _Painter:
    """Maps that peaks are put on: the hottest wins each cell, and its tag with it."""

    def __init__(self, joints: int, frame: InputFrame) -> None:
        self.low = np.zeros((2 * joints, *frame.cells(LOW_STRIDE)), np.float32)
        self.high = np.zeros((joints, *frame.cells(HIGH_STRIDE)), np.float32)

    def peak(self, joint: int, x: float, y: float, height: float, tag: float) -> None:
        """A Gaussian of this height at x, y in input pixels."""
        coarse = height * gaussian(*self.low.shape[1:], x / LOW_STRIDE, y / LOW_STRIDE)
        fine = height * gaussian(*self.high.shape[1:], x / HIGH_STRIDE, y / HIGH_STRIDE)
        heat = self.low[joint]
        self.low[len(self.high) + joint][(coarse > heat) & (coarse > FAINTEST)] = tag
        np.maximum(heat, coarse, out=heat)
        np.maximum(self.high[joint], fine, out=self.high[joint])
