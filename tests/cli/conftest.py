"""A tiny journey on disk: data, a space, a recipe, and a way to call the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.cli import run
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import dump_yaml, write_text

TINY_SPACE = {
    "name": "tiny",
    "resolution": [32, 64],
    "stem": [4, 8],
    "stages": [[4, 8], [4, 8], [8, 12], [8, 16]],
    "deconv": [[4, 8], [4, 8], [4, 8]],
    "expansion": [1, 2],
    "blocks": [1, 1, 1, 1],
    "kernel": 3,
}


@dataclass(frozen=True)
class Called:
    """What a call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.out)


Call = Callable[..., Called]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Call `ofa-pose` with some arguments."""

    def calling(*arguments: object) -> Called:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return Called(code, *capfd.readouterr())

    return calling


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training and 8 validation scenes of 64 pixels with COCO's joints."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "train", images=16, size=64, joints="coco", seed=1, workers=1)
    write_dataset(folder / "val", images=8, size=64, joints="coco", seed=2, workers=1)
    return folder


@pytest.fixture(scope="session")
def recipe(data: Path) -> Path:
    """A recipe of a few steps on the tiny data and space."""
    write_text(data / "tiny.yaml", dump_yaml(TINY_SPACE))
    splits = {
        split: {"annotations": str(data / split / "annotations.json"), "images": str(data / split / "images")}
        for split in ("train", "val")
    }
    every = {"evaluate_every": 2, "evaluate_images": 4, "checkpoint_every": 2}
    value = {
        "space": str(data / "tiny.yaml"),
        "data": {**splits, "search_share": 0.25},
        "train": {"steps": 4, "batch": 2, "workers": 0, **every},
        "search": {"population": 4, "generations": 1, "images": 4, "calibration_images": 4, "batch": 4},
        "commands": {"finetune": {"train": {"steps": 2}}},
    }
    write_text(data / "recipe.yaml", dump_yaml(value))
    return data / "recipe.yaml"


@pytest.fixture(scope="session")
def supernet(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny supernet."""
    out = tmp_path_factory.mktemp("runs") / "supernet"
    assert run(["train-supernet", "--recipe", str(recipe), "--out", str(out), "--device", "cpu"]) == 0
    return out


@pytest.fixture(scope="session")
def net(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny fixed net."""
    out = tmp_path_factory.mktemp("runs") / "net"
    assert run(["pretrain", "--recipe", str(recipe), "--out", str(out), "--device", "cpu"]) == 0
    return out
