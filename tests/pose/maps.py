"""Maps that a perfect network would give."""

from __future__ import annotations

import numpy as np

SIGMA = 2.0  # cells, at both resolutions


def gaussian(height: int, width: int, x: float, y: float, sigma: float = SIGMA) -> np.ndarray:
    """A (height, width) map with a Gaussian of height 1 at the continuous cell position x, y."""
    across = np.exp(-((np.arange(width) + 0.5 - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(height) + 0.5 - y) ** 2) / (2 * sigma**2))
    return down[:, None] * across


def make_maps(people: np.ndarray, tags: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The outputs low (2J, h, w) and high (J, 2h, 2w), float32, for people (P, J, 3): x, y in input pixels, heat.

    A joint of height 0 is absent. tags (P,) are painted wherever a person's joint is the hottest.
    """
    joints = people.shape[1]
    low = np.zeros((2 * joints, height // 4, width // 4), np.float32)
    high = np.zeros((joints, height // 2, width // 2), np.float32)
    for person, tag in zip(people, tags, strict=True):
        for j, (x, y, heat) in enumerate(person):
            if heat <= 0:
                continue
            coarse = heat * gaussian(height // 4, width // 4, x / 4, y / 4)
            low[joints + j][(coarse > low[j]) & (coarse > 0.01)] = tag
            low[j] = np.maximum(low[j], coarse)
            high[j] = np.maximum(high[j], heat * gaussian(height // 2, width // 2, x / 2, y / 2))
    return low, high


def crowd(rng: np.random.Generator, people: int, joints: int, width: int, height: int) -> np.ndarray:
    """People (P, J, 3) whose joints of one kind are at least 40 input pixels apart, with heights 0.5 to 1."""
    places = np.empty((people, joints, 3))
    for j in range(joints):
        taken: list[np.ndarray] = []
        while len(taken) < people:
            xy = rng.uniform((16, 16), (width - 16, height - 16))
            if all(np.hypot(*(xy - other)) > 40 for other in taken):
                taken.append(xy)
        places[:, j, :2] = taken
    places[..., 2] = rng.uniform(0.5, 1.0, (people, joints))
    return places
