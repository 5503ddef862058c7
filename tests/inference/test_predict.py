"""Poses on images: geometry from file to image pixels, whole sources, and what goes wrong with them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import ofa_pose
from ofa_pose.arch.space import load_space
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.inference import predict
from ofa_pose.inference.pose_model import PoseModel
from ofa_pose.inference.predict import predict_source
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError
from tests.inference.light_scenes import LIGHTS, RESOLUTION, SKELETON, SPEC, LightRunner, scene
from tests.networks import hide_package


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 100])
    return path


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG file with an EXIF segment that holds only an orientation."""
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.fixture
def model() -> PoseModel:
    return PoseModel(LightRunner(), SPEC, SKELETON, RESOLUTION)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.pt"
    net = LitePose(SPEC, torch.Generator().manual_seed(0))
    save_checkpoint(path, Checkpoint("net", SPEC, None, SKELETON, net.state_dict()))
    return path


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("width", "height", "scale"), [(220, 150, 1.0), (660, 450, 3.0), (110, 75, 0.5)])
def test_keypoints_are_in_image_pixels(flip: bool, width: int, height: int, scale: float) -> None:
    image = cv2.resize(scene(), (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    poses = PoseModel(LightRunner(), SPEC, SKELETON, RESOLUTION, flip)(image)
    assert len(poses) == 1
    assert poses.keypoints.dtype == np.float32 and poses.keypoints.shape == (1, 3, 3)
    np.testing.assert_allclose(poses.keypoints[0, :, :2], LIGHTS * scale, atol=0.6 * scale)  # 0.4 input pixels
    assert poses.scores[0] > 0.5


def test_a_file_and_its_array_give_the_same(model: PoseModel, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", scene())
    for image in (path, str(path)):
        np.testing.assert_array_equal(model(image).keypoints, model(scene()).keypoints)


def test_missing_joints_stay_zero(model: PoseModel) -> None:
    image = scene()
    image[..., 2] = 0
    poses = model(image)
    assert len(poses) == 1
    assert (poses.keypoints[0, 2] == 0).all() and (poses.keypoints[0, :2] > 0).all()


def test_nobody(model: PoseModel) -> None:
    poses = model(np.zeros((50, 80, 3), np.uint8))
    assert len(poses) == 0 and poses.keypoints.shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(1, lambda x: x), (3, lambda x: np.rot90(x, 2)), (6, lambda x: np.rot90(x, 1)), (8, lambda x: np.rot90(x, -1))],
)
def test_photos_are_seen_upright(
    model: PoseModel, tmp_path: Path, orientation: int, stored: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = write(tmp_path / "photo.jpg", np.ascontiguousarray(stored(scene())))
    path.write_bytes(with_orientation(path.read_bytes(), orientation))
    np.testing.assert_allclose(model(path).keypoints[0, :, :2], LIGHTS, atol=1.5)
    predict_source(model, path, tmp_path / "out")
    overlay = cv2.imread(str(tmp_path / "out/overlays/photo.jpg"), cv2.IMREAD_IGNORE_ORIENTATION)
    assert overlay.shape[:2] == (150, 220)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_arrays_that_are_no_rgb_images(model: PoseModel, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="is not an image; give RGB"):
        model(image)


def test_a_folder(model: PoseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    write(photos / "b.png", scene())
    write(photos / "000000000139.jpg", scene())
    whole = write(photos / "cut.jpg", scene()).read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    write(photos / "dark.PNG", np.zeros((60, 60, 3), np.uint8))
    (photos / "notes.txt").write_text("no image")
    (photos / "._b.png").write_bytes(b"what some systems leave on a stick")
    write(photos / "inner/deep.png", scene())

    summary = predict_source(model, photos, out)

    assert (summary.images, summary.failed, summary.people) == (3, 1, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "cut.jpg" in shown.err and "cut short" in shown.err
    predictions = json.loads((out / "predictions.json").read_text())
    assert summary.predictions == out / "predictions.json"
    assert [(p["image_id"], p["file_name"]) for p in predictions] == [(139, "000000000139.jpg"), ("b.png", "b.png")]
    for person in predictions:
        assert person["category_id"] == 1 and person["score"] > 0.5
        np.testing.assert_allclose(np.reshape(person["keypoints"], (3, 3))[:, :2], LIGHTS, atol=1.5)
    assert sorted(file.name for file in (out / "overlays").iterdir()) == ["000000000139.jpg", "b.jpg", "dark.jpg"]
    overlay, plain = cv2.imread(str(out / "overlays/b.jpg")), cv2.imread(str(photos / "b.png"))
    assert overlay.shape == plain.shape
    changed = np.abs(overlay.astype(int) - plain).max(axis=-1)
    assert changed[30, 40] > 40 and changed[140, 20] < 10  # drawn at the red light, not in the dark corner


def test_threshold_leaves_people_out_of_the_overlay_only(model: PoseModel, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", scene())
    for threshold, drawn in ((0.0, True), (1.1, False)):
        summary = predict_source(model, path, tmp_path / "out", threshold)
        assert (summary.people, summary.candidates) == (int(drawn), 1)
        overlay = cv2.imread(str(tmp_path / "out/overlays/a.jpg")).astype(int)
        assert (np.abs(overlay - cv2.imread(str(path))).max() > 60) == drawn


def test_images_of_one_size_share_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = LightRunner()
    model = PoseModel(runner, SPEC, SKELETON, RESOLUTION)
    for number in range(18):
        wide = number % 2
        write(tmp_path / f"photos/{number}.png", scene() if wide else np.ascontiguousarray(scene()[:, :150]))
    summary = predict_source(model, tmp_path / "photos", tmp_path / "out")
    assert summary.images == 18
    assert sorted(runner.sizes) == [(1, 96, 96), (1, 96, 160), (8, 96, 96), (8, 96, 160)]
    ids = [p["image_id"] for p in json.loads((tmp_path / "out/predictions.json").read_text())]
    assert ids == sorted(range(18), key=str)  # in the files' order, however they were batched

    monkeypatch.setattr(predict, "WAITING_PIXELS", 100_000)  # three images
    runner.sizes.clear()
    predict_source(model, tmp_path / "photos", tmp_path / "out")
    assert max(size[0] for size in runner.sizes) < 4 and sum(size[0] for size in runner.sizes) == 18


def test_a_glob_over_folders_keeps_equal_names_apart(model: PoseModel, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/x.png", "b/x.jpg"):
        write(tmp_path / "photos" / name, scene())
    predict_source(model, str(tmp_path / "photos/*/*"), tmp_path / "out")
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [p["image_id"] for p in predictions] == ["a/1.png", "b/1.png", "b/x.jpg", "b/x.png"]
    overlays = sorted(str(f.relative_to(tmp_path / "out/overlays")) for f in (tmp_path / "out").rglob("*.jpg"))
    assert overlays == ["a/1.jpg", "b/1.jpg", "b/x.jpg.jpg", "b/x.png.jpg"]


def test_every_overlay_has_a_name_of_its_own(model: PoseModel, tmp_path: Path) -> None:
    for name in ("x.jpg", "x.png", "x.png.png", "y.jpg", "y.png", "y.png-2.png", "y.png.png", "Z.png", "z.png"):
        write(tmp_path / "photos" / name, scene())
    files = len(list((tmp_path / "photos").iterdir()))  # some systems take Z and z for one
    assert predict_source(model, tmp_path / "photos", tmp_path / "out").images == files
    overlays = sorted(file.name for file in (tmp_path / "out/overlays").iterdir())
    assert len({name.lower() for name in overlays}) == files
    assert {"x.jpg.jpg", "x.png-2.jpg", "x.png.jpg", "y.png-3.jpg", "y.png-2.jpg", "y.png.jpg"} < set(overlays)


def test_an_image_too_wide_for_jpeg(model: PoseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = np.array([12_000, 33_000, 51_000])
    row = 255 * np.exp(-((np.arange(66_000)[:, None] - at) ** 2) / (2 * 700**2))
    write(tmp_path / "photos/wide.png", np.tile(row.astype(np.uint8), (400, 1, 1)))
    write(tmp_path / "photos/z.png", scene())
    summary = predict_source(model, tmp_path / "photos", tmp_path / "out")
    assert (summary.images, summary.failed, summary.people) == (2, 0, 2)
    message = capsys.readouterr().err
    assert "wide.png: no overlay is written, JPEG holds no 66000 x 400 pixels; its poses are in the results" in message
    assert [file.name for file in (tmp_path / "out/overlays").iterdir()] == ["z.jpg"]
    predictions = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [entry["file_name"] for entry in predictions] == ["wide.png", "z.png"]


def test_overlays_never_replace_the_images(model: PoseModel, tmp_path: Path) -> None:
    path = write(tmp_path / "overlays/a.jpg", scene())
    before = path.read_bytes()
    with pytest.raises(InputError, match="would replace this image"):
        predict_source(model, tmp_path / "overlays", tmp_path)
    assert path.read_bytes() == before


def test_sources_without_images(model: PoseModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "gone.jpg", "no image found"),
        (tmp_path / "gone.mp4", "no such video"),
        (tmp_path / "*.jpg", "no image found"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            predict_source(model, source, tmp_path / "out")
        assert "a folder of images, or a glob" in str(caught.value)
    with pytest.raises(InputError, match="list is not a source; name one of them, a folder or a glob"):
        predict_source(model, [tmp_path / "empty"], tmp_path / "out")  # type: ignore[arg-type]
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/b.mp4").touch()
    (tmp_path / "videos/a.MOV").touch()
    for source in (tmp_path / "videos", tmp_path / "videos/*"):
        with pytest.raises(InputError, match=r"videos are taken one at a time: name one, such as .*a\.MOV"):
            predict_source(model, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_needs_no_suffix(model: PoseModel, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", scene()).rename(tmp_path / "a")
    assert predict_source(model, path, tmp_path / "out").people == 1
    assert (tmp_path / "out/overlays/a.jpg").is_file()


def test_only_a_broken_image(model: PoseModel, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    summary = predict_source(model, tmp_path / "a.jpg", tmp_path / "out")
    assert (summary.images, summary.failed) == (0, 1)
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == []
    with pytest.raises(InputError, match="is an empty file"):
        model(tmp_path / "a.jpg")


def test_people_below_the_threshold_are_left_out(model: PoseModel) -> None:
    everybody = model(scene(), threshold=0)
    assert len(everybody) and model(scene(), threshold=2).keypoints.shape == (0, len(SKELETON.joints), 3)
    for least in (float(everybody.scores[-1]), float(everybody.scores[0])):
        found = model(scene(), threshold=least)
        assert found.scores.tolist() == [score for score in everybody.scores.tolist() if score >= least]
        np.testing.assert_array_equal(found.keypoints, everybody.keypoints[: len(found)])


def test_what_is_no_image_at_all(model: PoseModel) -> None:
    for thing in (None, {"a.jpg"}, 3):
        with pytest.raises(InputError, match=r"is not an image; give a path, an RGB array or a PIL image"):
            model(thing)  # type: ignore[arg-type]


def test_a_model_says_in_a_line_what_it_is(model: PoseModel) -> None:
    assert repr(model) == f"PoseModel({SPEC}; {SKELETON.name}, resolution={RESOLUTION})"


def test_load(checkpoint: Path) -> None:
    model = ofa_pose.load(checkpoint, device="cpu")
    assert (model.spec, model.skeleton, model.resolution, model.flip) == (SPEC, SKELETON, 64, False)
    poses = model(scene())
    assert poses.keypoints.shape[1:] == (3, 3) and len(poses.scores) == len(poses.keypoints)
    other = ofa_pose.load(str(checkpoint), resolution=96, flip=True)
    assert (other.resolution, other.flip) == (96, True)
    with pytest.raises(InputError, match="resolution 0"):
        ofa_pose.load(checkpoint, resolution=0)


def test_a_supernet_is_refused(tmp_path: Path) -> None:
    space = load_space("litepose-nano")
    net = Supernet(space, 3)
    path = tmp_path / "super.pt"
    save_checkpoint(path, Checkpoint("supernet", space.largest(3), space, SKELETON, net.state_dict()))
    with pytest.raises(InputError, match=r"super\.pt: holds a supernet.*; search it for a subnet"):
        ofa_pose.load(path)


def test_importing_the_package_is_light() -> None:
    code = "import sys, ofa_pose; sys.exit(any(m in sys.modules for m in ('torch', 'cv2', 'numpy', 'rich')))"
    root = Path(ofa_pose.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_version_is_the_packages() -> None:
    setup = ConfigParser()
    if not setup.read(Path(ofa_pose.__file__).parents[1] / "setup.cfg"):
        pytest.skip("an installed package has no setup.cfg")
    assert setup["metadata"]["version"] in (ofa_pose.__version__, "attr: ofa_pose.__version__")


def test_load_without_torch_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_package(monkeypatch, "torch")
    with pytest.raises(InputError, match=r"torch is not installed; install it; .* ofa_pose\.runtime\.load"):
        ofa_pose.load("model.onnx")
