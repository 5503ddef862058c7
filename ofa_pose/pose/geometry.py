"""Where an image lies in a network's input, and where an input position lies in its maps.

Coordinates are continuous: pixel or cell i covers [i, i + 1), so that image pixels, input pixels and cells of a map
differ by one scale and one offset only, without any half-pixel terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import positive

Array = np.ndarray
LOW_STRIDE = 4  # input pixels per cell of the low-resolution heatmaps and of the tags
HIGH_STRIDE = 2  # input pixels per cell of the high-resolution heatmaps
MEAN_COLOUR = (124, 116, 104)  # ImageNet's, RGB: zero after normalisation, as a convolution's own padding
SIDES = (32, 4096)  # of an input, in pixels
LARGEST_SIDE = 10**9  # pixels of a box, of which float32 holds the area squared
MULTIPLE = 32  # of both input sides
MAX_ASPECT = 8  # a longer image is shrunk further, so that a thin strip cannot ask for gigabytes


@dataclass(frozen=True)
class InputFrame:
    """How an image lies in a network's input: input = image · scale + offset, on both axes alike.

    Sizes are in pixels of each, the scale in input pixels per image pixel; offsets are input pixels of padding left of
    and above the image, whole ones in our own frames.
    """

    image_width: int
    image_height: int
    width: int
    height: int
    scale: float
    offset_x: float = 0
    offset_y: float = 0

    def to_input(self, xy: Array) -> Array:
        """Positions (..., 2) in image pixels as float64 positions in input pixels."""
        return np.asarray(xy, np.float64) * self.scale + (self.offset_x, self.offset_y)

    def to_image(self, xy: Array) -> Array:
        """Positions (..., 2) in input pixels as float64 positions in image pixels; the inverse of `to_input`."""
        return (np.asarray(xy, np.float64) - (self.offset_x, self.offset_y)) / self.scale

    def poses_to_image(self, keypoints: Array) -> Array:
        """Keypoints (P, J, 3) of x, y in input pixels and a score, x, y in image pixels; float32. All zeros stay so."""
        moved = np.asarray(keypoints, np.float32).copy()
        somewhere = moved.any(axis=-1)
        moved[somewhere, :2] = self.to_image(moved[somewhere, :2])
        return moved

    def cells(self, stride: int) -> tuple[int, int]:
        """(height, width) of a map with this stride, in cells."""
        return self.height // stride, self.width // stride


def check_resolution(resolution: int) -> None:
    """Raises InputError on a short side that no net sees anything at, or that no memory holds."""
    if not SIDES[0] <= resolution <= SIDES[1]:
        raise InputError(f"no input of resolution {resolution}", hint=f"give {SIDES[0]} to {SIDES[1]} pixels")


def input_frame(width: int, height: int, resolution: int) -> InputFrame:
    """The frame of an image of width × height pixels whose short side becomes `resolution` input pixels.

    Both input sides are rounded up to `MULTIPLE`, and the image is centred in the border that this leaves, because a
    mirrored input then looks to the network like a mirrored image. The offset is whole, so an image already at the
    right size is copied to the bit. Raises InputError where a size is not positive.
    """
    if min(width, height) < 1:
        raise InputError(f"an image of {width}×{height} pixels has nothing to see", hint="give a readable image")
    if resolution < 1:
        raise InputError(f"no input of resolution {resolution}", hint="give a positive resolution, such as 256")
    # scale = numerator / denominator, kept exact so that rounding up never adds a whole `MULTIPLE` for 1e-13
    numerator, denominator = resolution, min(width, height)
    if max(width, height) > MAX_ASPECT * min(width, height):
        numerator, denominator = MAX_ASPECT * resolution, max(width, height)
    sides = [max(1, -(-length * numerator // (denominator * MULTIPLE))) * MULTIPLE for length in (width, height)]
    scale = numerator / denominator
    offsets = [int((side - length * scale) / 2) for side, length in zip(sides, (width, height), strict=True)]
    return InputFrame(width, height, sides[0], sides[1], scale, offsets[0], offsets[1])


def warp(image: Array, frame: InputFrame, fill: tuple[int, int, int] = MEAN_COLOUR) -> Array:
    """An RGB uint8 image (H, W, 3) as its frame's input (frame.height, frame.width, 3), shrunk without aliasing."""
    size = (frame.image_height, frame.image_width)
    if image.shape != (*size, 3):
        raise ValueError(f"image {image.shape} does not fit its frame {(*size, 3)}")
    method = cv2.INTER_AREA if frame.scale < 1 else cv2.INTER_LINEAR
    # With fx and fy alone, OpenCV samples at exactly this scale; a target size bends it to whole pixels. Only a thread
    # of an image, thinner than an input pixel, needs one.
    thread = min(size) * frame.scale < 1
    target = (max(1, round(size[1] * frame.scale)), max(1, round(size[0] * frame.scale))) if thread else None
    if frame.scale != 1:
        image = cv2.resize(image, target, fx=frame.scale, fy=frame.scale, interpolation=method)
    image = image[: frame.height - frame.offset_y, : frame.width - frame.offset_x]
    height, width = image.shape[:2]
    if (height, width) == (frame.height, frame.width):
        return np.ascontiguousarray(image)
    out = np.full((frame.height, frame.width, 3), fill, np.uint8)
    out[frame.offset_y : frame.offset_y + height, frame.offset_x : frame.offset_x + width] = image
    return out


def box_round(places: Array) -> tuple[float, ...]:
    """The box (x, y, width, height) round places (N, 2); zeros where there are none."""
    if not len(places):
        return (0.0,) * 4
    return (*places.min(axis=0).tolist(), *np.ptp(places, axis=0).tolist())


def has_area(area: Any) -> bool:
    """Whether a record's area is one in square pixels: neither missing nor larger than any image's could be."""
    return positive(area) and area <= LARGEST_SIDE**2


def has_extent(box: Any) -> bool:
    """Whether a record's bbox says where something is: annotators write zeros for 'no box'."""
    return bool(box) and box[2] > 0 and box[3] > 0
