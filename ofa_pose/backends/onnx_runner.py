"""Run an ONNX model with ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.backends.onnx_graph import INPUT, OUTPUTS
from ofa_pose.errors import InputError


def require_packages(*packages: str) -> None:
    """Raise InputError that names the extra to install where an optional package is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"ONNX needs the package {package}", mend="pip install 'ofa-pose[onnx]'")


CHUNK_PIXELS = 4 * 128 * 128  # of images that are computed together: more of them leave the cache


class OnnxRunner:
    """A `Runner` over an ONNX model that `onnx_model` made.

    Attributes:
        metadata: the model's metadata_props; 'spec' and 'skeleton' are JSON.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 0, streams: int = 1) -> None:
        """Load a file, or a serialised model.

        Args:
            source: the file, or its content.
            threads: of one call; 0: ONNX Runtime chooses.
            streams: how many calls are meant to be made at once.

        Raises:
            InputError: it is no ONNX file, or ONNX Runtime is not installed.
        """
        require_packages("onnxruntime")
        self.streams = streams
        import onnxruntime

        model, where = (source, "the model") if isinstance(source, bytes) else (str(source), str(source))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class but Exception
            raise InputError(f"cannot be loaded by ONNX Runtime ({error})", where, "export it again") from None
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outputs for RGB uint8 images (B, H, W, 3). Raises InputError where a side is no multiple of 16."""
        height, width = images.shape[1:3]
        if height % TOTAL_STRIDE or width % TOTAL_STRIDE or min(height, width) < TOTAL_STRIDE:
            what = f"the network cannot take an input of {width}×{height} pixels"
            raise InputError(what, mend=f"make both sides multiples of {TOTAL_STRIDE}")
        size = max(1, CHUNK_PIXELS // (height * width))
        chunks = (images[start : start + size] for start in range(0, max(1, len(images)), size))
        outputs = [self._session.run(list(OUTPUTS), {INPUT: _planes(chunk)}) for chunk in chunks]
        low, high = outputs[0] if len(outputs) == 1 else map(np.concatenate, zip(*outputs, strict=True))
        return low, high


def _planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
