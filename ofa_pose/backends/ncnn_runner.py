"""Run an ncnn model on the CPU."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.inputs import check_names, check_sides
from ofa_pose.backends.on_device import REDUCED, runtime_module
from ofa_pose.backends.packages import require_packages
from ofa_pose.utils.errors import InputError


class NcnnRunner:
    """An `ExportedRunner` over an ncnn model; `metadata` are those of the .json beside its .param, if there is one."""

    def __init__(self, source: str | Path | tuple[str, bytes], threads: int = 0, streams: int = 1) -> None:
        """Load a model.

        Args:
            source: a .param file with its .bin beside it, or what `ncnn_model` returns.
            threads: of one call; 0: ncnn chooses.
            streams: how many calls are meant to be made at once.

        Raises:
            InputError: it is not an ncnn model, or ncnn is not installed.
        """
        self.streams = streams
        self._net = load_net(source, threads)
        where = "the model" if isinstance(source, tuple) else str(source)
        check_names(self._net.input_names(), self._net.output_names(), where)
        self.metadata = {} if isinstance(source, tuple) else _read_metadata(Path(source).with_suffix(".json"))
        ncnn = _ncnn()
        self._mat, self._rgb = ncnn.Mat, ncnn.Mat.PixelType.PIXEL_RGB

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outputs for RGB uint8 images (B, H, W, 3). Raises InputError where a side is not a multiple of 16."""
        check_sides(images)
        low, high = (np.stack(maps) for maps in zip(*map(self._run, images), strict=True))
        return low, high

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._mat.from_pixels(np.ascontiguousarray(image), self._rgb, width, height))
        return [np.array(extractor.extract(name)[1]) for name in OUTPUTS]


def load_net(source: str | Path | tuple[str, bytes], threads: int = 0) -> Any:
    """An ncnn.Net in single precision, of a .param file or of what `ncnn_model` or `ncnn_part` returns.

    Raises InputError where it is not an ncnn model, or ncnn is not installed.
    """
    ncnn = _ncnn()
    if isinstance(source, tuple):
        with tempfile.TemporaryDirectory() as folder:  # from memory ncnn would go on reading what Python frees
            path = Path(folder, "model.param")
            path.write_text(source[0], encoding="ascii")
            path.with_suffix(".bin").write_bytes(source[1])
            return load_net(path, threads)
    net, path = ncnn.Net(), Path(source)
    for name in REDUCED:
        setattr(net.opt, f"use_{name}", False)
    if threads:
        net.opt.num_threads = threads
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(f"has no {weights.name} beside it", path, "copy that too, or export the model again")
    if net.load_param(str(path)) or net.load_model(str(weights)):
        raise InputError("cannot be loaded by ncnn", path, "export it again")
    return net


def _ncnn() -> Any:
    """The package. Raises InputError where it is not installed."""
    require_packages("ncnn")
    return runtime_module("ncnn")


def _read_metadata(path: Path) -> dict[str, str]:
    """What the JSON beside a model says of it, each value as JSON again."""
    try:
        return {key: json.dumps(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError):
        raise InputError("holds no metadata", path, "export the model again") from None
