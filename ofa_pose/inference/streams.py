"""Videos and cameras, frame by frame."""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ofa_pose.inference.sources import Item, Prepare
from ofa_pose.utils.console import say, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.threads import map_ahead

AHEAD = 8  # frames that are read while the network is busy
AHEAD_PIXELS = 10**8  # they hold at most so many pixels (300 MB)
FPS, MAX_FPS = 30.0, 500.0  # what is taken where a stream names no rate, or a higher one: a mere clock's ticks
SLACK, SLACK_SHARE = 5, 0.05  # frames that a container may promise too many: some only estimate their number


class Stream:
    """The frames of a video, or of a camera until Ctrl-C; all of one size, turned as the video says.

    Opening it reads the first frame. `promised` is a file's length in frames at `fps` where known: it holds fewer where
    its rate varies. `total` is the same but for the limit; `failed` the number of the missing ones where the stream
    breaks off (1 where a camera ends by itself), which a warning says.
    """

    unit = "frames"

    def __init__(self, source: Path | int, name: str, overlay: Path, limit: int | None = None) -> None:
        """Raises InputError where it cannot be opened or holds no frame."""
        self.live = isinstance(source, int)
        self.name, self.overlay, self.failed = name, overlay, 0
        self._where = f"camera {source}" if self.live else str(source)
        self._limit = limit
        self._capture = self._open(source)
        self._start = self._last = 0.0
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate <= MAX_FPS else FPS  # NaN fails both
        self.promised = self._length(rate)
        expected = [count for count in (self.promised, limit) if count is not None]
        self.total: int | None = min(expected, default=None)
        first = self._grab(0)
        if first is None:
            hint = "close other programs that use it" if self.live else "copy or download the file again"
            raise InputError("gives no picture" if self.live else "holds no frame that can be read", self._where, hint)
        self._first: tuple[np.ndarray, float] | None = first
        self.size = (first[0].shape[1], first[0].shape[0])

    def read(self, prepare: Prepare) -> Generator[Item, None, None]:
        """The frames in order. Ctrl-C ends a camera as if it had no more; a second one interrupts as ever."""
        stopped, done = threading.Event(), 0
        if self.live and self._limit is None:
            say(f"{self._where}: Ctrl-C ends it, and all that was done is kept")

        def read(number: int) -> Item | None:
            grabbed, self._first = self._first or self._grab(number), None
            if grabbed is None:
                return None
            image, time_s = grabbed
            return Item(number, number, self.name, time_s, None, image, *prepare(image))

        numbers = itertools.count() if self._limit is None else range(self._limit)
        ahead = max(2, min(AHEAD, AHEAD_PIXELS // (self.size[0] * self.size[1])))
        try:
            with (
                _caught_interrupt(stopped) if self.live else nullcontext(),
                closing(map_ahead(read, numbers, 1, ahead)) as items,
            ):
                for item in itertools.takewhile(lambda item: item is not None and not stopped.is_set(), items):
                    assert item is not None
                    done += 1
                    yield item
        finally:
            self._capture.release()
        if not stopped.is_set():
            self._check_end(done)

    def _open(self, source: Path | int) -> Any:
        try:
            capture = open_capture(source if isinstance(source, int) else str(source))
        except (cv2.error, OverflowError):  # a number that no camera can have
            capture = None
        if capture is None or not capture.isOpened():
            if self.live:
                raise InputError("is not there, or in use", self._where, "see which cameras the system has")
            hint = "copy or download the file again, or name an image or a video"
            raise InputError("is not an image and cannot be opened as a video", self._where, hint)
        return capture

    def _length(self, rate: float) -> int | None:
        promised = 0.0 if self.live else self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if rate > self.fps:  # the count is the duration times a rate that was not taken
            promised *= self.fps / rate
        return math.ceil(promised) if 0 < promised < 2**31 else None  # unknown: zero, negative, NaN or absurd

    def _grab(self, number: int) -> tuple[np.ndarray, float] | None:
        """The next frame, RGB in the first one's size, and its time in seconds; None at the end."""
        whole, pixels = self._capture.read()
        if not whole:
            return None
        if number and (pixels.shape[1], pixels.shape[0]) != self.size:
            pixels = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)
        if self.live:
            now = time.monotonic()
            self._start = self._start if number else now
            stamp = now - self._start
        else:
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not math.isfinite(stamp) or stamp < 0 or (number and stamp <= self._last):
                stamp = self._last + 1 / self.fps if number else 0.0  # a stream without time stamps
        self._last = stamp
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), stamp

    def _check_end(self, done: int) -> None:
        if self.live and (self._limit is None or done < self._limit):
            self.failed = 1
            warn(f"{self._where}: ended by itself after {done} frames; these are kept")
        elif self.promised is not None and done:
            # Many containers know a duration alone, and name it times the rate as their count. So the frames there
            # should be are those that came, in proportion to the time that they took.
            whole = round(done * self.promised / (self._last * self.fps + 1))
            wanted = whole if self._limit is None else min(whole, self._limit)
            if wanted - done <= max(SLACK, SLACK_SHARE * wanted):
                return
            self.failed = wanted - done
            what = f"gives {done} of {wanted} frames, the last at {self._last:.2f} s"
            warn(f"{self._where}: {what}; these are kept, the rest of the file is damaged or missing")


def open_capture(source: str | int) -> Any:
    """OpenCV's reader of a video file or a camera."""
    return cv2.VideoCapture(source)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """What OpenCV and FFmpeg say about broken files stays off the terminal, unless their own variables ask for it.

    FFmpeg takes note only if the process opened no video before.
    """
    ours = "OPENCV_FFMPEG_LOGLEVEL" not in os.environ
    level = cv2.utils.logging.getLogLevel()
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if ours:
        os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # AV_LOG_QUIET
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
        if ours:
            os.environ.pop("OPENCV_FFMPEG_LOGLEVEL", None)


@contextmanager
def _caught_interrupt(stopped: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stopped`; only the main thread may catch it, so elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def stop(*_: object) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
