"""Poses on cameras: until Ctrl-C, --frames or the plug; and the command on streams."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ofa_pose import cli
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.inference import predict, sources
from ofa_pose.inference.predict import BATCH, PoseModel, open_source, predict_source
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError
from tests.inference.light_scenes import LIGHTS, SKELETON, SPEC, LightRunner, scene
from tests.inference.videos import (
    HEIGHT,
    WIDTH,
    InterruptedRunner,
    cut,
    files_in,
    model_of,
    predictions_of,
    read_video,
    write_video,
)


class Camera:
    """What OpenCV's VideoCapture is for a camera; it is unplugged after `frames`."""

    def __init__(self, frames: int = 10**6, fps: float = 30.0, opened: bool = True) -> None:
        self.frames, self.fps, self.opened, self.given, self.released = frames, fps, opened, 0, False

    def isOpened(self) -> bool:
        return self.opened

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: -1.0}[what]

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.given == self.frames:
            return False, None
        self.given += 1
        return True, cv2.cvtColor(scene(WIDTH, HEIGHT), cv2.COLOR_RGB2BGR)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def model() -> PoseModel:
    return model_of(LightRunner())


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Camera], Camera]:
    def plug(camera: Camera) -> Camera:
        monkeypatch.setattr(sources, "open_capture", lambda source: camera)
        return camera

    return plug


