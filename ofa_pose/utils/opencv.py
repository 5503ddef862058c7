"""OpenCV on files whose names may be no UTF-8: it ends the process where it is given one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from ofa_pose.utils.files import in_utf8


def open_capture(source: Path | str | int) -> Any:
    """OpenCV's reader of a video file, a stream's address or a camera; one that is not open where there is no such.

    Files and streams are FFmpeg's alone, as OpenCV's own reader prints about broken files.
    """
    if isinstance(source, Path):
        with in_utf8(source) as (name,):
            return open_capture(name)
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    try:
        source.encode()
    except UnicodeEncodeError:  # no address
        return cv2.VideoCapture()
    if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    return cv2.VideoCapture(source)


def has_image(path: Path) -> bool:
    """Whether OpenCV knows a file's content as an image's."""
    with in_utf8(path) as (name,):
        return bool(cv2.haveImageReader(name))
