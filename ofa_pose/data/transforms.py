"""Augmentation: one affine map a sample, applied to the image, the keypoints and the ignored regions alike.

Frames: image pixels and input pixels are continuous (pixel i covers [i, i+1)). Every matrix here is (2, 3) float64 and
maps image positions to input positions, mirror included: input = matrix @ (x, y, 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ofa_pose.data.records import ImageRecord, Region
from ofa_pose.pose.geometry import MEAN_COLOUR
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.config import Config
from ofa_pose.utils.seeding import generator

MASK_STRIDE = 2
_POLYGON_BITS = 4  # fillPoly takes corners in 1/16 cell

Matrix = NDArray[np.float64]


class Augmentation(Config):
    """How training samples are varied. The defaults of the geometry are those of LitePose and HigherHRNet.

    Attributes:
        rotation: degrees, drawn from ±rotation.
        scale: the crop's side as a share of the image's short side, drawn from this range.
        shift: the crop's centre moves by up to ± this share of the crop's side, in x and in y.
        flip: the probability of mirroring.
        brightness, contrast, saturation: factors are drawn from 1 ± this.
        hue: turned by up to ± this share of the colour circle.
    """

    rotation: float = Field(default=30.0, ge=0, le=180)
    scale: tuple[float, float] = (0.75, 1.5)
    shift: float = Field(default=0.2, ge=0, le=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    saturation: float = Field(default=0.2, ge=0, lt=1)
    hue: float = Field(default=0.02, ge=0, le=0.5)

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Augmentation:
        if not 0.01 <= self.scale[0] <= self.scale[1] <= 100:
            raise ValueError("scale must be two numbers from 0.01 to 100, the smaller first")
        return self


@dataclass(frozen=True, eq=False)
class Sample:
    """One network input with its labels.

    Attributes:
        image: (R, R, 3) uint8 RGB.
        keypoints: (P, J, 3) float32: x, y in input pixels and visibility; all zeros where unlabelled or outside.
        mask: (R/2, R/2) uint8: 1 where the loss counts, 0 where it does not.
    """

    image: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    mask: NDArray[np.uint8]


def centre_affine(width: int, height: int, resolution: int) -> Matrix:
    """The image's centre square: the short side becomes `resolution`, as when a net is evaluated."""
    return _crop_affine(width / 2, height / 2, min(width, height), 0.0, resolution)


def sample_affine(
    rng: np.random.Generator, width: int, height: int, resolution: int, augmentation: Augmentation
) -> tuple[Matrix, bool]:
    """Draw a square crop of the image, turned, shifted and maybe mirrored; always five numbers of `rng`.

    Returns:
        The matrix from image to input pixels, mirror included, and whether it mirrors.
    """
    turn, zoom, right, down, coin = rng.random(5)
    low, high = augmentation.scale
    side = min(width, height) * (low + (high - low) * zoom)
    angle = math.radians(augmentation.rotation) * (2 * turn - 1)
    x = width / 2 + augmentation.shift * side * (2 * right - 1)
    y = height / 2 + augmentation.shift * side * (2 * down - 1)
    matrix = _crop_affine(x, y, side, angle, resolution)
    flipped = bool(coin < augmentation.flip)
    if flipped:
        matrix[0] = -matrix[0]
        matrix[0, 2] += resolution
    return matrix, flipped


def _crop_affine(x: float, y: float, side: float, angle: float, resolution: int) -> Matrix:
    """The square of this centre, side and turn (radians, the content turns clockwise) onto [0, resolution)²."""
    scale = resolution / side
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    half = resolution / 2
    return np.array([[cos, -sin, half - cos * x + sin * y], [sin, cos, half - sin * x - cos * y]])


def warp_image(image: NDArray[np.uint8], matrix: Matrix, resolution: int) -> NDArray[np.uint8]:
    """The (R, R, 3) input that `matrix` takes of an RGB uint8 image; the outside is the mean colour.

    Bilinear sampling aliases below half size, so the image is first averaged over whole blocks of pixels.
    """
    blocks = int(1 / _scale_of(matrix))
    if blocks > 1:
        image, matrix = _reduced(image, matrix, blocks)
    warped: Any = cv2.warpAffine(
        image,
        _pixel_centres(matrix),
        (resolution, resolution),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=MEAN_COLOUR,
    )
    return warped


