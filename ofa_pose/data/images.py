"""Reading image files as their annotations mean them; a damaged file is an InputError that names it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofa_pose.utils.errors import InputError

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_JPEG = b"\xff\xd8\xff"
_COPY_AGAIN = "copy or download the file again"


def read_image(path: str | Path, size: tuple[int, int] | None = None, upright: bool = False) -> NDArray[np.uint8]:
    """The image in a file as RGB uint8 (H, W, 3); greyscale is repeated in the three channels, alpha is dropped.

    Args:
        size: width and height as annotated.
        upright: turned and mirrored as its EXIF orientation says; else the pixels as they are stored.

    Raises:
        InputError: no such file, not an image, cut short, or of another size than `size`.
    """
    image = _decoded(_whole_file(path), _flags(cv2.IMREAD_COLOR, upright), path)
    if size is not None and _size(image) != tuple(size):
        raise _other_size(path, _size(image), size)
    return _rgb(image)


def read_upright(path: str | Path) -> NDArray[np.uint8]:
    """The image in a file as people see it: RGB uint8 (H, W, 3), turned as its EXIF orientation says.

    Raises:
        InputError: no such file, not an image, or cut short.
    """
    return read_image(path, upright=True)


def read_reduced(
    path: str | Path, size: tuple[int, int], reduction: int, upright: bool = False
) -> tuple[NDArray[np.uint8], int]:
    """`read_image`, decoded straight to a fraction of its size where the file is a JPEG: much faster for photos.

    Args:
        size, upright: see `read_image`.
        reduction: 1, 2, 4 or 8, the wanted size of a decoded pixel in image pixels.

    Returns:
        The image and the reduction it really has: 1 or what was asked for. Decoded pixel i covers image pixels
        [i × reduction, (i + 1) × reduction), at the far edges partly beyond the image.
    """
    # Of an image that is turned, the pixels at its near edges would be the ones that reach beyond it.
    if reduction in _REDUCED and not (upright and any(side % reduction for side in size)):
        encoded = _whole_file(path)
        if encoded.startswith(_JPEG) and sorted(_jpeg_size(encoded) or ()) == sorted(size):
            image = _decode(encoded, _flags(_REDUCED[reduction], upright))
            if image is not None and _size(image) == (-(-size[0] // reduction), -(-size[1] // reduction)):
                return _rgb(image), reduction
    return read_image(path, size, upright), 1


def _flags(colour: int, upright: bool) -> int:
    return colour if upright else colour | cv2.IMREAD_IGNORE_ORIENTATION


def _other_size(path: str | Path, found: tuple[int, int], size: tuple[int, int]) -> InputError:
    what = f"is {found[0]}x{found[1]} pixels, annotated as {size[0]}x{size[1]}"
    return InputError(what, path, "correct width and height in the annotations, or restore the image")


def _whole_file(path: str | Path) -> bytes:
    try:
        encoded = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError("no such image", path, "check the images folder and file_name") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path, "name an image file") from None
    if not encoded:
        raise InputError("is an empty file", path, _COPY_AGAIN)
    if not _is_whole(encoded):
        raise InputError("is cut short", path, _COPY_AGAIN)
    return encoded


def _size(image: Any) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _rgb(image: Any) -> Any:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode(encoded: bytes, flags: int) -> Any:
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        return None


def _decoded(encoded: bytes, flags: int, path: str | Path) -> Any:
    image = _decode(encoded, flags)
    if image is None:
        raise InputError("is damaged or not an image", path, _COPY_AGAIN)
    return image


def _is_whole(data: bytes) -> bool:
    """Whether a file reaches its format's own end; some OpenCV versions fill what is missing with grey."""
    if data.startswith(_JPEG):
        return data.endswith(b"\xff\xd9") or _jpeg_ends(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" in data[-64:] or b"IEND\xaeB`\x82" in data
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    if data[:2] == b"BM":
        return len(data) >= int.from_bytes(data[2:6], "little")
    return True


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end marker of a JPEG's own image (not that of a thumbnail inside a segment) is there."""
    return any(mark == 0xD9 for mark, _ in _jpeg_marks(data))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG as its frame header says."""
    for mark, at in _jpeg_marks(data):
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9].ljust(4, b"\0"))
            return width, height
    return None


def _jpeg_marks(data: bytes) -> Iterator[tuple[int, int]]:
    """The marks of a JPEG and their places.

    Segments are stepped over by their length; in the coded data FF is followed by 00 or a restart mark (D0 to D7).
    """
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return
        mark = data[at + 1]
        yield mark, at
        if mark == 0xFF:
            at += 1
        elif mark == 0x00 or mark == 0x01 or 0xD0 <= mark <= 0xD8:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
