"""Label Studio's JSON: percent, people by parentID or relations, turned images, and what nothing joins."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.formats import label_studio
from ofa_pose.formats.annotated import Gathered, Given, Joints
from ofa_pose.utils.errors import InputError
from tests.formats.scenes import Scene, assert_same, box_of, scene_lists, write_images

Region = dict[str, Any]


def turned(x: float, y: float, scene: Scene, degrees: int) -> tuple[float, float]:
    """Percent of the shown image of a position, when the image is shown turned clockwise."""
    w, h = scene.width, scene.height
    for _ in range(degrees // 90):
        x, y, w, h = h - y, x, h, w
    return 100 * x / w, 100 * y / h


def task(number: int, scene: Scene, joined: str, degrees: int = 0) -> dict[str, Any]:
    """A scene as Label Studio exports it; joined: 'parentID' or 'relation'."""
    regions: list[Region] = []
    size = {"original_width": scene.width, "original_height": scene.height, "image_rotation": degrees}
    for place, person in enumerate(scene.people):
        x, y, w, h = box_of(person)
        ends = [turned(*end, scene, degrees) for end in ((x, y), (x + w, y + h))]
        (left, right), (top, bottom) = (sorted(axis) for axis in zip(*ends, strict=True))
        sides = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
        value = {**sides, "rectanglelabels": ["fish"]}
        regions.append({**size, "id": f"box{place}", "type": "rectanglelabels", "value": value})
        for name, (px, py, _) in person.items():
            sx, sy = turned(px, py, scene, degrees)
            own = {"id": f"{name}{place}", "type": "keypointlabels"}
            value = {"x": sx, "y": sy, "width": 0.5, "keypointlabels": [name]}
            parent = {"parentID": f"box{place}"} if joined == "parentID" else {}
            regions.append({**size, **own, **parent, "value": value})
            if joined == "relation":
                regions.append({"from_id": own["id"], "to_id": f"box{place}", "type": "relation", "direction": "right"})
    annotation = {"id": number, "result": regions, "was_cancelled": False}
    return {"id": number, "data": {"image": f"/data/upload/3/0a1b2c3d-{scene.name}"}, "annotations": [annotation]}


def write(folder: Path, value: Any) -> Given:
    """An export in a folder."""
    path = folder / "project-1-at-2026.json"
    path.write_text(json.dumps(value))
    return Given(path)


@settings(max_examples=60, deadline=None)
@given(scene_lists(flags=(2,)), st.sampled_from(("parentID", "relation")), st.sampled_from((0, 90, 180, 270)))
def test_people_are_joined_and_turned_back(scenes: list[Scene], joined: str, degrees: int) -> None:
    tasks = [task(number, scene, joined, degrees) for number, scene in enumerate(scenes)]
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes:
            Path(folder, scene.name).touch()
        sized = [one for one, scene in zip(tasks, scenes, strict=True) if scene.people]
        named = write(Path(folder), sized)
        assert label_studio.FORMAT.accepts(named)
        (part,) = label_studio.FORMAT.read(named)
    assert_same(part, scenes, drop_empty=True)
    assert not part.losses and bool(part.notes) == bool(degrees)


def test_the_size_of_an_image_without_regions_is_read_from_it(tmp_path: Path) -> None:
    scenes = [Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},)), Scene("b.png", 30, 20, ())]
    write_images(tmp_path, scenes)
    (part,) = label_studio.FORMAT.read(write(tmp_path, [task(n, s, "parentID") for n, s in enumerate(scenes)]))
    assert_same(part, scenes)
    assert part.notes == ()


def test_joints_that_nothing_joins(tmp_path: Path) -> None:
    scene = Scene("a.png", 100, 100, ({"head": (10.0, 10.0, 2), "tail": (30.0, 30.0, 2)}, {"head": (80.0, 80.0, 2)}))
    one = task(1, scene, "parentID")
    regions = one["annotations"][0]["result"]
    for region in regions:
        region.pop("parentID", None)
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    people = [record["keypoints"][2::3] for record in part.value["annotations"]]
    assert people == [[2, 2], [2, 0]] and any(
        note.startswith("3 joints are joined to no person") for note in part.notes
    )
    next(region for region in regions if region["id"] == "tail0")["value"]["x"] = 50
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    assert part.losses == {"joints_of_nobody": 1}
    regions[1]["parentID"] = "box0"  # now some are joined: the others were left apart on purpose
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    assert part.losses == {"joints_of_nobody": 2}
    del regions[1]["parentID"]
    one["annotations"][0]["result"] = [region for region in regions if region["type"] == "keypointlabels"]
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    assert len(part.value["annotations"]) == 1 and part.losses == {"repeated_joints": 1}


def test_a_turned_box_becomes_the_upright_one_around_it(tmp_path: Path) -> None:
    one = task(1, Scene("a.png", 200, 100, ({"head": (50.0, 50.0, 2)},)), "parentID")
    one["annotations"][0]["result"][0]["value"] |= {"x": 50, "y": 50, "width": 20, "height": 10, "rotation": 90}
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    assert part.value["annotations"][0]["bbox"] == pytest.approx([90, 50, 10, 40])
    assert part.losses == {"turned_boxes": 1}


def test_only_the_first_annotation_that_was_not_skipped_counts(tmp_path: Path) -> None:
    one = task(1, Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},)), "parentID")
    first = one["annotations"][0]
    one["annotations"] = [{**first, "was_cancelled": True}, first, {**first, "result": []}]
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    assert len(part.value["annotations"]) == 1 and part.losses == {"annotators": 2}


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/3/0a1b2c3d-a.png", "a.png"),
        ("/data/local-files/?d=photos/a.png", "photos/a.png"),
        ("https://example.org/x/a%20b.png?size=3", "a b.png"),
        ("s3://bucket/photos/a.png", "a.png"),
        ("photos/a.png", "photos/a.png"),
    ],
)
def test_images_are_found_by_what_names_them(tmp_path: Path, address: str, name: str) -> None:
    one = task(1, Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},)), "parentID")
    one["data"] = {"text": "hello", "img": address}
    image = tmp_path / "images" / name
    image.parent.mkdir(parents=True)
    image.touch()
    (part,) = label_studio.FORMAT.read(write(tmp_path, [one]))
    assert part.origins == (image,) and not part.notes


def _region(change: dict[str, Any]) -> Any:
    return lambda one: one["annotations"][0]["result"][1].update(change)


FAULTS = [
    (lambda one: one.pop("annotations"), "task 7: has no annotations"),
    (lambda one: one.update(annotations=[{}]), "task 7: has an annotation without a result"),
    (
        _region({"value": {"x": "a", "y": 1, "keypointlabels": ["head"]}}),
        "task 7: region head0: x is 'a', not a number",
    ),
    (_region({"value": {"y": 1, "keypointlabels": ["head"]}}), "x is None, not a number"),
    (_region({"value": {"x": float("nan"), "y": 1, "keypointlabels": ["head"]}}), "x is nan, not a number"),
    (_region({"parentID": ["box0"]}), r"task 7: a region's parentID is \['box0'\]"),
    (lambda one: one.update(data="a.png"), "task 7: has no annotations"),
    (_region({"image_rotation": 45}), "region head0: image_rotation is 45"),
    (lambda one: one.update(data={"text": "no image"}), "task 7: its data names no image file"),
    (lambda one: one.update(data={"image": "/data/local-files/?d=../../a.png"}), "leads out of"),
    (lambda one: one["annotations"][0]["result"][0].update(original_width=0), "its width and height are 0 and 40"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults(tmp_path: Path, change: Any, message: str) -> None:
    one = task(7, Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},)), "parentID")
    change(one)
    with pytest.raises(InputError, match=message) as caught:
        label_studio.FORMAT.read(write(tmp_path, [one]))
    assert "project-1-at-2026.json" in str(caught.value)


def _relations(ends: list[tuple[int, int]]) -> list[Region]:
    return [{"type": "relation", "from_id": str(a), "to_id": str(b)} for a, b in ends]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_regions_of_one_group_are_those_that_relations_join(ends: list[tuple[int, int]]) -> None:
    groups = label_studio._groups(_relations(ends))
    sets = {one: {one} for end in ends for one in map(str, end)}
    for a, b in ends:
        both = sets[str(a)] | sets[str(b)]
        sets |= dict.fromkeys(both, both)
    assert {one: {other for other in groups if groups[other] == groups[one]} for one in groups} == sets


@pytest.mark.parametrize("step", [1, -1])
def test_a_long_chain_of_relations_takes_no_time(step: int) -> None:
    start = time.process_time()
    groups = label_studio._groups(_relations([(n, n + 1) for n in range(1, 20_000)][::step]))
    assert len(groups) == 20_000 and len(set(groups.values())) == 1
    assert time.process_time() - start < 2


def test_many_people_of_two_joints_take_no_time(tmp_path: Path) -> None:
    reader = label_studio._Tasks(Given(tmp_path / "a.json"), Gathered(Joints("fish", ("head", "tail"))))
    points = {number: [("head", (1.0, 1.0, 2))] * (1 + number % 2) for number in range(60_000)}
    start = time.process_time()
    reader._place_single_joints(points, {})
    assert len(points) == 30_000 and time.process_time() - start < 2
