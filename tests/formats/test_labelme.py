"""LabelMe: one file an image; groups are people."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from ofa_pose.formats import labelme
from ofa_pose.formats.annotated import Given
from ofa_pose.skeleton import COCO
from ofa_pose.utils.errors import InputError
from tests.formats.scenes import Scene, assert_same, box_of, scene_lists


def value_of(scene: Scene) -> dict[str, Any]:
    """What LabelMe saves of a scene."""
    shapes: list[dict[str, Any]] = []
    for group, person in enumerate(scene.people):
        x, y, w, h = box_of(person)
        corners = [[x + w, y + h], [x, y]]
        shapes.append({"label": "fish", "points": corners, "group_id": group, "shape_type": "rectangle", "flags": {}})
        for name, (px, py, _) in person.items():
            point = {"label": name, "points": [[px, py]], "group_id": group, "shape_type": "point", "flags": {}}
            shapes.append(point)
    sides = {"imageHeight": scene.height, "imageWidth": scene.width}
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": scene.name, "imageData": None, **sides}


def write(folder: Path, values: list[dict[str, Any]]) -> Given:
    """One file for each image."""
    for number, value in enumerate(values):
        (folder / f"{number}.json").write_text(json.dumps(value))
    return Given(folder)


@settings(max_examples=40, deadline=None)
@given(scene_lists(flags=(2,)))
def test_groups_are_people(scenes: list[Scene]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        named = write(Path(folder), [value_of(scene) for scene in scenes])
        assert labelme.FORMAT.accepts(named) and labelme.FORMAT.accepts(Given(Path(folder, "0.json")))
        (part,) = labelme.FORMAT.read(named)
    assert_same(part, scenes)
    assert not part.losses


def test_the_joints_of_a_built_in_skeleton_are_in_its_order(tmp_path: Path) -> None:
    person = dict.fromkeys(reversed(COCO.joints), (1.0, 2.0, 2))
    (part,) = labelme.FORMAT.read(write(tmp_path, [value_of(Scene("a.png", 9, 9, (person,)))]))
    assert part.value["categories"][0]["keypoints"] == list(COCO.joints)


def test_another_tools_json_in_a_folder_makes_no_fault(tmp_path: Path) -> None:
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "settings.json").write_text("// not JSON")
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(InputError, match=r"half\.json:1:2: is not valid JSON"):
        labelme.FORMAT.accepts(Given(tmp_path))
    (tmp_path / "half.json").unlink()
    assert not labelme.FORMAT.accepts(Given(tmp_path))
    named = write(tmp_path, [value_of(Scene("a.png", 9, 9, ({"nose": (1.0, 2.0, 2)},)))])
    assert labelme.FORMAT.accepts(named) and len(labelme.FORMAT.read(named)) == 1
    (tmp_path / "-.json").write_text("// not JSON")
    assert labelme.FORMAT.accepts(named)
    with pytest.raises(InputError, match=r"-\.json:1:1: is not valid JSON"):
        labelme.FORMAT.read(named)


def test_more_joints_than_any_network_learns_are_refused_before_they_are_spread(tmp_path: Path) -> None:
    people = tuple({f"joint {number}": (1.0, 2.0, 2)} for number in range(1001))
    named = write(tmp_path, [value_of(Scene("a.png", 9, 9, people))])
    with pytest.raises(InputError, match="has 1,001 joints"):
        labelme.FORMAT.read(named)


def test_joints_may_be_numbers(tmp_path: Path) -> None:
    value = value_of(Scene("a.png", 50, 40, ({"1": (1.0, 2.0, 2), "2": (3.0, 4.0, 2)},)))
    for shape, label in zip(value["shapes"], ("fish", 1, "1"), strict=True):
        shape["label"] = label
    (part,) = labelme.FORMAT.read(write(tmp_path, [value]))
    assert part.value["categories"][0]["keypoints"] == ["1"] and part.losses == {"repeated_joints": 1}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    value = value_of(Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},)))
    value["flags"] = {"night": True, "day": False}
    value["shapes"] += [
        {"label": "car", "points": [[1, 1], [2, 2], [3, 1]], "shape_type": "polygon"},
        {"label": "head", "points": [[5, 5]], "group_id": 0, "shape_type": "point"},
        {"label": "fish", "points": [[5, 5], [6, 6]], "group_id": 0, "shape_type": "rectangle"},
    ]
    (part,) = labelme.FORMAT.read(write(tmp_path, [value]))
    assert part.losses == {"attributes": 1, "other_shapes": 2, "repeated_joints": 1}
    assert part.value["annotations"][0]["keypoints"] == [1.0, 2.0, 2]


FAULTS = [
    ({"shapes": {}}, "0.json: shapes is not a list"),
    ({"shapes": [{"label": "head"}]}, "0.json: shape at place 0: has no label and points"),
    ({"shapes": [{"label": "head", "points": [[1]], "shape_type": "point"}]}, r"shape at place 0: a point is \[1\]"),
    ({"shapes": [{"label": "head", "points": [["a", 1]], "shape_type": "point"}]}, "x is 'a', not a number"),
    ({"shapes": [{"label": "a", "points": [[1, 1]], "group_id": []}]}, r"shape at place 0: group_id is \[\]"),
    ({"imagePath": 5}, "imagePath is 5"),
    ({"imagePath": "../../a.png"}, "leads out of"),
    ({"imageWidth": "wide"}, "imageWidth or imageHeight is 'wide'"),
    ({"imageWidth": None}, "no such image, and its size is needed"),
    ({"shapes": []}, "names no joints"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    value = value_of(Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},)))
    with pytest.raises(InputError, match=message):
        labelme.FORMAT.read(write(tmp_path, [value | change]))
