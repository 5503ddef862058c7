"""Models for runtimes; each is compared with torch, which is what the network computes, before it takes its place."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.backends import Runner
from ofa_pose.backends.on_device import time_runs
from ofa_pose.backends.table import Backend
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.exports.source import ExportSource, metadata
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.seeding import generator

REPEATS = 20
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


def compare(runner: Runner, reference: Reference, runtime: str, tolerance: float) -> dict[str, Any]:
    """Run a model on a reference's images.

    Args:
        runtime: its name, for people.
        tolerance: see `Backend`.

    Returns:
        {'max_difference': largest absolute difference of any output, 'sizes': [(batch, height, width), …]}.

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
    return {"max_difference": worst, "sizes": [list(images.shape[:3]) for images in reference.images]}


def write_model(
    backend: Backend,
    source: ExportSource,
    path: Path,
    suffixes: tuple[str, ...],
    write: Callable[[Path], dict[str, Any]] | None = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write a model that a runtime opens, if it computes what torch does.

    Args:
        path: its first file, in a folder that may not exist; suffixes: of all its files.
        write: `write(path)` writes it in a folder of its own, and gives what else there is to say of it; default: as
            the runtime writes a network.
        tolerance: default: the runtime's.

    Returns:
        {'seconds': of writing}, what `compare` and `write` give, and 'ms': the median time of one image at the
        network's resolution in one thread, if `write` gives none.

    Raises:
        OfaPoseError: the outputs differ.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        temporary, start, more = Path(folder, path.name), time.perf_counter(), dict[str, Any]()
        assert backend.write and backend.open
        if write:
            more = write(temporary)
        else:
            backend.write(source.net, temporary, metadata(source, in_graph=True))
        seconds = time.perf_counter() - start
        runner, reference = backend.open(temporary, 1, 1), make_reference(source.net)
        report = {"seconds": seconds, **compare(runner, reference, backend.title, tolerance or backend.tolerance)}
        if "ms" not in more:
            times = time_runs(lambda: runner(reference.images[0]), 1, REPEATS, LONG_S)
            report["ms"] = float(np.median(times))
        for suffix in reversed(suffixes):  # the file that leads to the others last
            name = f"{source.name}{suffix}"
            Path(folder, name).replace(path.parent / name)
    return report | more
