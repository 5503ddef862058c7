"""Run an ncnn model on the CPU."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.inputs import check_names, check_sides
from ofa_pose.backends.packages import require_packages
from ofa_pose.errors import InputError

# Each halves precision for speed that x86 does not gain; without them outputs are torch's to 1e-5.
REDUCED = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed")


class NcnnRunner:
    """An `ExportedRunner` over a .param file that `ncnn_model` made, its .bin and, if there, its .json of metadata."""

    def __init__(self, param: str | Path, threads: int = 0, streams: int = 1) -> None:
        """Load a model.

        Args:
            param: the .param file; .bin and .json stand beside it.
            threads: of one call; 0: ncnn chooses.
            streams: how many calls are meant to be made at once.

        Raises:
            InputError: it is no ncnn model, or ncnn is not installed.
        """
        require_packages("ncnn")
        import ncnn

        self.streams = streams
        param = Path(param)
        self._net, self._pixel = ncnn.Net(), ncnn.Mat.PixelType.PIXEL_RGB
        self._mat = ncnn.Mat
        for name in REDUCED:
            setattr(self._net.opt, f"use_{name}", False)
        if threads:
            self._net.opt.num_threads = threads
        if self._net.load_param(str(param)) or self._net.load_model(str(param.with_suffix(".bin"))):
            raise InputError("cannot be loaded by ncnn", param, "export it again")
        check_names(self._net.input_names(), self._net.output_names(), str(param))
        self.metadata = _read_metadata(param.with_suffix(".json"))

    @classmethod
    def of_model(cls, model: tuple[str, bytes], threads: int = 0, streams: int = 1) -> NcnnRunner:
        """A runner over what `ncnn_model` or `ncnn_part` returns."""
        with tempfile.TemporaryDirectory() as folder:  # from memory ncnn would go on reading bytes that Python frees
            param = Path(folder, "model.param")
            param.write_text(model[0], encoding="ascii")
            param.with_suffix(".bin").write_bytes(model[1])
            return cls(param, threads, streams)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outputs for RGB uint8 images (B, H, W, 3). Raises InputError where a side is no multiple of 16."""
        check_sides(images)
        low, high = (np.stack(maps) for maps in zip(*map(self._run, images), strict=True))
        return low, high

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._mat.from_pixels(np.ascontiguousarray(image), self._pixel, width, height))
        return [np.array(extractor.extract(name)[1]) for name in OUTPUTS]


def _read_metadata(path: Path) -> dict[str, str]:
    """What the JSON beside a model says of it, each value as JSON again."""
    try:
        return {key: json.dumps(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        raise InputError("holds no metadata", path, "export the model again") from None
