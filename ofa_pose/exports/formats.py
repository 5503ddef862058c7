"""A network's files for other programs: config (YAML, LitePose's JSON), weights (safetensors, LitePose's), models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ofa_pose.arch.presets import check_rebuildable, litepose_from_spec
from ofa_pose.backends import runtimes
from ofa_pose.backends.runtimes import Backend
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import check_loadable, litepose_state_dict
from ofa_pose.costs.profile import profile
from ofa_pose.exports.int8 import Pair, export_int8, int8_data
from ofa_pose.exports.models import ExportSource, metadata, open_source, write_model
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.result import Result, plain


@dataclass(frozen=True)
class Format:
    """One thing that a network can be written as.

    Attributes:
        suffixes: of its files; the first is the one that other programs are given.
        write: `write(source, path)` writes them, the first to `path`, and returns what there is to say about them.
        backend: the runtime whose packages it needs.
        check: raises InputError on a network that it cannot hold, before anything is written.
    """

    suffixes: tuple[str, ...]
    write: Callable[[ExportSource, Path], dict[str, Any] | None]
    backend: Backend | None = None
    check: Callable[[LitePose], object] | None = None


@dataclass(frozen=True)
class ExportResult(Result):
    """What was written.

    Attributes:
        files: each format's first file; bytes: of all files of a format.
        reports: of a format what there is to say about it. A model's has what `write_model` gives ('max_difference',
            'sizes', 'ms', 'seconds'), that of 'onnx-int8' also what `export_int8` gives, and of several files all
            'files'. LitePose's JSON has a 'warning' where that repository's code would build another net from it.
    """

    files: dict[str, Path] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """{'files', 'bytes', and each format's report}."""
        return {"files": plain(self.files), "bytes": self.bytes, **self.reports}


def export_checkpoint(
    checkpoint: Checkpoint | str | Path,
    formats: Sequence[str] | None,
    out: str | Path,
    name: str = "model",
    calibration: Pair | None = None,
    evaluation: Pair | None = None,
) -> ExportResult:
    """See `ofa_pose.export`; files are called OUT/NAME and a suffix. A supernet has one format, 'litepose-weights'.

    Args:
        formats: any of `FORMATS`; None: those of `DEFAULT_FORMATS` that this network can be written in.
        calibration, evaluation: see `int8_data`.
    """
    for wanted in formats or ():
        if wanted not in _FORMATS:
            raise InputError(f"no such format: '{wanted}'", hint=nearest(wanted, FORMATS))
    files.check_folder(out)
    for wanted in formats or DEFAULT_FORMATS:
        if backend := _FORMATS[wanted].backend:
            backend.require()
    source = open_source(checkpoint, name, supernets=formats is not None and set(formats) <= SUPERNET_FORMATS)
    if formats is None:
        formats = [known for known in DEFAULT_FORMATS if known != "litepose" or source.net.spec.head == "fusion"]
    for wanted in formats:
        if check := _FORMATS[wanted].check:
            check(source.net)
    if INT8 in formats:
        source = replace(source, int8=int8_data(source.recipe, source.skeleton, calibration, evaluation))
    result = ExportResult()
    for wanted in dict.fromkeys(formats):
        paths = [Path(out) / f"{name}{suffix}" for suffix in _FORMATS[wanted].suffixes]
        report = _FORMATS[wanted].write(source, paths[0]) or {}
        result.files[wanted] = paths[0]
        result.bytes[wanted] = sum(path.stat().st_size for path in paths)
        if len(paths) > 1:
            report = {"files": [str(path) for path in paths], **report}
        if report:
            result.reports[wanted] = report
    return result


def _write_yaml(source: ExportSource, path: Path) -> None:
    """Spec, joints, parameters and MACs; `load_spec` reads it."""
    figures = profile(source.net.spec, source.name)
    value = {"name": source.name, "spec": source.net.spec.to_dict(), "skeleton": source.skeleton.to_dict()}
    value |= {"params": figures["params"], "macs": figures["macs"]}
    files.write_text(path, files.dump_yaml(value))


def _write_litepose(source: ExportSource, path: Path) -> dict[str, Any] | None:
    """`load_spec` reads it as it is, whatever that repository's own code makes of it."""
    files.write_json(path, litepose_from_spec(source.net.spec))
    try:
        check_rebuildable(source.net.spec)
    except InputError as error:
        return {"warning": error.faults[0].what}
    return None


def _write_litepose_weights(source: ExportSource, path: Path) -> None:
    """A bare state dict, as that repository's `load_state_dict(torch.load(…), strict=True)` wants it."""
    weights = litepose_state_dict(source.net)
    with files.replacing(path) as temporary, temporary.open("wb") as file:  # a path's name would go into the file
        torch.save(weights, file)


def _write_safetensors(source: ExportSource, path: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: value.contiguous() for name, value in source.net.state_dict().items()}
    with files.replacing(path) as temporary:
        save_file(weights, temporary, {"format": "pt", **metadata(source, in_graph=False)})


def _write_int8(source: ExportSource, path: Path) -> dict[str, Any]:
    data, resolution, config = source.int8, source.net.spec.resolution, source.decode
    assert data is not None
    onnx, suffixes = runtimes.FORMATS["onnx"].backend, _FORMATS[INT8].suffixes

    def write(path: Path) -> dict[str, Any]:
        exact = path.with_name("exact.onnx")
        assert onnx.write
        onnx.write(source.net, exact, metadata(source, in_graph=True))
        return export_int8(exact, path, data, resolution, config, threads=1)

    return write_model(onnx, source, path, suffixes, write, math.inf)


def _model(backend: Backend) -> Format:
    return Format(backend.files, lambda source, path: write_model(backend, source, path, backend.files), backend)


INT8 = "onnx-int8"
_FORMATS = {
    "yaml": Format((".yaml",), _write_yaml),
    "litepose": Format((".litepose.json",), _write_litepose, check=lambda net: litepose_from_spec(net.spec)),
    "litepose-weights": Format((".litepose.pth.tar",), _write_litepose_weights, check=check_loadable),
    "safetensors": Format((".safetensors",), _write_safetensors),
    **{name: _model(entry.backend) for name, entry in runtimes.FORMATS.items()},
    INT8: Format((".int8.onnx",), _write_int8, runtimes.FORMATS["onnx"].backend),
}
FORMATS = tuple(_FORMATS)
SUPERNET_FORMATS = {"litepose-weights"}
DEFAULT_FORMATS = ("yaml", "litepose", "safetensors", "onnx")  # the rest: not of every net, or for one runtime alone
