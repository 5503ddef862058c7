"""A network's files for other programs: config (YAML, LitePose's JSON), weights (safetensors, LitePose's), models.

A model for a runtime is compared with torch before it takes its place.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_pose.arch.presets import check_rebuildable, litepose_from_spec
from ofa_pose.arch.spec import MEAN, STD, TOTAL_STRIDE, ArchSpec
from ofa_pose.backends import runtimes
from ofa_pose.backends.coreml import BACKEND as CORE_ML
from ofa_pose.backends.folding import whole
from ofa_pose.backends.on_device import cpu_name, time_runs
from ofa_pose.backends.onnxruntime import onnx_model
from ofa_pose.backends.runners import JOINTS, LIST, OUTPUTS, JointRunner, Runner, write_metadata
from ofa_pose.backends.runtimes import Backend
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint, fixed_net, load_checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import check_loadable, litepose_state_dict
from ofa_pose.data.keypoint_dataset import Source
from ofa_pose.exports.in_graph import COLUMNS, add_decoder, check_candidates, compare_joints
from ofa_pose.exports.int8 import QUANTISERS, Int8Data, export_int8, int8_data
from ofa_pose.families.profile import profile_net
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils import atomic, files
from ofa_pose.utils.errors import InputError, OfaPoseError, nearest
from ofa_pose.utils.result import Result, plain
from ofa_pose.utils.seeding import generator
from ofa_pose.web.pose_page import PAGE, write_page
from ofa_pose.web.runtime_files import check_runtime_files

REPEATS = 20
HALF_TOLERANCE = 0.02  # what outputs within ±1 may differ, of 16-bit floats
ANY_NET = "use yaml, safetensors or a runtime's format"
LIST_S = 10.0  # in which another export has written its list
LONG_S = 1.0  # of repeats: slow networks are repeated less often
Outputs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ExportSource:
    """A network in eval mode on the CPU, and what its files say about it."""

    net: PoseNet
    skeleton: Skeleton
    decode: DecodeConfig  # how poses are read from its outputs
    recipe: Mapping[str, Any]  # what it was trained with
    name: str  # what its files' names begin with
    int8: Int8Data | None = None  # what an int8 form of it is made with
    runtime_files: Path | None = None  # the folder of onnxruntime-web's files that a page is given
    sha256: str | None = None  # of the checkpoint's file


def open_source(checkpoint: Checkpoint | str | Path, name: str, supernets: bool) -> ExportSource:
    """What to write a checkpoint's files from. Raises InputError on a supernet's, unless those are allowed."""
    where = "" if isinstance(checkpoint, Checkpoint) else str(checkpoint)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    net = source.build() if supernets else fixed_net(source, where)
    return ExportSource(net, source.skeleton, source.decode, source.recipe, name, sha256=source.sha256)


def metadata(source: ExportSource, in_graph: bool, decoded: bool = False) -> dict[str, str]:
    """What a program needs to feed the network and to read its outputs, each value as JSON.

    Normalised pixel = (pixel / 255 - mean) / std in RGB order; `in_graph`: the graph does that itself; `decoded`: it
    holds the decoder too, see `in_graph.add_decoder`.
    """
    outputs = {"outputs": {JOINTS: COLUMNS}} if decoded else {"strides": OUTPUTS}
    values: Mapping[str, Any] = {
        "spec": source.net.spec.to_dict(),
        "skeleton": source.skeleton.to_dict(),
        "grouping_order": source.skeleton.grouping_order,
        "normalisation": {"order": "RGB", "scale": 1 / 255, "mean": MEAN, "std": STD, "in_graph": in_graph},
        **outputs,
        "input_multiple": TOTAL_STRIDE,
        "decode": source.decode.to_dict(),
    }
    return {key: json.dumps(value) for key, value in values.items()}


@dataclass(frozen=True)
class Format:
    """One thing that a network can be written as.

    Attributes:
        suffixes: of its files; the first is the one that other programs are given.
        write: `write(source, path)` writes them, the first to `path`, and returns what there is to say about them.
        backend: the runtime of a model. Where it opens models here, they are compared with torch: `tolerance` is the
            most that outputs may differ.
        check: raises InputError on a network that it cannot hold, before anything is written.
        packages: that writing it needs besides those of the backend.
    """

    suffixes: tuple[str, ...]
    write: Callable[[ExportSource, Path], dict[str, Any] | None]
    backend: Backend | None = None
    tolerance: float = 0.0
    check: Callable[[PoseNet], object] | None = None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportResult(Result):
    """What was written.

    Attributes:
        files: each format's first file; bytes: of all files of a format.
        reports: of a format what there is to say about it. A model's has 'max_difference', 'sizes', 'ms' and 'seconds',
            that of an int8 form also what `export_int8` gives, and of several files all 'files'. LitePose's JSON has a
            'warning' where that repository's code would build another net from it.
        sha256: of the checkpoint's file as it was read; None of one that was read from none.
    """

    files: dict[str, Path] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """{'files', 'bytes', and each format's report}."""
        return {"files": plain(self.files), "bytes": self.bytes, **self.reports}


def export_checkpoint(
    checkpoint: Checkpoint | str | Path,
    formats: Sequence[str] | None,
    out: str | Path,
    name: str = "model",
    calibration: Source | None = None,
    evaluation: Source | None = None,
    decoder_in_graph: bool = False,
    runtime_files: Path | None = None,
) -> ExportResult:
    """See `ofa_pose.export`; files are called OUT/NAME and a suffix. A supernet has one format, 'litepose-weights'.

    Args:
        formats: any of `FORMATS`; None: those of `DEFAULT_FORMATS` that this network can be written in.
        calibration, evaluation: see `int8_data`.
        decoder_in_graph: models hold the decoder and are called OUT/NAME.joints and a suffix; others than those of
            `IN_GRAPH` raise InputError.
        runtime_files: see `ofa_pose.web.runtime_files.add_runtime`.
    """
    for wanted in formats or ():
        if wanted not in _FORMATS:
            raise InputError(f"no such format: '{wanted}'", hint=nearest(wanted, FORMATS))
    if decoder_in_graph and not (formats and {*formats} <= {*IN_GRAPH}):
        raise InputError(f"a decoder in the graph is of {' and '.join(IN_GRAPH)}", hint="name no other --format")
    atomic.check_folder(out)
    if WEB in (formats or ()):
        atomic.check_folder(Path(out) / f"{name}{_FORMATS[WEB].suffixes[0]}")
        ONNX.require()
        if runtime_files is not None:
            check_runtime_files(runtime_files)
    for wanted in formats or DEFAULT_FORMATS:
        if backend := _FORMATS[wanted].backend:
            backend.require(*backend.packages, *backend.to_write, *_FORMATS[wanted].packages)
    source = open_source(checkpoint, name, supernets=formats is not None and set(formats) <= SUPERNET_FORMATS)
    if formats is None:
        fused = isinstance(source.net.spec, ArchSpec) and source.net.spec.head == "fusion"
        formats = [known for known in DEFAULT_FORMATS if known != "litepose" or fused]
    for wanted in formats:
        if check := _FORMATS[wanted].check:
            check(source.net)
    if INT8_FORMATS & {*formats}:
        source = replace(source, int8=int8_data(source.recipe, source.skeleton, calibration, evaluation))
    if decoder_in_graph:
        check_candidates(source.decode)
    table = IN_GRAPH if decoder_in_graph else _FORMATS
    source = replace(source, runtime_files=runtime_files)
    result = ExportResult(sha256=source.sha256)
    for wanted in dict.fromkeys(formats):
        form = table[wanted]
        paths = [Path(out) / f"{name}{suffix}" for suffix in form.suffixes]
        compared = form.backend and form.backend.open
        report = _write_compared(form, source, paths[0]) if compared else form.write(source, paths[0]) or {}
        result.files[wanted] = paths[0]
        result.bytes[wanted] = sum(map(_size, paths))
        if len(paths) > 1:
            report = {"files": [str(path) for path in paths], **report}
        if report:
            result.reports[wanted] = report
    return result


def write_list(out: Path, checkpoint: str | Path, result: ExportResult) -> None:
    """Write OUT/export.json, by which a report finds the files: their names, bytes, times and SHA-256.

    Files that were written there before of the same checkpoint stay listed.
    """
    digest, path, kept = result.sha256, out / LIST, {}
    added: dict[str, dict[str, Any]] = {}
    for name, first in result.files.items():
        report = result.reports.get(name, {})
        added[name] = {"name": first.name, "bytes": result.bytes[name], "ms": report.get("ms"), "AP": report.get("AP")}
        added[name] |= {"sha256": files.sha256(first) if first.is_file() else None, "processor": cpu_name()}
    with atomic.locked_beside(path, LIST_S):  # another export of other formats may add its own now, in a moment
        with contextlib.suppress(InputError, AttributeError, KeyError, TypeError):
            before = files.read_json(path)
            kept = {**before["files"]} if digest and before["sha256"] == digest else {}
        files.write_json(path, plain({"checkpoint": str(checkpoint), "sha256": digest, "files": {**kept, **added}}))


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts if part.is_file())


