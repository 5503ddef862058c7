"""A network's files for other programs: config (YAML, LitePose's JSON), weights (safetensors, LitePose's), models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ofa_pose.arch.litepose_config import check_rebuildable, litepose_from_spec
from ofa_pose.backends.packages import require_packages
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import check_loadable, litepose_state_dict
from ofa_pose.costs.profile import profile
from ofa_pose.exports import runtimes
from ofa_pose.exports.int8 import Pair, int8_data
from ofa_pose.exports.source import Source, metadata, open_source
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError, nearest


@dataclass(frozen=True)
class Format:
    """One thing that a network can be written as.

    Attributes:
        suffixes: of its files; the first is the one that other programs are given.
        write: `write(source, path)` writes them, the first to `path`, and returns what there is to say about them.
        packages: optional packages that it needs.
        check: raises InputError on a network that it cannot hold, before anything is written.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Source, Path], dict[str, Any] | None]
    packages: tuple[str, ...] = ()
    check: Callable[[LitePose], object] | None = None


def export_checkpoint(
    checkpoint: Checkpoint | str | Path,
    formats: Sequence[str] | None,
    out: str | Path,
    name: str = "model",
    calibration: Pair | None = None,
    evaluation: Pair | None = None,
) -> dict[str, Any]:
    """Write a network in other formats, as OUT/NAME and a suffix: model.yaml, model.onnx and the like.

    A supernet has one format, 'litepose-weights'.

    Args:
        checkpoint: a checkpoint, or what `load_checkpoint` takes.
        formats: any of `FORMATS`; None: those of `DEFAULT_FORMATS` that this network can be written in.
        calibration, evaluation: the images of 'onnx-int8', see `int8_data`; by default those of the recipe.

    Returns:
        {'files': {format: path of its first file}, 'bytes': {format: of all its files}}; for a runtime's format
        {format: {'max_difference', 'sizes', 'ms', 'seconds', and 'files': all paths, where there are several}}: the
        largest absolute difference from torch's outputs, the inputs (batch, height, width) it was measured on, the
        median time of one image at the net's resolution in one thread, and how long writing took;
        for LitePose's JSON 'litepose': {'warning'} where that repository's code would build another net from it;
        'onnx-int8' also tells what `export_int8` does.

    Raises:
        InputError: a supernet, an unknown format, one that does not know the network's head, a package is not
            installed, or LitePose's code, for its weights, would build another net; nothing is written then.
        OfaPoseError: a runtime does not compute what torch computes; that format's files are not written.
    """
    for wanted in formats or ():
        if wanted not in _FORMATS:
            raise InputError(f"no such format: '{wanted}'", hint=nearest(wanted, FORMATS))
    files.check_folder(out)
    for wanted in formats or DEFAULT_FORMATS:
        require_packages(*_FORMATS[wanted].packages)
    source = open_source(checkpoint, name, supernets=formats is not None and set(formats) <= SUPERNET_FORMATS)
    if formats is None:
        formats = [known for known in DEFAULT_FORMATS if known != "litepose" or source.net.spec.head == "fusion"]
    for wanted in formats:
        check = _FORMATS[wanted].check
        if check:
            check(source.net)
    if INT8 in formats:
        source = replace(source, int8=int8_data(source.recipe, source.skeleton, calibration, evaluation))
    summary: dict[str, Any] = {"files": {}, "bytes": {}}
    for wanted in dict.fromkeys(formats):
        paths = [Path(out) / f"{name}{suffix}" for suffix in _FORMATS[wanted].suffixes]
        report = _FORMATS[wanted].write(source, paths[0])
        summary["files"][wanted] = str(paths[0])
        summary["bytes"][wanted] = sum(path.stat().st_size for path in paths)
        if report:
            summary[wanted] = report
        if len(paths) > 1:
            summary[wanted] = {"files": [str(path) for path in paths], **(report or {})}
    return summary


def _write_yaml(source: Source, path: Path) -> None:
    """Spec, joints, parameters and MACs; `load_spec` reads it."""
    figures = profile(source.net.spec, source.name)
    value = {"name": source.name, "spec": source.net.spec.to_dict(), "skeleton": source.skeleton.to_dict()}
    value |= {"params": figures["params"], "macs": figures["macs"]}
    files.write_text(path, files.dump_yaml(value))


def _write_litepose(source: Source, path: Path) -> dict[str, Any] | None:
    """`load_spec` reads it as it is, whatever that repository's own code makes of it."""
    files.write_json(path, litepose_from_spec(source.net.spec))
    try:
        check_rebuildable(source.net.spec)
    except InputError as error:
        return {"warning": error.faults[0].what}
    return None


def _write_litepose_weights(source: Source, path: Path) -> None:
    """A bare state dict, as that repository's `load_state_dict(torch.load(…), strict=True)` wants it."""
    weights = litepose_state_dict(source.net)
    with files.replacing(path) as temporary, temporary.open("wb") as file:  # a path's name would go into the file
        torch.save(weights, file)


def _write_safetensors(source: Source, path: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: value.contiguous() for name, value in source.net.state_dict().items()}
    with files.replacing(path) as temporary:
        save_file(weights, temporary, {"format": "pt", **metadata(source, in_graph=False)})


def _model(name: str, *packages: str) -> Format:
    return Format(runtimes.SUFFIXES[name], runtimes.WRITERS[name], packages)


INT8 = "onnx-int8"
_FORMATS = {
    "yaml": Format((".yaml",), _write_yaml),
    "litepose": Format((".litepose.json",), _write_litepose, check=lambda net: litepose_from_spec(net.spec)),
    "litepose-weights": Format((".litepose.pth.tar",), _write_litepose_weights, check=check_loadable),
    "safetensors": Format((".safetensors",), _write_safetensors),
    "onnx": _model("onnx", "onnx", "onnxruntime"),
    INT8: _model(INT8, "onnx", "onnxruntime"),
    "openvino": _model("openvino", "openvino", "onnx"),
    "ncnn": _model("ncnn", "ncnn"),
    "torchscript": _model("torchscript"),
}
FORMATS = tuple(_FORMATS)
SUPERNET_FORMATS = {"litepose-weights"}
DEFAULT_FORMATS = ("yaml", "litepose", "safetensors", "onnx")  # the rest: not of every net, or for one runtime alone
