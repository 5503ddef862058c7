"""Poses on streams from the network: the addresses of cameras and of videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ofa_pose.inference.predict import predict_source
from ofa_pose.inference.sources import is_address, shown_address
from ofa_pose.utils.errors import InputError
from tests.inference.light_scenes import LightRunner, scene
from tests.inference.network_cameras import network_camera, served_folder
from tests.inference.videos import files_in, lights_at, model_of, predictions_of, read_video, write_video

WIDTH, HEIGHT, FRAMES = 224, 160, 12


def moving(number: int) -> np.ndarray:
    return scene(WIDTH, HEIGHT, lights_at(number))


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
@pytest.mark.parametrize("limit", [None, 5])
def test_a_network_camera(scheme: str, limit: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with network_camera(scheme, [moving(number) for number in range(FRAMES)]) as host:
        secret = f"{scheme}://user:pass@{host}/live?token=secret"
        summary = predict_source(model_of(LightRunner()), secret, tmp_path / "out", frames=limit)
    errors = capsys.readouterr().err
    name = f"{scheme}-{host.replace(':', '-')}-live"
    assert files_in(tmp_path / "out") == [f"overlays/{name}.mp4", "predictions.json"]
    predictions = predictions_of(tmp_path / "out")
    assert {one["file_name"] for one in predictions} == {f"{scheme}://{host}/live"}
    assert "secret" not in errors and "pass" not in errors.replace("passed", "")
    if limit:
        assert (summary.images, summary.failed) == (limit, 0)
    else:
        assert FRAMES - 1 <= summary.images <= FRAMES  # of the last one's end the player learns nothing
        assert summary.failed == 1 and "ended by itself" in errors
    assert len(predictions) == summary.images == summary.people
    for number, found in enumerate(predictions):
        points = np.array(found["keypoints"]).reshape(-1, 3)
        assert found["image_id"] == number
        assert np.abs(points[:, :2] - lights_at(number)).max() < 1.5  # JPEG's colours are coarse
    stamps = [one["time_s"] for one in predictions]
    assert stamps == sorted(stamps) and stamps[0] == 0
    drawn, _ = read_video(tmp_path / "out" / "overlays" / f"{name}.mp4")
    assert drawn[0].shape == (HEIGHT, WIDTH, 3)


def test_a_video_of_a_known_length_by_http(tmp_path: Path) -> None:
    write_video(tmp_path / "web" / "dance.avi", FRAMES, codec="MJPG", frame=moving)
    with served_folder(tmp_path / "web") as address:
        summary = predict_source(model_of(LightRunner()), f"{address}dance.avi", tmp_path / "out")
    assert (summary.images, summary.failed, summary.people) == (FRAMES, 0, FRAMES)
    assert predictions_of(tmp_path / "out")[-1]["time_s"] == pytest.approx((FRAMES - 1) / 12.5)  # its own clock


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_nobody_answers(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{scheme}://127.0.0.1:9/x: cannot be opened as a stream; try") as caught:
        predict_source(model_of(LightRunner()), f"{scheme}://user:pass@127.0.0.1:9/x", tmp_path / "out")
    assert "pass" not in str(caught.value).replace("password", "")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("source", ["photo.jpg", "folder/*.jpg", "C://photos", "a://b.jpg", 0, Path("rtsp://x")])
def test_what_is_no_address(source: object) -> None:
    assert not is_address(source)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("RTSP://cam.local/stream1", "rtsp://cam.local/stream1"),
        ("rtsp://user:p@ss@10.0.0.7:554/h264?channel=1#x", "rtsp://10.0.0.7:554/h264"),
        ("http://user@host", "http://host"),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str) -> None:
    assert is_address(address) and shown_address(address) == shown
