"""Poses on videos: frames, times and overlays, and files that break off or cannot be read or written."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ofa_pose.inference import predict, sources
from ofa_pose.inference.predict import BATCH, PoseModel, predict_source
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.inference.light_scenes import LightRunner, scene
from tests.inference.videos import (
    HEIGHT,
    WIDTH,
    InterruptedRunner,
    cut,
    files_in,
    lights_at,
    model_of,
    moving,
    predictions_of,
    read_video,
    write_video,
)
from tests.limits import no_more_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model() -> PoseModel:
    return model_of(LightRunner())


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")])
def test_a_video(model: PoseModel, tmp_path: Path, suffix: str, codec: str) -> None:
    video = write_video(tmp_path / f"video.{suffix}", 12, codec)
    out = tmp_path / "out"
    summary = predict_source(model, video, out)
    assert (summary.images, summary.failed, summary.people, summary.candidates) == (12, 0, 12, 12)
    assert files_in(out) == ["overlays/video.mp4", "predictions.json"]
    predictions = predictions_of(out)
    assert [entry["image_id"] for entry in predictions] == list(range(12))
    for number, entry in enumerate(predictions):
        assert entry["file_name"] == video.name and entry["category_id"] == 1 and entry["score"] > 0.5
        assert entry["time_s"] == pytest.approx(number / 12.5, abs=1e-3)
        np.testing.assert_allclose(np.reshape(entry["keypoints"], (3, 3))[:, :2], lights_at(number), atol=2)

    drawn, fps = read_video(out / "overlays/video.mp4")
    plain, _ = read_video(video)
    assert (len(drawn), fps, drawn[0].shape) == (12, 12.5, (HEIGHT, WIDTH, 3))
    for number in (0, 11):
        changed = np.abs(drawn[number].astype(int) - plain[number]).max(axis=-1)
        x, y = lights_at(number)[0].astype(int)
        assert changed[y - 2 : y + 3, x - 2 : x + 3].max() > 40 and changed[140, 20] < 15


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits")
def test_a_video_that_cannot_be_opened_for_want_of_handles(
    model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    video = write_video(tmp_path / "video.mp4", 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    writer = cv2.VideoWriter

    def without_handles(*given: Any) -> Any:
        with open(os.devnull) as next_one:
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one.fileno(), hard))
        return writer(*given)

    monkeypatch.setattr(cv2, "VideoWriter", without_handles)
    monkeypatch.setattr(cv2.VideoWriter, "fourcc", writer.fourcc, raising=False)
    try:
        with pytest.raises(OSError, match="Too many open files"):
            predict_source(model, video, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_person_keeps_a_number_over_a_video(model: PoseModel, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 12)
    plain = predict_source(model, video, tmp_path / "plain")
    assert plain.tracks is None and not any("track_id" in entry for entry in predictions_of(tmp_path / "plain"))
    followed = predict_source(model, video, tmp_path / "followed", track=True)
    assert followed.tracks == 1 and {entry["track_id"] for entry in predictions_of(tmp_path / "followed")} == {0}
    smooth = predict_source(model, video, tmp_path / "smooth", smooth=True)
    assert smooth.tracks == 1
    before, after = (predictions_of(tmp_path / name) for name in ("followed", "smooth"))
    assert before[0]["keypoints"] == after[0]["keypoints"]
    x = np.array([[entry["keypoints"][0] for entry in entries] for entries in (before, after)])
    assert (x[1, 1:] < x[0, 1:]).all() and np.abs(x[1] - x[0]).max() < 5  # the lights go to the right
    number = np.abs(
        np.subtract(
            *(read_video(tmp_path / name / "overlays/video.mp4")[0][0].astype(int) for name in ("plain", "followed"))
        )
    )
    assert number.max() > 100
    strict = predict_source(model, video, tmp_path / "strict", threshold=1.0, track=True)
    assert strict.tracks == 0 and not any("track_id" in entry for entry in predictions_of(tmp_path / "strict"))


def test_nobody_is_followed_over_photos(model: PoseModel, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), scene())
    with pytest.raises(InputError, match="frames of a film"):
        predict_source(model, tmp_path / "photo.png", tmp_path / "out", track=True)
    assert not (tmp_path / "out").exists()


def test_frames_go_in_batches_and_wait_for_nobody(tmp_path: Path) -> None:
    runner = LightRunner()
    predict_source(model_of(runner), write_video(tmp_path / "video.mp4", 2 * BATCH + 3), tmp_path / "out")
    assert [size[0] for size in runner.sizes] == [BATCH, BATCH, 3]


@pytest.mark.parametrize(("frames", "done"), [(5, 5), (12, 12), (40, 12)])
def test_a_limit_of_frames(model: PoseModel, tmp_path: Path, frames: int, done: int) -> None:
    summary = predict_source(model, write_video(tmp_path / "video.mp4"), tmp_path / "out", frames=frames)
    assert (summary.images, summary.failed) == (done, 0)
    assert len(read_video(tmp_path / "out/overlays/video.mp4")[0]) == done


def test_photos_have_no_frames_to_limit(model: PoseModel, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), scene())
    with pytest.raises(InputError, match="a number of frames was given for photos"):
        predict_source(model, tmp_path / "a.png", tmp_path / "out", frames=3)


def turned(mp4: bytes) -> bytes:
    """An mp4 file whose frames are to be shown turned by a quarter, clockwise."""
    at = mp4.index(b"tkhd") + 44
    assert mp4[at : at + 4] == struct.pack(">i", 1 << 16)
    one, edge = 1 << 16, 1 << 30
    return mp4[:at] + struct.pack(">9i", 0, one, 0, -one, 0, 0, HEIGHT * one, 0, edge) + mp4[at + 36 :]


def test_a_turned_video_is_seen_upright(model: PoseModel, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 3, frame=lambda number: np.rot90(moving(number)))
    assert read_video(video)[0][0].shape == (WIDTH, HEIGHT, 3)
    video.write_bytes(turned(video.read_bytes()))
    predict_source(model, video, tmp_path / "out")
    for number, entry in enumerate(predictions_of(tmp_path / "out")):
        np.testing.assert_allclose(np.reshape(entry["keypoints"], (3, 3))[:, :2], lights_at(number), atol=2)
    drawn, _ = read_video(tmp_path / "out/overlays/video.mp4")
    assert [image.shape for image in drawn] == [(HEIGHT, WIDTH, 3)] * 3


def test_an_odd_size_loses_its_last_row_in_the_overlay_alone(model: PoseModel, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.avi", 2, "FFV1", frame=lambda _: scene(221, 151))
    size = read_video(video)[0][0].shape[:2]
    predict_source(model, video, tmp_path / "out")
    drawn, _ = read_video(tmp_path / "out/overlays/video.mp4")
    assert [image.shape[:2] for image in drawn] == [(size[0] // 2 * 2, size[1] // 2 * 2)] * 2


@pytest.mark.parametrize(("name", "codec"), [("video.avi", "MJPG"), ("video.mkv", "mp4v")])
def test_a_video_that_breaks_off(
    model: PoseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, codec: str
) -> None:
    video = cut(write_video(tmp_path / name, 40, codec), 0.6)
    summary = predict_source(model, video, tmp_path / "out")
    done = summary.images
    assert 10 < done < 35 and summary.failed == 40 - done
    assert len(read_video(tmp_path / "out/overlays/video.mp4")[0]) == done
    assert {entry["image_id"] for entry in predictions_of(tmp_path / "out")} == set(range(done))
    message = capsys.readouterr().err
    assert f"{name}: gives {done} of 40 frames, the last at {(done - 1) / 12.5:.2f} s; these are kept" in message
    assert len(message.splitlines()) == 1


def test_opencv_prints_nothing_of_a_video_that_cannot_be_opened(
    model: PoseModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "video.avi", 2, "MJPG")
    content = video.read_bytes()
    second = content.index(b"LIST", 20)
    video.write_bytes(content[:second] + content[second + 8 :])
    with pytest.raises(InputError, match="cannot be opened as a video"):
        predict_source(model, video, tmp_path / "out")
    assert "Unexpected" not in capfd.readouterr().err  # FFmpeg alone is quiet if no video was open before, as here


def thinned(mkv: bytes, keep: Callable[[int], bool]) -> bytes:
    """A Matroska file of JPEG pictures without some of its frames: their blocks become padding, the rest keeps time."""
    blocks = list(re.finditer(rb"\xa3([\x40-\x7f].|[\x20-\x3f]..)\x81..\x80\xff\xd8\xff", mkv, re.DOTALL))
    thin = bytearray(mkv)
    for number, block in enumerate(blocks):
        if not keep(number):
            thin[block.start()] = 0xEC
    return bytes(thin)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (lambda number: number % 2 == 0, range(0, 40, 2)),
        (lambda number: not 7 < number < 30, [*range(8), *range(30, 40)]),
    ],
)
def test_a_variable_rate_is_no_fault(
    model: PoseModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    keep: Callable[[int], bool],
    kept: Sequence[int],
) -> None:
    video = write_video(tmp_path / "video.mkv", 40, "MJPG")
    video.write_bytes(thinned(video.read_bytes(), keep))
    summary = predict_source(model, video, tmp_path / "out")
    assert (summary.images, summary.failed, capsys.readouterr().err) == (len(kept), 0, "")
    times = [entry["time_s"] for entry in predictions_of(tmp_path / "out")]
    np.testing.assert_allclose(times, np.array(kept) / 12.5, atol=1e-3)
    drawn, fps = read_video(tmp_path / "out/overlays/video.mp4")
    plain = dict(zip(kept, read_video(video)[0], strict=True))
    assert (len(drawn), fps) == (max(kept) + 1, 12.5)
    for number, image in enumerate(drawn):  # what is shown is the nearest before, but for the poses
        shown = max(at for at in kept if at <= number)
        nearest = min(kept, key=lambda at, image=image: np.abs(image.astype(int) - plain[at]).sum())
        assert nearest == shown


def test_a_variable_rate_that_breaks_off(model: PoseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "video.mkv", 40, "MJPG")
    video.write_bytes(thinned(video.read_bytes(), lambda number: number % 2 == 0 and number < 20))
    summary = predict_source(model, video, tmp_path / "out")
    assert (summary.images, summary.failed) == (10, 11)  # 1.52 of 3.2 s
    assert "video.mkv: gives 10 of 21 frames, the last at 1.44 s; these are kept" in capsys.readouterr().err


def test_a_few_missing_frames_are_no_fault(
    model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Optimist:
        """A container that promises some frames too many."""

        def __init__(self, path: str) -> None:
            self.inner = cv2.VideoCapture(path)

        def get(self, what: int) -> float:
            return self.inner.get(what) + (sources.SLACK if what == cv2.CAP_PROP_FRAME_COUNT else 0)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(sources, "open_capture", Optimist)
    summary = predict_source(model, write_video(tmp_path / "video.mp4"), tmp_path / "out")
    assert (summary.images, summary.failed, capsys.readouterr().err) == (12, 0, "")


def test_streams_that_cannot_be_read(model: PoseModel, tmp_path: Path) -> None:
    cut(write_video(tmp_path / "cut.mp4"), 0.5)  # its index was at the end
    (tmp_path / "noise.mp4").write_bytes(b"video" * 200)
    (tmp_path / "none.mkv").touch()
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / "notes").write_text("not a video")
    for name in ("cut.mp4", "noise.mp4", "none.mkv", "notes.txt", "notes"):
        with pytest.raises(InputError, match=f"{name}: is not an image and cannot be opened as a video; copy"):
            predict_source(model, tmp_path / name, tmp_path / "out")
    headers = write_video(tmp_path / "short.avi", 12, "MJPG")
    cut(headers, (headers.read_bytes().index(b"movi") + 4) / headers.stat().st_size)
    with pytest.raises(InputError, match=r"short\.avi: "):
        predict_source(model, headers, tmp_path / "out")
    for camera in (77, "77", "99999999999999999999"):
        with pytest.raises(InputError, match=f"camera {camera}: is not there, or in use; see"):
            predict_source(model, camera, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_that_the_system_cannot_read_is_not_damaged(model: PoseModel, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 3)
    with pytest.raises(OSError, match=r"Too many open files: .*video\.mp4"), no_more_files():
        predict_source(model, video, tmp_path / "out")
    if sys.platform == "linux":
        (tmp_path / "memory.mp4").symlink_to("/proc/self/mem")  # of which the first bytes cannot be read
        with pytest.raises(InputError, match=r"memory\.mp4: cannot be read \(Input/output error\)"):
            predict_source(model, tmp_path / "memory.mp4", tmp_path / "out")


def test_opencv_and_ffmpeg_keep_off_the_terminal(tmp_path: Path) -> None:
    broken = cut(write_video(tmp_path / "cut.mkv", 40), 0.6), cut(write_video(tmp_path / "cut.mp4"), 0.5)
    code = f"""
