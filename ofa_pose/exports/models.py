"""What a network's files are made from, and models for runtimes, each compared with torch before it takes its place."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.spec import MEAN, STD, TOTAL_STRIDE
from ofa_pose.backends import OUTPUTS, Runner
from ofa_pose.backends.on_device import time_runs
from ofa_pose.backends.runtimes import Backend
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint, fixed_net, load_checkpoint
from ofa_pose.exports.int8 import Int8Data
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.seeding import generator

REPEATS = 20
LONG_S = 1.0  # of repeats: slow networks are repeated less often


Outputs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ExportSource:
    """A network in eval mode on the CPU, and what its files say about it.

    Attributes:
        decode: how poses are read from its outputs.
        recipe: what it was trained with.
        name: what its files' names begin with.
        int8: what an int8 form of it is made with; None where none is.
    """

    net: LitePose
    skeleton: Skeleton
    decode: DecodeConfig
    recipe: Mapping[str, Any]
    name: str
    int8: Int8Data | None = None


def open_source(checkpoint: Checkpoint | str | Path, name: str, supernets: bool) -> ExportSource:
    """What to write a checkpoint's files from. Raises InputError on a supernet's, unless those are allowed."""
    where = "" if isinstance(checkpoint, Checkpoint) else str(checkpoint)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    net = source.build() if supernets else fixed_net(source, where)
    return ExportSource(net, source.skeleton, source.decode, source.recipe, name)


def metadata(source: ExportSource, in_graph: bool) -> dict[str, str]:
    """What a program needs to feed the network and to read its outputs, each value as JSON.

    Normalised pixel = (pixel / 255 - mean) / std in RGB order; `in_graph`: the graph does that itself.
    """
    values: Mapping[str, Any] = {
        "spec": source.net.spec.to_dict(),
        "skeleton": source.skeleton.to_dict(),
        "normalisation": {"order": "RGB", "scale": 1 / 255, "mean": MEAN, "std": STD, "in_graph": in_graph},
        "strides": OUTPUTS,
        "input_multiple": TOTAL_STRIDE,
        "decode": asdict(source.decode),
    }
    return {key: json.dumps(value) for key, value in values.items()}


def make_reference(net: LitePose) -> list[tuple[np.ndarray, Outputs]]:
    """Random images of two sizes, and the outputs, low and high, of a network in eval mode for them.

    They are one image at the network's resolution, then two that are not square, their sides odd multiples of 16.
    """
    rng, side = generator("export", "check"), net.spec.resolution
    cells = side // TOTAL_STRIDE
    sizes = ((1, side, side), (2, TOTAL_STRIDE * (cells // 4 | 1), TOTAL_STRIDE * (cells | 1)))
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return list(zip(images, map(TorchRunner(net), images), strict=True))


def compare(
    runner: Runner, reference: list[tuple[np.ndarray, Outputs]], runtime: str, tolerance: float
) -> dict[str, Any]:
    """Run a model on a reference's images; raise OfaPoseError where outputs differ by more than the tolerance.

    Args:
        runtime: its name, for people; tolerance: see `Backend`.

    Returns:
        {'max_difference': largest absolute difference of any output, 'sizes': [(batch, height, width), …]}.
    """
    worst = 0.0
    for images, outputs in reference:
        for found, expected in zip(runner(images), outputs, strict=True):
            allowed = tolerance * max(1.0, float(np.abs(expected).max()))
            difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
            if not difference <= allowed:  # NaN too
                what = f"{runtime} and torch differ by {difference:.2g} on an input of {images.shape[:3]}"
                raise OfaPoseError(f"{what}; at most {allowed:.2g} was expected")
            worst = max(worst, difference)
    return {"max_difference": worst, "sizes": [list(images.shape[:3]) for images, _ in reference]}


def write_model(
    backend: Backend,
    source: ExportSource,
    path: Path,
    suffixes: tuple[str, ...],
    write: Callable[[Path], dict[str, Any]] | None = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write a model that a runtime opens, if it computes what torch does; else raise OfaPoseError.

    Args:
        path: its first file, in a folder that may not exist; suffixes: of all its files.
        write: `write(path)` writes it in a folder of its own, and gives what else there is to say of it; default: as
            the runtime writes a network.
        tolerance: default: the runtime's.

    Returns:
        {'seconds': of writing}, what `compare` and `write` give, and 'ms': the median time of one image at the
        network's resolution in one thread, if `write` gives none.
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
            times = time_runs(lambda: runner(reference[0][0]), 1, REPEATS, LONG_S)
            report["ms"] = float(np.median(times))
        for suffix in reversed(suffixes):  # the file that leads to the others last
            name = f"{source.name}{suffix}"
            Path(folder, name).replace(path.parent / name)
    return report | more
