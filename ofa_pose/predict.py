"""Poses on images: a model to call, and whole sources written out as overlays and COCO-format results."""

from __future__ import annotations

import glob
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ofa_pose import files
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import Runner
from ofa_pose.backends.fastest import FastestRunner
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.checkpoint import Checkpoint, load_checkpoint
from ofa_pose.console import progress, warn
from ofa_pose.data.images import read_upright
from ofa_pose.errors import InputError
from ofa_pose.evaluate import estimate
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import DecodeConfig, Poses
from ofa_pose.pose.draw import draw_poses
from ofa_pose.pose.geometry import InputFrame, check_resolution, input_frame, warp
from ofa_pose.pose.metrics import to_results
from ofa_pose.skeleton import Skeleton

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
THRESHOLD = 0.2  # people and joints with lower scores are not drawn
BATCH = 8
WAITING_PIXELS = 10**8  # images that wait for others of their size hold at most so many pixels (300 MB)
THREADS = 4
QUALITY = 90  # of the overlays' JPEG


@dataclass(frozen=True)
class PoseModel:
    """A network with all it takes to find the poses on an image: `model(image)`.

    Attributes:
        runner: computes the network.
        spec, skeleton: the network's shape and the joints it finds.
        resolution: what an image's short side is scaled to, in input pixels.
        flip: average with the mirrored image.
        config: the decoder's thresholds and limits; None for the default ones.
    """

    runner: Runner
    spec: ArchSpec
    skeleton: Skeleton
    resolution: int
    flip: bool = False
    config: DecodeConfig | None = None

    def __call__(self, image: str | Path | np.ndarray) -> Poses:
        """The people on an image, best first.

        Args:
            image: an image file, seen as a viewer shows it (turned as its EXIF data say), or RGB uint8 (H, W, 3).

        Returns:
            keypoints float32 (P, J, 3), x and y in image pixels; a missing joint has score 0, and x = y = 0 or a guess.
            Scores float32 (P,).

        Raises:
            InputError: the file is no readable image, or the array is no RGB uint8 image.
        """
        pixels = image if isinstance(image, np.ndarray) else read_upright(image)
        frame, prepared = self.prepare(pixels)
        return self.run([frame], prepared[None])[0][0]

    def prepare(self, image: np.ndarray) -> tuple[InputFrame, np.ndarray]:
        """The network's input for an RGB uint8 image (H, W, 3): its frame, and RGB uint8 (frame height, width, 3)."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f"an array of shape {image.shape} and type {image.dtype} is no image"
            raise InputError(what, mend="give RGB values as uint8 of shape (height, width, 3)")
        frame = input_frame(image.shape[1], image.shape[0], self.resolution)
        return frame, warp(image, frame)

    def run(self, frames: Sequence[InputFrame], inputs: np.ndarray) -> tuple[list[Poses], dict[str, float]]:
        """The poses, in image pixels, on inputs of one size, (B, H, W, 3); and the seconds of network and decoder."""
        poses, seconds = estimate(self.runner, inputs, self.skeleton, self.config, self.flip)
        moved = [
            replace(found, keypoints=frame.poses_to_image(found.keypoints))
            for found, frame in zip(poses, frames, strict=True)
        ]
        return moved, seconds


def load_model(
    checkpoint: str | Path, device: str | None = None, resolution: int | None = None, flip: bool = False
) -> PoseModel:
    """See `ofa_pose.load`."""
    source = load_checkpoint(checkpoint)
    net = fixed_net(source, checkpoint)
    if resolution is not None:
        check_resolution(resolution)
    runner = FastestRunner(pick_device(device))(net)
    return PoseModel(runner, source.spec, source.skeleton, resolution or source.spec.resolution, flip)


def fixed_net(checkpoint: Checkpoint, where: object = "") -> LitePose:
    """The network of a checkpoint, in eval mode on the CPU. Raises InputError where it holds a supernet."""
    if checkpoint.kind == "supernet":
        mend = "search it for a subnet and finetune that, then name the finetuned checkpoint"
        raise InputError("holds a supernet, many networks in one", where, mend)
    return checkpoint.build()


def find_images(source: str | Path) -> list[Path]:
    """The image files that an image, a folder (not those inside it) or a glob names, sorted.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    mend = "name an image, a folder of images, or a glob in quotes such as 'photos/*.jpg'"
    if path.is_file():
        if path.suffix and not _is_image(path):
            raise InputError("is no image file", path, mend)
        return [path]
    folder = path.is_dir()
    found = path.iterdir() if folder else (Path(name) for name in glob.glob(str(source), recursive=True))
    images = sorted(file for file in found if _is_image(file) and file.is_file())
    if not images:
        raise InputError("holds no images" if folder else "no image found", source, mend)
    return images


