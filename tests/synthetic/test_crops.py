"""Drawn crops: the same for the same arguments, of every class, kept and read as they were drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_pose.synthetic.crops import CLASSES, draw_crop, read_crops, write_crops
from ofa_pose.utils.errors import InputError


def test_a_crop_follows_from_its_seed_split_and_index() -> None:
    image, label = draw_crop(5, "train", 3, 48)
    again, same = draw_crop(5, "train", 3, 48)
    assert image.shape == (48, 48, 3) and image.dtype == np.uint8
    assert np.array_equal(image, again) and label == same
    assert not np.array_equal(image, draw_crop(5, "test", 3, 48)[0])
    assert not np.array_equal(image, draw_crop(6, "train", 3, 48)[0])


def test_every_class_is_drawn() -> None:
    assert {draw_crop(1, "train", index, 32)[1] for index in range(80)} == set(range(len(CLASSES)))


def test_files_hold_the_crops_and_are_written_once(tmp_path: Path) -> None:
    path = write_crops(tmp_path / "crops.npz", train=5, test=3, size=32, seed=2)
    found = read_crops(path)
    assert [len(labels) for _, labels in found.values()] == [5, 3]
    image, label = draw_crop(2, "test", 1, 32)
    assert np.array_equal(found["test"][0][1], image) and found["test"][1][1] == label
    before = path.stat().st_mtime_ns
    assert write_crops(path, 5, 3, 32, 2).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds other crops"):
        write_crops(path, 6, 3, 32, 2)
    assert len(read_crops(path)["train"][0]) == 5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crops(tmp_path_factory.mktemp("crops") / "crops.npz", 2, 1, 16, 0)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "misplaced", "no about", "an array", "objects"])
def test_damaged_files_are_refused_and_kept(small: Path, tmp_path: Path, damage: str) -> None:
    whole, other = small.read_bytes(), io.BytesIO()
    if damage in ("no about", "objects"):
        np.savez(other, **{"about" if damage == "objects" else "all": np.array([None])})
    elif damage == "an array":
        np.save(other, np.zeros(3))
    changed = {"truncated": whole[:-40], "text": b"crops", "empty": b"", "misplaced": whole[:-6] + b"\xff" + whole[-5:]}
    content = changed.get(damage, other.getvalue())
    path = tmp_path / "crops.npz"
    path.write_bytes(content)
    for read in (lambda: write_crops(path, 2, 1, 16, 0), lambda: read_crops(path)):
        with pytest.raises(InputError, match=r"crops\.npz: is not a file of crops, or damaged \(.*; remove this file"):
            read()
    assert path.read_bytes() == content


@given(st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(small: Path, data: st.DataObject) -> None:
    whole, before = small.read_bytes(), read_crops(small)
    place = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(len(whole) - 900, len(whole) - 1)))
    path = small.with_name("changed.npz")
    path.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        found = read_crops(path)
    except InputError:
        return
    assert all(np.array_equal(a, b) for split in found for a, b in zip(found[split], before[split], strict=True))
