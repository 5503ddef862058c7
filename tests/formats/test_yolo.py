"""YOLO-pose: label files are read as Ultralytics means them, and what they do not say is said."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings

from ofa_pose.data.convert import convert
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.formats import yolo
from ofa_pose.formats.annotated import Given
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, read_yaml
from tests.formats.scenes import JOINTS, Scene, assert_same, box_of, scene_lists, write_images

FLIPS = [0, 2, 1, 3]


def label_text(scene: Scene, numbers: int) -> str:
    """The label file of a scene; numbers: 2 or 3 of each joint."""
    lines = []
    for person in scene.people:
        x, y, w, h = box_of(person)
        words = [0, (x + w / 2) / scene.width, (y + h / 2) / scene.height, w / scene.width, h / scene.height]
        for name in JOINTS:
            px, py, flag = person.get(name, (0, 0, 0))
            words += [px / scene.width, py / scene.height, flag][:numbers]
        lines.append(" ".join(f"{word:g}" if isinstance(word, int) else f"{word:.8f}" for word in words))
    return "\n".join(lines)


def write(folder: Path, scenes: list[Scene], numbers: int = 3, **more: Any) -> Path:
    """data.yaml, images/train and labels/train."""
    write_images(folder / "images" / "train", scenes)
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    for scene in scenes:
        if scene.people:  # Ultralytics takes an image without a label file for one without objects
            (labels / scene.name).with_suffix(".txt").write_text(label_text(scene, numbers))
    value = {"train": "images/train", "kpt_shape": [len(JOINTS), numbers], "names": {0: "fish"}} | more
    path = folder / "data.yaml"
    path.write_text(dump_yaml({key: one for key, one in value.items() if one is not None}))
    return path


@settings(max_examples=40, deadline=None)
@given(scene_lists())
def test_people_are_as_labelled(scenes: list[Scene]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), scenes, flip_idx=FLIPS, kpt_names={0: list(JOINTS)})
        for named in (Given(path), Given(Path(folder))):
            assert yolo.FORMAT.accepts(named)
            (part,) = yolo.FORMAT.read(named)
            assert_same(part, scenes)
    category = part.value["categories"][0]
    assert (category["name"], category["keypoints"]) == ("fish", list(JOINTS))
    assert category["flip_pairs"] == [["left_hand", "right_hand"]] and category["skeleton"] == []


@settings(max_examples=20, deadline=None)
@given(
    scene_lists(flags=(2,)).filter(
        lambda scenes: all(x + y > 0.1 for s in scenes for p in s.people for x, y, _ in p.values())
    )
)
def test_two_numbers_a_joint(scenes: list[Scene]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (part,) = yolo.FORMAT.read(Given(write(Path(folder), scenes, numbers=2, kpt_names=list(JOINTS))))
        assert_same(part, scenes)


SCENE = Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2), "tail": (40.0, 30.0, 1)},))


def test_joints_without_names_are_numbered_and_pairs_are_not_guessed(tmp_path: Path) -> None:
    (part,) = yolo.FORMAT.read(Given(write(tmp_path, [SCENE])))
    category = part.value["categories"][0]
    assert category["keypoints"] == ["1", "2", "3", "4"] and "flip_pairs" not in category
    assert "names no joints (kpt_names): they are numbered" in part.notes[0]
    (part,) = yolo.FORMAT.read(Given(tmp_path / "data.yaml", joints=JOINTS))
    assert part.value["categories"][0]["keypoints"] == list(JOINTS)
    assert [note.split(": ")[-1] for note in part.notes] == ["they are taken for those of the skeleton given"]
    (part,) = yolo.FORMAT.read(Given(tmp_path / "data.yaml", joints=JOINTS[1:]))
    assert part.value["categories"][0]["keypoints"] == ["1", "2", "3", "4"]


def test_without_flip_idx_nothing_is_mirrored(tmp_path: Path) -> None:
    """As in Ultralytics; also after a conversion, there and back."""
    path = write(tmp_path, [SCENE])
    read = load_dataset(path, tmp_path / "images")
    assert not read.skeleton.mirror and any("no two joints are named as left and right" in one for one in read.warnings)
    convert(path, tmp_path / "coco")
    convert(path, tmp_path / "yolo", "yolo")
    assert "flip_idx" not in read_yaml(tmp_path / "yolo" / "data.yaml")
    for named in (tmp_path / "coco" / "train.json", tmp_path / "yolo"):
        assert not load_dataset(named, tmp_path, check_images="none").skeleton.mirror
    path.write_text(path.read_text() + "flip_idx: []\n")
    assert not load_dataset(path, tmp_path / "images").skeleton.mirror
    path.write_text(path.read_text().replace("[]", "[0, 1, 2, 3]"))
    assert load_dataset(path, tmp_path / "images").skeleton.mirror, "it is said that nothing changes places"


@pytest.mark.parametrize(
    "kpt_names", [list(JOINTS), {0: list(JOINTS)}, {0: list(JOINTS), 1: list(JOINTS)}, dict(enumerate(JOINTS))]
)
def test_names_of_joints(tmp_path: Path, kpt_names: Any) -> None:
    (part,) = yolo.FORMAT.read(Given(write(tmp_path, [SCENE], kpt_names=kpt_names)))
    category = part.value["categories"][0]
    assert category["keypoints"] == list(JOINTS) and "flip_pairs" not in category  # left and right are in the names


def _listed(folder: Path) -> str:
    (folder / "train.txt").write_text("./images/train/a.png\n\n")
    return "train.txt"


PLACES: list[Callable[[Path], Any]] = [
    lambda folder: "images/train",
    lambda folder: ["images/train"],
    lambda folder: str(folder / "images" / "train"),
    lambda folder: "../images/train",  # as Roboflow writes it
    lambda folder: "images/train/a.png",
    _listed,
]


@pytest.mark.parametrize("place", PLACES)
def test_a_split_is_a_folder_or_a_list(tmp_path: Path, place: Callable[[Path], Any]) -> None:
    (part,) = yolo.FORMAT.read(Given(write(tmp_path, [SCENE], train=place(tmp_path), path="", kpt_names=list(JOINTS))))
    assert_same(part, [SCENE])
    assert part.origins == (tmp_path / "images" / "train" / "a.png",)


def test_the_dataset_may_lie_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "fish", [SCENE], path="fish", kpt_names=list(JOINTS))
    path = path.rename(tmp_path / "fish.yaml")
    (part,) = yolo.FORMAT.read(Given(path))
    assert_same(part, [SCENE])


def test_images_are_as_their_exif_turns_them(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = write(tmp_path, [Scene("a.png", 50, 40, ())])
    (tmp_path / "images" / "train" / "a.png").unlink()
    exif = image.Exif()
    exif[0x0112] = 6
    image.new("RGB", (50, 40)).save(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    (part,) = yolo.FORMAT.read(Given(path))
    shown = cv2.imread(str(tmp_path / "images" / "train" / "a.jpg"))
    assert [(one["height"], one["width"]) for one in part.value["images"]] == [shown.shape[:2]] == [(50, 40)]


def test_what_the_labels_do_not_say(tmp_path: Path) -> None:
    hidden = Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 1)}, {"head": (1.0, 2.0, 1)}))
    path = write(tmp_path, [hidden], kpt_names=list(JOINTS), names=["fish", "dog"])
    label = tmp_path / "labels" / "train" / "a.txt"
    first, second = label.read_text().splitlines()
    label.write_text(f"{first}\n1{second[1:]}\n")
    (part,) = yolo.FORMAT.read(Given(path))
    assert part.losses == {"classes": 1} and "no joint of train is visible" in part.notes[0]


YAML_FAULTS = [
    ({"kpt_shape": [4]}, r"data.yaml: kpt_shape is \[4\]"),
    ({"kpt_shape": [4, 5]}, r"kpt_shape is \[4, 5\]"),
    ({"kpt_shape": None, "val": "x"}, "kpt_shape is None"),
    ({"kpt_names": ["a"]}, "kpt_names are not 4 names"),
    ({"kpt_names": {0: list(JOINTS), 1: ["a"] * 4}}, "kpt_names are not 4 names, the same for each class"),
    ({"kpt_names": ["a", "a", "b", "c"]}, "names the joint 'a' twice"),
    ({"kpt_shape": [10**9, 3]}, "kpt_shape is .1000000000, 3."),
    ({"flip_idx": [0, 1]}, "flip_idx does not pair the joints"),
    ({"flip_idx": [1, 2, 3, 0]}, "flip_idx does not pair the joints"),
    ({"train": "nowhere"}, "data.yaml: train: no such folder of images: .*nowhere"),
    ({"train": None, "kpt_names": list(JOINTS)}, "names neither train, val nor test"),
]


@pytest.mark.parametrize(("change", "message"), YAML_FAULTS, ids=[message for _, message in YAML_FAULTS])
def test_faults_of_the_yaml(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        yolo.FORMAT.read(Given(write(tmp_path, [SCENE], **change)))


LABEL_FAULTS = [
    ("0 0.5 0.5 0.1", r"a.txt:2: has 4 numbers, not 17; kpt_shape asks"),
    ("0 0.5 0.5 0.1 wide" + " 0" * 12, "a.txt:2: an entry is 'wide', not a number"),
    ("0 0.5 0.5 0.1 inf" + " 0" * 12, "a.txt:2: an entry is 'inf', not a number"),
    ("3 0.5 0.5 0.1 0.1" + " 0" * 12, "a.txt:2: class 3 is none of the 1 classes"),
    ("0 0.5 0.5 0.1 -0.1" + " 0" * 12, "a.txt:2: the box is 0.1 wide and -0.1 high"),
    ("0 0.5 0.5 0.1 0.1 0.5 0.5 3" + " 0" * 9, "a.txt:2: a joint has visibility 3"),
]


@pytest.mark.parametrize(("line", "message"), LABEL_FAULTS, ids=[message for _, message in LABEL_FAULTS])
def test_faults_of_a_label(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, [SCENE])
    with (tmp_path / "labels" / "train" / "a.txt").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(InputError, match=message):
        yolo.FORMAT.read(Given(path))


def test_a_listed_image_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, [SCENE], train="train.txt")
    (tmp_path / "train.txt").write_text("./images/train/a.png\n./images/train/b.png\n")
    with pytest.raises(InputError, match=r"train.txt:2: no such image: .*b.png"):
        yolo.FORMAT.read(Given(path))
    (tmp_path / "images" / "train" / "b.png").write_bytes(np.zeros(9, np.uint8).tobytes())
    with pytest.raises(InputError, match=r"b.png: is damaged or not an image"):
        yolo.FORMAT.read(Given(path))