def _write_yaml(source: ExportSource, path: Path) -> None:
    """Spec, joints, parameters and MACs; `load_spec` reads it."""
    figures = profile_net(source.net.spec, source.name)
    value = {"name": source.name, "spec": source.net.spec.to_dict(), "skeleton": source.skeleton.to_dict()}
    value |= {"params": figures["params"], "macs": figures["macs"]}
    files.write_text(path, files.dump_yaml(value))


def _write_litepose(source: ExportSource, path: Path) -> dict[str, Any] | None:
    """`load_spec` reads it as it is, whatever that repository's own code makes of it."""
    spec = _litepose_spec(source.net)
    files.write_json(path, litepose_from_spec(spec))
    try:
        check_rebuildable(spec)
    except InputError as error:
        return {"warning": f"{error.faults[0].what}, which matters only where that code is to build the net"}
    return None


def _litepose_spec(net: PoseNet) -> ArchSpec:
    """The spec of a LitePose that its repository's configs can describe. Raises InputError of any other net."""
    if not isinstance(net.spec, ArchSpec):
        raise InputError(f"a LitePose config describes no network of the family '{net.spec.family}'", hint=ANY_NET)
    litepose_from_spec(net.spec)
    return net.spec


def _loadable(net: PoseNet) -> LitePose:
    if not isinstance(net, LitePose):
        raise InputError(f"LitePose's code loads no network of the family '{net.spec.family}'", hint=ANY_NET)
    check_loadable(net)
    return net