import contextlib, sys
from ofa_pose.inference import predict, sources
from pathlib import Path
with sources.quiet_opencv() if sys.argv[1] == "quiet" else contextlib.nullcontext():
    for source in ({str(broken[0])!r}, {str(broken[1])!r}, "77"):
        try:
            print(len(list(predict.open_source(source, Path("none")).read(lambda image: (None, image)))))
        except predict.InputError:
            print("refused")
"""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    for how in ("quiet", "loud"):
        done = subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, check=True, cwd=ROOT, env=plain
        )
        assert re.fullmatch(r"[123]\d\nrefused\nrefused\n", done.stdout)
        noise = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert bool(noise) == (how == "loud")


def test_the_overlay_never_replaces_the_video(model: PoseModel, tmp_path: Path) -> None:
    video = write_video(tmp_path / "overlays/video.mp4", 2)
    before = video.read_bytes()
    with pytest.raises(InputError, match="would replace this video"):
        predict_source(model, video, tmp_path)
    assert video.read_bytes() == before


def test_ctrl_c_on_a_video_leaves_nothing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", 4 * BATCH)
    with pytest.raises(KeyboardInterrupt):
        predict_source(model_of(InterruptedRunner(1)), video, tmp_path / "out")
    assert files_in(tmp_path / "out") == []


def test_a_video_that_cannot_be_written(model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "video.mp4", 2)

    class FullDisk:
        def __init__(self, *_: object) -> None:
            pass

        def isOpened(self) -> bool:
            return True

        def write(self, _: np.ndarray) -> None:
            pass

        def release(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoWriter", type("Full", (FullDisk,), {"fourcc": cv2.VideoWriter.fourcc}))
        with pytest.raises(OfaPoseError, match=r"video\.mp4: could not be written whole; is the disk full\?"):
            predict_source(model, video, tmp_path / "out")
    assert files_in(tmp_path / "out") == []


def test_a_video_that_cannot_be_written_costs_its_overlay_alone(
    model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "CODEC", "none")  # as for a frame in 1,000 seconds, or for 8192 pixels in width
    summary = predict_source(model, write_video(tmp_path / "video.mp4", 3), tmp_path / "out")
    said = capsys.readouterr().err
    assert (
        "no overlay is written: this OpenCV writes no none video of" in said and "the poses are in the results" in said
    )
    assert summary.images == 3 and files_in(tmp_path / "out") == ["predictions.json"]


def test_a_broken_overlay_stops_the_work(model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ofa_pose.inference.pose_model.draw_poses", fail)
    with pytest.raises(OSError, match="No space left"):
        predict_source(model, write_video(tmp_path / "video.mp4", 2), tmp_path / "out")
    assert files_in(tmp_path / "out") == []


def test_opencv_speaks_again_afterwards(model: PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    level = cv2.utils.logging.getLogLevel()
    with sources.quiet_opencv():
        assert cv2.utils.logging.getLogLevel() == 0 and os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "-8"
    assert cv2.utils.logging.getLogLevel() == level and "OPENCV_FFMPEG_LOGLEVEL" not in os.environ
    monkeypatch.setenv("OPENCV_LOG_LEVEL", "INFO")
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "32")
    with sources.quiet_opencv():
        assert cv2.utils.logging.getLogLevel() == level and os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "32"
    assert os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "32"
