"""OpenCV ends the process where it is given a name that is no UTF-8: no command does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.inference.videos import write_video

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