def _write_litepose_weights(source: ExportSource, path: Path) -> None:
    """A bare state dict, as that repository's `load_state_dict(torch.load(…), strict=True)` wants it."""
    weights = litepose_state_dict(_loadable(source.net))
    content = io.BytesIO()  # a path's name would go into the file, and on a full disk torch fails in words of its own
    torch.save(weights, content)
    files.write_bytes(path, content.getbuffer())


def _write_safetensors(source: ExportSource, path: Path) -> None:
    from safetensors.torch import save

    weights = {name: value.contiguous() for name, value in source.net.state_dict().items()}
    content = save(weights, {"format": "pt", **metadata(source, in_graph=False)})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # in any order, a new one each time
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers behind it stay aligned
    files.write_bytes(path, len(text).to_bytes(8, "little") + text + content[end:])


def _write_web(source: ExportSource, path: Path) -> dict[str, Any]:
    """A folder with a page, its decoder and the ONNX model; the page comes last, when all that it loads is there."""
    model = f"{source.name}.onnx"
    with atomic.temporary_folder(path) as folder:
        report = _write_compared(_FORMATS["onnx"], source, folder / model)
        write_page(folder, model, metadata(source, in_graph=True), source.runtime_files)
        (path / PAGE).unlink(missing_ok=True)
        written = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        for file in sorted(written, key=lambda file: file == Path(PAGE)):
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).replace(path / file)
    return report


