"""Tiny videos of moving lights, and what was made of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ofa_pose.inference.pose_model import PoseModel
from tests.inference.light_scenes import LIGHTS, RESOLUTION, SKELETON, SPEC, LightRunner, scene

WIDTH, HEIGHT = 220, 150
STEP = 1.5  # pixels that the lights move to the right in a frame


def lights_at(number: int) -> np.ndarray:
    return LIGHTS + (STEP * number, 0)


def moving(number: int) -> np.ndarray:
    return scene(WIDTH, HEIGHT, lights_at(number))


def write_video(
    path: Path, frames: int = 12, codec: str = "mp4v", fps: float = 12.5, frame: Callable[[int], np.ndarray] = moving
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frame(0).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(cv2.cvtColor(np.ascontiguousarray(frame(number)), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """RGB frames and frames a second."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        whole, pixels = capture.read()
        if not whole:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])
    return path


def predictions_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text())


def files_in(out: Path) -> list[str]:
    return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())


class InterruptedRunner(LightRunner):
    """Ctrl-C is pressed while it computes its batches with these numbers."""

    def __init__(self, *batches: int) -> None:
        super().__init__()
        self.batches = batches

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = super().__call__(images)
        if len(self.sizes) - 1 in self.batches:
            signal.raise_signal(signal.SIGINT)
        return maps


def model_of(runner: LightRunner) -> PoseModel:
    return PoseModel(runner, SPEC, SKELETON, RESOLUTION)
