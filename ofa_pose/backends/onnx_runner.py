"""Run an ONNX model with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.inputs import check_names, check_sides, chunks, planes
from ofa_pose.backends.packages import require_packages
from ofa_pose.utils.errors import InputError


class OnnxRunner:
    """An `ExportedRunner` over an ONNX model that `onnx_model` made; `metadata` are its metadata_props."""

    def __init__(self, source: str | Path | bytes, threads: int = 0, streams: int = 1) -> None:
        """Load a file, or a serialised model.

        Args:
            source: the file, or its content.
            threads: of one call; 0: ONNX Runtime chooses.
            streams: how many calls are meant to be made at once.

        Raises:
            InputError: it is not an ONNX file, or ONNX Runtime is not installed.
        """
        require_packages("onnxruntime")
        import onnxruntime

        self.streams = streams
        model, where = (source, "the model") if isinstance(source, bytes) else (str(source), str(source))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class but Exception
            raise InputError(f"cannot be loaded by ONNX Runtime ({error})", where, "export it again") from None
        reads, writes = self._session.get_inputs(), self._session.get_outputs()
        check_names([part.name for part in reads], [part.name for part in writes], where)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outputs for RGB uint8 images (B, H, W, 3). Raises InputError where a side is not a multiple of 16."""
        check_sides(images)
        outputs = [self._session.run(list(OUTPUTS), {INPUT: planes(chunk)}) for chunk in chunks(images)]
        low, high = outputs[0] if len(outputs) == 1 else map(np.concatenate, zip(*outputs, strict=True))
        return low, high
