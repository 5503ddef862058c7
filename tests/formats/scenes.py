"""Scenes that the tests write as each tool would, and read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from ofa_pose.formats.annotated import AnnotatedImages

JOINTS = ("head", "left_hand", "right_hand", "tail")
LIMBS = (("head", "left_hand"), ("head", "right_hand"), ("head", "tail"))
Person = dict[str, tuple[float, float, int]]  # x, y in pixels and visibility of each labelled joint


@dataclass(frozen=True)
class Scene:
    """One image and its people."""

    name: str
    width: int
    height: int
    people: tuple[Person, ...]


@st.composite
def scene_lists(draw: Any, flags: tuple[int, ...] = (1, 2), most_people: int = 3) -> list[Scene]:
    """Up to three scenes; the first person of the first one has every joint, others at least one."""
    scenes = []
    for number in range(draw(st.integers(1, 3))):
        width, height = draw(st.integers(16, 2000)), draw(st.integers(16, 2000))
        people = []
        for place in range(draw(st.integers(1 if number == 0 else 0, most_people))):
            whole = number == place == 0
            names = JOINTS if whole else draw(st.lists(st.sampled_from(JOINTS), min_size=1, unique=True))
            xs, ys = st.floats(0, width), st.floats(0, height)
            people.append({name: (draw(xs), draw(ys), draw(st.sampled_from(flags))) for name in names})
        scenes.append(Scene(f"{number}.png", width, height, tuple(people)))
    return scenes


def box_of(person: Person) -> tuple[float, float, float, float]:
    """x, y, width, height round a person's joints."""
    xs, ys = [x for x, _, _ in person.values()], [y for _, y, _ in person.values()]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def write_images(folder: Path, scenes: list[Scene]) -> None:
    """A grey image for each scene."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        cv2.imwrite(str(folder / scene.name), np.full((scene.height, scene.width), 90, np.uint8))


def assert_same(part: AnnotatedImages, scenes: list[Scene], drop_empty: bool = False) -> None:
    """What was read is what was written: joints to 1e-3 pixel, visibility and sizes exactly."""
    wanted = [scene for scene in scenes if scene.people or not drop_empty]
    images = part.value["images"]
    places = part.origins or [image["file_name"] for image in images]
    assert [Path(str(place)).name for place in places] == [scene.name for scene in wanted]
    assert [(image["width"], image["height"]) for image in images] == [(s.width, s.height) for s in wanted]
    names = part.value["categories"][0]["keypoints"]
    for image, scene in zip(images, wanted, strict=True):
        records = [record for record in part.value["annotations"] if record["image_id"] == image["id"]]
        assert len(records) == len(scene.people)
        for record, person in zip(records, scene.people, strict=True):
            found = np.array(record["keypoints"], np.float64).reshape(-1, 3)
            expected = np.array([person.get(name, (0, 0, 0)) for name in names], np.float64)
            np.testing.assert_array_equal(found[:, 2], expected[:, 2])
            np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=1e-3)
            np.testing.assert_allclose(record["bbox"], box_of(person), atol=2e-3)
