"""Conversions keep what they can, count what they cannot, and are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import ofa_pose
from ofa_pose.cli import run
from ofa_pose.data.convert import _distinct, _write_images, convert
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.formats.annotated import LOSSES
from ofa_pose.skeleton import COCO, load_skeleton
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.errors import InputError
from tests.data.datasets import JOINTS, annotation, contents, write
from tests.formats import slp_files, test_cvat, test_yolo
from tests.formats.scenes import JOINTS as FISH
from tests.formats.scenes import Scene, box_of, scene_lists, write_images
from tests.formats.test_reading import zipped

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def coco_of(scenes: list[Scene]) -> dict[str, Any]:
    """Scenes as a COCO file."""
    images = [{"id": n, "file_name": s.name, "width": s.width, "height": s.height} for n, s in enumerate(scenes, 1)]
    people = [(number, person) for number, scene in enumerate(scenes, 1) for person in scene.people]
    records = []
    for place, (image, person) in enumerate(people, 1):
        points = [float(number) for name in FISH for number in person.get(name, (0, 0, 0))]
        record = {"id": place, "image_id": image, "category_id": 1, "iscrowd": 0, "keypoints": points}
        records.append(record | {"bbox": list(box_of(person))})
    category = {
        "id": 1,
        "name": "fish",
        "keypoints": list(FISH),
        "skeleton": [],
        "flip_pairs": [["left_hand", "right_hand"]],
    }
    return {"images": images, "annotations": records, "categories": [category]}


@settings(max_examples=40, deadline=None)
@given(scene_lists())
def test_coco_to_yolo_and_back(scenes: list[Scene]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", scenes)
        (folder / "a.json").write_text(json.dumps(coco_of(scenes)))
        there = convert(folder / "a.json", folder / "yolo", "yolo")
        assert set(there.splits) == {"train"} and not there.losses
        back = convert(folder / "yolo", folder / "back")
        assert back.source_format == "yolo" and not back.losses
        found = json.loads(Path(back.splits["train"]["annotations"]).read_text())
        images = back.splits["train"]["images"]
        assert all(
            (images / record["file_name"]).samefile(folder / "images" / record["file_name"])
            for record in found["images"]
        )
    wanted = coco_of(scenes)
    assert found["images"] == wanted["images"]
    assert found["categories"][0]["flip_pairs"] == [["left_hand", "right_hand"]]
    for one, other in zip(found["annotations"], wanted["annotations"], strict=True):
        np.testing.assert_array_equal(one["keypoints"][2::3], other["keypoints"][2::3])
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=1e-3)
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-3)


def test_what_yolo_cannot_hold_is_counted(tmp_path: Path) -> None:
    value = contents(3)
    value["images"][1]["crowdIndex"] = 0.5
    value["categories"].append({"id": 2, "name": "dog"})
    value["annotations"] = [
        annotation(1, 1, segmentation=[[0, 0, 9, 0, 9, 9]], track_id=4, attributes={"a": 1}),
        annotation(2, 1, [-1, 5, 2] + [9, 9, 2] * 4, bbox=[-5, 0, 20, 20], area=212.0),
        annotation(3, 1, iscrowd=1),
        annotation(4, 2, category_id=2),
        annotation(5, 2, [0] * 15, bbox=None),
    ]
    value["annotations"].append(annotation(6, 0, area=10**400))  # read as no area
    write(tmp_path, value)
    done = convert(tmp_path / "annotations.json", tmp_path / "out", "yolo")
    wanted = {"areas": 2, "attributes": 1, "boxes_clipped": 1, "crowd_indices": 1, "crowds": 1, "ids": 3}
    wanted |= {"joints_outside": 1, "limbs": 3, "other_categories": 1, "people_without_box": 1}
    assert done.losses == wanted | {"segmentations": 1, "tracks": 1}
    assert set(done.losses) <= set(LOSSES)
    first, second = (tmp_path / "out" / "labels" / "train" / "1.txt").read_text().splitlines()
    assert len(first.split()) == 5 + 15 and second.split()[5:8] == ["0", "0", "0"]
    numbers = np.array([first.split(), second.split()], np.float64)
    assert numbers[:, 1:5].min() >= 0 and numbers[:, 1:5].max() <= 1
    assert (tmp_path / "out" / "labels" / "train" / "2.txt").read_text() == ""


def test_data_yaml_is_what_ultralytics_reads(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, contents(3))
        (tmp_path / split / "annotations.json").rename(tmp_path / f"{split}.json")
        (tmp_path / split / "images").rename(tmp_path / f"images-{split}")
        (tmp_path / split).rmdir()
        (tmp_path / f"images-{split}").rename(tmp_path / split)
    done = convert(tmp_path, tmp_path / "out", "yolo")
    value = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert value == {
        "train": "images/train",
        "val": "images/val",
        "kpt_shape": [5, 3],
        "flip_idx": [0, 2, 1, 4, 3],
        "names": {0: "figure"},
        "kpt_names": {0: JOINTS},
    }
    assert not any("names no val" in note for note in done.notes)
    link = tmp_path / "out" / "images" / "val" / "1.png"
    assert link.is_symlink() and link.resolve() == tmp_path / "val" / "1.png"
    for split in ("train", "val"):
        dataset = load_dataset(f"{tmp_path}/out/data.yaml:{split}", tmp_path / "out" / "images", check_images="decode")
        assert (len(dataset), dataset.people) == (3, 3)


def test_drawn_datasets_are_read_as_they_were_written(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val")):
        write_dataset(tmp_path / "drawn" / split, images=2, size=64, joints="coco", seed=seed, workers=1)
    alone = convert(tmp_path / "drawn" / "val", tmp_path / "alone")
    assert alone.splits["all"]["images"] == tmp_path / "drawn" / "val" / "images" and alone.splits["all"]["count"] == 2
    assert set(convert(tmp_path / "drawn", tmp_path / "yolo", "yolo").splits) == {"train", "val"}
    for split in ("train", "val"):
        link = tmp_path / "yolo" / "images" / split / "000001.jpg"
        assert link.resolve() == tmp_path / "drawn" / split / "images" / "000001.jpg"


def test_the_folder_that_is_named_comes_before_those_in_it(tmp_path: Path) -> None:
    path, images = write(tmp_path, contents(3))
    write(images, contents(3))  # others of the same names, in images/images
    assert convert(path, tmp_path / "out", images=images).splits["all"]["images"] == images


def test_images_stay_or_are_copied(tmp_path: Path) -> None:
    path, images = write(tmp_path, contents(3))
    done = convert(path, tmp_path / "stay")
    assert done.splits["all"] == {
        "annotations": tmp_path / "stay" / "annotations.json",
        "images": images,
        "count": 3,
        "people": 3,
    }
    assert sorted(one.name for one in (tmp_path / "stay").iterdir()) == ["annotations.json", "skeleton.yaml"]
    found = json.loads((tmp_path / "stay" / "annotations.json").read_text())
    assert found == contents(3)
    done = convert(path, tmp_path / "copied", copy_images=True)
    copied = done.splits["all"]["images"]
    assert copied == tmp_path / "copied" / "images"
    assert (copied / "1.png").read_bytes() == (images / "1.png").read_bytes() and not (copied / "1.png").is_symlink()
    done = convert(path, tmp_path / "yolo", "yolo", copy_images=True)
    assert not (tmp_path / "yolo" / "images" / "train" / "1.png").is_symlink()


def test_where_there_are_no_links_images_are_to_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path, _ = write(tmp_path, contents(3))
    monkeypatch.setattr(Path, "symlink_to", refuse)
    message = r"links to images cannot be made there \(Operation not permitted\); add --copy-images"
    with pytest.raises(InputError, match=message):
        convert(path, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_outside_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for name in ("/a.png", "../a.png", "a/../../b.png", str(tmp_path / "c.png")):
        with pytest.raises(InputError, match=r"its file_name .* leads out of the dataset"):
            _write_images(tmp_path / "out", [name], (tmp_path / "a.png",), links=False)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a.png", "out"]


def test_images_of_one_label_file_are_told_apart(tmp_path: Path) -> None:
    value = contents(2)
    value["images"][1]["file_name"] = "0.jpg"
    path, _ = write(tmp_path, value)
    convert(path, tmp_path / "out", "yolo")
    assert sorted(one.name for one in (tmp_path / "out" / "images" / "train").iterdir()) == ["0-2.jpg", "0.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="case counts there")
@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_names_that_differ_in_case_alone_are_told_apart(tmp_path: Path, to: str) -> None:
    value = contents(3)
    for record, name in zip(value["images"], ("A.png", "a.png", "b.png"), strict=True):
        record["file_name"] = name
    path, images = write(tmp_path, value)
    done = convert(path, tmp_path / "out", to, copy_images=True)
    (split,) = done.splits.values()
    assert sorted(one.name for one in split["images"].iterdir()) == ["A.png", "a-2.png", "b.png"]
    assert (split["images"] / "a-2.png").read_bytes() == (images / "a.png").read_bytes()
    dataset = load_dataset(split["annotations"], split["images"], check_images="decode")
    assert {record.path.name: len(record.keypoints) for record in dataset.images} == {
        "A.png": 0,
        "a-2.png": 1,
        "b.png": 2,
    }
    stay = convert(path, tmp_path / "stay")
    assert "a.png" in Path(stay.splits["all"]["annotations"]).read_text()


def test_two_records_of_one_image_keep_one_copy(tmp_path: Path) -> None:
    value = contents(2)
    value["images"][1]["file_name"] = "0.png"
    path, _ = write(tmp_path, value)
    done = convert(path, tmp_path / "out", copy_images=True)
    assert [one.name for one in done.splits["all"]["images"].iterdir()] == ["0.png"]


@given(st.lists(st.from_regex(r"([aAb]/)?[aAb](-[23])?\.(png|PNG|jpg)", fullmatch=True), unique=True), st.booleans())
def test_names_keep_what_they_can(names: list[str], whole: bool) -> None:
    def key(name: str) -> str:
        return (name if whole else name[: name.rindex(".")]).lower()

    found = _distinct(names, whole)
    assert len(set(map(key, found))) == len(names)
    assert [Path(one).suffix for one in found] == [Path(one).suffix for one in names]
    if len(set(map(key, names))) == len(names):
        assert found == names


def test_many_names_of_one_label_file_take_no_time() -> None:
    start = time.process_time()
    found = _distinct([f"x.s{number}" for number in range(5000)], whole=False)
    assert found[:2] + found[-1:] == ["x.s0", "x-2.s1", "x-5000.s4999"]
    assert time.process_time() - start < 2


def test_images_in_a_zip_file_are_written(tmp_path: Path) -> None:
    scene = Scene("a.png", 50, 40, (dict.fromkeys(FISH, (1.0, 2.0, 2)),))
    write_images(tmp_path, [scene])
    path = zipped(tmp_path / "task.zip", {"annotations.xml": test_cvat.document([scene])})
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / "a.png", "images/a.png")
    for to, image in (("coco", "images/a.png"), ("yolo", "images/train/a.png")):
        done = convert(path, tmp_path / to, to)
        assert (tmp_path / to / image).read_bytes() == (tmp_path / "a.png").read_bytes()
        assert not (tmp_path / to / image).is_symlink() and str(tmp_path / to) in str(done.splits)
    load_dataset(tmp_path / "coco" / "annotations.json", tmp_path / "coco" / "images", check_images="decode")


def test_frames_of_videos_and_kept_images_are_written(tmp_path: Path) -> None:
    scenes = slp_files.SCENES
    slp_files.write_video(tmp_path / "swim.avi", 6)
    videos = [{"backend": {"filename": "swim.avi"}}]
    named = slp_files.write(tmp_path / "a.slp", scenes, videos, [(0, 5), (0, 2)])
    with pytest.raises(InputError, match="its images are frames of videos; write them to files first"):
        load_dataset(named.path, tmp_path)
    done = convert(named.path, tmp_path / "out")
    for number in (2, 5):
        image = cv2.imread(str(tmp_path / "out" / "images" / "swim" / f"{number:06d}.png"))
        assert image.shape == (48, 64, 3) and abs(image.mean() - 20 * number) < 4
    dataset = load_dataset(done.splits["all"]["annotations"], done.splits["all"]["images"], check_images="decode")
    assert len(dataset) == 2 and done.losses == {"predictions": 2}
    kept = {"backend": {"filename": ".", "dataset": "video0/video"}}
    named = slp_files.write(tmp_path / "a.pkg.slp", scenes, [kept], [(0, 5), (0, 2)])
    code = cv2.imencode(".png", np.full((48, 64, 3), 90, np.uint8))[1]
    slp_files.keep_images(named.path, [5, 2], code)
    convert(named.path, tmp_path / "kept")
    assert (tmp_path / "kept" / "images" / "video0" / "000005.png").read_bytes() == code.tobytes()


def test_a_video_that_is_too_short_leaves_nothing(tmp_path: Path) -> None:
    slp_files.write_video(tmp_path / "swim.avi", 3)
    videos = [{"backend": {"filename": "swim.avi"}}]
    named = slp_files.write(tmp_path / "a.slp", slp_files.SCENES, videos, [(0, 5), (0, 2)])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"swim.avi: ends at frame 3, and frame 5 is labelled"):
        convert(named.path, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_faults_leave_nothing(tmp_path: Path) -> None:
    value = contents(3)
    value["annotations"][0]["bbox"] = 3
    value["annotations"][1]["image_id"] = 99
    path, images = write(tmp_path, value)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        convert(path, tmp_path / "out")
    assert len(caught.value.faults) == 2 and sorted(tmp_path.iterdir()) == before
    path.write_text(json.dumps(contents(3)))
    (images / "2.png").unlink()
    with pytest.raises(InputError, match=r"2.png: no such image; restore it"):
        convert(path, tmp_path / "out", "yolo")
    assert sorted(tmp_path.iterdir()) == before
    value = contents(3)
    value["images"][0]["file_name"] = "../../0.png"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"image 0: its file_name '../../0.png' leads out of"):
        convert(path, tmp_path / "out", copy_images=True)
    with pytest.raises(InputError, match=r"no such format to write: 'yollo'; did you mean 'yolo'"):
        convert(path, tmp_path / "out", "yollo")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        convert(path, tmp_path / "full")
    assert (tmp_path / "full" / "mine").is_file()


def test_splits_of_other_names_are_refused(tmp_path: Path) -> None:
    scenes = [Scene(f"{n}.png", 50, 40, (dict.fromkeys(FISH, (1.0, 2.0, 2)),)) for n in range(2)]
    write_images(tmp_path, scenes)
    named = test_cvat.write(tmp_path, test_cvat.document(scenes, subsets=True))
    assert set(convert(named.path, tmp_path / "coco").splits) == {"part0", "part1"}
    with pytest.raises(InputError, match="the split 'part0' is not one of YOLO's"):
        convert(named.path, tmp_path / "out", "yolo")
    assert set(convert(Path(f"{named.path}:part1"), tmp_path / "train", "yolo").splits) == {"train"}
    done = convert(Path(f"{named.path}:part1"), tmp_path / "one")
    assert set(done.splits) == {"part1"} and not (tmp_path / "out").exists()


def test_a_skeleton_names_the_joints(tmp_path: Path) -> None:
    person = {str(number): (1.0 + number, 2.0, 2) for number in range(17)}
    scene = Scene("a.png", 50, 40, (person,))
    write_images(tmp_path / "images" / "train", [scene])
    (tmp_path / "labels" / "train").mkdir(parents=True)
    words = " ".join(f"{x / 50:.8f} {y / 40:.8f} {flag}" for x, y, flag in person.values())
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"0 0.2 0.05 0.4 0.1 {words}")
    (tmp_path / "data.yaml").write_text("train: images/train\nkpt_shape: [17, 3]\nnames: [person]\n")
    assert load_skeleton(convert(tmp_path, tmp_path / "numbered").skeleton).joints[:2] == ("1", "2")
    done = convert(tmp_path / "data.yaml", tmp_path / "named", skeleton=COCO)
    assert done.skeleton is None and any("those of the skeleton given" in note for note in done.notes)
    assert load_dataset(tmp_path / "named" / "train.json", tmp_path / "images" / "train").skeleton == COCO


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scenes = [Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2), "tail": (9.0, 9.0, 1)},))]
    test_yolo.write(tmp_path, scenes)
    assert run(["data", "convert", str(tmp_path), "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["source_format"] == "yolo" and found["splits"]["train"]["count"] == 1 and len(found["notes"]) == 3
    assert found["lost"] == {} and found["skeleton"] == str(tmp_path / "out" / "skeleton.yaml")
    command = ["data", "convert", str(tmp_path / "out" / "train.json"), "--images", found["splits"]["train"]["images"]]
    assert run([*command, "--out", str(tmp_path / "yolo"), "--format", "yolo"]) == 0
    shown = capfd.readouterr().err
    assert "warning: data.yaml names no val" in shown and "read as coco" in shown
    assert run([*command, "--out", str(tmp_path / "yolo"), "--format", "yolo"]) == 2
    assert capfd.readouterr().err.startswith(f"error: {tmp_path / 'yolo'}: is not empty")
    same = ofa_pose.data_convert(tmp_path, tmp_path / "again")
    assert same.splits["train"]["people"] == 1


REAL = {  # dataset: split, its annotations and its images
    "coco_mini": [(s, f"annotations/person_keypoints_{s}2017.json", f"images/{s}2017") for s in ("train", "val")],
    "flies": [(s, f"{s}.json", f"images/{s}") for s in ("train", "val")],
    "mouse": [(s, f"{s}.json", f"images/{s}") for s in ("train", "val")],
}


@pytest.mark.parametrize("name", REAL)
def test_real_datasets_to_yolo_and_back(tmp_path: Path, name: str) -> None:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no ../shared/data/{name}")
    done = convert(folder, tmp_path / "yolo", "yolo")
    assert list(done.splits) == ["train", "val"]
    for split, file, images in REAL[name]:
        before = load_dataset(folder / file, folder / images)
        after = load_dataset(f"{tmp_path}/yolo:{split}", tmp_path / "yolo" / "images" / split)
        assert (len(after), after.people) == (len(before), before.people) and after.people > 0
        people = {image.path.name: image.keypoints for image in after.images}
        for image in before.images:
            np.testing.assert_array_equal(people[image.path.name][..., 2], image.keypoints[..., 2])
            np.testing.assert_allclose(people[image.path.name], image.keypoints, atol=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(60, 40), (50, 50)])
def test_photos_that_exif_turns(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    """A bright spot under a joint is under it in the stored photo, in YOLO's upright one, and back."""
    from PIL import Image

    width, height = size
    stored = np.zeros((height, width, 3), np.uint8)
    stored[28:32, 8:12] = 255  # around (10, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    Image.fromarray(stored).save(tmp_path / "images" / "0.jpg", exif=exif, quality=100)
    x, y = 10.0, 30.0
    if orientation < 5 or width == height:  # the size does not tell, so the labels are of the upright photo
        spot = np.argwhere(cv2.imread(str(tmp_path / "images" / "0.jpg"))[..., 0] > 200)
        y, x = (spot.mean(axis=0) + 0.5).tolist()
    value = contents(1, *size)
    value["images"][0]["file_name"] = "0.jpg"
    value["annotations"] = [annotation(1, 0, [x, y, 2] + [0] * 12, bbox=[x - 2, y - 2, 4, 4])]
    (tmp_path / "a.json").write_text(json.dumps(value))
    done = convert(tmp_path / "a.json", tmp_path / "yolo", "yolo")
    guessed = orientation > 1 and (orientation < 5 or width == height)
    assert any("keep their size" in note and "a guess" in note for note in done.notes) == guessed
    shown = cv2.imread(str(tmp_path / "yolo" / "images" / "train" / "0.jpg"))
    numbers = np.array((tmp_path / "yolo" / "labels" / "train" / "0.txt").read_text().split(), np.float64)
    x, y = numbers[5:7] * (shown.shape[1], shown.shape[0])
    assert shown[int(y), int(x)].min() > 200 and np.allclose(numbers[1:3], numbers[5:7])
    (image,) = load_dataset(tmp_path / "yolo", tmp_path / "yolo" / "images", check_images="decode").images
    x, y = image.keypoints[0, 0, :2]
    assert image.read()[int(y), int(x)].min() > 200


