"""What an image file's first bytes say: how large it is, before any of it is decoded; and whether its end is there."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
HEAD = 1 << 16  # bytes in which the size stands, behind comments and colour profiles
_TIFF, _BIG_TIFF = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")
_TIFF_SIDES = (256, 257)  # its tags of width and height
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}
_MOST_CHUNKS = 10**6  # of a PNG file, which have some kilobytes each
_MOST_TAGS = 1000


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as stored, that an image file's header says; None where it says none that we read.

    Of JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000, AVIF and PNM files.
    """
    try:
        return _stated_size(data)
    except (struct.error, ValueError, LookupError):  # cut short, or a number of a type that no side has
        return None


def _stated_size(data: bytes) -> tuple[int, int] | None:
    size: tuple[int, ...] | None = None
    if data.startswith(JPEG):
        size = _jpeg_size(data)
    elif data.startswith(PNG):
        size = struct.unpack_from(">II", data, 16)
    elif data.startswith(b"BM"):
        size = tuple(map(abs, struct.unpack_from("<ii", data, 18)))
    elif data.startswith((b"GIF87a", b"GIF89a")):
        size = struct.unpack_from("<HH", data, 6)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = _webp_size(data)
    elif data[:4] in (*_TIFF, *_BIG_TIFF):
        size = _tiff_size(data)
    elif data.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000 without a container: the far edges, and the near ones
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        size = (right - left, bottom - top)
    elif b"ihdr" in data[:200]:  # JPEG 2000
        size = struct.unpack_from(">II", data, data.index(b"ihdr") + 4)[::-1]
    elif data[4:8] == b"ftyp" and b"ispe" in data[:HEAD]:  # AVIF
        places = [found.end() for found in re.finditer(b"ispe", data[:HEAD])]
        size = max(struct.unpack_from(">II", data, at + 4) for at in places)  # others are of its tiles
    elif data[:1] == b"P" and data[1:2] in b"123456":
        size = _pnm_size(data)
    return (size[0], size[1]) if size is not None else None


def is_whole(data: bytes) -> bool:
    """Whether a file reaches its format's own end; some OpenCV versions fill what is missing with grey."""
    if data.startswith(JPEG):
        return data.endswith(b"\xff\xd9") or _jpeg_ends(data)
    if data[:8] == PNG:
        return _png_ends(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    if data[:2] == b"BM":
        return len(data) >= int.from_bytes(data[2:6], "little")
    return True


def _png_ends(data: bytes) -> bool:
    """Whether each chunk (length, name, content, sum) lies in the file; OpenCV makes room for a chunk of any length."""
    at = len(PNG)
    for _ in range(_MOST_CHUNKS):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        if at + 12 > len(data):
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return width, height


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """From the first image's tags of 12 bytes, in a BigTIFF of 20: a number, a type, a count and a value."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[:4] in _BIG_TIFF
    place, amount, length, value = (8, "Q", 20, 12) if big else (4, "H", 12, 8)
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, place)
    (count,) = struct.unpack_from(f"{order}{amount}", data, start)
    first, found = start + struct.calcsize(f"{order}{amount}"), {}
    for at in range(first, first + length * min(count, _MOST_TAGS), length):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in _TIFF_SIDES and tag not in found:  # of a tag that stands there twice the first counts
            (found[tag],) = struct.unpack_from(f"{order}{_TIFF_TYPES[kind]}", data, at + value)
    return (found[_TIFF_SIDES[0]], found[_TIFF_SIDES[1]]) if len(found) == len(_TIFF_SIDES) else None


def _pnm_size(data: bytes) -> tuple[int, int] | None:
    lines = (line.partition(b"#")[0] for line in data[2:HEAD].splitlines())
    words = b" ".join(lines).split()
    return int(words[0]), int(words[1])


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end marker of a JPEG's own image (not that of a thumbnail inside a segment) is there."""
    return any(mark == 0xD9 for mark, _ in jpeg_marks(data))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG as its frame header says."""
    for mark, at in jpeg_marks(data):
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9].ljust(4, b"\0"))
            return width, height
    return None


def jpeg_marks(data: bytes) -> Iterator[tuple[int, int]]:
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
