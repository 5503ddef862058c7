"""Reading image files: whole or not, turned or not, colours, reduced sizes."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from ofa_pose.data.image_headers import jpeg_marks, stated_size
from ofa_pose.data.images import read_image, read_reduced, read_upright
from ofa_pose.formats.image_files import read_turn, size_of
from ofa_pose.utils.errors import InputError
from tests.limits import no_more_files

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
Mutation = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_images_cut_short_are_found(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    assert read_image(path, (50, 40)).shape == (40, 50, 3)
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        for read in (read_image, read_upright):
            with pytest.raises(InputError, match=rf"image\{suffix}: is cut short"):
                read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is an empty file"):
        read_image(path)
    os.truncate(path, 1 << 40)
    with pytest.raises(InputError, match="has more than 1,024 MB"):
        read_image(path)
    with pytest.raises(InputError, match="no such image"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)


def _with_segment(jpeg: bytes, mark: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes([0xFF, mark]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def _jpeg(width: int = 60, height: int = 40) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(noise, (9, 9), 3))[1].tobytes()


def _claiming(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    at = next(at for mark, at in jpeg_marks(jpeg) if mark == 0xC0)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".jp2", ".ppm", ".gif"])
def test_sizes_are_known_from_headers(suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    if suffix == ".gif":
        content = io.BytesIO()
        Image.fromarray(noise).save(content, "gif")
        whole = content.getvalue()
    else:
        whole = cv2.imencode(suffix, noise)[1].tobytes()
    assert stated_size(whole) == (50, 40)
    for length in range(40):
        stated_size(whole[:length])  # whatever it finds there, it raises nothing


def test_sizes_of_a_bare_jpeg_2000_and_of_a_tiff_of_any_length_are_known() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    boxed = cv2.imencode(".jp2", noise)[1].tobytes()
    assert stated_size(boxed[boxed.index(b"\xff\x4f\xff\x51") :]) == (50, 40)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "tiff", big_tiff=True)
    assert content.getvalue()[:4] == b"II+\0" and stated_size(content.getvalue()) == (50, 40)


def test_of_a_size_that_stands_twice_the_one_that_is_decoded_counts() -> None:
    whole = cv2.imencode(".tiff", np.zeros((40, 50, 3), np.uint8))[1].tobytes()
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    tags = whole[start + 2 : start + 2 + 12 * count]
    more = struct.pack("<HHII", 256, 3, 1, 1) + struct.pack("<HHII", 257, 3, 1, 1)
    doubled = whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + struct.pack("<H", count + 2)
    doubled += tags + more + bytes(4)
    assert stated_size(doubled) == (50, 40)


@pytest.mark.parametrize("kind", [0, 1, 5, 65535])
def test_a_side_of_a_type_that_no_side_has_says_no_size(kind: int) -> None:
    whole = cv2.imencode(".tiff", np.zeros((40, 50, 3), np.uint8))[1].tobytes()
    width, odd = struct.pack("<HH", 256, 3), struct.pack("<HH", 256, kind)
    assert width in whole and stated_size(whole.replace(width, odd)) is None


@pytest.mark.parametrize("suffix", [".pam", ".pfm", ".hdr", ".sr"])
def test_images_whose_size_is_not_known_before_they_are_decoded_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), np.zeros((8, 8, 3), np.float32 if suffix == ".pfm" else np.uint8))
    assert cv2.imread(str(path)) is not None
    with pytest.raises(InputError, match=r"is damaged or not an image of a kind that is read \(JPEG, PNG"):
        read_image(path)


@pytest.mark.parametrize("mode", ["lossy", "lossless", "alpha"])
def test_sizes_of_every_webp_are_known(mode: str) -> None:
    content = io.BytesIO()
    Image.new("RGBA" if mode == "alpha" else "RGB", (50, 40), 3).save(content, "webp", lossless=mode == "lossless")
    assert stated_size(content.getvalue()) == (50, 40)


def test_want_of_memory_or_handles_is_not_a_damaged_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        read_image(path)

    def fail(*_: object) -> None:
        raise cv2.error("OpenCV: (-4:Insufficient memory) Failed to allocate 27000000000 bytes")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError, match="bytes cannot be decoded"):
        read_image(path)


def test_a_header_that_claims_far_too_much_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.jpg").write_bytes(_claiming(_jpeg(), 30_000, 30_000))
    (tmp_path / "other.jpg").write_bytes(_claiming(_jpeg(), 3_000, 3_000))

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    for read in (read_image, read_upright):
        with pytest.raises(InputError, match=r"large\.jpg: is 30000x30000 pixels, more than 100 million"):
            read(tmp_path / "large.jpg")
    with pytest.raises(InputError, match=r"other\.jpg: is 3000x3000 pixels, annotated as 60x40"):
        read_image(tmp_path / "other.jpg", (60, 40))
    with pytest.raises(InputError, match=r"other\.jpg: is 3000x3000 pixels, annotated as 60x40"):
        read_reduced(tmp_path / "other.jpg", (60, 40), 2)


def test_a_jpeg_is_whole_by_its_own_end(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    # A thumbnail inside a segment has an end marker too; bytes may follow the image's end.
    whole = _with_segment(_jpeg(), 0xE1, b"thumbnail \xff\xd8 \xff\xd9 \xff\xda")
    path.write_bytes(whole + b"appended video")
    assert read_image(path, (60, 40)).shape == (40, 60, 3)
    path.write_bytes(whole[:-200] + bytes(200))  # a crash left zeros where the rest should be
    with pytest.raises(InputError, match="is cut short"):
        read_image(path)


UPRIGHT: dict[int, Callable[[Any], Any]] = {  # what shows an image that is stored with this orientation
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


def turned_jpeg(orientation: int, width: int = 60, height: int = 40) -> bytes:
    """A JPEG of this stored size with this EXIF orientation."""
    tiff = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return _with_segment(_jpeg(width, height), 0xE1, b"Exif\x00\x00" + tiff)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("size", [(64, 40), (61, 40), (40, 40)], ids=str)
def test_both_ways_round_are_read_alike_by_every_reader(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned_jpeg(orientation, *size))
    stored = cv2.imdecode(np.frombuffer(_jpeg(*size), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    upright = UPRIGHT[orientation](stored)
    seen = (upright.shape[1], upright.shape[0])
    np.testing.assert_array_equal(read_image(path), stored)
    np.testing.assert_array_equal(read_image(path, size), stored)
    np.testing.assert_array_equal(read_image(path, seen, upright=True), upright)
    np.testing.assert_array_equal(read_upright(path), upright)
    assert read_turn(path) == (orientation, size)
    for image, shown, way in ((stored, size, False), (upright, seen, True)):
        small, reduction = read_reduced(path, shown, 2, way)
        height, width = (side // reduction for side in image.shape[:2])
        blocks = image[: height * reduction, : width * reduction].astype(float)
        means = blocks.reshape(height, reduction, width, reduction, 3).mean((1, 3))
        assert np.abs(small[:height, :width] - means).mean() < 2
        assert reduction == (1 if way and any(side % 2 for side in size) else 2)
    with pytest.raises(InputError, match="annotated as 65x40"):
        read_image(path, (65, 40))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_orientations_are_found_in_every_format_that_has_them(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    image = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    image.save(tmp_path / f"turned{suffix}", exif=exif)
    image.save(tmp_path / f"plain{suffix}")
    assert read_turn(tmp_path / f"turned{suffix}") == (8, (60, 40)) and read_turn(tmp_path / f"plain{suffix}") is None
    (tmp_path / f"cut{suffix}").write_bytes((tmp_path / f"turned{suffix}").read_bytes()[:40])
    assert read_turn(tmp_path / f"cut{suffix}") is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_size_is_that_of_the_upright_image(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path, exif=exif)
    assert size_of(path) == read_upright(path).shape[1::-1]


@pytest.mark.parametrize("by", [-7, -1, 1, 7])
def test_a_photo_of_a_slightly_other_size_is_refused_at_any_reduction(tmp_path: Path, by: int) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_jpeg(200, 104))
    for reduction in (1, 2, 4, 8):
        with pytest.raises(InputError, match=f"is 200x104 pixels, annotated as {200 + by}x104"):
            read_reduced(path, (200 + by, 104), reduction)


def test_channels_are_rgb_and_grey_is_repeated(tmp_path: Path) -> None:
    colour = np.zeros((4, 5, 4), np.uint8)
    colour[..., 0], colour[..., 3] = 200, 255  # OpenCV writes BGRA: blue
    cv2.imwrite(str(tmp_path / "blue.png"), colour)
    assert read_image(tmp_path / "blue.png")[0, 0].tolist() == [0, 0, 200]
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 5), 7, np.uint8))
    assert read_image(tmp_path / "grey.png")[0, 0].tolist() == [7, 7, 7]


def test_reduced_reading_covers_the_same_places(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_jpeg(203, 101))
    full = read_image(path).astype(float)
    for reduction in (2, 4, 8):
        small, has = read_reduced(path, (203, 101), reduction)
        height, width = 101 // reduction, 203 // reduction
        blocks = full[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, 3)
        assert has == reduction and small.shape == (-(-101 // reduction), -(-203 // reduction), 3)
        assert np.abs(small[:height, :width] - blocks.mean((1, 3))).mean() < 2
    with pytest.raises(InputError, match="annotated as 230x101"):
        read_reduced(path, (230, 101), 2)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="is cut short"):
        read_reduced(path, (203, 101), 2)


@pytest.mark.parametrize("length", [100, 10_000, 0x7FFFFFFF, 0x80818181, 0xFFFFFFFF])
def test_a_chunk_of_a_png_that_leads_out_of_the_file_is_never_made_room_for(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.png"
    encoded = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert read_image(_written(path, encoded)).shape == (8, 8, 3)
    assert read_image(_written(path, encoded + b"more")).shape == (8, 8, 3)
    place = encoded.index(b"IDAT") - 4
    encoded[place : place + 4] = length.to_bytes(4, "big")
    with pytest.raises(InputError, match=r"a\.png: is cut short"):
        read_image(_written(path, encoded))


def _written(path: Path, encoded: bytes | bytearray) -> Path:
    path.write_bytes(encoded)
    return path