def _reduced(image: NDArray[np.uint8], matrix: Matrix, blocks: int) -> tuple[Any, Matrix]:
    height, width = image.shape[:2]
    small = (max(width // blocks, 1), max(height // blocks, 1))
    stretch = np.diag([width / small[0], height / small[1], 1.0])
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA), matrix @ stretch


def decoding_reduction(matrix: Matrix) -> int:
    """The coarsest decoding (1, 2, 4 or 8 image pixels a decoded pixel) that is still as fine as the input."""
    return max(reduction for reduction in (1, 2, 4, 8) if reduction == 1 or reduction * _scale_of(matrix) <= 1)


def _scale_of(matrix: Matrix) -> float:
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def _pixel_centres(matrix: Matrix) -> Matrix:
    """The same map for OpenCV, whose pixel i has its centre at i where ours is at i + 0.5."""
    moved = matrix.copy()
    moved[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
    return moved


def warp_keypoints(
    keypoints: NDArray[np.float32], matrix: Matrix, resolution: int, flip_index: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """(P, J, 3) keypoints of the image as those of the input; `flip_index` where the matrix mirrors.

    Joints that leave the input become zeros, and people left without a joint are dropped.
    """
    xy = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    inside = ((xy >= 0) & (xy < resolution)).all(-1) & (keypoints[..., 2] > 0)
    warped = np.concatenate([xy, keypoints[..., 2:]], -1) * inside[..., None]
    if flip_index is not None:
        warped = warped[:, list(flip_index)]
    rounded = warped[inside.any(1)].astype(np.float32)
    # Rounding to float32 may reach the far edge, which belongs to no pixel.
    np.minimum(rounded[..., :2], np.nextafter(np.float32(resolution), np.float32(0)), out=rounded[..., :2])
    return rounded


def ignore_mask(
    regions: Iterable[Region], matrix: Matrix, resolution: int, stride: int = MASK_STRIDE
) -> NDArray[np.uint8]:
    """(R/stride, R/stride) uint8: 0 in cells that an ignored region of the image covers or touches, else 1."""
    cells = resolution // stride
    mask = np.ones((cells, cells), np.uint8)
    to_cells = matrix / stride
    for region in regions:
        if region.runs is not None:
            crowd = cv2.warpAffine(
                region.runs.mask(), _pixel_centres(to_cells), (cells, cells), flags=cv2.INTER_NEAREST
            )
            mask[np.asarray(crowd) > 0] = 0
        for polygon in region.polygons:
            corners = polygon @ to_cells[:, :2].T + to_cells[:, 2] - 0.5
            # Far corners would overflow fillPoly's fixed point; clipping them keeps what is inside.
            fixed = np.round(np.clip(corners, -8 * cells, 9 * cells) * 2**_POLYGON_BITS).astype(np.int32)
            cv2.fillPoly(mask, [fixed], (0,), shift=_POLYGON_BITS)
    return mask


def jitter_colour(rng: np.random.Generator, image: NDArray[np.uint8], augmentation: Augmentation) -> NDArray[np.uint8]:
    """Vary brightness, contrast, saturation and hue by one affine map of RGB; always four numbers of `rng`.

    Contrast turns about the border's colour, hue about the grey axis.
    """
    ranges = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    draws = (2 * rng.random(4) - 1) * ranges
    if not draws.any():
        return image
    brightness, contrast, saturation = 1 + draws[:3]
    grey = np.tile((0.299, 0.587, 0.114), (3, 1))
    colour = brightness * contrast * (grey + saturation * _hue_turn(draws[3]) @ (np.eye(3) - grey))
    offset = (1 - contrast) * np.asarray(MEAN_COLOUR, np.float64) * brightness
    jittered: Any = cv2.transform(image, np.column_stack([colour, offset]).astype(np.float32))
    return jittered


def _hue_turn(share: float) -> NDArray[np.float64]:
    """Rotation of RGB about the grey axis by a share of the full circle (Rodrigues' formula)."""
    angle, axis = 2 * math.pi * share, 1 / math.sqrt(3)
    cross = axis * np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) / 3


def make_sample(record: ImageRecord, matrix: Matrix, flipped: bool, resolution: int, skeleton: Skeleton) -> Sample:
    """Read an image and apply an affine map to it and its record. Raises InputError where the file is bad."""
    image, reduction = record.read_reduced(decoding_reduction(matrix))
    return Sample(
        warp_image(image, matrix @ np.diag([reduction, reduction, 1.0]), resolution),
        warp_keypoints(record.keypoints, matrix, resolution, skeleton.flip_index if flipped else None),
        ignore_mask(record.ignore, matrix, resolution),
    )


def clean_sample(record: ImageRecord, resolution: int, skeleton: Skeleton) -> Sample:
    """The image's centre square, as it is. Raises InputError where the file is bad."""
    matrix = centre_affine(record.width, record.height, resolution)
    return make_sample(record, matrix, False, resolution, skeleton)


def training_sample(
    seed: int,
    epoch: int,
    index: int,
    record: ImageRecord,
    resolution: int,
    skeleton: Skeleton,
    augmentation: Augmentation,
) -> Sample:
    """What a training of this seed sees of image `index` in an epoch. Raises InputError where the file is bad."""
    rng = generator(seed, "augment", epoch, index)
    return augmented_sample(rng, record, resolution, skeleton, augmentation)


def augmented_sample(
    rng: np.random.Generator, record: ImageRecord, resolution: int, skeleton: Skeleton, augmentation: Augmentation
) -> Sample:
    """Draw a training sample of an image. Raises InputError where the file is bad."""
    if not skeleton.mirror:
        augmentation = augmentation.model_copy(update={"flip": 0.0})
    matrix, flipped = sample_affine(rng, record.width, record.height, resolution, augmentation)
    sample = make_sample(record, matrix, flipped, resolution, skeleton)
    return replace(sample, image=jitter_colour(rng, sample.image, augmentation))
