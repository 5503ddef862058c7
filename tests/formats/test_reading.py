"""What a path names is seen by its contents; zip files stay inside their folder; splits are named."""

from __future__ import annotations

import json
import os
import stat
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.formats.annotated import LOSSES, Given
from ofa_pose.formats.image_files import ImageFinder, read_turn, size_of
from ofa_pose.formats.reading import FORMATS, fingerprint, format_of, read_annotations, split_name, unpacked
from ofa_pose.skeleton import draft
from ofa_pose.utils.errors import InputError
from tests.data.datasets import contents
from tests.data.datasets import write as write_coco
from tests.formats import test_cvat, test_deeplabcut, test_label_studio, test_labelme, test_yolo
from tests.formats.scenes import JOINTS, Scene, assert_same, write_images
from tests.networks import packed_otherwise

SCENE = Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2), "tail": (40.0, 30.0, 2)},))


def one_of_each(folder: Path) -> dict[str, list[Path]]:
    """The same scene in each format that needs no further package: the files and folders that name it."""
    places = {name: folder / name for name in FORMATS}
    for place in places.values():
        place.mkdir()
    write_images(places["cvat"] / "images", [SCENE])
    cvat = test_cvat.write(places["cvat"], test_cvat.document([SCENE])).path
    studio = test_label_studio.write(places["label-studio"], [test_label_studio.task(1, SCENE, "parentID")]).path
    test_labelme.write(places["labelme"], [test_labelme.value_of(SCENE)])
    for name in ("label-studio", "labelme"):
        write_images(places[name], [SCENE])
    project = test_deeplabcut.make(str(places["deeplabcut"]), [SCENE])
    table = test_deeplabcut.write_csv(project, [SCENE], several=False)
    yolo = test_yolo.write(places["yolo"], [SCENE], kpt_names=list(JOINTS))
    coco = write_coco(places["coco"], contents())[0]
    return {
        "cvat": [cvat, cvat.parent],
        "label-studio": [studio],
        "labelme": [places["labelme"], places["labelme"] / "0.json"],
        "deeplabcut": [project, table, project / "config.yaml"],
        "yolo": [yolo, yolo.parent],
        "coco": [coco, coco.parent],
    }


def test_formats_are_told_apart(tmp_path: Path) -> None:
    for name, paths in one_of_each(tmp_path).items():
        for path in paths:
            assert format_of(Given(path)) == name, path


def test_every_format_loads_as_a_dataset(tmp_path: Path) -> None:
    for name, paths in one_of_each(tmp_path).items():
        if name == "coco":
            continue
        for path in paths:
            dataset = load_dataset(path, tmp_path / name, check_images="decode")
            (image,) = dataset.images
            assert image.size == (50, 40) and image.read().shape == (40, 50, 3)
            labelled = image.keypoints[0][image.keypoints[0][:, 2] > 0]
            np.testing.assert_allclose(labelled[:, :2], [[1, 2], [40, 30]], atol=1e-3)
            truth = dataset.ground_truth
            assert len(truth["annotations"]) == 1 and truth["images"][0]["id"] == image.id
            assert len(dataset.fingerprint) == 64


def test_every_format_finds_its_images(tmp_path: Path) -> None:
    for name, paths in one_of_each(tmp_path).items():
        for path in paths:
            found = load_dataset(path, check_images="decode")
            assert all(image.path.is_relative_to(found.images_dir) for image in found.images)
            named = load_dataset(path, found.images_dir)
            assert found.ground_truth == named.ground_truth and found.fingerprint == named.fingerprint, name


def test_images_of_a_zip_file_are_to_be_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "task.zip", {"annotations.xml": test_cvat.document([SCENE])})
    with pytest.raises(InputError, match=r"task.zip: is packed, .*; name it with --images, or unpack"):
        read_annotations(path)
    (tmp_path / "images").mkdir()
    path = zipped(
        tmp_path / "coco.zip", {"annotations/instances.json": "{}", "annotations/val.json": json.dumps(contents())}
    )
    write_coco(tmp_path, contents())
    assert load_dataset(path, check_images="decode").images_dir == tmp_path / "images"


