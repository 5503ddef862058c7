"""Whole sources of images: poses found, and written out as overlays and COCO-format results."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ofa_pose.formats.image_files import open_capture
from ofa_pose.inference.pose_model import BATCH, DRAWN, PoseModel
from ofa_pose.inference.sources import (
    ELSEWHERE,
    Item,
    Photos,
    Stream,
    find_images,
    is_address,
    is_image,
    quiet_opencv,
    shown_address,
)
from ofa_pose.pose.decode import Poses
from ofa_pose.pose.metrics import to_results
from ofa_pose.pose.tracking import NOBODY, Smoother, Tracker
from ofa_pose.utils import atomic, files
from ofa_pose.utils.console import progress, warn
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.process import ThreadPool
from ofa_pose.utils.result import Result

WAITING_PIXELS = 10**8  # images that wait for others of their size hold at most so many pixels (300 MB)
WRITERS = 4
QUALITY = 90  # of JPEG
LONGEST_GAP_S = 600  # between two frames of what names no length; a longer one is cut to it
CODEC = "mp4v"  # MPEG-4 part 2: every build of OpenCV writes it, and players know it

Draw = Callable[[np.ndarray, Poses], np.ndarray]  # from an RGB uint8 image (H, W, 3) and its poses, what is written
Overlay = Callable[[Sequence[Item], Sequence[Poses]], None]  # takes a batch; all is written when its context ends


@dataclass(frozen=True)
class PredictionResult(Result):
    """Poses that were found and written.

    Attributes:
        images: how many were done; unit: 'images' or 'frames'; failed: how many could not be read.
        people: found, above the threshold; candidates: of any score.
        tracks: how many people were followed over a film; None where nobody was followed.
        seconds: of 'network' and 'decode', and in 'total'.
        predictions: the file of COCO-format results; overlays: the folder of the drawn images.
    """

    images: int
    unit: str
    failed: int
    people: int
    candidates: int
    seconds: dict[str, float]
    predictions: Path
    overlays: Path
    tracks: int | None = None


def open_source(source: str | Path | int, overlays: Path, frames: int | None = None) -> Photos | Stream:
    """The images of a source, which will be drawn into the folder `overlays`. Raises InputError.

    Args:
        source: an image; a video; a folder, whose images are taken (not its videos, nor what is in folders inside it);
            a glob of images; a camera's number: an int or a text of digits ('./0' names a file); or the address of a
            video or a network camera (rtsp://, http:// and the like).
        frames: of a video, a camera or a stream take so many at most.
    """
    if not isinstance(source, str | Path | int):
        what = "name one of them, a folder or a glob; ofa_pose.load(CHECKPOINT) takes a list of images, too"
        raise InputError(f"{type(source).__name__} is not a source", hint=what)
    if isinstance(source, int) or (isinstance(source, str) and source.isascii() and source.isdigit()):
        if int(source) < 0:  # which ends the process in OpenCV
            raise InputError(f"no camera has the number {source}", hint="see which cameras the system has")
        name = f"camera-{int(source)}"
        return Stream(int(source), f"camera {source}", name, overlays / f"{name}.mp4", frames)
    if isinstance(source, str) and is_address(source):
        shown = shown_address(source)
        name = re.sub(r"[^\w.-]+", "-", shown).strip("-.")  # such as rtsp-camera.local-554-stream1
        return Stream(source, shown, shown, overlays / f"{name}.mp4", frames)
    path = Path(source)
    if path.is_file() and not is_image(path):
        overlay = overlays / f"{path.stem}.mp4"
        if files.real(overlay) == files.real(path):
            raise InputError("the overlay would replace this video", path, ELSEWHERE)
        return Stream(path, str(path), path.name, overlay, frames)
    photos = Photos(find_images(source), overlays)
    if frames is not None:
        raise InputError("a number of frames was given for photos", source, "name a video or a camera, or all photos")
    return photos


def predict_source(
    model: PoseModel,
    source: str | Path | int,
    out: str | Path,
    threshold: float = DRAWN,
    frames: int | None = None,
    track: bool = False,
    smooth: bool = False,
) -> PredictionResult:
    """See `ofa_pose.predict`: find the poses on every image of a source; write overlays and `out/predictions.json`.

    Overlays are `out/overlays/NAME.jpg` for a photo; for a video `NAME.mp4` with its size and rate, frame by frame; for
    a camera `camera-NUMBER.mp4`, for a stream its address without name and password. They play as fast as the scene
    went: frames are repeated or left out where the rate varies. A film of a size or rate that OpenCV cannot write, and
    a photo that JPEG does not hold, have none: a warning says so.
    The JSON holds COCO results in the images' order, of all people whatever their score: image_id (the number
    that a photo is named after, else its name; a frame's number from 0), category_id, keypoints, score and file_name,
    of frames also time_s, their time in seconds, and with `track` or `smooth` track_id, the number that somebody keeps
    over the film; people below the threshold have none.
    An unreadable photo is reported and left out; of a video that breaks off, what was read is kept.

    Raises:
        InputError: nothing to read, people were to be followed over photos, or the overlays would replace the source.
            Nothing is written then.
        OfaPoseError: the video could not be written whole.
    """
    start, out = time.perf_counter(), Path(out)
    atomic.check_folder(out)
    results: list[tuple[int, int | str, dict[str, Any], Poses]] = []  # without pixels: a video has very many
    seconds = {"network": 0.0, "decode": 0.0}

    with quiet_opencv():
        images, draw = open_source(source, out / "overlays", frames), partial(model.draw, threshold=threshold)
        if (track or smooth) and isinstance(images, Photos):
            raise InputError("people are followed over the frames of a film", source, "name a video or a camera")
        follow = _Following(model, threshold, smooth) if track or smooth else None
        with (
            closing(images.read(model.prepare)) as items,
            progress("predict", images.total, images.unit) as meter,
            _photo_overlays(draw) if isinstance(images, Photos) else _video_overlay(images, draw) as overlay,
        ):
            for batch in _batches(items):
                found, spent = model.run([item.frame for item in batch], np.stack([item.prepared for item in batch]))
                if follow:
                    found = [follow(item, poses) for item, poses in zip(batch, found, strict=True)]
                overlay(batch, found)
                results += [(item.index, item.id, item.entry, poses) for item, poses in zip(batch, found, strict=True)]
                seconds = {stage: value + spent[stage] for stage, value in seconds.items()}
                meter.step(len(batch))
            if images.failed and images.total is not None:
                meter.step(images.failed)  # so that the total is reached
    results.sort(key=itemgetter(0))
    with atomic.replacing(out / "predictions.json") as temporary, temporary.open("w", encoding="utf-8") as file:
        between = "["
        for _, image_id, entry, poses in results:
            ids = [NOBODY] * len(poses) if poses.ids is None else poses.ids.tolist()
            for person, number in zip(to_results(image_id, poses.keypoints, poses.scores), ids, strict=True):
                followed = {} if number == NOBODY else {"track_id": number}
                file.write(between + json.dumps(person | entry | followed, allow_nan=False))
                between = ", "
        file.write("]\n" if between == ", " else "[]\n")
    seconds["total"] = time.perf_counter() - start
    people = sum(int((poses.scores >= threshold).sum()) for *_, poses in results)
    candidates = sum(len(poses) for *_, poses in results)
    written = (out / "predictions.json", out / "overlays")
    tracks = follow.tracker.count if follow else None
    return PredictionResult(len(results), images.unit, images.failed, people, candidates, seconds, *written, tracks)


class _Following:
    """Numbers the people of a film's frames, and smooths them if asked; called with the frames in their order."""

    def __init__(self, model: PoseModel, threshold: float, smooth: bool) -> None:
        self.tracker = Tracker(model.skeleton.sigmas, threshold)
        self._smoother = Smoother() if smooth else None

    def __call__(self, item: Item, poses: Poses) -> Poses:
        """The frame's people with ids."""
        assert item.time_s is not None
        numbered = replace(poses, ids=self.tracker.update(poses, item.time_s))
        return self._smoother.update(numbered, item.time_s) if self._smoother else numbered


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Batches of equal input size. Nothing waits for long: the largest goes first where too many pixels wait."""
    waiting: dict[tuple[int, int], list[Item]] = defaultdict(list)
    for item in items:
        size = (item.frame.height, item.frame.width)
        waiting[size].append(item)
        if len(waiting[size]) == BATCH:
            yield waiting.pop(size)
        elif sum(item.image.size // 3 for group in waiting.values() for item in group) > WAITING_PIXELS:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


@contextmanager
def _behind(write: Callable[[Item, Poses], None], threads: int) -> Iterator[Overlay]:
    """Calls `write` in threads, in order where there is one. A batch waits for the one before: no more are held."""
    waiting: list[Future[None]] = []

    def add(items: Sequence[Item], poses: Sequence[Poses]) -> None:
        for done in waiting:
            done.result()  # what could not be written raises here
        waiting[:] = [pool.submit(write, *pair) for pair in zip(items, poses, strict=True)]

    pool = ThreadPool(threads)
    try:
        yield add
        add((), ())
    finally:
        pool.shutdown(cancel_futures=True)


def _photo_overlays(draw: Draw) -> AbstractContextManager[Overlay]:
    """Photos with their poses drawn on: each whole or not there; one too large for JPEG is reported and left out."""

    def write(item: Item, poses: Poses) -> None:
        assert item.overlay is not None
        image = cv2.cvtColor(draw(item.image, poses), cv2.COLOR_RGB2BGR)
        fits, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not fits:
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            warn(f"{item.name}: no overlay is written, JPEG holds no {size}; its poses are in the results")
            return
        files.write_bytes(item.overlay, encoded.tobytes(), lasting=False)  # there are very many

    return _behind(write, WRITERS)


class _NoSuchVideo(Exception):
    """OpenCV writes no video of a size and rate."""


@contextmanager
def _video_overlay(stream: Stream, draw: Draw) -> Iterator[Overlay]:
    """A video with its poses drawn on, or a warning that none can be written of its size and rate."""
    try:
        with _drawn_video(stream, draw) as add:
            yield add
    except _NoSuchVideo:
        size = "x".join(map(str, stream.size))
        what = f"no overlay is written: this OpenCV writes no {CODEC} video of {size} pixels, {stream.fps:g} a second"
        warn(f"{stream.overlay}: {what}; the poses are in the results")
        yield lambda items, poses: None


@contextmanager
def _drawn_video(stream: Stream, draw: Draw) -> Iterator[Overlay]:
    """A video with its poses drawn on; it is there only when the context ends well, and whole then."""
    written, start, last, ended = 0, 0.0, 0.0, False
    before: np.ndarray | None = None

    def write(item: Item, poses: Poses) -> None:
        nonlocal written, start, last, before
        assert item.time_s is not None
        image = cv2.cvtColor(draw(item.image, poses), cv2.COLOR_RGB2BGR)
        start = item.time_s if written == 0 else start
        if written and stream.promised is None:  # a time stamp gone astray fills no disk
            start += max(0.0, item.time_s - last - LONGEST_GAP_S)
        last = item.time_s
        # A camera's frames come as fast as they are done, and a file's rate may vary: each is due by its own time.
        due = round((item.time_s - start) * stream.fps) + 1
        if stream.promised is not None:  # nor then
            due = min(due, max(written + 1, stream.promised))
        while written < due and not ended:
            writer.write(image if before is None or written == due - 1 else before)
            written += 1
        before = image

    with atomic.replacing(stream.overlay) as temporary:
        with files.in_utf8(temporary) as (name,):
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*CODEC), stream.fps, stream.size)
        try:
            if not writer.isOpened():
                temporary.open("ab").close()  # raises what is so where there are no more open files
                raise _NoSuchVideo
            with _behind(write, 1) as add:
                try:
                    yield add
                except BaseException:
                    ended = True
                    raise
        finally:
            writer.release()
        if not open_capture(temporary).isOpened():  # nothing else reports a full disk
            raise OfaPoseError(f"{stream.overlay}: could not be written whole; is the disk full?")
