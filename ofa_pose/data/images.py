"""Reading image files as their annotations mean them; a damaged file is an InputError that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofa_pose.utils.errors import InputError

_RAW = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_JPEG = b"\xff\xd8\xff"
_COPY_AGAIN = "copy or download the file again"


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The image in a file as RGB uint8 (H, W, 3); greyscale is repeated in the three channels, alpha is dropped.

    Pixels come as they are stored, without the EXIF rotation, because COCO's keypoints refer to stored pixels. Where
    `size` (width, height; as annotated) fits only the rotated image, the annotator saw that one, and it is returned.

    Raises:
        InputError: no such file, not an image, cut short, or of another size than `size`.
    """
    encoded = _whole_file(path)
    image = _decoded(encoded, _RAW, path)
    if size is not None and _size(image) != tuple(size):
        stored = _size(image)
        image = _decode(encoded, cv2.IMREAD_COLOR)
        if image is None or _size(image) != tuple(size):
            what = f"is {stored[0]}x{stored[1]} pixels, annotated as {size[0]}x{size[1]}"
            raise InputError(what, path, "correct width and height in the annotations, or restore the image")
    return _rgb(image)


def read_upright(path: str | Path) -> NDArray[np.uint8]:
    """The image in a file as people see it: RGB uint8 (H, W, 3), turned as its EXIF orientation says.

    Raises:
        InputError: no such file, not an image, or cut short.
    """
    return _rgb(_decoded(_whole_file(path), cv2.IMREAD_COLOR, path))


def read_reduced(path: str | Path, size: tuple[int, int], reduction: int) -> tuple[NDArray[np.uint8], int]:
    """`read_image`, decoded straight to a fraction of its size where the file is a JPEG: much faster for photos.

    Args:
        size: width and height as annotated.
        reduction: 1, 2, 4 or 8, the wanted size of a decoded pixel in image pixels.

    Returns:
        The image and the reduction it really has: 1 or what was asked for. Decoded pixel i covers image pixels
        [i × reduction, (i + 1) × reduction), at the far edges partly beyond the image.
    """
    if reduction in _REDUCED:
        encoded = _whole_file(path)
        if encoded.startswith(_JPEG):
            image = _decode(encoded, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is not None and _size(image) == (-(-size[0] // reduction), -(-size[1] // reduction)):
                return _rgb(image), reduction
    return read_image(path, size), 1


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
    """Whether the end marker of a JPEG's own image (not that of a thumbnail inside a segment) is there.

    Segments are stepped over by their length; in the coded data FF is followed by 00 or a restart mark (D0 to D7).
    """
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return False
        mark = data[at + 1]
        if mark == 0xD9:
            return True
        if mark == 0xFF:
            at += 1
        elif mark == 0x00 or mark == 0x01 or 0xD0 <= mark <= 0xD8:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
