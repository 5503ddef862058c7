"""Datasets load as annotated, and each thing that can be wrong in them is named with its place."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.skeleton import COCO, CROWDPOSE, Skeleton, draft
from ofa_pose.utils.errors import InputError
from tests.data.datasets import JOINTS, annotation, contents, write

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
Mutation = Callable[[dict[str, Any]], object]


def test_records_are_as_annotated(tmp_path: Path) -> None:
    value = contents(3)
    value["images"][1]["crowdIndex"] = 0.5
    value["annotations"] = [
        annotation(1, 1, [1.5, 2.5, 2, 0, 0, 0, 3, 4, 1, 96, 64, 2, 7, 7, 0]),
        annotation(2, 1, [0] * 15, bbox=[10, 20, 30, 40]),
        annotation(3, 1, iscrowd=1, segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]]),
        annotation(4, 2, iscrowd=1, keypoints=None, segmentation={"size": [64, 96], "counts": [0, 64, 64 * 95]}),
    ]
    del value["annotations"][3]["keypoints"]
    dataset = load_dataset(*write(tmp_path, value))
    empty, image, crowd = dataset.images
    assert [record.id for record in dataset.images] == [0, 1, 2] and dataset.people == 1
    assert empty.keypoints.shape == (0, 5, 3) and empty.boxes.shape == (0, 4) and empty.areas.shape == (0,)
    expected = [[1.5, 2.5, 2], [0, 0, 0], [3, 4, 1], [96, 64, 2], [0, 0, 0]]
    np.testing.assert_array_equal(image.keypoints, np.float32([expected]))
    assert image.keypoints.dtype == np.float32 and image.crowd_index == 0.5 and empty.crowd_index is None
    assert image.boxes.tolist() == [[18, 8, 24, 44]] and image.areas.tolist() == [600.5]
    assert [region.crowd for region in image.ignore] == [False, True]
    assert image.ignore[0].polygons[0].tolist() == [[10, 20], [40, 20], [40, 60], [10, 60]]
    assert image.ignore[1].polygons[0].tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert crowd.ignore[0].runs is not None
    mask = crowd.ignore[0].runs.mask()
    assert mask[:, 0].all() and not mask[:, 1:].any() and mask.shape == (64, 96)
    assert image.read().shape == (64, 96, 3)


def test_a_joint_outside_the_image_is_a_warning_and_counts_as_unlabelled(tmp_path: Path) -> None:
    value = contents(2)
    value["annotations"] = [annotation(7, 1, [-1, 5, 2, 9, 9, 2, 96.5, 9, 2, 9, 65, 1, 5, 5, 2])]
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.images[1].keypoints[0, :, 2].tolist() == [0, 2, 0, 0, 2]
    (warning,) = [line for line in dataset.warnings if "lie outside" in line]
    assert "3 labelled joints" in warning and "annotation 7 head at (-1, 5)" in warning
    evaluated = dataset.ground_truth["annotations"][0]
    assert evaluated["keypoints"][:3] == [-1, 5, 2]  # an evaluator sees the file as it is


def test_a_person_with_all_joints_outside_is_left_out_of_the_loss(tmp_path: Path) -> None:
    value = contents(1)
    value["annotations"] = [annotation(7, 0, [-1, 5, 2] + [0] * 12)]
    (image,) = load_dataset(*write(tmp_path, value)).images
    assert len(image.keypoints) == 0 and len(image.ignore) == 1


def _first(key: str, **changes: Any) -> Mutation:
    return lambda value: value[key][0].update(changes)


def _keypoint(place: int, number: Any) -> Mutation:
    return lambda value: value["annotations"][0]["keypoints"].__setitem__(place, number)


FAULTS: list[tuple[Mutation, str]] = [
    (lambda v: v.pop("images"), "annotations.json: has no list 'images'"),
    (lambda v: v.update(annotations={}), "annotations.json: has no list 'annotations'"),
    (lambda v: v.pop("categories"), "annotations.json: has no list 'categories'"),
    (lambda v: v.update(images=[], annotations=[]), "annotations.json: holds no images"),
    (_first("categories", keypoints=[]), "has no category with keypoints; list the joint names"),
    (_first("categories", keypoints=["a", "a"]), "category 1: keypoints must be a list of distinct joint names"),
    (_first("categories", keypoints="head"), "category 1: keypoints must be a list of distinct joint names"),
    (_first("categories", keypoints=[str(k) for k in range(10_000)]), "category 1: has 10,000 joints; give at most"),
    (_first("categories", skeleton=[[1, 2]] * 10_001), "category 1: has 10,001 limbs; give at most 10,000"),
    (_first("categories", id=None), "category None: has no id"),
    (
        lambda v: v["categories"].append({"id": 2, "name": "dog", "keypoints": ["a"]}),
        "different keypoints (figure, dog)",
    ),
    (_first("categories", id=1.5), "category 1.5: its id is 1.5, neither a whole number nor a text"),
    (_first("images", id=True), "image True: its id is True, neither a whole number nor a text"),
    (_first("annotations", image_id="7"), "annotation 100: its image_id '7' is not among the images"),
    (_first("images", width="96", height="64"), "image 0: width and height are '96' and '64'; give the file's size as"),
    (lambda v: v["images"][3].update(id=0), "image 0: its id is used twice"),
    (lambda v: v["images"][3].pop("id"), "image at place 3: has no id"),
    (lambda v: v["images"].append("0.png"), "image at place 4: is not a record; write it as an object of fields"),
    (_first("images", width=None), "image 0: width and height are None and 64; give the file's size"),
    (_first("images", height=float("nan")), "image 0: width and height are 96 and nan"),
    (_first("images", height=0), "image 0: width and height are 96 and 0"),
    (_first("images", width="96"), "image 0: width and height are '96' and 64"),
    (_first("images", file_name=""), "image 0: has no file_name"),
    (lambda v: v["annotations"][0].pop("id"), "annotation at place 0: has no id"),
    (_first("annotations", id=101), "annotation 101: its id is used twice"),
    (_first("annotations", id=None), "annotation None: has no id"),
    (
        lambda v: v["annotations"].__setitem__(0, 3),
        "annotation at place 0: is not a record; write it as an object of fields",
    ),
    (_first("annotations", image_id=77), "annotation 100: its image_id 77 is not among the images"),
    (_first("annotations", image_id=[1]), "annotation 100: its image_id [1] is not among the images"),
    (_first("annotations", category_id=9), "annotation 100: its category_id 9 is not among the categories; give 1"),
    (_first("annotations", category_id=[1]), "annotation 100: its category_id [1] is not among"),
    (_first("annotations", iscrowd="no"), "annotation 100: iscrowd is 'no'; give 0 or 1"),
    (_first("annotations", bbox=[1, 2, 3]), "annotation 100: bbox is [1, 2, 3]; give [x, y, width, height]"),
    (_first("annotations", bbox=[1, 2, -3, 4]), "annotation 100: bbox is [1, 2, -3, 4]"),
    (_first("annotations", bbox=[1, 2, 10**400, 4]), "annotation 100: bbox is [1, 2, 1000"),
    (_first("annotations", bbox=[1, 2, 3, 1e30]), "annotation 100: bbox is [1, 2, 3, 1e+30]; give [x, y, width"),
    (_first("annotations", bbox=[1, 2, float("nan"), 4]), "annotation 100: bbox is [1, 2, nan, 4]"),
    (_first("annotations", area="big"), "annotation 100: area is 'big'"),
    (_first("annotations", area=True), "annotation 100: area is True"),
    *[
        (_first("annotations", num_keypoints=count), f"annotation 100: num_keypoints is {count!r}; give the number")
        for count in ("3", [3], {}, True, float("nan"), float("inf"), -2, 2.5)
    ],
    (_first("annotations", keypoints=None), "annotation 100: has no keypoints; give 15 numbers"),
    (_first("annotations", keypoints=[1, 2, 2]), "annotation 100: has 3 keypoint numbers, not 15"),
    (_keypoint(3, float("nan")), "annotation 100: keypoint left_hand holds nan; give a finite number"),
    (_keypoint(4, float("inf")), "annotation 100: keypoint left_hand holds inf"),
    (_keypoint(0, "30"), "annotation 100: keypoint head holds '30'"),
    (_keypoint(0, True), "annotation 100: keypoint head holds True"),
    (_keypoint(0, None), "annotation 100: keypoint head holds None"),
    (_keypoint(0, 10**400), "annotation 100: keypoint head holds 1000"),
    (_keypoint(8, 3), "annotation 100: keypoint right_hand has visibility 3; give 0 (unlabelled)"),
    (_keypoint(2, 0.5), "annotation 100: keypoint head has visibility 0.5"),
]


@pytest.mark.parametrize(("mutate", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_each_fault_is_named_with_its_place(tmp_path: Path, mutate: Mutation, message: str) -> None:
    valid = contents()
    annotations, images = write(tmp_path, valid)
    value = copy.deepcopy(valid)
    mutate(value)
    annotations.write_text(json.dumps(value))
    with pytest.raises(InputError) as caught:
        load_dataset(annotations, images, check_images="none")
    assert len(caught.value.faults) == 1
    assert message in str(caught.value) and str(annotations) in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    value = contents()
    annotations, images = write(tmp_path, value)
    value["annotations"][0]["bbox"] = 3
    value["annotations"][0]["image_id"] = 99
    value["annotations"][1]["keypoints"] = []
    value["images"][3]["width"] = -1
    annotations.write_text(json.dumps(value))
    (images / "2.png").unlink()
    with pytest.raises(InputError) as caught:
        load_dataset(annotations, images)
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not valid JSON"), ("[]", "is not a COCO annotation file"), ("", "is not valid JSON")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(*write(tmp_path, text))
    with pytest.raises(InputError, match="no such file"):
        load_dataset(tmp_path / "none.json", tmp_path)


def test_missing_images(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, contents())
    (images / "2.png").unlink()
    with pytest.raises(InputError, match=r"annotations.json: image 2: its file .*2\.png is missing"):
        load_dataset(annotations, images)
    assert len(load_dataset(annotations, images, check_images="none")) == 4
    with pytest.raises(InputError, match="no such folder of images"):
        load_dataset(annotations, tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"holds none of the 4 images .* \(the first is 0.png\)"):
        load_dataset(annotations, tmp_path / "other")
    assert load_dataset(annotations, check_images="none").images_dir == images
    inner = tmp_path / "val"
    inner.mkdir()
    with pytest.raises(InputError, match="its images are neither beside it"):  # those above may be another split's
        load_dataset(shutil.copy(annotations, inner))
    in_annotations = tmp_path / "annotations"
    in_annotations.mkdir()
    assert load_dataset(shutil.copy(annotations, in_annotations), check_images="none").images_dir == images
    images.rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"annotations.json: its images are neither beside it .*; name their folder with"
    ):
        load_dataset(annotations)


def test_images_that_are_named_by_whole_paths_are_found(tmp_path: Path) -> None:
    value = contents()
    annotations, images = write(tmp_path, value)
    for record in value["images"]:
        record["file_name"] = str(images / record["file_name"])
    annotations.write_text(json.dumps(value))
    assert load_dataset(annotations, check_images="decode").images[0].path == images / "0.png"


@pytest.mark.parametrize("named", [True, False])
def test_a_file_without_images(tmp_path: Path, named: bool) -> None:
    annotations, images = write(tmp_path, {**contents(), "images": []})
    with pytest.raises(InputError, match="image"):
        load_dataset(annotations, images if named else None)


def test_decoding_finds_wrong_sizes_and_damage(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, contents())
    cv2.imwrite(str(images / "0.png"), np.zeros((64, 90, 3), np.uint8))
    whole = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(whole[: len(whole) // 2])
    (images / "2.png").write_bytes(b"no image at all")
    load_dataset(annotations, images)
    with pytest.raises(InputError) as caught:
        load_dataset(annotations, images, check_images="decode")
    first, second, third = (str(fault) for fault in caught.value.faults)
    assert "0.png: is 90x64 pixels, annotated as 96x64" in first
    assert "1.png: is cut short" in second and "2.png: is damaged or not an image" in third


@pytest.mark.skipif(sys.platform != "linux", reason="that file is Linux'")
@pytest.mark.parametrize("check", ["exists", "decode"])
def test_images_that_cannot_be_read_are_no_images_without_exif(tmp_path: Path, check: Any) -> None:
    annotations, images = write(tmp_path, contents(3))
    for name in ("0.png", "2.png"):
        (images / name).unlink()
        (images / name).symlink_to("/proc/self/mem")  # of which the first bytes cannot be read
    with pytest.raises(InputError) as caught:
        load_dataset(annotations, images, check_images=check)
    assert [(fault.where, fault.what) for fault in caught.value.faults] == [
        (str(images / name), "cannot be read (Input/output error)") for name in ("0.png", "2.png")
    ]


def test_skeletons(tmp_path: Path) -> None:
    value = contents()
    annotations, images = write(tmp_path, value)
    drafted = load_dataset(annotations, images)
    assert drafted.skeleton.joints == tuple(JOINTS) and drafted.skeleton.flip_pairs == ((1, 2), (3, 4))
    assert drafted.skeleton.limbs == ((0, 1), (0, 2), (0, 3))  # the limb to joint 99 is dropped
    assert any("--write-skeleton FILE" in warning for warning in drafted.warnings)
    own = draft("own", JOINTS)
    given = load_dataset(annotations, images, own)
    assert given.skeleton is own and not given.warnings
    with pytest.raises(InputError, match=r"unknown joint 'left_hnad'.*did you mean 'left_hand'"):
        load_dataset(annotations, images, draft("own", ["head", "left_hnad", *JOINTS[2:]]))
    with pytest.raises(InputError, match="other joints than the file; list its joints in the file's order: head, left"):
        load_dataset(annotations, images, draft("own", [*JOINTS[1:], "head"]))


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
def test_built_in_skeletons_are_recognised(tmp_path: Path, skeleton: Skeleton) -> None:
    value = contents(1)
    value["categories"][0] |= {"keypoints": list(skeleton.joints), "skeleton": "odd"}
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.skeleton is skeleton and not dataset.warnings


def test_other_categories_are_left_out(tmp_path: Path) -> None:
    value = contents(2)
    value["categories"].append({"id": 2, "name": "dog"})
    value["annotations"].append({"id": 5, "image_id": 0, "category_id": 2, "bbox": [0, 0, 5, 5]})
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.people == 1 and not dataset.images[0].ignore
    assert any("1 annotations of categories without keypoints" in warning for warning in dataset.warnings)
    assert [a["id"] for a in dataset.ground_truth["annotations"]] == [100]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [64, 95], "counts": [64 * 95]},
        {"size": [64, 96], "counts": [5]},
        {"size": [64, 96], "counts": "~~~"},
        {"size": [64, 96], "counts": "oooooooooooooooo"},
        {"counts": [64 * 96]},
        {"size": [64, 96], "counts": [-1, 1 + 64 * 96]},
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        "none",
    ],
)
def test_a_bad_segmentation_falls_back_to_the_box(tmp_path: Path, segmentation: Any) -> None:
    value = contents(1)
    value["annotations"] = [annotation(1, 0, iscrowd=1, segmentation=segmentation)]
    dataset = load_dataset(*write(tmp_path, value))
    assert dataset.images[0].ignore[0].polygons[0].tolist() == [[18, 8], [42, 8], [42, 52], [18, 52]]
    assert any("1 ignored regions have a bad segmentation" in warning for warning in dataset.warnings)


def test_ground_truth_fills_what_pycocotools_needs(tmp_path: Path) -> None:
    value = contents()
    for record in value["annotations"]:
        del record["area"], record["num_keypoints"], record["iscrowd"]
        record["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    dataset = load_dataset(*write(tmp_path, value))
    assert any("3 people have no usable area" in warning for warning in dataset.warnings)
    np.testing.assert_allclose(dataset.images[1].areas, 0.53 * 24 * 44)
    truth = dataset.ground_truth
    assert truth["categories"] == value["categories"] and len(truth["images"]) == 4
    for record in truth["annotations"]:
        assert record["area"] == pytest.approx(0.53 * 24 * 44)
        assert record["num_keypoints"] == 5 and record["iscrowd"] == 0 and "segmentation" not in record


@pytest.mark.skipif(not (SHARED / "coco_mini").is_dir(), reason="shared/data/coco_mini is not here")
@pytest.mark.parametrize(("split", "images", "people"), [("train2017", 40, 86), ("val2017", 43, 68)])
def test_coco_photos_load_clean(split: str, images: int, people: int) -> None:
    folder = SHARED / "coco_mini"
    annotations = folder / "annotations" / f"person_keypoints_{split}.json"
    dataset = load_dataset(annotations, folder / "images" / split, check_images="decode")
    assert (len(dataset), dataset.people, dataset.warnings, dataset.skeleton) == (images, people, (), COCO)


@pytest.mark.skipif(not (SHARED / "crowdpose").is_dir(), reason="shared/data/crowdpose is not here")
def test_crowdpose_loads_with_warnings_only() -> None:
    dataset = load_dataset(SHARED / "crowdpose" / "crowdpose_val.json", "nowhere", check_images="none")
    assert (len(dataset), dataset.people, dataset.skeleton) == (2000, 7962, CROWDPOSE)
    (warning,) = dataset.warnings
    assert "labelled joints lie outside their image" in warning and "annotation 102509 neck at (-1, 366)" in warning
    assert all(image.crowd_index is not None for image in dataset.images)
