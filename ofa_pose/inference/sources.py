"""What poses are looked for on: photos, videos and cameras, the images of each as one kind of item."""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ofa_pose.data.images import read_upright
from ofa_pose.formats.image_files import IMAGE_SUFFIXES, has_image, open_capture
from ofa_pose.pose.geometry import InputFrame
from ofa_pose.utils.console import say, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import folded, real
from ofa_pose.utils.process import map_ahead

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
READERS = 4
AHEAD = 8  # frames that are read while the network is busy
AHEAD_PIXELS = 10**8  # they hold at most so many pixels (300 MB)
FPS, MAX_FPS = 30.0, 500.0  # what is taken where a stream names no rate, or a higher one: a mere clock's ticks
SLACK, SLACK_SHARE = 5, 0.05  # frames that a container may promise too many: some only estimate their number
NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")  # schemes of addresses that FFmpeg opens
_HINT = "name an image, a video, a camera's number, a stream's address, a folder of images, or a glob in quotes"
ELSEWHERE = "choose another folder for --out"

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

    @property
    def entry(self) -> dict[str, Any]:
        """What the results say of it besides its id and poses."""
        return {"file_name": self.name} | ({} if self.time_s is None else {"time_s": round(self.time_s, 6)})


def find_images(source: str | Path) -> list[Path]:
    """The image files that an image, a folder (not those inside it) or a glob names, sorted. Raises InputError."""
    path = Path(source)
    if path.is_file():
        return [path]
    folder = path.is_dir()
    found = list(path.iterdir()) if folder else [Path(name) for name in glob.glob(str(source), recursive=True)]
    visible = sorted(file for file in found if not file.name.startswith(".") and file.is_file())
    images = [file for file in visible if is_image(file)]
    left_out = [file.name for file in visible if not is_image(file) and not _is_video(file)]
    if images and left_out:
        what = f"{len(left_out)} files cannot be read as images and are left out ({', '.join(left_out[:3])})"
        warn(f"{source}: {what}")
    if not images:
        videos = [file for file in visible if _is_video(file)]
        what = "holds no images" if folder else "no such video" if _is_video(path) and not videos else "no image found"
        hint = f"videos are taken one at a time: name one, such as {videos[0]}" if videos else _HINT
        raise InputError(what, source, hint)
    return images


class _Photo(NamedTuple):
    """An image file, its image_id and name in the results, and the overlay to write."""

    path: Path
    id: int | str
    name: str
    overlay: Path


class Photos:
    """Image files. `failed` counts those that could not be read; a warning names each."""

    unit = "images"

    def __init__(self, paths: Sequence[Path], overlays: Path) -> None:
        self._photos = _name_photos(paths, overlays)
        self.total: int | None = len(paths)
        self.failed = 0

    def read(self, prepare: Prepare) -> Generator[Item, None, None]:
        """The photos in order, but for the broken ones."""

        def read(indexed: tuple[int, _Photo]) -> Item | InputError:
            index, photo = indexed
            try:
                image = read_upright(photo.path)
                return Item(index, photo.id, photo.name, None, photo.overlay, image, *prepare(image))
            except InputError as error:
                return error

        with closing(map_ahead(read, enumerate(self._photos), READERS, READERS)) as items:
            for item in items:
                if isinstance(item, InputError):
                    self.failed += 1
                    warn(str(item))
                else:
                    yield item


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix, or by its content where the suffix says nothing."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix not in (*VIDEO_SUFFIXES, ".gif") and has_image(path))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _name_photos(paths: Sequence[Path], overlays: Path) -> list[_Photo]:
    """Ids and overlays for these images, each of them unique: files may differ only in folder or suffix."""
    root, sources = os.path.commonpath([path.parent for path in paths]), {real(path) for path in paths}
    names = [path.relative_to(root) for path in paths]
    ids = [int(name.stem) if name.stem.isascii() and name.stem.isdigit() else name.as_posix() for name in names]
    drawn = [name.with_suffix(".jpg") for name in names]
    id_count, drawn_count = Counter(ids), Counter(map(folded, drawn))
    taken = {overlay for overlay, count in drawn_count.items() if count == 1}
    photos = []
    for path, name, image_id, overlay in zip(paths, names, ids, drawn, strict=True):
        unique_id = image_id if id_count[image_id] == 1 else name.as_posix()
        if folded(overlay) not in taken:
            suffixes = itertools.chain([".jpg"], (f"-{number}.jpg" for number in itertools.count(2)))
            tried = (name.with_name(name.name + suffix) for suffix in suffixes)
            overlay = next(one for one in tried if folded(one) not in taken)
            taken.add(folded(overlay))
        if real(overlays / overlay) in sources:
            raise InputError("the overlay would replace this image", path, ELSEWHERE)
        photos.append(_Photo(path, unique_id, name.as_posix(), overlays / overlay))
    return photos


