"""The statistics of a dataset are its counts, and the drafted skeleton can be read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofa_pose.data.check import draft_skeleton_yaml, statistics
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.skeleton import load_skeleton
from ofa_pose.utils.errors import InputError
from tests.data.datasets import annotation, contents, write


def test_counts(tmp_path: Path) -> None:
    value = contents(4)
    value["images"][3] |= {"width": 128, "height": 96}
    value["annotations"] = [
        *(annotation(number, 0, area=32.0**2) for number in range(4)),
        annotation(4, 1, [9, 9, 2] + [0] * 12, area=16.0**2),
        annotation(5, 1, [0] * 15),
        annotation(6, 3, iscrowd=1),
    ]
    checked = statistics(load_dataset(*write(tmp_path, value), check_images="decode"))
    assert json.loads(json.dumps(checked)) == checked
    assert (checked["images"], checked["images_with_people"]) == (4, 2)
    assert (checked["people"], checked["labelled_people"], checked["crowd_regions"]) == (6, 5, 1)
    assert checked["joints"]["head"] == {"labelled": 5, "visible": 5, "hidden": 0, "share": 1.0}
    assert checked["joints"]["right_hand"] == {"labelled": 4, "visible": 0, "hidden": 4, "share": 0.8}
    assert checked["people_per_image"] == {"0": 2, "1": 1, "2-4": 1, "5-9": 0, "10-19": 0, "20+": 0}
    assert checked["image_sizes"] == {"smallest": [96, 64], "median": [96, 64], "largest": [128, 96]}
    assert checked["person_sizes"] == {"lower": 0.5, "median": 0.5, "upper": 0.5}
    assert checked["skeleton"] == "figure" and "of no built-in skeleton" in checked["warnings"][0]


def test_a_dataset_without_people_has_statistics_too(tmp_path: Path) -> None:
    checked = statistics(load_dataset(*write(tmp_path, contents(1)), check_images="decode"))
    assert checked["labelled_people"] == 0 and checked["person_sizes"] == {}
    assert checked["joints"]["head"]["share"] == 0


def test_every_damaged_image_is_named(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, contents(3))
    for name in ("0.png", "2.png"):
        (images / name).write_bytes((images / name).read_bytes()[:-30])
    with pytest.raises(InputError) as caught:
        load_dataset(annotations, images, check_images="decode")
    assert [fault.where for fault in caught.value.faults] == [str(images / "0.png"), str(images / "2.png")]


def test_the_drafted_skeleton_can_be_given_back(tmp_path: Path) -> None:
    dataset = load_dataset(*write(tmp_path, contents(2)))
    path = tmp_path / "skeleton.yaml"
    path.write_text(draft_skeleton_yaml(dataset))
    skeleton = load_skeleton(path)
    assert skeleton == dataset.skeleton
    assert load_dataset(dataset.annotations_path, dataset.images_dir, skeleton).warnings == ()
