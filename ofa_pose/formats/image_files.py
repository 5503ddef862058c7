"""Files of images and videos: those that annotations name are found where they lie, in the folders that were given."""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ofa_pose.utils.errors import InputError, is_of_content
from ofa_pose.utils.files import SURROGATE, in_utf8, reading

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".avif")
DEEPEST = 20  # folders of an absolute name that may be there below another one
DAMAGE = (OSError, RuntimeError, SyntaxError, ValueError)  # Pillow's of damaged files, but for a class of its own
HEAD = 4096  # bytes of a file in which its EXIF block begins, if it has one
_ON_ITS_SIDE = frozenset((5, 6, 7, 8))  # EXIF orientations that swap the sides


def read_turn(path: str | Path) -> tuple[int, tuple[int, int]] | None:
    """How EXIF turns an image that is not stored upright: its orientation, 2 to 8, and the stored width and height.

    Only a JPEG, PNG or WebP file is turned; those of other formats come in one way. Of a damaged file it is None, and
    of one that is not there: who reads the image says so. Raises InputError where it cannot be read.
    """
    from PIL import ExifTags, Image  # here: a device that only runs a model has no Pillow

    with reading(path):
        try:
            with Path(path).open("rb") as file:
                head = file.read(HEAD)
            if b"Exif" not in head and b"eXIf" not in head and b"EXIF" not in head and not head.startswith(b"RIFF"):
                return None
            with Image.open(path) as image:
                if image.format not in ("JPEG", "MPO", "PNG", "WEBP"):
                    return None
                exif = Image.Exif()
                exif.load(image.info.get("exif", b""))
                orientation: Any = exif.get(ExifTags.Base.Orientation)
                return (orientation, image.size) if orientation in range(2, 9) else None
        except (*DAMAGE, struct.error, Image.DecompressionBombError) as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            if isinstance(error, OSError) and not missing and not is_of_content(error):
                raise
            return None


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of an image as people see it. Raises InputError."""
    from PIL import Image

    with reading(path):
        try:
            with Image.open(path) as image:
                size: tuple[int, int] = image.size
        except FileNotFoundError:
            hint = "restore it, or name the folder of the images with --images"
            raise InputError("no such image, and its size is needed", path, hint) from None
        except (*DAMAGE, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and not is_of_content(error):
                raise
            raise InputError("is damaged or not an image", path, "copy or download the file again") from None
    turn = read_turn(path)
    return size[::-1] if turn and turn[0] in _ON_ITS_SIDE else size


def upright_records(value: Mapping[str, Any], turns: Mapping[Any, tuple[int, tuple[int, int]]]) -> dict[str, Any]:
    """COCO's lists with joints and boxes of photos that EXIF turns, put where they are on the upright photo.

    Args:
        value: the lists.
        turns: by image id, the EXIF orientation and the stored size of those whose labels are of the stored pixels.
    """
    shown = {key: stored[::-1] if turn in _ON_ITS_SIDE else stored for key, (turn, stored) in turns.items()}
    images = [
        image | dict(zip(("width", "height"), shown.get(image["id"], (image["width"], image["height"])), strict=True))
        for image in value["images"]
    ]
    annotations = [
        _turned(record, *turns[record["image_id"]]) if record["image_id"] in turns else record
        for record in value["annotations"]
    ]
    return {**value, "images": images, "annotations": annotations}


def _turned(record: Mapping[str, Any], orientation: int, stored: tuple[int, int]) -> dict[str, Any]:
    def turn(x: float, y: float) -> tuple[float, float]:
        w, h = stored
        across = {2: (w - x, y), 3: (w - x, h - y), 4: (x, h - y), 5: (y, x), 6: (h - y, x), 7: (h - y, w - x)}
        return across.get(orientation, (y, w - x))

    result = dict(record)
    flat = record.get("keypoints") or []
    joints = [(*turn(x, y), v) if v else (x, y, v) for x, y, v in zip(*(iter(flat),) * 3, strict=True)]
    result["keypoints"] = [number for joint in joints for number in joint]
    if record.get("bbox") is not None:
        x, y, w, h = record["bbox"]
        xs, ys = zip(turn(x, y), turn(x + w, y + h), strict=True)
        result["bbox"] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return result


def list_images(folder: Path) -> list[Path]:
    """Every image file in a folder and those below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, read without following links, lies in a folder."""
    here, start = os.path.abspath(path), os.path.abspath(folder)
    return here == start or here.startswith(start.rstrip(os.sep) + os.sep)


class ImageFinder:
    """Finds the files of image names as annotations have them.

    Attributes:
        missing: the paths at which an image should be and is not.
    """

    def __init__(self, root: Path, images: Path | None, folders: Sequence[Path] = ()) -> None:
        """
        Args:
            root: everything that the annotations may name lies in it.
            images: or in this folder, which the caller named.
            folders: where names may start from, the likeliest first, after `images`.
        """
        self._roots = [root] if images is None else [root, images]
        self._folders = [*([images] if images else []), *folders, root]
        self.missing: list[Path] = []
        self._claimed: dict[Path, tuple[str, bool]] = {}  # whose image a file is, and whether its folders are others

    def find(self, name: str, where: object, *also: str) -> Path:
        """The path of an image, whether it is there or not; `also` are other names that its file may have.

        Raises InputError where the name leads elsewhere, or to the file of another image.
        """
        plain = PurePosixPath(name.replace("\\", "/"))
        if not plain.name or "\0" in name:
            raise InputError(f"{name!r:.60} is not the name of an image", where, "correct the name")
        absolute = plain.is_absolute() or (plain.parts[0].endswith(":") and len(plain.parts) > 1)
        ends = range(min(DEEPEST, len(plain.parts) - 1), 0, -1) if absolute else ()
        tails = [PurePosixPath(*plain.parts[-end:]) for end in ends] or [plain]
        candidates = [Path(plain)] * absolute + [folder / tail for tail in tails for folder in self._folders]
        found = next((path for path in candidates if os.path.isfile(path) and self._is_allowed(path)), None)
        by_name = found is None or (absolute and found != Path(plain))
        if found is None:
            places = [folder / tails[-1] for folder in self._folders if self._is_allowed(folder / tails[-1])]
            if not places:
                hint = "name the folder of the images with --images"
                raise InputError(f"its image {name!r:.80} leads out of {self._roots[0]}", where, hint)
            found = next(filter(None, map(self._by_name, (plain.name, *also))), None)
            if found is None:
                self.missing.append(places[0 if len(self._roots) > 1 else -1])
                return Path(os.path.normpath(self.missing[-1]))
        found = Path(os.path.normpath(found))
        other, is_loose = self._claimed.setdefault(found, (name, by_name))
        if other != name and (by_name or is_loose):
            what = f"its image {name!r:.80} and {other!r:.80} would both be {found}"
            raise InputError(what, where, "keep the images in the folders that the annotations name")
        return found

    def _is_allowed(self, path: Path) -> bool:
        return any(is_inside(path, root) for root in self._roots)

    def _by_name(self, name: str) -> Path | None:
        """The image of that name in one of the folders, or the only one below the folder that the caller named."""
        flat = next((folder / name for folder in self._folders if os.path.isfile(folder / name)), None)
        known = [] if flat else self._listed.get(name, [])
        return known[0] if len(known) == 1 else flat

    @cached_property
    def _listed(self) -> dict[str, list[Path]]:
        listed: dict[str, list[Path]] = defaultdict(list)
        for path in list_images(self._roots[1]) if len(self._roots) > 1 else ():
            listed[path.name].append(path)
        return listed

    def note(self) -> list[str]:
        """A line on the images that are not there."""
        if not self.missing:
            return []
        return [f"{len(self.missing)} image files are not there (the first: {self.missing[0]}); name them by --images"]


def open_capture(source: Path | str | int) -> Any:
    """OpenCV's reader of a video file, a stream's address or a camera; one that is not open where there is no such.

    Files and streams are FFmpeg's alone, as OpenCV's own reader prints about broken files. OpenCV ends the process
    where it is given a name that is not UTF-8. Raises InputError where a file cannot be read.
    """
    import cv2  # here: annotations are read without it

    if isinstance(source, Path):
        with in_utf8(source) as (name,):
            capture = open_capture(name)
        if not capture.isOpened():  # OpenCV does not say why
            with reading(source), suppress(FileNotFoundError), source.open("rb") as file:
                file.read(1)
        return capture
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    if SURROGATE.search(source):  # no address
        return cv2.VideoCapture()
    if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    return cv2.VideoCapture(source)


def has_image(path: Path) -> bool:
    """Whether OpenCV knows a file's content as an image's."""
    import cv2

    with in_utf8(path) as (name,):
        return bool(cv2.haveImageReader(name))