def test_yolo_holds_the_people_that_readers_see(tmp_path: Path) -> None:
    """Ids of the other type, categories of the same joints, boxes of zeros: all of them are there."""
    value = contents(3)
    value["categories"] += [{**value["categories"][0], "id": "2", "name": "dancer"}, "no record"]
    value["annotations"] = [
        annotation(1, "1", bbox=[0, 0, 0, 0]),  # type: ignore[arg-type]
        annotation(2, 2, category_id="1", bbox=None),
        annotation(3, 2, category_id=2),
        annotation(4, 2, [0] * 15, bbox=[0, 0, 0, 0]),
    ]
    before = load_dataset(*write(tmp_path, value))
    done = convert(tmp_path / "annotations.json", tmp_path / "out", "yolo")
    after = load_dataset(tmp_path / "out", tmp_path / "out" / "images")
    assert before.people == after.people == done.splits["train"]["people"] == 3
    for one, other in zip(before.images, after.images, strict=True):
        np.testing.assert_allclose(other.keypoints, one.keypoints, atol=1e-3)
        np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-3)
    assert done.losses["classes"] == done.losses["people_without_box"] == 1 and "other_categories" not in done.losses
    assert len(before.ground_truth["annotations"]) == 4


def test_splits_of_other_joints_are_not_put_together(tmp_path: Path) -> None:
    for split, step in (("train", 1), ("val", -1)):
        value = contents(2)
        value["categories"][0]["keypoints"] = JOINTS[::step]
        (tmp_path / f"{split}.json").write_text(json.dumps(value))
    for to in ("coco", "yolo"):
        with pytest.raises(InputError, match=r"its splits 'train' and 'val' have other joints, or another order"):
            convert(tmp_path, tmp_path / "out", to)
    assert convert(Path(f"{tmp_path}:val"), tmp_path / "out").splits["val"]["count"] == 2


def test_files_of_one_name_are_not_written_over_each_other(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for place, count in ((tmp_path, 2), (tmp_path / "annotations", 3)):
        (place / "train.json").write_text(json.dumps(contents(count)))
    with pytest.raises(InputError, match=r"holds two files train.json; name one of them"):
        convert(tmp_path, tmp_path / "out")
    assert convert(tmp_path / "annotations" / "train.json", tmp_path / "out").splits["all"]["count"] == 3
