"""What poses are looked for on: the images of any source as one kind of item, and photos."""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ofa_pose.data.images import IMAGE_SUFFIXES, read_upright
from ofa_pose.pose.geometry import InputFrame
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.threads import map_ahead

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
READERS = 4
_HINT = "name an image, a video, a camera's number, a folder of images, or a glob in quotes such as 'photos/*.jpg'"
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


def find_images(source: str | Path) -> list[Path]:
    """The image files that an image, a folder (not those inside it) or a glob names, sorted.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    folder = path.is_dir()
    found = list(path.iterdir()) if folder else [Path(name) for name in glob.glob(str(source), recursive=True)]
    visible = [file for file in found if not file.name.startswith(".") and file.is_file()]
    images = sorted(file for file in visible if is_image(file))
    left_out = sorted(file.name for file in visible if not is_image(file) and not _is_video(file))
    if images and left_out:
        warn(
            f"{source}: {len(left_out)} files are no images that can be read, and are left out "
            f"({', '.join(left_out[:3])})"
        )
    if not images:
        videos = sorted(file for file in visible if _is_video(file))
        what = "holds no images" if folder else "no such video" if _is_video(path) and not videos else "no image found"
        hint = f"videos are taken one at a time: name one, such as {videos[0]}" if videos else _HINT
        raise InputError(what, source, hint)
    return images


class Photos:
    """Image files. `failed` counts those that could not be read; a warning names each."""

    unit = "images"

    def __init__(self, paths: Sequence[Path], overlays: Path) -> None:
        self._photos = _name_photos(paths, overlays)
        self.total: int | None = len(self._photos)
        self.failed = 0

    def read(self, prepare: Prepare) -> Generator[Item, None, None]:
        """The photos in order, but for the broken ones."""

        def read(photo: _Photo) -> Item | InputError:
            try:
                image = read_upright(photo.path)
                return Item(photo.index, photo.id, photo.name, None, photo.overlay, image, *prepare(image))
            except InputError as error:
                return error

        with closing(map_ahead(read, self._photos, READERS, READERS)) as items:
            for item in items:
                if isinstance(item, InputError):
                    self.failed += 1
                    warn(str(item))
                else:
                    yield item


@dataclass(frozen=True)
class _Photo:
    """An image file: its place in the source, image_id, name in the results, and the overlay to write."""

    index: int
    path: Path
    id: int | str
    name: str
    overlay: Path


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix, or by its content where the suffix says nothing."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix not in (*VIDEO_SUFFIXES, ".gif") and cv2.haveImageReader(str(path)))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _name_photos(paths: Sequence[Path], overlays: Path) -> list[_Photo]:
    """Ids and overlays for these images, each of them unique: files may differ only in folder or suffix."""
    root = os.path.commonpath([path.parent for path in paths])
    names = [path.relative_to(root) for path in paths]
    ids = [int(name.stem) if name.stem.isascii() and name.stem.isdigit() else name.as_posix() for name in names]
    drawn = [name.with_suffix(".jpg") for name in names]
    id_count, drawn_count = Counter(ids), Counter(str(path).lower() for path in drawn)
    taken = {overlay for overlay, count in drawn_count.items() if count == 1}
    photos = []
    for index, (path, name, image_id, overlay) in enumerate(zip(paths, names, ids, drawn, strict=True)):
        unique_id = image_id if id_count[image_id] == 1 else name.as_posix()
        unique = overlay if drawn_count[str(overlay).lower()] == 1 else _untaken(name, taken)
        photos.append(_Photo(index, path, unique_id, name.as_posix(), overlays / unique))
    sources = {path.resolve() for path in paths}
    for photo in photos:
        if photo.overlay.resolve() in sources:
            raise InputError("the overlay would replace this image", photo.path, ELSEWHERE)
    return photos


def _untaken(name: Path, taken: set[str]) -> Path:
    """The overlay NAME.SUFFIX.jpg, or the first NAME.SUFFIX-2.jpg, -3 and so on that is not taken; it then is."""
    for number in itertools.count(1):
        overlay = name.with_name(f"{name.name}.jpg" if number == 1 else f"{name.name}-{number}.jpg")
        if str(overlay).lower() not in taken:
            break
    taken.add(str(overlay).lower())
    return overlay
