"""The decoder's thresholds are sought on training images, kept where they are surely better, and carried on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import ofa_pose
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.inference.calibrate import FEWEST, calibrate, longest_reach
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.files import dump_yaml, read_yaml, shipped_folder, write_text

SIDE = 96
SHIPPED = DecodeConfig(threshold=0.3, tag_threshold=1.5)
FAR = replace(SHIPPED, tag_threshold=6.0)  # the shipped net sets people some 3 apart: several become one


class Counting(TorchRunner):
    """The shipped net, and how many images it has seen."""

    def __init__(self) -> None:
        super().__init__(load_checkpoint("litepose-nano-coco").build())
        self.seen = 0

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.seen += len(images)
        return super().__call__(images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder / "train", images=26, size=SIDE, joints="coco", seed=5, workers=1)
    write_dataset(folder / "val", images=12, size=SIDE, joints="coco", seed=6, workers=1)
    return folder


@pytest.fixture(scope="module")
def scenes(folder: Path) -> KeypointDataset:
    return load_dataset(folder / "train" / "annotations.json", folder / "train" / "images")


@pytest.mark.slow
def test_thresholds_that_do_not_fit_are_replaced(scenes: KeypointDataset) -> None:
    runner = Counting()
    found = calibrate(runner, scenes, SIDE, FAR, images=24)
    assert found.images == 24 and runner.seen == 2 * 24, "the net sees each image, and each mirrored one, once"
    assert found.config.tag_threshold < 4.5 and found.AP is not None and found.start_AP is not None
    assert found.start_AP + 0.05 < found.AP
    assert (found.config.candidates, found.config.recover) == (FAR.candidates, FAR.recover)
    assert "suit the net better than the recipe's threshold 0.3 and tag threshold 6: AP" in str(found)
    still = replace(scenes, skeleton=replace(scenes.skeleton, mirror=False))
    runner.seen = 0
    calibrate(runner, still, SIDE, FAR, images=FEWEST)
    assert runner.seen == FEWEST, "nothing is mirrored where the skeleton forbids it"


@pytest.mark.slow
def test_thresholds_that_fit_stay(scenes: KeypointDataset) -> None:
    fitting = calibrate(Counting(), scenes, SIDE, SHIPPED).config
    found = calibrate(Counting(), scenes, SIDE, fitting)
    assert found.config == fitting and found.start_AP == found.AP
    assert "stay: none are surely better on 26" in str(found)


def test_too_few_people_say_nothing(scenes: KeypointDataset) -> None:
    runner = Counting()
    found = calibrate(runner, scenes.select(range(FEWEST - 1)), SIDE, FAR)
    assert (found.config, found.AP, runner.seen) == (FAR, None, 0)
    assert "are too few to tell" in str(found)


DATA = [
    (split, key, name)
    for split in ("train", "val")
    for key, name in (("annotations", "annotations.json"), ("images", "images"))
]


def smaller(dataset: KeypointDataset, share: float) -> KeypointDataset:
    """The same people on images whose sides are longer."""
    grown = (replace(one, width=round(one.width / share), height=round(one.height / share)) for one in dataset.images)
    return replace(dataset, images=tuple(grown))


def test_the_reach_is_that_of_the_largest_person(scenes: KeypointDataset) -> None:
    assert longest_reach(scenes) is None, "people fill these images"
    people = [person[person[:, 2] > 0, :2] for record in scenes.images for person in record.keypoints]
    longest = max(np.ptp(person, axis=0).max() for person in people)
    assert longest_reach(smaller(scenes, 0.25)) == pytest.approx(1.5 * longest / (4 * SIDE), abs=1e-3)
    assert longest_reach(smaller(scenes.select(range(FEWEST - 1)), 0.25)) is None


Train = Callable[..., tuple[DecodeConfig, dict[str, Any]]]


@pytest.fixture
def train(folder: Path, tmp_path: Path) -> Train:
    """Train the shipped net for one step, too little to change it; the decoder of the best one, and the last record."""
    recipe = read_yaml(shipped_folder("recipes") / "nano.yaml")
    recipe["decode"] = {"threshold": 0.3, "tag_threshold": 6.0}
    recipe["commands"] = {}
    recipe["data"] = {
        split: {"annotations": str(folder / split / "annotations.json"), "images": str(folder / split / "images")}
        for split in ("train", "val")
    }
    recipe["data"]["search_share"] = 0.05
    recipe["train"] = {"steps": 1, "lr": 1e-9, "batch": 2, "workers": 0, "resolutions": [SIDE], "evaluate_images": 8}
    write_text(tmp_path / "recipe.yaml", dump_yaml(recipe))

    def training(command: Any, *overrides: str) -> tuple[DecodeConfig, dict[str, Any]]:
        out = tmp_path / command.__name__
        done = command(
            out, recipe=tmp_path / "recipe.yaml", init="litepose-nano-coco", overrides=overrides, device="cpu"
        )
        best = load_checkpoint(done.checkpoint)
        assert best.info["metrics"]["AP"] == done.AP
        return best.decode, json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])

    return training


@pytest.mark.parametrize("command", [ofa_pose.pretrain, pytest.param(ofa_pose.train_supernet, marks=pytest.mark.slow)])
def test_a_training_ends_with_the_thresholds_of_its_net(
    train: Train, command: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, record = train(command)
    assert decode.tag_threshold < 4.5
    noted = record["calibration"]
    assert noted["decode"] == {"threshold": decode.threshold, "tag_threshold": decode.tag_threshold}
    assert noted["recipe"] == {"threshold": 0.3, "tag_threshold": 6.0} and noted["AP"] > noted["recipe_AP"]
    assert capfd.readouterr().err.count("suit the net better") == 1
    out = tmp_path / command.__name__
    assert read_yaml(out / "recipe.yaml")["decode"] == {"threshold": 0.3, "tag_threshold": 6.0}, "as the run began"

    left = {path: path.read_bytes() for path in (out / "checkpoints" / "best.pt", out / "metrics.jsonl")}
    monkeypatch.setattr("ofa_pose.train.training_run.calibrate", None)  # a run that has ended is not calibrated anew
    command(out, resume=True, device="cpu")
    assert "the decoder is calibrated already" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in left} == left


def enlarge(split: Path) -> None:
    """Put each image into the corner of a dark one three times as large."""
    file = split / "annotations.json"
    value = json.loads(file.read_text())
    for record in value["images"]:
        path = split / "images" / record["file_name"]
        picture = cv2.imread(str(path))
        height, width = picture.shape[:2]
        cv2.imwrite(str(path), cv2.copyMakeBorder(picture, 0, 2 * height, 0, 2 * width, cv2.BORDER_CONSTANT))
        record["width"], record["height"] = 3 * width, 3 * height
    file.write_text(json.dumps(value))


@pytest.mark.slow
def test_the_reach_is_carried_and_found_anew(
    train: Train, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    shutil.copytree(folder, small)
    for split in ("train", "val"):
        enlarge(small / split)
    data, before = (
        [f"data.{split}.{key}={root / split / name}" for split, key, name in DATA] for root in (small, folder)
    )
    found, _ = train(ofa_pose.train_supernet, *data)
    assert found.reach and f"more than {found.reach:g} of an image's short side" in capfd.readouterr().err
    again = ofa_pose.pretrain(
        tmp_path / "again",
        init=tmp_path / "train_supernet",
        overrides=[*before, "train.resolutions=[96]"],
        device="cpu",
    )
    assert load_checkpoint(again.checkpoint).decode.reach is None, "that of its own training images"
    kept, _ = train(ofa_pose.pretrain, *data, "decode.reach=0.9")
    assert kept.reach == 0.9


@pytest.mark.parametrize(
    "overrides", [("decode.tag_threshold=6.0",), ("decode={threshold: 0.3}",), ("decode.calibrate=false",)]
)
def test_who_sets_a_threshold_has_decided(train: Train, overrides: tuple[str, ...]) -> None:
    decode, record = train(ofa_pose.pretrain, *overrides)
    assert decode.tag_threshold == (1.0 if "{" in overrides[0] else 6.0) and "calibration" not in record


@pytest.mark.slow
def test_what_is_worse_on_val_is_not_kept(
    train: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def evaluation(self: TrainingRun, network: torch.nn.Module) -> Callable[[], dict[str, Any]]:
        return lambda: {"AP": 0.5 if self.decode.tag_threshold == 6.0 else 0.4}

    monkeypatch.setattr(TrainingRun, "evaluation", evaluation)
    decode, record = train(ofa_pose.pretrain)
    assert decode == FAR and record["calibration"]["val"] == {"AP": 0.5}
    assert record["calibration"]["decode"]["tag_threshold"] == 6.0
    assert "0.5000 to 0.4000 on val: the recipe's stay" in capfd.readouterr().err
