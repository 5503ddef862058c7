"""Drawn scenes of coloured lights, and a network that finds them: poses whose right places are known."""

from __future__ import annotations

import numpy as np

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.skeleton import Skeleton

SKELETON = Skeleton("lights", ("red", "green", "blue"), (0.05,) * 3, (), ((0, 1), (1, 2)))
SPEC = ArchSpec(64, 8, (8, 8, 8, 8), ((2,), (2,), (2,), (2,)), (8, 8, 8), kernel=3, joints=3)
RESOLUTION = 96
LIGHTS = np.array([[40.0, 30.0], [120.0, 60.0], [180.5, 110.5]])


class LightRunner:
    """A network for scenes of coloured lights: a joint's heat is its colour, seen in the input itself."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.sizes.append(images.shape[:3])
        heat = np.clip(images.astype(np.float32) / 255 - 0.55, 0, None) / 0.45  # the grey of a border is cold
        low, high = (_pooled(heat, stride) for stride in (4, 2))
        return np.concatenate([low, np.zeros_like(low)], axis=1), high


def _pooled(values: np.ndarray, stride: int) -> np.ndarray:
    batch, height, width, channels = values.shape
    cells = values.reshape(batch, height // stride, stride, width // stride, stride, channels)
    return cells.mean(axis=(2, 4)).transpose(0, 3, 1, 2)


def scene(width: int = 220, height: int = 150, lights: np.ndarray = LIGHTS) -> np.ndarray:
    """An RGB image with a red, a green and a blue light at these image positions."""
    y, x = np.mgrid[:height, :width] + 0.5
    glow = [np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 8**2)) for at in lights]
    return np.round(255 * np.stack(glow, axis=-1)).astype(np.uint8)
