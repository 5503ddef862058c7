"""Drawn crops to classify: one person, or one thing of a kind, on the clutter of the drawn scenes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ofa_pose.synthetic.backdrops import THINGS, new_canvas, photograph, put_thing
from ofa_pose.synthetic.figures import Array, sample_figure
from ofa_pose.synthetic.outfits import Outfit
from ofa_pose.synthetic.painting import FACTOR, Model
from ofa_pose.utils import atomic
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError, is_of_content
from ofa_pose.utils.files import DAMAGED_ZIP
from ofa_pose.utils.seeding import generator

CLASSES = ("person", *THINGS)
SPLITS = ("train", "test")


def draw_crop(seed: int, split: str, index: int, size: int) -> tuple[Array, int]:
    """Crop `index` of an endless set: (size, size, 3) RGB uint8, and the place of its class in `CLASSES`.

    Classes are equally frequent.
    """
    rng = generator(seed, "crop", split, index)
    label = int(rng.integers(len(CLASSES)))
    canvas = new_canvas(rng, size)
    if label == 0:
        model = Model(sample_figure(rng), Outfit.sample(rng))
        extent = model.high - model.low
        scale = size * float(rng.uniform(0.5, 0.9) / extent.max())
        corner = rng.uniform(-0.1, 0.4, 2) * size
        model.paint(canvas, 1, scale, corner - model.low * scale)
    else:
        wide, tall = rng.uniform(0.4, 0.8, 2) * size
        corner = rng.uniform(0, 0.3, 2) * size
        box = np.array([*corner, corner[0] + wide, corner[1] + tall]) * FACTOR
        put_thing(rng, canvas, box, CLASSES[label])
    return photograph(rng, cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA)), label


def write_crops(path: Path, train: int, test: int, size: int, seed: int) -> Path:
    """Write an .npz file of crops, SPLIT_images (N, size, size, 3) RGB uint8 and SPLIT_labels (N,) of train and test.

    The same arguments give the same crops. A file that holds these is used as it is.

    Raises InputError where it holds others, or is damaged.
    """
    about = np.array([train, test, size, seed])
    if path.is_file():
        with _opened(path) as kept:
            if np.array_equal(kept["about"], about):
                return path
        raise InputError("holds other crops", path, "name a new folder or remove this file")
    arrays: dict[str, Array] = {"about": about}
    with progress("drawing crops", train + test) as meter:
        for split, count in zip(SPLITS, (train, test), strict=True):
            images, labels = np.empty((count, size, size, 3), np.uint8), np.empty(count, np.int64)
            for index in range(count):
                images[index], labels[index] = draw_crop(seed, split, index, size)
                meter.step()
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def read_crops(path: str | Path) -> dict[str, tuple[Array, Array]]:
    """The images and labels of each split, as `write_crops` wrote them. Raises InputError where they are damaged."""
    with _opened(path) as kept:
        return {split: (kept[f"{split}_images"], kept[f"{split}_labels"]) for split in SPLITS}


@contextmanager
def _opened(path: str | Path) -> Iterator[Mapping[str, Array]]:
    try:
        with np.load(path, allow_pickle=False) as kept:
            yield kept
    except (*DAMAGED_ZIP, OSError, TypeError) as error:
        if isinstance(error, OSError) and not is_of_content(error):
            raise
        what = f"is not a file of crops, or damaged ({error})"
        raise InputError(what, path, "remove this file: the same study draws them again") from None
