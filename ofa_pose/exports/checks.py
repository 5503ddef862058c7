"""What an exported model is compared with: torch's outputs of the network it was written from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.backends import Runner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.seeding import generator

TOLERANCE = 1e-4  # between a runtime and torch, of outputs within ±1; larger outputs in proportion
WARM_UP, REPEATS = 2, 20
LONG_S = 1.0  # of repeats: slow networks are repeated less often


@dataclass(frozen=True)
class Reference:
    """Random images of two sizes, and a network's outputs for them.

    Attributes:
        images: one at the network's resolution, then two that are not square, their sides odd multiples of 16.
        outputs: low and high for each of the two.
    """

    images: tuple[np.ndarray, ...]
    outputs: tuple[tuple[np.ndarray, np.ndarray], ...]


def make_reference(net: LitePose) -> Reference:
    """The reference of a network in eval mode."""
    rng, side = generator("export", "check"), net.spec.resolution
    cells = side // TOTAL_STRIDE
    sizes = ((1, side, side), (2, TOTAL_STRIDE * (cells // 4 | 1), TOTAL_STRIDE * (cells | 1)))
    images = tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes)
    return Reference(images, tuple(map(TorchRunner(net), images)))


def compare(runner: Runner, reference: Reference, runtime: str, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Run a model on a reference's images.

    Returns:
        {'max_difference': largest absolute difference of any output, 'sizes': [(batch, height, width), …],
        'ms': the median time of one image at the network's resolution}.

    Raises:
        OfaPoseError: the outputs differ by more than `tolerance`.
    """
    worst = 0.0
    for images, outputs in zip(reference.images, reference.outputs, strict=True):
        for found, expected in zip(runner(images), outputs, strict=True):
            allowed = tolerance * max(1.0, float(np.abs(expected).max()))
            difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
            if not difference <= allowed:  # NaN too
                what = f"{runtime} and torch differ by {difference:.2g} on an input of {images.shape[:3]}"
                raise OfaPoseError(f"{what}; at most {allowed:.2g} was expected")
            worst = max(worst, difference)
    sizes = [list(images.shape[:3]) for images in reference.images]
    return {"max_difference": worst, "sizes": sizes, "ms": median_ms(runner, reference.images[0])}


def median_ms(runner: Runner, images: np.ndarray) -> float:
    """The median time of a call, after a warm-up."""
    times: list[float] = []
    for _ in range(WARM_UP):
        runner(images)
    while len(times) < REPEATS and sum(times) < LONG_S:
        start = time.perf_counter()
        runner(images)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
