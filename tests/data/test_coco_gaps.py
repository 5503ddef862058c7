"""What annotations may leave out: boxes and areas are made up for alike, with one warning each."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.inference.evaluate import read_results
from ofa_pose.pose.metrics import KeypointEvaluator
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import as_id
from tests.data.datasets import annotation, contents, write
from tests.data.test_images import turned_jpeg


@pytest.mark.parametrize("area", [None, float("nan"), float("inf"), -2, 0, 1e300, pytest.param(10**400, id="huge")])
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
    assert "2 annotations have no bbox, or an empty one; the box round their labelled joints stands in" in warning
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


@pytest.mark.parametrize("box", [None, [0, 0, 0, 0], [30, 10, 0, 40], [30, 10, 40, 0.0]])
def test_an_empty_box_counts_as_none(tmp_path: Path, box: Any) -> None:
    value = contents(2)
    value["annotations"][0] |= {"bbox": box, "area": None}
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.images[1].boxes.tolist() == [[20, 10, 20, 40]]
    (truth,) = dataset.ground_truth["annotations"]
    assert truth["bbox"] == [20, 10, 20, 40] and truth["area"] == pytest.approx(0.53 * 20 * 40)
    assert dataset.images[1].areas.tolist() == pytest.approx([truth["area"]])
    assert any("have no bbox, or an empty one" in line for line in dataset.warnings)


@pytest.mark.parametrize("points", [[30, 10, 2] + [0] * 12, [30, 10, 2, 30, 20, 1, 30, 45, 2] + [0] * 6])
def test_people_whom_nothing_gives_an_extent_are_counted_and_named(tmp_path: Path, points: list[float]) -> None:
    value = contents(2)
    value["annotations"][0] |= {"keypoints": points, "bbox": [0, 0, 0, 0], "area": 0}
    (warning,) = [line for line in load_dataset(*write(tmp_path, value)).warnings if "no extent" in line]
    assert "1 people have no extent" in warning and "annotation 100" in warning and "bbox or an area" in warning
    value["annotations"][0]["area"] = 50
    assert not [line for line in load_dataset(*write(tmp_path, value)).warnings if "no extent" in line]


def test_a_stored_count_of_0_beside_labelled_joints_is_reported(tmp_path: Path) -> None:
    value = contents(3)
    value["annotations"][1]["num_keypoints"] = 0
    (warning,) = [line for line in load_dataset(*write(tmp_path, value)).warnings if "num_keypoints" in line]
    assert "1 people have num_keypoints 0 beside labelled joints" in warning


IDS = st.one_of(st.integers(-5, 10**12), st.text("ab_0", min_size=1, max_size=4), st.integers(0, 99).map(float))


@given(st.lists(IDS, min_size=2, max_size=5, unique_by=str), st.data())
def test_ids_of_any_kind_are_read_alike_everywhere(ids: list[Any], data: st.DataObject) -> None:
    """Ids mix numbers and texts, whole numbers come as 1.0, and annotations name them in another type."""
    assume(len({str(as_id(one)) for one in ids}) == len(ids))
    value = contents(len(ids))
    people = []
    for number, (record, image_id) in enumerate(zip(value["images"], ids, strict=True)):
        record["id"] = image_id
        named = data.draw(st.sampled_from([image_id, str(as_id(image_id)), as_id(image_id)]))
        people.append(annotation(float(number), named, category_id=data.draw(st.sampled_from([1, 1.0, "1"]))))
    value["annotations"] = people
    with tempfile.TemporaryDirectory() as folder:
        annotations, images = write(Path(folder), value, files=False)
        dataset = load_dataset(annotations, images, check_images="none")
        truth = dataset.ground_truth
    expected = [as_id(one) for one in ids]
    assert [record.id for record in dataset.images] == expected and dataset.people == len(ids)
    assert [image["id"] for image in truth["images"]] == expected
    assert [one["image_id"] for one in truth["annotations"]] == expected
    entries = [{"image_id": one["image_id"], "keypoints": one["keypoints"], "score": 1.0} for one in people]
    evaluator = KeypointEvaluator(truth["images"], truth["annotations"], dataset.skeleton)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        results.write_text(json.dumps(entries))
        assert evaluator.score(read_results(results, dataset))["AP"] == pytest.approx(1)


def test_categories_of_the_same_joints_are_one(tmp_path: Path) -> None:
    value = contents(4)
    value["categories"] += [{**value["categories"][0], "id": 2, "name": "dog"}, {"id": 3, "name": "ball"}]
    value["annotations"][0]["category_id"] = 2
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.people == 3 and dataset.other_categories == {3}
    assert {one["category_id"] for one in dataset.ground_truth["annotations"]} == {1}
    assert any("2 categories of the same joints; dog are read as the first" in line for line in dataset.warnings)


def test_null_for_iscrowd_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    value = contents(3)
    for one in value["annotations"]:
        one["iscrowd"] = None
    annotations, images = write(tmp_path, value)
    annotations.write_bytes(b"\xef\xbb\xbf" + annotations.read_bytes())
    assert load_dataset(annotations, images).people == 3


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.booleans())
def test_shares_of_the_image_are_refused(x: float, y: float, boxes: bool) -> None:
    value = contents(3)
    for one in value["annotations"]:
        if boxes:
            one["bbox"] = [0.1, 0.1, x, y]
        else:
            one["keypoints"] = [x, y, 2, y, x, 1] + [0] * 9
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.raises(InputError, match="as if they were shares of the image"),
    ):
        load_dataset(*write(Path(folder), value, files=False), check_images="none")


def test_limbs_counted_from_0_are_read_so_and_a_word_says_it(tmp_path: Path) -> None:
    value = contents(2)
    value["categories"][0]["skeleton"] = [[0, 1], [0, 2], [0, 4]]
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.skeleton.limbs == ((0, 1), (0, 2), (0, 4))
    assert any("its limbs count joints from 0" in line for line in dataset.warnings)


@pytest.mark.parametrize(
    ("joints", "words"),
    [
        (["head", "LEye", "REye", "left_hand", "tail"], "the other side of left_hand is not named"),
        (["head", "neck", "hip", "tail", "back"], "no two joints are named as left and right"),
    ],
)
def test_what_forbids_mirroring_is_named(tmp_path: Path, joints: list[str], words: str) -> None:
    value = contents(2)
    value["categories"][0]["keypoints"] = joints
    dataset = load_dataset(*write(tmp_path, value))
    assert not dataset.skeleton.mirror
    (warning,) = [line for line in dataset.warnings if words in line]
    assert "not mirrored, neither in training nor in a flip test" in warning


ORIENTATIONS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8])
SIZES = st.sampled_from([(48, 32), (32, 32), (33, 32)])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(ORIENTATIONS, SIZES), min_size=1, max_size=4), st.booleans())
def test_a_file_has_one_way_round_for_training_and_evaluation(kinds: list[Any], upright: bool) -> None:
    """Where any size says how the images were seen, all are read so; where none does, upright, and a word says it."""
    value = contents(len(kinds))
    with tempfile.TemporaryDirectory() as folder:
        annotations, images = write(Path(folder), value, files=False)
        for record, (orientation, (width, height)) in zip(value["images"], kinds, strict=True):
            record["file_name"] = f"{record['id']}.jpg"
            swapped = upright and orientation > 4
            record["width"], record["height"] = (height, width) if swapped else (width, height)
            (images / record["file_name"]).write_bytes(turned_jpeg(orientation, width, height))
        annotations.write_text(json.dumps(value))
        dataset = load_dataset(annotations, images)
        turned = [orientation > 1 for orientation, _ in kinds]
        decided = [orientation > 4 and width != height for orientation, (width, height) in kinds]
        way = upright if any(decided) else True
        assert [record.upright for record in dataset.images] == [way and one for one in turned]
        guessed = sum(turned) - sum(decided)
        told = [line for line in dataset.warnings if f"{guessed} images are turned by EXIF and keep their size" in line]
        assert len(told) == (guessed > 0)
        assert all(("a guess" in line) == (not any(decided)) for line in told)
        for record in dataset.images:
            whole = record.read()
            small, _ = record.read_reduced(2)
            assert (
                np.abs(cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA) - small.astype(int)).mean()
                < 6
            )
            assert whole.shape[:2] == (record.height, record.width)


def test_sizes_that_say_both_ways_are_each_read_as_they_say(tmp_path: Path) -> None:
    value = contents(4)
    annotations, images = write(tmp_path, value, files=False)
    for record, seen in zip(value["images"], [(32, 48), (32, 48), (48, 32), (40, 40)], strict=True):
        record["file_name"] = f"{record['id']}.jpg"
        record["width"], record["height"] = seen
        (images / record["file_name"]).write_bytes(turned_jpeg(6, *((40, 40) if seen == (40, 40) else (48, 32))))
    annotations.write_text(json.dumps(value))
    dataset = load_dataset(annotations, images)
    assert [record.upright for record in dataset.images] == [True, True, False, True]
    assert any("by their sizes 2 of 3 images that EXIF turns are labelled upright" in line for line in dataset.warnings)
    assert any(
        "1 images are turned by EXIF and keep their size (the first is 3.jpg)" in line for line in dataset.warnings
    )


def test_a_count_without_labels_is_said(tmp_path: Path) -> None:
    value = contents()
    value["annotations"][0] |= {"keypoints": [0] * 15, "num_keypoints": 5}
    value["annotations"][1] |= {"keypoints": [0] * 15, "num_keypoints": 0}
    value["annotations"][2] |= {"keypoints": [0] * 15, "num_keypoints": 5, "iscrowd": 1}
    dataset = load_dataset(*write(tmp_path, value))
    (warning,) = [line for line in dataset.warnings if "num_keypoints" in line]
    assert "1 people have num_keypoints above 0 and no labelled joint" in warning
    assert sum(record.counted for record in dataset.images) == 1
