"""Images that are there twice are found, whatever their names, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ofa_pose.data import duplicates
from ofa_pose.data.check import statistics
from ofa_pose.data.duplicates import repeated_files, repeated_pictures, same_annotations, shared_images, warn_of_shared
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from tests.data.datasets import contents, write
from tests.limits import no_more_files


@pytest.fixture
def pair(tmp_path: Path) -> tuple[KeypointDataset, KeypointDataset]:
    """Six and four images; image 2 of the second dataset is image 4 of the first, 3 is image 5 in other bytes."""
    value = contents(6)
    one = load_dataset(*write(tmp_path, value))
    folder = tmp_path / "other"
    folder.mkdir()
    annotations, images = write(folder, contents(4))
    for number in range(4):
        picture = np.random.default_rng(9 + number).integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), picture)
    shutil.copy(tmp_path / "images" / "4.png", images / "2.png")
    pixels = cv2.imread(str(tmp_path / "images" / "5.png"))
    cv2.imwrite(str(images / "3.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    return one, load_dataset(annotations, images)


def test_shared_images_are_found_by_files_and_by_pixels(pair: tuple[KeypointDataset, KeypointDataset]) -> None:
    one, other = pair
    by_files = [(a.name, b.name) for a, b in shared_images(one, other)]
    by_pixels = [(a.name, b.name) for a, b in shared_images(one, other, decode=True)]
    assert by_files == [("4.png", "2.png")]
    assert by_pixels == [("4.png", "2.png"), ("5.png", "3.png")]
    assert not same_annotations(one, other) and same_annotations(one, one.limit(2))
    assert [b.name for _, b in shared_images(one, one)] == [f"{number}.png" for number in range(6)]
    assert shared_images(one.select([0, 1]), one.select([2, 3])) == []
    assert [b.name for _, b in shared_images(one.select([1, 4]).with_people(), other)] == ["2.png"]
    emptied = one.select([1, 0, 3]).with_people()  # what trains as background counts too
    assert [b.name for _, b in shared_images(emptied, one.select([3]))] == ["3.png"]


def test_only_files_that_may_be_in_both_are_opened(
    pair: tuple[KeypointDataset, KeypointDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    for record in one.images[:3]:  # of one size, which none of the other dataset has
        record.path.write_bytes(b"x" * 99)
    opened: list[str] = []
    ends_of = duplicates._ends_of
    monkeypatch.setattr(duplicates, "_ends_of", lambda path: opened.append(str(path)) or ends_of(path))
    assert [b.name for _, b in shared_images(one, other)] == ["2.png"]
    assert opened and not {str(record.path) for record in one.images[:3]} & set(opened)


def test_repeated_images_are_found_whatever_their_names(tmp_path: Path) -> None:
    value = contents(6)
    annotations, images = write(tmp_path, value)
    shutil.copy(images / "0.png", images / "5.png")
    whole = (images / "1.png").read_bytes()
    (images / "3.png").write_bytes(whole[:40000] + whole[40000:])  # the same
    middle = bytearray(whole)
    middle[len(middle) // 2] ^= 255  # of one size, with the same ends
    (images / "4.png").write_bytes(middle)
    dataset = load_dataset(annotations, images)
    groups = [[f"{place}.png" for place in group] for group in repeated_files(dataset.images)]
    assert sorted(groups) == [["0.png", "5.png"], ["1.png", "3.png"]]
    assert len(whole) > 2 * duplicates.ENDS, "the ends are not the whole file"
    (images / "4.png").unlink()
    assert len(repeated_files(dataset.images)) == 2, "a missing file is no reason to stop"
    found = statistics(dataset)
    assert sorted(found["repeated_images"]) == sorted(groups)
    assert any("2 images are there more than once (the first is" in warning for warning in found["warnings"])


def test_most_files_are_told_apart_by_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(*write(tmp_path, contents(6)))
    read: list[Path] = []
    monkeypatch.setattr(duplicates, "_contents_of", lambda path: read.append(path) or b"")
    assert repeated_files(dataset.images) == [] and not read


def test_pictures_of_other_shapes_are_not_the_same(tmp_path: Path) -> None:
    value = contents(2)
    value["images"][1] |= {"width": 64, "height": 96}
    annotations, images = write(tmp_path, value)
    for number, shape in enumerate(((64, 96, 3), (96, 64, 3))):
        cv2.imwrite(str(images / f"{number}.png"), np.full(shape, 7, np.uint8))
    assert repeated_pictures(load_dataset(annotations, images).images) == []


def test_without_handles_nobody_says_that_no_images_are_shared(pair: tuple[KeypointDataset, KeypointDataset]) -> None:
    one, other = pair
    for ask in (lambda: shared_images(one, other), lambda: warn_of_shared(one, other, "val")):
        ask()
        with pytest.raises(OSError, match=r"Too many open files: .*\.png"), no_more_files():
            ask()


def test_a_split_that_shares_images_with_train_is_warned_of(
    pair: tuple[KeypointDataset, KeypointDataset], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = pair
    warn_of_shared(one, other, "val")
    said = capsys.readouterr().err
    assert "data.val: 1 of its 4 images are trained on (the first is" in said and "2.png" in said
    warn_of_shared(one, one.limit(3), "search")
    assert "data.search: has the annotations of data.train: 3 of its 3 images" in capsys.readouterr().err
    warn_of_shared(one.limit(3), other, "val")
    assert not capsys.readouterr().err


def test_statistics_against_another_dataset(pair: tuple[KeypointDataset, KeypointDataset]) -> None:
    one, other = pair
    found = statistics(one, other)
    assert found["against"]["images"] == 4 and not found["against"]["same_annotations"]
    assert [[Path(path).name for path in shared] for shared in found["against"]["shared_images"]] == [
        ["4.png", "2.png"],
        ["5.png", "3.png"],
    ]
    assert any(warning.startswith("2 of 4 images of") for warning in found["warnings"])
    apart = statistics(one.limit(3), other)
    assert apart["against"]["shared_images"] == [] and "against" not in statistics(one)
    assert not any("images of" in warning for warning in apart["warnings"])
