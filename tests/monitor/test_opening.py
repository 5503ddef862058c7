"""What a run is, said before it begins; a picture of what its net finds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ofa_pose.arch.presets import load_spec
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.families.table import all_presets
from ofa_pose.monitor.opening import describe_images, describe_net, describe_steps, show_opening
from ofa_pose.monitor.pose_sample import draw_sample
from ofa_pose.pose.metrics import Detections
from ofa_pose.recipe import TrainSettings
from tests.cli.conftest import data  # noqa: F401  (a fixture)


def test_an_opening(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    show_opening("finetune", {"network": "a", "teacher": "", "device": "cpu, float32"}, tmp_path)
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["finetune", "  network  a", "  device   cpu, float32", f"  writes   {tmp_path}/"]


def test_networks_by_name_and_cost() -> None:
    name, costs = describe_net(load_spec("litepose-xs", 14))
    assert (name, costs) == (
        "litepose-xs",
        "14 joints, 1.68M parameters, 1.22G MACs (thop), 883M (exact) at 256 pixels",
    )
    odd = all_presets()["higherhrnet-w32"].at(256)
    assert describe_net(odd)[0] == str(odd) and len(str(odd)) < 60


def test_images_and_steps(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(data)
    whole = load_dataset(data / "train" / "annotations.json", data / "train" / "images")
    some = whole.limit(4)
    assert describe_images(whole) == f"16 images, {whole.people} people, train/annotations.json"
    assert describe_images(some, len(whole), named=False) == f"4 of 16 images, {some.people} people"
    settings = TrainSettings(steps=1000, batch=16)
    assert describe_steps(settings, 1600) == "1,000 of 16 images each, 100 an epoch: 10 epochs"
    assert describe_steps(settings, 4000, 250) == "1,000 of 16 images each, 250 an epoch: 4.0 epochs; 250 are done"
    assert describe_steps(settings, 3).startswith("1,000 of 16 images each, 1 an epoch")


def test_the_picture_shows_people_who_were_found(data: Path, tmp_path: Path) -> None:  # noqa: F811
    val = load_dataset(data / "val" / "annotations.json", data / "val" / "images")
    people = [(record.id, person) for record in val.images for person in record.keypoints]
    places = np.array([person for _, person in people], np.float32)
    places[..., 2] = places[..., 2] > 0
    found = Detections([name for name, _ in people], places, np.ones(len(people)))
    none = Detections([], np.zeros((0, 17, 3), np.float32), np.zeros(0))
    for name, detections in (
        ("found", found),
        ("none", none),
        ("unsure", Detections(found.image_ids, places, 0 * found.scores)),
    ):
        draw_sample(tmp_path / f"{name}.jpg", val, detections)
    pictures = {path.stem: cv2.imread(str(path)) for path in tmp_path.glob("*.jpg")}
    assert {picture.shape for picture in pictures.values()} == {(480, 960, 3)}
    assert np.array_equal(pictures["none"], pictures["unsure"])
    assert not np.array_equal(pictures["none"], pictures["found"])


def test_images_that_are_gone_are_left_out_of_the_picture(data: Path, tmp_path: Path) -> None:  # noqa: F811
    val = load_dataset(data / "val" / "annotations.json", tmp_path, check_images="none")
    draw_sample(tmp_path / "poses.jpg", val, Detections([], np.zeros((0, 17, 3), np.float32), np.zeros(0)))
    assert not (tmp_path / "poses.jpg").exists()
