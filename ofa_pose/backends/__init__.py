"""Runtimes that compute a network's two outputs from uint8 images; every one is a `Runner`."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Runner(Protocol):
    """Compute a network.

    Attributes:
        streams: from how many threads at once it is best called.

    Args:
        images: RGB uint8 (B, H, W, 3), H and W multiples of 32.

    Returns:
        low float32 (B, 2J, H/4, W/4): J heatmaps, then J tag maps; high float32 (B, J, H/2, W/2): heatmaps.
    """

    streams: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
