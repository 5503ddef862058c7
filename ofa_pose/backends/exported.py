"""Exported models as runners, by their files' suffixes. Needs NumPy and the model's own runtime, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ofa_pose.backends import ExportedRunner
from ofa_pose.backends.ncnn_runner import NcnnRunner
from ofa_pose.backends.onnx_runner import OnnxRunner
from ofa_pose.backends.openvino_runner import OpenvinoRunner
from ofa_pose.utils.errors import InputError

_RUNNERS: dict[str, Callable[[str | Path, int, int], ExportedRunner]] = {
    ".onnx": OnnxRunner,
    ".xml": OpenvinoRunner,
    ".param": NcnnRunner,
}
SUFFIXES = tuple(_RUNNERS)


def open_runner(path: str | Path, threads: int = 0, streams: int = 1) -> ExportedRunner:
    """A runner over an exported model.

    Args:
        path: an .onnx file, OpenVINO's .xml with its .bin beside it, or ncnn's .param with its .bin and .json.
        threads: of one call; 0: the runtime chooses.
        streams: how many calls are meant to be made at once.

    Raises:
        InputError: no such file, no exported model, its runtime is not installed, or no such number of threads.
    """
    path = Path(path)
    if threads < 0 or streams < 1:  # ncnn would end the process
        raise InputError(f"there are no {threads} threads in {streams} streams", hint="threads from 0, streams from 1")
    if path.suffix not in _RUNNERS:
        raise InputError(
            "is not an exported model", path, f"name a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    if not path.is_file():
        raise InputError("no such file", path, "check the path")
    return _RUNNERS[path.suffix](path, threads, streams)
