"""Pictures and videos with poses drawn over them, written while the network goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import cv2
import numpy as np

from ofa_pose.inference.sources import Item, Photos
from ofa_pose.inference.streams import Stream
from ofa_pose.pose.decode import Poses
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import OfaPoseError

WRITERS = 4
QUALITY = 90  # of JPEG
CODEC = "mp4v"  # MPEG-4 part 2: every build of OpenCV writes it, and players know it

Draw = Callable[[np.ndarray, Poses], np.ndarray]
Overlay = Callable[[Sequence[Item], Sequence[Poses]], None]


def open_overlays(source: Photos | Stream, draw: Draw) -> AbstractContextManager[Overlay]:
    """What to call with each batch of items and their poses; all is written when the context ends.

    A photo's file is whole or not there; one too large for JPEG is reported and left out. A stream's video is whole or
    not there too: it is there only when the context ends well.

    Args:
        draw: from an RGB uint8 image (H, W, 3) and its poses, the image to write.

    Raises (later): OfaPoseError, the video cannot be written.
    """
    return _photo_overlays(draw) if isinstance(source, Photos) else _video_overlay(source, draw)


@contextmanager
def _behind(write: Callable[[Item, Poses], None], threads: int) -> Iterator[Overlay]:
    """Calls `write` in threads, in order where there is one. A batch waits for the one before: no more are held."""
    waiting: list[Future[None]] = []

    def add(items: Sequence[Item], poses: Sequence[Poses]) -> None:
        for done in waiting:
            done.result()  # what could not be written raises here
        waiting[:] = [pool.submit(write, *pair) for pair in zip(items, poses, strict=True)]

    pool = ThreadPoolExecutor(threads)
    try:
        yield add
        add((), ())
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _photo_overlays(draw: Draw) -> Iterator[Overlay]:
    def write(item: Item, poses: Poses) -> None:
        assert item.overlay is not None
        image = cv2.cvtColor(draw(item.image, poses), cv2.COLOR_RGB2BGR)
        fits, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not fits:
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            warn(f"{item.name}: no overlay is written, JPEG holds no {size}; its poses are in the results")
            return
        with files.replacing(item.overlay) as temporary:
            temporary.write_bytes(encoded.tobytes())

    with _behind(write, WRITERS) as add:
        yield add


@contextmanager
def _video_overlay(stream: Stream, draw: Draw) -> Iterator[Overlay]:
    written, start = 0, 0.0
    before: np.ndarray | None = None

    def write(item: Item, poses: Poses) -> None:
        nonlocal written, start, before
        assert item.time_s is not None
        image = cv2.cvtColor(draw(item.image, poses), cv2.COLOR_RGB2BGR)
        start = item.time_s if written == 0 else start
        # A camera's frames come as fast as they are done, and a file's rate may vary: each is due by its own time.
        due = round((item.time_s - start) * stream.fps) + 1
        if stream.promised is not None:  # a time stamp gone astray fills no disk
            due = min(due, max(written + 1, stream.promised))
        while written < due:
            writer.write(image if before is None or written == due - 1 else before)
            written += 1
        before = image

    with files.replacing(stream.overlay) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*CODEC), stream.fps, stream.size)
        try:
            if not writer.isOpened():
                raise OfaPoseError(f"{stream.overlay}: this OpenCV writes no {CODEC} video of this size and rate")
            with _behind(write, 1) as add:
                yield add
        finally:
            writer.release()
        if not cv2.VideoCapture(str(temporary)).isOpened():  # nothing else reports a full disk
            raise OfaPoseError(f"{stream.overlay}: could not be written whole; is the disk full?")
