"""What annotations may leave out: boxes and areas are made up for alike, with one warning each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_pose.data.keypoint_dataset import load_dataset
from tests.data.datasets import annotation, contents, write


@pytest.mark.parametrize("area", [None, float("nan"), float("inf"), -2, 0, pytest.param(10**400, id="huge")])
def test_of_an_area_that_is_none_the_box_stands_in(tmp_path: Path, area: Any) -> None:
    value = contents()
    for record in value["annotations"][1:]:
        record["area"] = area
    dataset = load_dataset(*write(tmp_path, value))
    (warning,) = [line for line in dataset.warnings if "usable" in line]
    assert "2 people have no usable area; 0.53 of their box stands in" in warning
    areas = [600.5, 0.53 * 24 * 44, 0.53 * 24 * 44]
    np.testing.assert_allclose(np.concatenate([image.areas for image in dataset.images]), areas)
    assert [record["area"] for record in dataset.ground_truth["annotations"]] == pytest.approx(areas)


def test_a_missing_box_is_drawn_round_the_labelled_joints(tmp_path: Path) -> None:
    value = contents()
    first, second, third = value["annotations"]
    del first["bbox"], first["area"]
    second |= {"bbox": None, "keypoints": [0, 0, 0, *second["keypoints"][3:]]}
    dataset = load_dataset(*write(tmp_path, value))
    (warning,) = [line for line in dataset.warnings if "bbox" in line]
    assert "2 annotations have no bbox; the box round their labelled joints stands in" in warning
    boxes = [[20, 10, 20, 40], [20, 30, 20, 20], third["bbox"]]
    assert np.concatenate([image.boxes for image in dataset.images]).tolist() == boxes
    truth = dataset.ground_truth["annotations"]
    assert [record["bbox"] for record in truth] == boxes
    assert [record["area"] for record in truth] == pytest.approx([0.53 * 20 * 40, 600.5, 600.5])


def test_ignored_people_need_no_box(tmp_path: Path) -> None:
    value = contents(1)
    outline = [[0, 0, 10, 0, 10, 10, 0, 10]]
    value["annotations"] = [
        annotation(1, 0, iscrowd=1, segmentation=outline),
        annotation(2, 0, iscrowd=1),
        annotation(3, 0, [0] * 15, num_keypoints=0),
    ]
    for record in value["annotations"]:
        del record["bbox"], record["area"]
    dataset = load_dataset(*write(tmp_path, value))
    (image,) = dataset.images
    assert [region.crowd for region in image.ignore] == [True, True, False]
    assert image.ignore[0].polygons[0].tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert image.ignore[1].polygons[0].tolist() == [[20, 10], [40, 10], [40, 50], [20, 50]]
    assert image.ignore[2].polygons == () and image.ignore[2].runs is None  # nobody knows where
    assert any("3 annotations have no bbox" in line for line in dataset.warnings)
    assert dataset.ground_truth["annotations"][2]["bbox"] == [0, 0, 0, 0]
