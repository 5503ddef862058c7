"""Run an OpenVINO model on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.backends import INPUT, OUTPUTS
from ofa_pose.backends.inputs import check_names, check_sides, chunks, planes
from ofa_pose.backends.packages import require_packages
from ofa_pose.utils.errors import InputError

METADATA = "ofa_pose"  # the section of the model's rt_info that is ours


class OpenvinoRunner:
    """An `ExportedRunner` over an OpenVINO model; `metadata` are the section 'ofa_pose' of its rt_info.

    One compilation serves all sizes: another for each size takes seconds and runs hardly faster.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 0, streams: int = 1) -> None:
        """Load and compile a model: tenths of a second, as long as some hundred images take.

        Args:
            source: an .xml file with its .bin beside it, or the content of an ONNX file.
            threads: of one call; 0: OpenVINO chooses.
            streams: how many calls are meant to be made at once.

        Raises:
            InputError: it is no such model, or OpenVINO is not installed.
        """
        require_packages("openvino")
        import openvino

        self.streams = streams
        where = "the model" if isinstance(source, bytes) else str(source)
        if not isinstance(source, bytes) and b"<net" not in _start(source):  # OpenVINO would try all that it knows
            raise InputError("is not an OpenVINO model", where, "name the .xml that ofa-pose export wrote")
        core = openvino.Core()
        try:
            model = core.read_model(source if isinstance(source, bytes) else str(source))
            check_names([part.any_name for part in model.inputs], [part.any_name for part in model.outputs], where)
            self.metadata = _metadata(model)
            self._compiled = core.compile_model(model, "CPU", compile_options(threads, streams))
        except RuntimeError as error:
            what = f"cannot be loaded by OpenVINO ({str(error).strip().splitlines()[-1]})"
            raise InputError(what, where, "export it again") from None
        self._own = threading.local()  # a request computes one call at a time

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outputs for RGB uint8 images (B, H, W, 3). Raises InputError where a side is not a multiple of 16."""
        check_sides(images)
        low, high = (np.concatenate(maps) for maps in zip(*map(self._run, chunks(images)), strict=True))
        return low, high

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        results = self._own.request.infer({INPUT: planes(images)}, share_inputs=True)
        return [results[name] for name in OUTPUTS]


def compile_options(threads: int, streams: int = 1) -> dict[str, Any]:
    """What a model is compiled with; by default it would compute in half precision where it can, 1e-3 beside torch.

    Args:
        threads: of one call; 0: OpenVINO chooses.
        streams: how many calls are meant to be made at once.
    """
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams}
    return options | ({"INFERENCE_NUM_THREADS": threads * streams} if threads else {})


def _start(path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(1000)


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info([METADATA]):
        return {}
    return {key: value.astype(str) for key, value in model.get_rt_info([METADATA]).astype(dict).items()}