def test_a_folder_holds_one_dataset_or_one_for_each_split(tmp_path: Path) -> None:
    """As `data synth` writes them; a file name is not looked for among another split's images."""
    counts = {"train": 3, "val": 2}
    for split, count in counts.items():
        (tmp_path / split).mkdir()
        write_coco(tmp_path / split, contents(count))
        alone = load_dataset(tmp_path / split, check_images="decode")
        assert (len(alone), alone.images_dir) == (count, tmp_path / split / "images")
    for split, count in counts.items():
        part = load_dataset(f"{tmp_path}:{split}", check_images="decode")
        assert (len(part), part.images_dir) == (count, tmp_path / split / "images")
    with pytest.raises(InputError, match="has the splits train, val"):
        load_dataset(tmp_path)


def test_a_coco_file_is_read_untouched(tmp_path: Path) -> None:
    path, images = write_coco(tmp_path, contents())
    read = read_annotations(path, images)
    assert read.value == contents() and not read.notes and not read.losses


def test_a_fingerprint_follows_the_labels(tmp_path: Path) -> None:
    path = test_yolo.write(tmp_path, [SCENE], kpt_names=list(JOINTS))
    before = fingerprint(path, tmp_path / "images")
    assert fingerprint(f"{path}:train", tmp_path / "images") == before
    label = tmp_path / "labels" / "train" / "a.txt"
    label.write_text(label.read_text().replace(" 2", " 1", 1))
    assert fingerprint(path, tmp_path / "images") != before


def test_one_of_several_splits_must_be_named(tmp_path: Path) -> None:
    path = test_yolo.write(tmp_path, [SCENE], kpt_names=list(JOINTS), val="images/train")
    with pytest.raises(InputError, match=r"has the splits train, val; name one of them, as .*data.yaml:train"):
        load_dataset(path, tmp_path / "images")
    with pytest.raises(InputError, match=r"has no split 'vla'; did you mean 'val'"):
        load_dataset(f"{path}:vla", tmp_path / "images")
    dataset = load_dataset(f"{path}:val", tmp_path / "images" / "train")
    assert dataset.images[0].path.name == "a.png" and len(dataset.fingerprint) == 64
    assert split_name(f"{path}:val") == (path, "val") and split_name(path) == (path, "")
    assert split_name("none.json:val") == (Path("none.json:val"), "")


def test_images_must_lie_in_the_folder_named(tmp_path: Path) -> None:
    path = test_yolo.write(tmp_path, [SCENE], kpt_names=list(JOINTS))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"its image .*a.png does not lie in .*other"):
        load_dataset(path, tmp_path / "other")


def test_numbered_joints_take_the_names_of_a_skeleton(tmp_path: Path) -> None:
    path = test_yolo.write(tmp_path, [SCENE], flip_idx=test_yolo.FLIPS)
    numbered = load_dataset(path, tmp_path / "images")
    assert numbered.skeleton.joints == ("1", "2", "3", "4") and numbered.skeleton.flip_pairs == ((1, 2),)
    assert any("flip pairs are the file's" in warning for warning in numbered.warnings)
    assert any("names no joints" in warning for warning in numbered.warnings)
    own = draft("fish", JOINTS)
    assert load_dataset(path, tmp_path / "images", own).skeleton is own


def test_losses_are_warned_of(tmp_path: Path) -> None:
    value = test_labelme.value_of(SCENE) | {"flags": {"night": True}}
    named = test_labelme.write(tmp_path, [value])
    write_images(tmp_path, [SCENE])
    dataset = load_dataset(named.path, tmp_path)
    assert any(f"1 {LOSSES['attributes']} are left out" in warning for warning in dataset.warnings)


