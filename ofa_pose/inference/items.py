"""The images of any source as one kind of item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_pose.pose.geometry import InputFrame

Prepare = Callable[[np.ndarray], tuple[InputFrame, np.ndarray]]  # makes the network's input of an image


@dataclass(frozen=True)
class Item:
    """An image that was read, and the network's input for it.

    Attributes:
        index: its place in the source, from 0.
        id, name: image_id and file_name in the results; a frame's id is its number from 0, its name the video's.
        time_s: of a frame, the seconds since the stream's start; None for a photo.
        overlay: the file to draw a photo's poses in; None for a frame.
        image: RGB uint8 (H, W, 3), upright.
        frame, prepared: how the image lies in the input, and that input, RGB uint8 (frame height, width, 3).
    """

    index: int
    id: int | str
    name: str
    time_s: float | None
    overlay: Path | None
    image: np.ndarray
    frame: InputFrame
    prepared: np.ndarray
