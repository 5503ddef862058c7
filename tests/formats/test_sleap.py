"""SLEAP's .slp: skeleton with symmetries, people labelled by hand, frames of videos, image lists and kept images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.formats import sleap
from ofa_pose.formats.annotated import Given, StoredImage, VideoFrame
from ofa_pose.formats.sleap import open_hdf5
from ofa_pose.utils.errors import InputError
from tests.formats.scenes import JOINTS, Scene, assert_same, scene_lists, write_images
from tests.formats.slp_files import SCENES, image_list, keep_images, write, write_video

h5py = pytest.importorskip("h5py")


@settings(max_examples=30, deadline=None)
@given(scene_lists(), st.sampled_from((1.0, 1.2, 1.4)))
def test_lists_of_images(scenes: list[Scene], version: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), scenes)
        frames = [(0, number) for number in range(len(scenes))]
        named = write(Path(folder, "labels.slp"), scenes, [image_list(scenes)], frames, version)
        assert sleap.FORMAT.accepts(named)
        (part,) = sleap.FORMAT.read(named)
    assert_same(part, scenes, drop_empty=True)
    category = part.value["categories"][0]
    assert category["keypoints"] == list(JOINTS) and category["skeleton"] == [[1, 2], [1, 3], [1, 4]]
    assert category["name"] == "fish" and category["flip_pairs"] == [["left_hand", "right_hand"]]
    empty = sum(not scene.people for scene in scenes)
    assert part.losses == {"predictions": len(scenes), **({"unlabelled_frames": empty} if empty else {})}
    for image in part.value["images"]:
        own = [record for record in part.value["annotations"] if record["image_id"] == image["id"]]
        assert [record["track_id"] for record in own] == list(range(len(own)))


def test_frames_of_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "swim.avi", 6)
    named = write(tmp_path / "a.slp", SCENES, [{"backend": {"filename": "C:\\films\\swim.avi"}}], [(0, 2), (0, 5)])
    (part,) = sleap.FORMAT.read(named)
    video = tmp_path / "swim.avi"
    assert part.origins == (VideoFrame(video, 2), VideoFrame(video, 5))
    assert [image["file_name"] for image in part.value["images"]] == ["swim/000002.png", "swim/000005.png"]
    assert [(image["width"], image["height"]) for image in part.value["images"]] == [(64, 48)] * 2
    video.unlink()
    with pytest.raises(InputError, match=r"swim.avi: no such video; put it beside the .slp file"):
        sleap.FORMAT.read(named)


def test_images_that_are_kept_in_the_file(tmp_path: Path) -> None:
    named = write(
        tmp_path / "a.pkg.slp", SCENES, [{"backend": {"filename": ".", "dataset": "video0/video"}}], [(0, 7), (0, 9)]
    )
    code = cv2.imencode(".png", np.full((48, 64, 3), 90, np.uint8))[1]
    keep_images(named.path, [7, 9], code)
    (part,) = sleap.FORMAT.read(named)
    assert part.origins == tuple(StoredImage(named.path, "video0/video", row) for row in (0, 1))
    assert [(image["width"], image["height"]) for image in part.value["images"]] == [(64, 48)] * 2
    with h5py.File(named.path) as file:
        assert sleap.stored_bytes(file, StoredImage(named.path, "video0/video", 1)) == code.tobytes()
    with h5py.File(named.path, "a") as file:
        file["video0/video"].attrs["format"] = "hdf5"
    with pytest.raises(InputError, match="keeps images of video0 as hdf5"):
        sleap.FORMAT.read(named)


def _drop(name: str) -> Any:
    return lambda file: file.pop(name)


def _metadata(text: str) -> Any:
    return lambda file: file["metadata"].attrs.update(json=np.bytes_(text))


@pytest.mark.parametrize(
    "change",
    [_drop("frames"), _drop("metadata"), _drop("videos_json"), _metadata("{"), _metadata("{}"), _metadata("[]")],
)
def test_a_file_that_lacks_something(tmp_path: Path, change: Any) -> None:
    write_images(tmp_path, SCENES)
    named = write(tmp_path / "a.slp", SCENES, [image_list(SCENES)], [(0, 0), (0, 1)])
    with h5py.File(named.path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=r"a.slp: is not what SLEAP writes \(.*save it in SLEAP again"):
        sleap.FORMAT.read(named)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.slp").write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match="is not an HDF5 file"):
        sleap.FORMAT.read(Given(tmp_path / "a.slp"))


def test_what_the_library_of_hdf5_cannot_make_out_is_a_damaged_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.slp", "w"):
        pass
    with pytest.raises(InputError, match=r"a\.slp: is a damaged HDF5 file \(exponent\)"), open_hdf5(tmp_path / "a.slp"):
        raise RuntimeError("exponent")
