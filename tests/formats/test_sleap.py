"""SLEAP's .slp: skeleton with symmetries, people labelled by hand, frames of videos, image lists and kept images."""

from __future__ import annotations

import errno
import sys
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
from tests.limits import no_more_files

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


@pytest.mark.parametrize(
    ("group", "dataset", "name"),
    [("video0", "/video0/video", "video0"), ("video0", "//video0/video", "video0"), ("..", "../video", "video")]
    + [("...", ".../video", "video"), ("..", "/../video", "video")],
)
def test_no_name_of_kept_images_leads_out_of_a_folder(tmp_path: Path, group: str, dataset: str, name: str) -> None:
    kept = {"backend": {"filename": ".", "dataset": dataset}}
    named = write(tmp_path / "a.pkg.slp", SCENES, [kept], [(0, 7), (0, 9)])
    keep_images(named.path, [7, 9], cv2.imencode(".png", np.full((48, 64, 3), 90, np.uint8))[1])
    with h5py.File(named.path, "a") as file:
        file.move("video0", group)
    (part,) = sleap.FORMAT.read(named)
    assert [image["file_name"] for image in part.value["images"]] == [f"{name}/000007.png", f"{name}/000009.png"]


def test_a_kept_image_that_is_cut_short_is_damaged(tmp_path: Path) -> None:
    kept = {"backend": {"filename": ".", "dataset": "video0/video"}}
    named = write(tmp_path / "a.pkg.slp", SCENES, [kept], [(0, 7), (0, 9)])
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    keep_images(named.path, [7, 9], cv2.imencode(".png", noise)[1][:-2000])
    with pytest.raises(InputError, match="its image is damaged"):
        sleap.FORMAT.read(named)


def test_each_video_has_a_folder_of_its_own(tmp_path: Path) -> None:
    films = ["a/mouse.avi", "b/mouse.avi", "mouse-2.avi", "c/mouse.avi"]
    for number, film in enumerate(films):
        (tmp_path / film).parent.mkdir(exist_ok=True)
        write_video(tmp_path / film, number + 1)
    videos = [{"backend": {"filename": film}} for film in films]
    scenes = [*SCENES, *SCENES]
    named = write(tmp_path / "a.slp", scenes, videos, [(number, 0) for number in range(4)])
    (part,) = sleap.FORMAT.read(named)
    names = [image["file_name"] for image in part.value["images"]]
    assert names == [f"{name}/000000.png" for name in ("mouse", "mouse-2", "mouse-2-2", "mouse-3")]
    assert part.origins == tuple(VideoFrame(tmp_path / film, 0) for film in films)


@pytest.mark.parametrize(
    ("column", "value"),
    [("video", 1), ("video", 2**32 - 1), ("instance_id_start", 99), ("instance_id_end", 99), ("instance_id_end", 0)],
)
def test_frames_that_name_what_is_not_there(tmp_path: Path, column: str, value: int) -> None:
    write_images(tmp_path, SCENES)
    named = write(tmp_path / "a.slp", SCENES, [image_list(SCENES)], [(0, 0), (0, 1)])
    with h5py.File(named.path, "a") as file:
        rows = file["frames"][()]
        rows[column][1] = value
        file["frames"][...] = rows
    with pytest.raises(InputError, match=r"a\.slp: (names frame 1 of video|its frames name people)"):
        sleap.FORMAT.read(named)


def test_people_are_on_one_frame_alone(tmp_path: Path) -> None:
    write_images(tmp_path, SCENES)
    named = write(tmp_path / "a.slp", SCENES, [image_list(SCENES)], [(0, 0), (0, 1)])
    with h5py.File(named.path, "a") as file:
        rows = file["frames"][()]
        rows["instance_id_start"], rows["instance_id_end"] = 0, len(file["instances"])
        file["frames"][...] = rows
    with pytest.raises(InputError, match="its frames name people that it does not hold, or share them"):
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


@pytest.mark.skipif(sys.platform != "linux", reason="that file is Linux'")
def test_a_disk_that_fails_is_not_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.slp").symlink_to("/proc/self/mem")  # of which the first bytes cannot be read
    with pytest.raises(InputError, match=r"a.slp: cannot be read \(Input/output error\)"):
        sleap.FORMAT.read(Given(tmp_path / "a.slp"))


def test_too_few_handles_are_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, SCENES)
    named = write(tmp_path / "a.slp", SCENES, [image_list(SCENES)], [(0, 0), (0, 1)])
    with pytest.raises(OSError, match="Too many open files") as caught, no_more_files():
        sleap.FORMAT.read(named)
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(named.path))
    read = sleap.size_of

    def without_handles(path: Path) -> tuple[int, int]:
        read(path)
        with no_more_files():
            return read(path)

    monkeypatch.setattr(sleap, "size_of", without_handles)
    with pytest.raises(OSError, match="Too many open files") as caught:
        sleap.FORMAT.read(named)
    assert caught.value.filename == str(tmp_path / "a.png")


def _hollow(name: str, *shape: int) -> Any:
    def change(file: Any) -> None:
        kind = file.pop(name).dtype
        file.create_dataset(name, shape, kind, chunks=(1000,) * len(shape))

    return change


@pytest.mark.parametrize("name", ["instances", "points", "frames", "videos_json"])
@pytest.mark.parametrize("shape", [(10**9,), (2**33, 2**33)])
def test_a_small_file_that_stands_for_far_more_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    write_images(tmp_path, SCENES)
    named = write(tmp_path / "a.slp", SCENES, [image_list(SCENES)], [(0, 0), (0, 1)])
    with h5py.File(named.path, "a") as file:
        users = file["instances"][()]
        _hollow(name, *shape)(file)
        if name == "instances" and len(shape) == 1:
            file[name][: len(users)] = users
    with pytest.raises(InputError, match=rf"a.slp: its {name} stands for [\d,]+ MiB, far more than the file holds"):
        sleap.FORMAT.read(named)


def test_kept_images_that_stand_for_far_more_are_refused(tmp_path: Path) -> None:
    kept = {"backend": {"filename": ".", "dataset": "video0/video"}}
    named = write(tmp_path / "a.pkg.slp", SCENES, [kept], [(0, 7), (0, 9)])
    keep_images(named.path, [7, 9], np.zeros(9, np.uint8))
    with h5py.File(named.path, "a") as file:
        file.pop("video0/video")
        file.create_dataset("video0/video", (2, 10**10), np.int8, chunks=(1, 1000))
    match = r"a.pkg.slp: its video0/video stands for 9,536 MiB"
    with pytest.raises(InputError, match=match):
        sleap.FORMAT.read(named)
    with h5py.File(named.path, "a") as file:
        file["video0/video"].attrs.update(width=6, height=4)  # so that the images are not read at first
        file["video0"].pop("frame_numbers")
        file.create_dataset("video0/frame_numbers", (10**10,), np.int64, chunks=(1000,))
    with pytest.raises(InputError, match=r"its video0/frame_numbers stands for"):
        sleap.FORMAT.read(named)


def test_well_packed_labels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("nan", data=np.full((2000, 500), np.nan), compression="gzip", compression_opts=9)
    with open_hdf5(path) as file:
        assert file["nan"].nbytes > 100 * path.stat().st_size and sleap.whole(file["nan"]).shape == (2000, 500)


def test_a_damaged_part_of_a_file_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", data=np.arange(1000), compression="gzip")
        place = file["packed"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.h5: is a damaged HDF5 file"), open_hdf5(path) as file:
        sleap.whole(file["packed"])