def zipped(path: Path, members: dict[str, str]) -> Path:
    """A zip file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_zip_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write_images(tmp_path / "photos", [SCENE])
    path = zipped(tmp_path / "task.zip", {"annotations.xml": test_cvat.document([SCENE])})
    read = read_annotations(path, tmp_path / "photos")
    assert_same(read, [SCENE])
    assert read.value["images"][0]["file_name"] == "a.png"
    counts = {"train": 3, "val": 4}
    many = {f"annotations/person_keypoints_{split}.json": json.dumps(contents(n)) for split, n in counts.items()}
    path = zipped(tmp_path / "coco.zip", many)
    assert len(load_dataset(f"{path}:val", tmp_path, check_images="none")) == 4


def test_faults_in_a_zip_file_name_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "task.zip", {"annotations.xml": "<annotations>"})
    with pytest.raises(InputError) as caught:
        read_annotations(path, tmp_path)
    assert str(caught.value).startswith(f"{path}/annotations.xml:1:14: is not valid XML")


@pytest.mark.parametrize("name", ["../a.xml", "/a.xml", "x/../../a.xml", "..\\a.xml"])
def test_members_of_a_zip_file_stay_in_it(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", {name: "<annotations/>"})
    with (
        pytest.raises(InputError, match=r"its member .* leads out of it; pack it again"),
        unpacked(path, with_images=True),
    ):
        pass


def test_a_member_without_a_name_is_damage(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.xml": "<annotations/>"})
    path.write_bytes(path.read_bytes().replace(b"a.xml", b"\0.xml"))
    with pytest.raises(InputError, match="cannot be unpacked"), unpacked(path, with_images=True):
        pass


def test_a_member_that_begins_before_the_zip_file_is_damage(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.xml": "<annotations/>"})
    content = bytearray(path.read_bytes())
    content[-6] = 255  # of where the list of members begins, from which a reader takes where the file does
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked"), unpacked(path, with_images=True):
        pass


def test_links_in_a_zip_file_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("images/a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="leads out of it"), unpacked(tmp_path / "a.zip", with_images=True):
        pass


def test_what_is_no_annotation(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip at all")
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_annotations(tmp_path / "a.zip", tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match="is of no known annotation format; known are Ultralytics"):
        read_annotations(tmp_path / "a.txt", tmp_path)
    with pytest.raises(InputError, match="no such file; check the path"):
        read_annotations(tmp_path / "none.xml", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no annotations of a known format"):
        read_annotations(tmp_path / "empty", tmp_path)


def test_two_images_are_never_taken_for_one(tmp_path: Path) -> None:
    text = test_cvat.document([Scene(f"{folder}/a.png", 50, 40, SCENE.people) for folder in ("x", "y")])
    write_images(tmp_path, [SCENE])
    with pytest.raises(InputError, match=r"its image 'y/a.png' and 'x/a.png' would both be"):
        read_annotations(test_cvat.write(tmp_path, text).path, tmp_path)


def test_splits_of_one_file_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    scenes = [Scene(f"{number}.png", 50, 40, SCENE.people) for number in range(2)]
    path = test_cvat.write(tmp_path, test_cvat.document(scenes, subsets=True)).path
    found = {fingerprint(f"{path}:part{number}", tmp_path) for number in (0, 1, 0)}
    assert len(found) == 2 and fingerprint(path, tmp_path) not in found


def test_a_damaged_member_of_a_zip_file_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", test_cvat.document([SCENE]))
    code = path.read_bytes()
    path.write_bytes(code[:50] + bytes([255]) * 50 + code[100:])
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_annotations(path, tmp_path)


@pytest.mark.parametrize(
    "members", [("a", "a/b"), ("a" * 300,), ("a/" * 3000 + "b",)], ids=["in a file", "long", "deep"]
)
def test_members_that_no_disk_can_hold_are_a_fault_of_the_zip_file(tmp_path: Path, members: tuple[str, ...]) -> None:
    path = zipped(tmp_path / "a.zip", dict.fromkeys(members, "x"))
    with pytest.raises(InputError, match=r"a\.zip: cannot be unpacked \((Not a dir|File name too|maximum recursion)"):
        read_annotations(path, tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_a_member_that_is_said_to_be_packed_otherwise_is_a_fault(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "a.zip", {"annotations.xml": test_cvat.document([SCENE])})
    path.write_bytes(packed_otherwise(path.read_bytes(), method))
    with pytest.raises(InputError, match=r"a\.zip: cannot be unpacked"):
        read_annotations(path, tmp_path)


def test_images_that_would_take_far_more_unpacked_stay_packed(tmp_path: Path) -> None:
    images = {f"{number}.png": "x" for number in range(2)}
    path = zipped(tmp_path / "a.zip", {"annotations.xml": test_cvat.document([SCENE]), **images})
    content = bytearray(path.read_bytes())
    for name in images:  # as its entry in the directory says
        place = content.rindex(name.encode()) - 46 + 24
        content[place : place + 4] = (0xF0000000).to_bytes(4, "little")
    path.write_bytes(content)
    with (
        pytest.raises(InputError, match=r"a\.zip: stands for 7 GiB, more than 20 times its size; unpack it"),
        unpacked(path, with_images=True),
    ):
        pass
    with unpacked(path, with_images=False) as folder:
        assert (folder / "annotations.xml").is_file()


def test_images_of_other_folders_are_never_taken_for_one(tmp_path: Path) -> None:
    """Absolute names and addresses are found by their last part where the folders are not there."""
    write_images(tmp_path, [SCENE])
    values = [test_labelme.value_of(SCENE) | {"imagePath": f"/home/{who}/a.png"} for who in ("ann", "bob")]
    (tmp_path / "labelme").mkdir()
    with pytest.raises(InputError, match=r"its image '/home/bob/a.png' and '/home/ann/a.png' would both be"):
        read_annotations(test_labelme.write(tmp_path / "labelme", values).path, tmp_path)
    tasks = [test_label_studio.task(number, SCENE, "parentID") for number in (1, 2)]
    for before, after in (("/data/upload/3/0a1b2c3d-", "/data/upload/3/99999999-"), ("s3://b/x/", "s3://b/y/")):
        for one, start in zip(tasks, (before, after), strict=True):
            one["data"] = {"image": f"{start}a.png"}
        with pytest.raises(InputError, match=r"and '.*a.png' would both be"):
            read_annotations(test_label_studio.write(tmp_path, tasks).path, tmp_path)
    tasks[1]["data"] = tasks[0]["data"]
    assert len(read_annotations(test_label_studio.write(tmp_path, tasks).path, tmp_path).value["images"]) == 2


@pytest.mark.parametrize("start", ["/home/ann/set/", "C:\\set\\"])
@pytest.mark.parametrize("name", ["cam1/a.png", "cam2/a.png", "a.png"])
def test_of_an_absolute_name_the_folders_count_as_far_as_they_are_there(tmp_path: Path, start: str, name: str) -> None:
    labels, photos = tmp_path / "labels", tmp_path / "photos"
    for folder in (photos, photos / "cam1", photos / "cam2"):
        write_images(folder, [SCENE])
    labels.mkdir()
    value = test_labelme.value_of(SCENE) | {"imagePath": start + name}
    (image,) = read_annotations(test_labelme.write(labels, [value]).path, photos).value["images"]
    assert image["file_name"] == name


def test_an_absolute_name_of_many_folders_takes_no_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    finder = ImageFinder(tmp_path, None)
    assert finder.find("/x" * 10**5, "here") == tmp_path / "x" and finder.missing
    assert time.monotonic() - begun < 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("suffix", [".csv", ".h5", ".slp", ".json", ".xml", ".yaml", ".zip", ".png"])
def test_a_pipe_is_no_file_of_any_format(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"a{suffix}")
    for read in (read_annotations, read_turn, size_of):
        with pytest.raises(InputError, match="is a pipe or a device, not a file"):
            read(tmp_path / f"a{suffix}")