def make_reference(net: PoseNet) -> list[tuple[np.ndarray, Outputs]]:
    """Random images of two sizes, and the outputs, low and high, of a network in eval mode for them.

    They are one image at the network's resolution, then two that are not square, their sides odd multiples of 16.
    """
    rng, side = generator("export", "check"), net.spec.resolution
    cells = side // TOTAL_STRIDE
    sizes = ((1, side, side), (2, TOTAL_STRIDE * (cells // 4 | 1), TOTAL_STRIDE * (cells | 1)))
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return list(zip(images, map(TorchRunner(net), images), strict=True))


def compare(
    runner: Runner, reference: list[tuple[np.ndarray, Outputs]], runtime: str, tolerance: float
) -> dict[str, Any]:
    """Run a model on a reference's images; raise OfaPoseError where outputs differ by more than the tolerance.

    Returns {'max_difference': largest absolute difference of any output, 'sizes': [[batch, height, width], …]}.
    """
    worst = 0.0
    for images, outputs in reference:
        for found, expected in zip(runner(images), outputs, strict=True):
            allowed = tolerance * max(1.0, float(np.abs(expected).max()))
            difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
            if not difference <= allowed:  # NaN too
                what = f"{runtime} and torch differ by {difference:.2g} on an input of {images.shape[:3]}"
                raise OfaPoseError(f"{what}; at most {allowed:.2g} was expected")
            worst = max(worst, difference)
    return {"max_difference": worst, "sizes": [list(images.shape[:3]) for images, _ in reference]}


def _write_compared(form: Format, source: ExportSource, path: Path) -> dict[str, Any]:
    """Write a model that a runtime opens, if it computes what torch does; else OfaPoseError is raised.

    Reports 'seconds' (of writing), what `compare` and the format's `write` give, and 'ms', the median time of one image
    at the network's resolution in one thread, if `write` gives none.
    """
    with atomic.temporary_folder(path) as folder:
        temporary, start, backend = folder / path.name, time.perf_counter(), form.backend
        more = form.write(source, temporary) or {}
        seconds = time.perf_counter() - start
        assert backend and backend.open
        runner, reference = backend.open(temporary, 1, 1), make_reference(source.net)
        if isinstance(runner, JointRunner):
            run: Callable[[np.ndarray], Any] = runner.find_joints
            differences = _compare_decoded(form, source, runner, folder, reference)
        else:
            run, differences = runner, compare(runner, reference, backend.title, form.tolerance)
        report = {"seconds": seconds, **differences}
        if "ms" not in more:
            times = time_runs(lambda: run(reference[0][0]), 1, REPEATS, LONG_S)
            report["ms"] = float(np.median(times))
        if len(form.suffixes) > 1:  # one that is killed here leaves no file that leads to another network's
            path.unlink(missing_ok=True)
        for suffix in reversed(form.suffixes):  # the file that leads to the others last
            name = f"{source.name}{suffix}"
            (folder / name).replace(path.parent / name)
    return report | more


def _compare_decoded(
    form: Format, source: ExportSource, runner: JointRunner, folder: Path, reference: list[tuple[np.ndarray, Outputs]]
) -> dict[str, Any]:
    """What `compare` gives of the model without the decoder; joints are compared with those that Python finds there.

    Not with those on torch's maps: these differ in the last bits, and so may what is a peak.
    """
    backend = form.backend
    assert backend and backend.write and backend.open
    path = folder / f"maps{backend.files[0]}"
    backend.write(source.net, path, {})
    maps = backend.open(path, 1, 1)
    differences = compare(maps, reference, backend.title, form.tolerance)
    for images, _ in reference:
        compare_joints(runner.find_joints(images), *maps(images), source.decode, backend.title)
    return differences


def _of_runtime(backend: Backend) -> Format:
    def write(source: ExportSource, path: Path) -> None:
        assert backend.write
        backend.write(source.net, path, metadata(source, in_graph=True))

    return Format(backend.files, write, backend, backend.tolerance, backend.check)


def _with_decoder(backend: Backend) -> Format:
    def write(source: ExportSource, path: Path) -> None:
        model = onnx_model(whole(source.net))
        add_decoder(model, len(source.skeleton.joints), source.decode)
        said = metadata(source, in_graph=True, decoded=True)
        assert backend.save
        backend.save(model, path, said)
        write_metadata(path.with_suffix(".json"), said)  # ONNX Runtime in JavaScript reads none of a model's

    suffixes = tuple(f".joints{suffix}" for suffix in (*backend.files, ".json"))
    return Format(suffixes, write, backend, backend.tolerance, backend.check)


def _of_half(backend: Backend) -> Format:
    def write(source: ExportSource, path: Path) -> None:
        assert backend.write_half
        backend.write_half(source.net, path, metadata(source, in_graph=True))

    return Format((f".fp16{backend.files[0]}",), write, backend, HALF_TOLERANCE, backend.check)


def _of_int8(name: str) -> Format:
    backend = runtimes.FORMATS[name].backend
    (suffix,) = backend.files

    def write(source: ExportSource, path: Path) -> dict[str, Any]:
        exact = path.with_name(f"exact{suffix}")
        assert backend.write and source.int8
        backend.write(source.net, exact, metadata(source, in_graph=True))
        side = source.net.spec.resolution
        return export_int8(exact, path, source.int8, side, source.decode, threads=1, form=name)

    return Format((f".int8{suffix}",), write, backend, math.inf, backend.check, QUANTISERS[name].packages)


ONNX = runtimes.FORMATS["onnx"].backend
WEB = "web"
_BACKENDS = {name: entry.backend for name, entry in runtimes.FORMATS.items()}
_FORMATS = {
    "yaml": Format((".yaml",), _write_yaml),
    "litepose": Format((".litepose.json",), _write_litepose, check=_litepose_spec),
    "litepose-weights": Format((".litepose.pth.tar",), _write_litepose_weights, check=_loadable),
    "safetensors": Format((".safetensors",), _write_safetensors),
    **{name: _of_runtime(backend) for name, backend in _BACKENDS.items()},
    **{f"{name}-fp16": _of_half(backend) for name, backend in _BACKENDS.items() if backend.write_half},
    **{f"{name}-int8": _of_int8(name) for name in QUANTISERS},
    "coreml": _of_runtime(CORE_ML),
    WEB: Format((".web",), _write_web, check=ONNX.check),
}
FORMATS = tuple(_FORMATS)
IN_GRAPH = {name: _with_decoder(runtimes.FORMATS[name].backend) for name in ("onnx", "openvino")}
INT8_FORMATS = {f"{name}-int8" for name in QUANTISERS}
SUPERNET_FORMATS = {"litepose-weights"}
DEFAULT_FORMATS = ("yaml", "litepose", "safetensors", "onnx")  # the rest: not of every net, or for one runtime alone
