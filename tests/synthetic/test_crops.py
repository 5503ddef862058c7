"""Drawn crops: the same for the same arguments, of every class, kept and read as they were drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
