"""OpenVINO: models in its own format, made of ONNX graphs, and computed on the CPU in single precision."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.backends.folding import NetPart, whole
from ofa_pose.backends.on_device import Run, random_inputs
from ofa_pose.backends.onnxruntime import onnx_model
from ofa_pose.backends.runners import (
    INPUT,
    JOINTS,
    OUTPUTS,
    ExportedRunner,
    JointRunner,
    check_names,
    in_chunks,
    not_loaded,
)
from ofa_pose.backends.runtimes import Backend
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    import onnx

    from ofa_pose.models.pose_net import PoseNet

SUM = "bin_sha256"  # the entry there with the digest of the weights' file
METADATA = "ofa_pose"  # the section of the model's rt_info that is ours


class OpenvinoRunner:
    """An `ExportedRunner` over an OpenVINO model, compiled once for all sizes; `metadata` stands in its rt_info."""

    def __init__(self, path: str | Path, threads: int = 0, streams: int = 1) -> None:
        """Load and compile an .xml file with its .bin beside it. Raises InputError where it is not such a model."""
        import openvino

        self.streams = streams
        with Path(path).open("rb") as file:
            if b"<net" not in file.read(1000):  # OpenVINO would try all that it knows
                raise InputError("is not an OpenVINO model", path, "name the .xml that ofa-pose export wrote")
        core = openvino.Core()
        try:
            weights = Path(path).with_suffix(".bin")
            with files.in_utf8(Path(path), weights) as (graph, numbers):
                model = core.read_model(graph, numbers)
            reads, writes = ([part.any_name for part in parts] for parts in (model.inputs, model.outputs))
            self.holds_decoder = check_names(reads, writes, str(path))
            section = model.get_rt_info([METADATA]).astype(dict) if model.has_rt_info([METADATA]) else {}
            self.metadata = {key: value.astype(str) for key, value in section.items()}
            stated = self.metadata.pop(SUM, None)  # earlier versions wrote none
            if stated and stated != files.sha256(weights):
                what = f"is not the .bin that was exported with {Path(path).name}"
                raise InputError(what, weights, "copy the two files of one export again")
            self._compiled = core.compile_model(model, "CPU", _options(threads, streams))
        except UnicodeDecodeError:
            raise InputError("is damaged: it holds text that is not UTF-8", path, "export it again") from None
        except RuntimeError as error:
            raise not_loaded("OpenVINO", error, path) from None
        self._own = threading.local()  # a request computes one call at a time

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return in_chunks(partial(self.run, list(OUTPUTS)), images)

    def run(self, outputs: list[str], planes: np.ndarray) -> list[np.ndarray]:
        """Outputs by name, for float32 images (B, 3, H, W) from 0 to 255."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        results = self._own.request.infer({INPUT: planes}, share_inputs=True)
        return [results[name] for name in outputs]


def _open(path: Path, threads: int, streams: int) -> ExportedRunner:
    runner = OpenvinoRunner(path, threads, streams)
    if runner.holds_decoder:
        return JointRunner(partial(runner.run, [JOINTS]), runner.metadata, streams)
    return runner


def _options(threads: int, streams: int = 1) -> dict[str, Any]:
    """What a model is compiled with; by default it would compute in half precision where it can, 1e-3 beside torch."""
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams}
    return options | ({"INFERENCE_NUM_THREADS": threads * streams} if threads else {})


def _write(net: PoseNet, path: Path, metadata: Mapping[str, str]) -> None:
    _save(onnx_model(whole(net)), path, metadata)


def _save(source: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """An .xml and a .bin, in single precision, with the metadata in rt_info."""
    import openvino

    model = openvino.Core().read_model(source.SerializeToString())
    for key, value in metadata.items():
        model.set_rt_info(value, [METADATA, key])
    with files.in_utf8(path, path.with_suffix(".bin")) as (graph, _):
        openvino.save_model(model, graph, compress_to_fp16=False)
        model.set_rt_info(files.sha256(path.with_suffix(".bin")), [METADATA, SUM])
        openvino.save_model(model, graph, compress_to_fp16=False)


def _prepare(part: NetPart, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(onnx_model(part).SerializeToString()), "CPU", _options(threads))
    request, arrays = compiled.create_infer_request(), list(random_inputs(part.inputs).values())
    return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)


BACKEND = Backend(
    title="OpenVINO",
    packages=("openvino",),
    to_write=("onnx",),
    extra="openvino",
    files=(".xml", ".bin"),
    write=_write,
    save=_save,
    open=_open,
    prepare=_prepare,
)
