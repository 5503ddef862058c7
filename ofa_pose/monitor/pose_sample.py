"""A picture of what a net in training finds: the poses on some images of those that it is evaluated on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.records import ImageRecord
from ofa_pose.pose.draw import draw_poses
from ofa_pose.pose.metrics import Detections
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError

COLUMNS, ROWS = 3, 2
TILE = (320, 240)  # width and height, in pixels
DRAWN = 0.2  # people and joints with lower scores are not drawn
QUALITY = 85  # of JPEG


def draw_sample(path: Path, dataset: KeypointDataset, found: Detections) -> None:
    """Write a JPEG of up to six images, spread over the dataset's, with the people that were found on them.

    Images that show labelled people come first; images that cannot be read are left out.
    """
    shown = [record for record in dataset.images if len(record.keypoints)] or list(dataset.images)
    places = np.unique(np.linspace(0, len(shown) - 1, min(COLUMNS * ROWS, len(shown))).round().astype(int))
    tiles = []
    for place in places.tolist():
        with suppress(InputError, OSError):  # one that is gone since the training began
            tiles.append(_tile(shown[place], found, dataset.skeleton))
    if not tiles:
        return
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [cv2.hconcat(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    encoded = cv2.imencode(".jpg", cv2.vconcat(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    files.write_bytes(path, encoded.tobytes(), lasting=False)


def _tile(record: ImageRecord, found: Detections, skeleton: Skeleton) -> np.ndarray:
    """An image with its poses, RGB uint8, in the middle of a tile."""
    own = [place for place, name in enumerate(found.image_ids) if name == record.id and found.scores[place] >= DRAWN]
    own.sort(key=lambda place: -found.scores[place])
    drawn = draw_poses(record.read(), found.keypoints[own], skeleton, DRAWN)
    width, height = TILE
    scale = min(width / drawn.shape[1], height / drawn.shape[0])
    size = max(1, round(drawn.shape[1] * scale)), max(1, round(drawn.shape[0] * scale))
    tile = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    return tile