def is_address(source: object) -> bool:
    """Whether a source is the address of a stream, such as rtsp://camera/stream."""
    scheme, found, _ = source.partition("://") if isinstance(source, str) else ("", "", "")
    return bool(found) and scheme.lower() in NETWORK


def shown_address(address: str) -> str:
    """An address without name, password and query, which often is one, for people and file names."""
    scheme, _, rest = address.partition("://")
    return f"{scheme.lower()}://{re.split('[?#]', rest)[0].rpartition('@')[2]}"


class Stream:
    """The frames of a video, or of a camera or a stream until Ctrl-C; all of one size, turned as the video says.

    Opening it reads the first frame. `live` are cameras, and addresses of what has no known length. `promised` is the
    length in frames at `fps` where known: it holds fewer where its rate varies. `total` is the same but for the limit;
    `failed` the number of the missing ones where the stream breaks off (1 where a camera ends by itself), which a
    warning says.
    """

    unit = "frames"

    def __init__(
        self, source: Path | str | int, where: str, name: str, overlay: Path, limit: int | None = None
    ) -> None:
        """`where` names it in messages. Raises InputError where it cannot be opened or holds no frame."""
        self.live = isinstance(source, int)
        self.name, self.overlay, self.failed = name, overlay, 0
        self._where = where
        self._limit = limit
        self._capture = self._open(source)
        self._start = self._last = 0.0
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate <= MAX_FPS else FPS  # NaN fails both
        count = 0.0 if self.live else self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.live = self.live or (isinstance(source, str) and not 0 < count < 2**31)
        if rate > self.fps:  # the count is the duration times a rate that was not taken
            count *= self.fps / rate
        self.promised = math.ceil(count) if 0 < count < 2**31 else None  # unknown: zero, negative, NaN or absurd
        self.total: int | None = min((most for most in (self.promised, limit) if most is not None), default=None)
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
        caught = _caught_interrupt(stopped) if self.live else nullcontext()
        try:
            with caught, closing(map_ahead(read, numbers, 1, ahead)) as items:
                for item in items:
                    if item is None or stopped.is_set():
                        break
                    done += 1
                    yield item
        finally:
            self._capture.release()
        if not stopped.is_set():
            self._check_end(done)

    def _open(self, source: Path | str | int) -> Any:
        try:
            capture = open_capture(source)
        except (cv2.error, OverflowError):  # a number that no camera can have
            capture = None
        if capture is None or not capture.isOpened():
            if self.live:
                raise InputError("is not there, or in use", self._where, "see which cameras the system has")
            if isinstance(source, str):
                hint = "try the address in a player such as ffplay or VLC; a name and a password go before its host"
                raise InputError("cannot be opened as a stream", self._where, hint)
            hint = "copy or download the file again, or name an image or a video"
            raise InputError("is not an image and cannot be opened as a video", self._where, hint)
        return capture

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
            if wanted - done > max(SLACK, SLACK_SHARE * wanted):
                self.failed = wanted - done
                what = f"gives {done} of {wanted} frames, the last at {self._last:.2f} s"
                warn(f"{self._where}: {what}; these are kept, the rest of the file is damaged or missing")


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
