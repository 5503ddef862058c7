"""Runtimes that compute a network's two outputs from uint8 images: a file and a line in `runtimes` for each.

Whatever opens exported files needs no torch: devices have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

INPUT = "images"  # what exported graphs call it
OUTPUTS = {"low": 4, "high": 2}  # and these, with the input's cells in one of theirs


class Runner(Protocol):
    """Compute a network.

    Attributes:
        streams: from how many threads at once it is best called.

    Args:
        images: RGB uint8 (B, H, W, 3), H and W multiples of 16.

    Returns:
        low float32 (B, 2J, H/4, W/4): J heatmaps, then J tag maps; high float32 (B, J, H/2, W/2): heatmaps.

    Raises:
        InputError: a side is not a multiple of 16.
    """

    streams: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class ExportedRunner(Runner, Protocol):
    """A `Runner` over an exported model.

    Attributes:
        metadata: what the model says about itself; 'spec', 'skeleton' and the like are JSON.
    """

    metadata: dict[str, str]
