"""Files that runtimes compute a network from; each is compared with torch before it takes its place."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ofa_pose.backends import ExportedRunner
from ofa_pose.backends.exported import open_runner
from ofa_pose.backends.ncnn_graph import ncnn_model
from ofa_pose.backends.onnx_graph import onnx_model
from ofa_pose.backends.openvino_runner import METADATA
from ofa_pose.backends.torchscript import TorchscriptRunner, write_torchscript
from ofa_pose.exports.checks import TOLERANCE, compare
from ofa_pose.exports.int8 import export_int8
from ofa_pose.exports.source import Source, metadata
from ofa_pose.utils import files


def checked(
    runtime: str,
    suffixes: tuple[str, ...],
    write: Callable[[Source, Path], dict[str, Any] | None],
    run: Callable[[Path, int], ExportedRunner] = open_runner,
    tolerance: float = TOLERANCE,
) -> Callable[[Source, Path], dict[str, Any]]:
    """A writer of models that are compared with torch.

    Args:
        runtime: its name, for people.
        suffixes: of all files that `write` writes.
        write: `write(source, path)` writes a model whose first file is `path`, in a folder of its own, and returns what
            else there is to say about it.
        run: `run(path, threads)` makes a runner of that file.
        tolerance: see `compare`.
    """

    def write_checked(source: Source, path: Path) -> dict[str, Any]:
        """Returns {'seconds': of writing}, what `compare` and what `write` do. Raises OfaPoseError where the outputs
        differ."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            temporary, start = Path(folder, path.name), time.perf_counter()
            told = write(source, temporary)
            seconds = time.perf_counter() - start
            report = compare(run(temporary, 1), source.reference, runtime, tolerance)
            for suffix in reversed(suffixes):  # the file that leads to the others last
                name = f"{source.name}{suffix}"
                Path(folder, name).replace(path.parent / name)
        return {"seconds": seconds, **report, **(told or {})}

    return write_checked


def write_onnx(source: Source, path: Path) -> None:
    """An ONNX model with its metadata in metadata_props."""
    import onnx

    model = onnx_model(source.net, metadata(source, in_graph=True))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def write_openvino(source: Source, path: Path) -> None:
    """An .xml and a .bin, in single precision, with the metadata in rt_info."""
    import openvino

    model = openvino.Core().read_model(onnx_model(source.net, {}).SerializeToString())
    for key, value in metadata(source, in_graph=True).items():
        model.set_rt_info(value, [METADATA, key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def write_ncnn(source: Source, path: Path) -> None:
    """A .param and a .bin, and the metadata as .json beside them."""
    param, weights = ncnn_model(source.net)
    files.write_text(path, param)
    path.with_suffix(".bin").write_bytes(weights)
    values = {key: json.loads(value) for key, value in metadata(source, in_graph=True).items()}
    files.write_json(path.with_suffix(".json"), values)


def _write_int8(source: Source, path: Path) -> dict[str, Any]:
    assert source.int8 is not None
    exact = path.with_name("exact.onnx")
    write_onnx(source, exact)
    return export_int8(exact, path, source.int8, source.net.spec.resolution, source.decode, threads=1)


def _write_torchscript(source: Source, path: Path) -> None:
    write_torchscript(source.net, path, metadata(source, in_graph=True))


# 'model.bin' is OpenVINO's: ncnn's files go by the names that its own converter gives them.
SUFFIXES = {
    "onnx": (".onnx",),
    "onnx-int8": (".int8.onnx",),
    "openvino": (".xml", ".bin"),
    "ncnn": (".ncnn.param", ".ncnn.bin", ".ncnn.json"),
    "torchscript": (".torchscript.pt",),
}
WRITERS = {
    "onnx": checked("ONNX Runtime", SUFFIXES["onnx"], write_onnx),
    "onnx-int8": checked("ONNX Runtime in int8", SUFFIXES["onnx-int8"], _write_int8, tolerance=math.inf),
    "openvino": checked("OpenVINO", SUFFIXES["openvino"], write_openvino),
    "ncnn": checked("ncnn", SUFFIXES["ncnn"], write_ncnn),
    "torchscript": checked(
        "TorchScript", SUFFIXES["torchscript"], _write_torchscript, lambda path, _: TorchscriptRunner(path)
    ),
}
