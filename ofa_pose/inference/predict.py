"""Whole sources of images: poses found, and written out as overlays and COCO-format results."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.inference.overlays import open_overlays
from ofa_pose.inference.pose_model import DRAWN, PoseModel
from ofa_pose.inference.sources import ELSEWHERE, Item, Photos, find_images, is_image
from ofa_pose.inference.streams import Stream, quiet_opencv
from ofa_pose.pose.decode import Poses
from ofa_pose.pose.metrics import to_results
from ofa_pose.utils import files
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.result import Result

BATCH = 8
WAITING_PIXELS = 10**8  # images that wait for others of their size hold at most so many pixels (300 MB)


@dataclass(frozen=True)
class PredictionResult(Result):
    """Poses that were found and written.

    Attributes:
        images: how many were done; unit: 'images' or 'frames'; failed: how many could not be read.
        people: found, above the threshold; candidates: of any score.
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


def open_source(source: str | Path | int, overlays: Path, frames: int | None = None) -> Photos | Stream:
    """The images of a source.

    Args:
        source: an image; a video; a folder, whose images are taken (not its videos, nor what is in folders inside it);
            a glob of images; or a camera's number: an int or a text of digits ('./0' names a file).
        overlays: the folder that will be drawn into.
        frames: of a video or a camera take so many at most.

    Raises:
        InputError: there is none, the video or camera cannot be opened, or the overlays would replace the source.
    """
    if isinstance(source, int) or (isinstance(source, str) and source.isascii() and source.isdigit()):
        return Stream(int(source), f"camera-{int(source)}", overlays / f"camera-{int(source)}.mp4", frames)
    path = Path(source)
    if path.is_file() and not is_image(path):
        overlay = overlays / f"{path.stem}.mp4"
        if overlay.resolve() == path.resolve():
            raise InputError("the overlay would replace this video", path, ELSEWHERE)
        return Stream(path, path.name, overlay, frames)
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
) -> PredictionResult:
    """Find the poses on every image of a source; write overlays and `out/predictions.json`.

    Overlays are `out/overlays/NAME.jpg` for a photo; for a video `NAME.mp4` with its size and rate, frame by frame; for
    a camera `camera-NUMBER.mp4`. Both play as fast as the scene went: frames are repeated or left out where the rate
    varies. The JSON holds COCO results in the images' order, of all people whatever their score: image_id (the number
    that a photo is named after, else its name; a frame's number from 0), category_id, keypoints, score and file_name,
    of frames also time_s, their time in seconds.
    An unreadable photo is reported and left out; of a video that breaks off, what was read is kept.

    Args:
        source: an image, a video, a folder of images, a glob of images, or a camera's number; see
            `open_source`. A camera goes on until Ctrl-C.
        threshold: people and joints with a lower score are not drawn, such people not counted.
        frames: of a video or a camera take so many at most.

    Raises:
        InputError: nothing to read, or the overlays would replace the source. Nothing is written then.
        OfaPoseError: the video cannot be written.
    """
    start, out = time.perf_counter(), Path(out)
    files.check_folder(out)
    results: list[_Result] = []
    seconds = {"network": 0.0, "decode": 0.0}

    with quiet_opencv():
        images = open_source(source, out / "overlays", frames)
        with (
            closing(images.read(model.prepare)) as items,
            progress("predict", images.total, images.unit) as meter,
            open_overlays(images, partial(model.draw, threshold=threshold)) as overlay,
        ):
            for batch in _batches(items):
                found, spent = model.run([item.frame for item in batch], np.stack([item.prepared for item in batch]))
                overlay(batch, found)
                results += [_Result.of(item, poses) for item, poses in zip(batch, found, strict=True)]
                seconds = {stage: value + spent[stage] for stage, value in seconds.items()}
                meter.step(len(batch))
            if images.failed and images.total is not None:
                meter.step(images.failed)  # so that the total is reached
    results.sort(key=lambda result: result.index)
    _write_results(out / "predictions.json", results)
    seconds["total"] = time.perf_counter() - start
    people = sum(int((result.poses.scores >= threshold).sum()) for result in results)
    candidates = sum(len(result.poses) for result in results)
    written = (out / "predictions.json", out / "overlays")
    return PredictionResult(len(results), images.unit, images.failed, people, candidates, seconds, *written)


@dataclass(frozen=True, slots=True)
class _Result:
    """The poses on an image and what the results say of it, without its pixels: a video has very many of them."""

    index: int
    id: int | str
    entry: dict[str, Any]
    poses: Poses

    @classmethod
    def of(cls, item: Item, poses: Poses) -> _Result:
        time_s = {} if item.time_s is None else {"time_s": round(item.time_s, 6)}
        return cls(item.index, item.id, {"file_name": item.name, **time_s}, poses)


def _write_results(path: Path, results: Iterable[_Result]) -> None:
    """Write COCO results as one JSON list, an image's entries at a time."""
    with files.replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        between = ""
        for result in results:
            for person in to_results(result.id, result.poses.keypoints, result.poses.scores):
                file.write(between + json.dumps(person | result.entry, allow_nan=False))
                between = ", "
        file.write("]\n")


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