def predict_source(
    model: PoseModel, source: str | Path, out: str | Path, threshold: float = THRESHOLD
) -> dict[str, Any]:
    """Find the poses on every image of a source; write `out/overlays/NAME.jpg` and `out/predictions.json`.

    The JSON holds COCO results in the images' order, of all people whatever their score: image_id (the number that the
    file is named after, else its name), category_id, keypoints, score and file_name. An unreadable image is told and
    left out.

    Args:
        source: an image, a folder of images, or a glob.
        threshold: people and joints with a lower score are not drawn, such people not counted.

    Returns:
        {'images': done, 'failed', 'people', 'candidates' (of any score), 'seconds': {'network', 'decode', 'total'},
        'predictions', 'overlays'}.

    Raises:
        InputError: no image found, or the overlays would replace images of the source.
    """
    start, out = time.perf_counter(), Path(out)
    files.check_folder(out)
    photos = _name_photos(find_images(source), out / "overlays")
    results: dict[int, list[dict[str, Any]]] = {}
    seconds = {"network": 0.0, "decode": 0.0}

    def draw(item: _Item, poses: Poses) -> None:
        _write_overlay(item, poses, model.skeleton, threshold)

    with ThreadPoolExecutor(THREADS) as pool, progress("predict", len(photos)) as meter:
        for batch in _batches(_read(model, photos, pool, meter.step)):
            found, spent = model.run([item.frame for item in batch], np.stack([item.prepared for item in batch]))
            for item, poses in zip(batch, found, strict=True):
                name = {"file_name": item.photo.name}
                entries = to_results(item.photo.id, poses.keypoints, poses.scores)
                results[item.photo.index] = [entry | name for entry in entries]
            list(pool.map(draw, batch, found))  # list: an overlay that cannot be written raises here
            seconds = {stage: value + spent[stage] for stage, value in seconds.items()}
            meter.step(len(batch))
    predictions = [entry for index in sorted(results) for entry in results[index]]
    files.write_json(out / "predictions.json", predictions, indent=None)
    return {
        "images": len(results),
        "failed": len(photos) - len(results),
        "people": sum(entry["score"] >= threshold for entry in predictions),
        "candidates": len(predictions),
        "seconds": {**seconds, "total": time.perf_counter() - start},
        "predictions": str(out / "predictions.json"),
        "overlays": str(out / "overlays"),
    }


@dataclass(frozen=True)
class _Photo:
    """An image of the source: its place in it, file, image_id, name in the results, and the overlay to write."""

    index: int
    path: Path
    id: int | str
    name: str
    overlay: Path


@dataclass(frozen=True)
class _Item:
    """A photo that was read: RGB uint8 (H, W, 3), and the network's input for it."""

    photo: _Photo
    image: np.ndarray
    frame: InputFrame
    prepared: np.ndarray


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _name_photos(paths: Sequence[Path], overlays: Path) -> list[_Photo]:
    """Ids and overlays for these images, each of them unique: files may differ only in folder or suffix."""
    root = os.path.commonpath([path.parent for path in paths])
    names = [path.relative_to(root) for path in paths]
    ids = [int(name.stem) if name.stem.isascii() and name.stem.isdigit() else name.as_posix() for name in names]
    drawn = [name.with_suffix(".jpg") for name in names]
    id_count, drawn_count = Counter(ids), Counter(str(path).lower() for path in drawn)
    photos = []
    for index, (path, name, image_id, overlay) in enumerate(zip(paths, names, ids, drawn, strict=True)):
        unique_id = image_id if id_count[image_id] == 1 else name.as_posix()
        unique = overlay if drawn_count[str(overlay).lower()] == 1 else name.with_name(f"{name.name}.jpg")
        photos.append(_Photo(index, path, unique_id, name.as_posix(), overlays / unique))
    sources = {path.resolve() for path in paths}
    for photo in photos:
        if photo.overlay.resolve() in sources:
            raise InputError("the overlay would replace this image", photo.path, "choose another folder for --out")
    return photos


def _read(model: PoseModel, photos: Iterable[_Photo], pool: ThreadPoolExecutor, skip: Any) -> Iterator[_Item]:
    """Read and scale the photos, a few ahead in threads; a broken one is told and passed over with `skip()`."""

    def read(photo: _Photo) -> _Item | InputError:
        try:
            image = read_upright(photo.path)
            return _Item(photo, image, *model.prepare(image))
        except InputError as error:
            return error

    waiting: deque[Future[_Item | InputError]] = deque()
    rest = iter(photos)
    while True:
        while len(waiting) < THREADS and (photo := next(rest, None)):
            waiting.append(pool.submit(read, photo))
        if not waiting:
            return
        item = waiting.popleft().result()
        if isinstance(item, InputError):
            warn(str(item))
            skip()
        else:
            yield item


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Batches of equal input size. Nothing waits for long: the largest goes first where too many pixels wait."""
    waiting: dict[tuple[int, int], list[_Item]] = defaultdict(list)
    for item in items:
        size = (item.frame.height, item.frame.width)
        waiting[size].append(item)
        if len(waiting[size]) == BATCH:
            yield waiting.pop(size)
        elif sum(item.image.size // 3 for group in waiting.values() for item in group) > WAITING_PIXELS:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def _write_overlay(item: _Item, poses: Poses, skeleton: Skeleton, threshold: float) -> None:
    sure = poses.keypoints[poses.scores >= threshold]
    image = draw_poses(item.image, sure, skeleton, threshold)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    with files.replacing(item.photo.overlay) as temporary:
        temporary.write_bytes(encoded.tobytes())
