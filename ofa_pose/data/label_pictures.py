"""Pictures of labels: of an image as they stand in the file, and of a training's samples as it sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.records import ImageRecord
from ofa_pose.data.transforms import Region, Sample
from ofa_pose.pose.draw import draw_labels
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils import files

SIDE = 720  # the longer one of a picture, in pixels
ENLARGED = 4.0  # at most
DIMMED = 0.35  # what is left of an image's brightness where the loss does not count
SAMPLES = "samples"  # the folder of a training's run directory
SAMPLE_SIDE, SAMPLE_QUALITY = 240, 80


def label_picture(
    record: ImageRecord, image: NDArray[np.uint8], people: Sequence[Mapping[str, Any]], skeleton: Skeleton
) -> NDArray[np.uint8]:
    """An image with its labels: RGB uint8, the longer side 720 pixels or four times the image's.

    Args:
        image: the image of `record`, RGB uint8.
        people: its annotations, as `KeypointDataset.ground_truth` has them.
    """
    picture, scale = _resized(image)
    picture = _without(picture, record.ignore, scale)
    own = [one for one in people if not one["iscrowd"] and any(one["keypoints"][2::3])]
    keypoints = np.array([one["keypoints"] for one in own], np.float64).reshape(-1, len(skeleton.joints), 3)
    boxes = np.array([one["bbox"] for one in own], np.float64).reshape(-1, 4) * scale
    keypoints[..., :2] *= scale
    return draw_labels(picture, keypoints, skeleton, boxes)


def sample_picture(sample: Sample, skeleton: Skeleton, side: int = SIDE) -> NDArray[np.uint8]:
    """A training sample with its labels: RGB uint8, at most `side` pixels. What the loss leaves out is dark."""
    picture, scale = _resized(sample.image, side)
    mask = cv2.resize(sample.mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    picture[np.asarray(mask) == 0] = (picture[np.asarray(mask) == 0] * DIMMED).astype(np.uint8)
    keypoints = np.array(sample.keypoints, np.float64)
    keypoints[..., :2] *= scale
    return draw_labels(picture, keypoints, skeleton)


def write_samples(folder: Path, samples: Iterable[Sample], skeleton: Skeleton) -> None:
    """Write small pictures of training samples: 1.jpg, 2.jpg … in a folder."""
    for number, sample in enumerate(samples, start=1):
        picture = cv2.cvtColor(sample_picture(sample, skeleton, SAMPLE_SIDE), cv2.COLOR_RGB2BGR)
        _, code = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, SAMPLE_QUALITY))
        files.write_bytes(folder / f"{number}.jpg", code.tobytes(), lasting=False)


def _resized(image: NDArray[np.uint8], side: int = SIDE) -> tuple[NDArray[np.uint8], float]:
    scale = min(side / max(image.shape[:2]), ENLARGED)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    resized: Any = cv2.resize(image, size, interpolation=how)
    return resized, scale


def _without(picture: NDArray[np.uint8], regions: Sequence[Region], scale: float) -> NDArray[np.uint8]:
    """A picture that is dark where its image's regions are left out of the loss."""
    left = np.ones(picture.shape[:2], np.uint8)
    for region in regions:
        if region.runs is not None:
            mask = cv2.resize(region.runs.mask(), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            left[np.asarray(mask) > 0] = 0
        for polygon in region.polygons:
            corners = np.clip(polygon * scale, -2 * SIDE, 3 * SIDE)  # far ones would overflow
            cv2.fillPoly(left, [corners.round().astype(np.int32)], (0,))
    picture[left == 0] = (picture[left == 0] * DIMMED).astype(np.uint8)
    return picture
