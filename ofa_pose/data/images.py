"""Reading image files as their annotations mean them; a damaged file is an InputError that names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.image_headers import JPEG, is_whole, stated_size
from ofa_pose.utils.errors import InputError, is_memory, is_used_up
from ofa_pose.utils.files import check_regular

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
MOST_PIXELS = 10**8  # of an image: 300 MB, and as much again while it is decoded
MOST_BYTES = 1 << 30  # of its file, which are 10 a pixel
KINDS = "JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000, AVIF, PNM"  # whose size `image_headers` knows
_COPY_AGAIN = "copy or download the file again"


def read_image(path: str | Path, size: tuple[int, int] | None = None, upright: bool = False) -> NDArray[np.uint8]:
    """The image in a file as RGB uint8 (H, W, 3); greyscale is repeated in the three channels, alpha is dropped.

    Args:
        size: width and height as annotated.
        upright: turned and mirrored as its EXIF orientation says; else the pixels as they are stored.

    Raises:
        InputError: no such file, not an image, cut short, of another size than `size`, or of more than `MOST_PIXELS`.
    """
    image = _decoded(_whole_file(path, size), _flags(cv2.IMREAD_COLOR, upright), path)
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
        encoded = _whole_file(path, size)
        if encoded.startswith(JPEG) and sorted(stated_size(encoded) or ()) == sorted(size):
            image = _decode(encoded, _flags(_REDUCED[reduction], upright))
            if image is not None and _size(image) == (-(-size[0] // reduction), -(-size[1] // reduction)):
                return _rgb(image), reduction
    return read_image(path, size, upright), 1


def _flags(colour: int, upright: bool) -> int:
    return colour if upright else colour | cv2.IMREAD_IGNORE_ORIENTATION


def _other_size(path: str | Path, found: tuple[int, int], size: tuple[int, int]) -> InputError:
    what = f"is {found[0]}x{found[1]} pixels, annotated as {size[0]}x{size[1]}"
    return InputError(what, path, "correct width and height in the annotations, or restore the image")


def _whole_file(path: str | Path, size: tuple[int, int] | None) -> bytes:
    """A file's content, which is decoded to no more than its header says; nothing is decoded here."""
    check_regular(path)
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                what = f"has more than {MOST_BYTES >> 20:,} MB"
                raise InputError(what, path, "name an image file, or make it smaller")
            encoded = file.read()
    except FileNotFoundError:
        raise InputError("no such image", path, "check the images folder and file_name") from None
    except OSError as error:
        if is_used_up(error):
            raise
        raise InputError(f"cannot be read ({error.strerror})", path, "name an image file") from None
    if not encoded:
        raise InputError("is an empty file", path, _COPY_AGAIN)
    if not is_whole(encoded):
        raise InputError("is cut short", path, _COPY_AGAIN)
    stated = stated_size(encoded)
    if stated is None:  # nothing would bound what is decoded
        raise InputError(f"is damaged or not an image of a kind that is read ({KINDS})", path, _COPY_AGAIN)
    if size is not None and sorted(stated) != sorted(size):  # turned or not
        raise _other_size(path, stated, size)
    if stated[0] * stated[1] > MOST_PIXELS:
        what = f"is {stated[0]}x{stated[1]} pixels, more than {MOST_PIXELS // 10**6} million"
        raise InputError(what, path, "make it smaller")
    return encoded


def _size(image: Any) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _rgb(image: Any) -> Any:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode(encoded: bytes, flags: int) -> Any:
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as error:
        if is_memory(error):
            raise MemoryError(f"an image of {len(encoded):,} bytes cannot be decoded") from None
        return None


def _decoded(encoded: bytes, flags: int, path: str | Path) -> Any:
    image = _decode(encoded, flags)
    if image is None:
        raise InputError("is damaged or not an image", path, _COPY_AGAIN)
    return image