def test_a_camera_without_a_picture(
    model: PoseModel, tmp_path: Path, plug_in: Callable[[Camera], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(Camera(frames=0))
    with pytest.raises(InputError, match="camera 0: gives no picture; close other programs"):
        predict_source(model, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [-1, -3, -(10**30)])
def test_no_camera_has_a_number_below_0(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV would end the process."""
    monkeypatch.setattr(sources, "open_capture", lambda source: pytest.fail("was opened"))
    with pytest.raises(InputError, match=rf"^no camera has the number {number}; see which cameras"):
        open_source(number, tmp_path)


def test_ctrl_c_ends_a_camera(
    tmp_path: Path, plug_in: Callable[[Camera], Camera], capsys: pytest.CaptureFixture[str]
) -> None:
    camera, before = plug_in(Camera()), signal.getsignal(signal.SIGINT)
    summary = predict_source(model_of(InterruptedRunner(2)), "0", tmp_path / "out")
    assert (summary.images, summary.failed, summary.people) == (3 * BATCH, 0, 3 * BATCH)
    assert camera.released and camera.given <= 3 * BATCH + sources.AHEAD
    assert signal.getsignal(signal.SIGINT) is before
    assert files_in(tmp_path / "out") == ["overlays/camera-0.mp4", "predictions.json"]
    predictions = predictions_of(tmp_path / "out")
    assert [entry["image_id"] for entry in predictions] == list(range(3 * BATCH))
    assert {entry["file_name"] for entry in predictions} == {"camera-0"}
    times = [entry["time_s"] for entry in predictions]
    assert times[0] == 0 and times == sorted(times) and times[-1] < 60
    assert "camera 0: Ctrl-C ends it" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, plug_in: Callable[[Camera], Camera]) -> None:
    class Impatient(InterruptedRunner):
        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            maps = super().__call__(images)
            if len(self.sizes) == 2:
                signal.raise_signal(signal.SIGINT)
            return maps

    camera, before = plug_in(Camera()), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        predict_source(model_of(Impatient(1)), 0, tmp_path / "out")
    assert camera.released and files_in(tmp_path / "out") == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_camera_outside_the_main_thread(
    model: PoseModel, tmp_path: Path, plug_in: Callable[[Camera], Camera]
) -> None:
    plug_in(Camera())
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(predict_source(model, 0, tmp_path / "out", frames=3)))
    thread.start()
    thread.join()
    assert [summary.images for summary in done] == [3]


def test_a_camera_that_is_unplugged(
    model: PoseModel, tmp_path: Path, plug_in: Callable[[Camera], Camera], capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in(Camera(frames=11))
    summary = predict_source(model, 1, tmp_path / "out", frames=20)
    assert (summary.images, summary.failed) == (11, 1)
    assert "camera 1: ended by itself after 11 frames; these are kept" in capsys.readouterr().err
    assert len(predictions_of(tmp_path / "out")) == 11


class Jumping(Camera):
    """A camera whose clock goes ten frames a second, and on by `by` seconds before its sixth frame."""

    now, by = 100.0, 1e9

    def monotonic(self) -> float:
        self.now += 0.1 if self.given != 6 else self.by
        return self.now


def test_a_leap_of_the_clock_fills_no_disk(
    model: PoseModel, tmp_path: Path, plug_in: Callable[[Camera], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "LONGEST_GAP_S", 2.5)
    monkeypatch.setattr(sources, "time", plug_in(Jumping(fps=10.0)))
    predict_source(model, 0, tmp_path / "out", frames=11)
    assert len(predictions_of(tmp_path / "out")) == 11
    drawn, _ = read_video(tmp_path / "out/overlays/camera-0.mp4")
    assert len(drawn) == 10 + 25


def test_ctrl_c_ends_an_overlay_in_the_midst_of_such_a_leap(
    model: PoseModel, tmp_path: Path, plug_in: Callable[[Camera], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Left(Jumping):
        def read(self) -> tuple[bool, np.ndarray | None]:
            if self.given == 8:  # the batch of the leap is being written
                raise KeyboardInterrupt
            return super().read()

    monkeypatch.setattr(predict, "LONGEST_GAP_S", 1e9)
    monkeypatch.setattr(predict, "BATCH", 3)
    monkeypatch.setattr(sources, "time", plug_in(Left(fps=10.0)))
    with pytest.raises(KeyboardInterrupt):
        predict_source(model, 0, tmp_path / "out", frames=20)
    assert not list((tmp_path / "out").rglob("*.mp4"))


@pytest.mark.parametrize(("fps", "kept"), [(20.0, 20.0), (0.0, 30.0), (float("nan"), 30.0)])
def test_a_cameras_overlay_plays_as_fast_as_the_scene_went(
    model: PoseModel,
    tmp_path: Path,
    plug_in: Callable[[Camera], Camera],
    monkeypatch: pytest.MonkeyPatch,
    fps: float,
    kept: float,
) -> None:
    class Clock:
        now = 100.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 0.1
            return cls.now

    plug_in(Camera(fps=fps))
    monkeypatch.setattr(sources, "time", Clock)
    predict_source(model, 0, tmp_path / "out", frames=11)
    times = [entry["time_s"] for entry in predictions_of(tmp_path / "out")]
    np.testing.assert_allclose(times, np.arange(11) / 10, atol=1e-5)
    drawn, rate = read_video(tmp_path / "out/overlays/camera-0.mp4")
    assert rate == kept and len(drawn) == round(1.0 * kept) + 1


def test_frames_of_another_size_are_scaled_to_the_first(
    model: PoseModel, tmp_path: Path, plug_in: Callable[[Camera], Camera]
) -> None:
    class Growing(Camera):
        def read(self) -> tuple[bool, np.ndarray | None]:
            whole, pixels = super().read()
            return whole, pixels if self.given < 4 or pixels is None else cv2.resize(pixels, None, fx=2, fy=2)

    plug_in(Growing())
    predict_source(model, 0, tmp_path / "out", frames=6)
    entries = predictions_of(tmp_path / "out")
    assert len(entries) == 6
    for entry in entries:
        np.testing.assert_allclose(np.reshape(entry["keypoints"], (3, 3))[:, :2], LIGHTS, atol=2)


def test_the_command(
    tmp_path: Path,
    plug_in: Callable[[Camera], Camera],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["ofa-pose"])
    net = LitePose(SPEC, torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "net.pt", Checkpoint("net", SPEC, None, SKELETON, net.state_dict()))
    plain = write_video(tmp_path / "video.avi", 12, "MJPG")

    def predict(*words: object) -> tuple[int, str, str]:
        more = ("--checkpoint", tmp_path / "net.pt", "--out", tmp_path / "out", "--device", "cpu", "--json")
        code = cli.run(["predict", *map(str, (*words, *more))])
        return code, *capsys.readouterr()

    code, shown, _ = predict(plain)
    assert code == 0 and json.loads(shown)["images"] == 12
    code, shown, message = predict(cut(write_video(tmp_path / "cut.avi", 40, "MJPG"), 0.5))
    assert code == 1 and 0 < json.loads(shown)["images"] < 40
    assert "frames, the last at" in message and "of the frames could not be read; the rest is done" in message
    code, shown, message = predict(tmp_path / "net.pt")
    assert (code, shown, len(message.splitlines())) == (2, "", 1)

    class Pressed(Camera):
        def read(self) -> tuple[bool, np.ndarray | None]:
            if self.given == 20:
                signal.raise_signal(signal.SIGINT)
            return super().read()

    plug_in(Pressed())
    code, shown, _ = predict("0")
    assert code == 0 and 0 < json.loads(shown)["images"] <= 20
    plug_in(Camera())
    assert json.loads(predict("0", "--frames", 3)[1])["images"] == 3
    plug_in(Camera(frames=5))
    code, _, message = predict("0", "--frames", 9)
    assert code == 1 and "1 of the frames could not be read; the rest is done" in message
    (tmp_path / "broken.jpg").touch()
    code, _, message = predict(tmp_path / "broken.jpg")
    assert code == 1 and "1 of the images could not be read; the rest is done" in message
