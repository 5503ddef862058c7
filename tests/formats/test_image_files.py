"""Images and videos that cannot be read for a reason of the system's; and OpenCV ends the process where it is given a
name that is no UTF-8: no command does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, features

from ofa_pose.formats.image_files import open_capture, read_turn, size_of
from ofa_pose.utils.errors import InputError
from tests.inference.videos import write_video
from tests.limits import no_more_files

NAME = "photo \udcff"  # a byte that is no UTF-8
READ = """
import sys
from pathlib import Path
import cv2
from ofa_pose.inference.sources import is_image
from ofa_pose.formats.image_files import open_capture

folder = Path(sys.argv[1])
(image,) = folder.glob("*.image\\udcff")
(video,) = folder.glob("*.mp4")
print(is_image(image), is_image(video.with_suffix(".txt")), open_capture(video).isOpened())
print(open_capture("rtsp://\\udcff").isOpened(), open_capture(folder / "none").isOpened())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 3, "mp4v")
    (tmp_path / "film.mp4").rename(tmp_path / f"{NAME}.mp4")
    (tmp_path / f"{NAME}.txt").write_text("text")
    image = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1]
    (tmp_path / f"{NAME}.image\udcff").write_bytes(image.tobytes())
    done = subprocess.run([sys.executable, "-c", READ, os.fspath(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["True", "False", "True", "False", "False"]), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="that file is Linux'")
@pytest.mark.parametrize("read", [read_turn, size_of])
def test_a_disk_that_fails_is_not_an_image_without_exif(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "photo.jpg"
    path.symlink_to("/proc/self/mem")  # of which the first bytes cannot be read
    with pytest.raises(InputError, match=r"photo.jpg: cannot be read \(Input/output error\)"):
        read(path)


@pytest.mark.parametrize("read", [read_turn, size_of, open_capture])
def test_too_few_handles_are_not_damage(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.zeros((4, 6, 3), np.uint8))
    read(path)
    with pytest.raises(OSError, match="Too many open files") as caught, no_more_files():
        read(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(path))


def test_an_image_that_is_not_there_has_no_turn(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_turn(tmp_path / "none.jpg") is None and read_turn(tmp_path / "file" / "none.jpg") is None


def test_an_avif_file_that_holds_no_image_is_damaged(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / "photo.avif"
    Image.new("RGB", (30, 20)).save(path)
    path.write_bytes(path.read_bytes().replace(b"av01", b"av02"))
    assert read_turn(path) is None
    with pytest.raises(InputError, match=r"photo.avif: is damaged or not an image"):
        size_of(path)
