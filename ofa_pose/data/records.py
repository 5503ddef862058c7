"""One image of a keypoint dataset: its people, and the parts that the loss leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.images import read_image, read_reduced
from ofa_pose.utils.numbers import NUMBER, are_numbers


def finite_array(values: Any) -> NDArray[np.float64] | None:
    """A list of finite numbers as float64, or None."""
    if not isinstance(values, list) or not NUMBER.issuperset(map(type, values)):
        return None
    try:
        array = np.array(values, np.float64)
    except OverflowError:
        return None
    return array if np.isfinite(array).all() else None


@dataclass(frozen=True, eq=False)
class RunLengths:
    """COCO's run-length mask: lengths of runs down the columns, of zeros and ones in turn, zeros first."""

    height: int
    width: int
    runs: NDArray[np.int64]

    def mask(self) -> NDArray[np.uint8]:
        """(H, W) uint8 of 0 and 1, in image pixels."""
        values = np.arange(len(self.runs)) & 1
        columns = np.repeat(values.astype(np.uint8), self.runs).reshape(self.width, self.height)
        return np.ascontiguousarray(columns.T)


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image that the loss leaves out.

    Attributes:
        polygons: (N, 2) float32 arrays of corners in image pixels, together the region; empty where `runs` is given.
        runs: a run-length mask of the image.
        crowd: an iscrowd annotation; otherwise a person without a labelled joint.
    """

    polygons: tuple[NDArray[np.float32], ...] = ()
    runs: RunLengths | None = None
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its people.

    Attributes:
        id: the annotation file's image id.
        path: the image file.
        width, height: pixels.
        keypoints: (P, J, 3) float32: x, y in image pixels, visibility 0, 1 or 2; the people with a labelled joint.
            A joint without label, or labelled outside the image, is all zeros.
        boxes: (P, 4) float32: x, y, width, height in image pixels; round the labelled joints where the file has none.
        areas: (P,) float32: segment areas in square pixels; 0.53 of the box where the file has no positive one.
        ignore: where nobody can say what is there: crowds, and people without a labelled joint.
        counted: people that an evaluation counts: no crowds, nor those whose num_keypoints is 0.
        crowd_index: CrowdPose's crowdedness of the image, 0 to 1, where the file gives it.
        upright: whether the labels are of the image as its EXIF orientation turns it; else of the stored pixels.
    """

    id: int | str
    path: Path
    width: int
    height: int
    keypoints: NDArray[np.float32]
    boxes: NDArray[np.float32]
    areas: NDArray[np.float32]
    ignore: tuple[Region, ...] = ()
    counted: int = 0
    crowd_index: float | None = None
    upright: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def read(self) -> NDArray[np.uint8]:
        """The image, RGB uint8 (H, W, 3). Raises InputError where the file is missing, damaged or of another size."""
        return read_image(self.path, self.size, self.upright)

    def read_reduced(self, reduction: int) -> tuple[NDArray[np.uint8], int]:
        """`read`, and where it saves time with pixels `reduction` (1, 2, 4, 8) image pixels wide; the one it has."""
        return read_reduced(self.path, self.size, reduction, self.upright)


def box_region(box: Sequence[float], crowd: bool = False) -> Region:
    """The region of a box (x, y, width, height)."""
    x, y, width, height = box
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return Region((np.array(corners, np.float32),), crowd=crowd)


def segment_region(segmentation: Any, width: int, height: int, crowd: bool = False) -> Region | None:
    """The region of a COCO segmentation of an image of this size, or None where it is missing or wrong."""
    if isinstance(segmentation, dict):
        runs = _run_lengths(segmentation, width, height)
        return None if runs is None else Region(runs=runs, crowd=crowd)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = [finite_array(polygon) for polygon in segmentation]
    corners = [
        p.reshape(-1, 2).astype(np.float32) for p in polygons if p is not None and len(p) >= 6 and not len(p) % 2
    ]
    return Region(tuple(corners), crowd=crowd) if len(corners) == len(segmentation) else None


def _run_lengths(rle: dict[str, Any], width: int, height: int) -> RunLengths | None:
    counts: Any = rle.get("counts")
    if not are_numbers(rle.get("size"), 2) or rle["size"] != [height, width]:
        return None
    runs = _unpack(counts) if isinstance(counts, str) else finite_array(counts)
    if runs is None or (runs < 0).any() or (runs % 1).any() or runs.sum() != height * width:
        return None
    return RunLengths(height, width, runs.astype(np.int64))


def _unpack(text: str) -> NDArray[np.float64] | None:
    """The run lengths in COCO's packed text: characters of six bits from 48 on, five of them value, the least first.

    From the fourth run on the difference to the run two places before is stored, and the last character's fifth bit
    is the sign.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return None if shift else np.array(runs, np.float64)
