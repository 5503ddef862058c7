"""The table of runtimes, and what is done with one by its name, its format or a file's suffix.

A runtime is a file here that holds its `Backend` as BACKEND, and a line in TABLE. Importing this loads nothing heavy;
whatever opens exported files needs no torch, as devices have none.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.utils.atomic import scratch_folder
from ofa_pose.utils.errors import MAP_HINT, NOT_MAPPED, InputError, is_memory, nearest

if TYPE_CHECKING:
    import onnx

    from ofa_pose.backends.folding import NetPart
    from ofa_pose.backends.on_device import Run
    from ofa_pose.backends.runners import ExportedRunner, Runner
    from ofa_pose.models.pose_net import PoseNet


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How networks are written for a runtime, opened, computed and timed.

    Attributes:
        title: the runtime's name, for people.
        packages: that it needs, its own first; to_write: those that writing its models needs besides.
        extra: the extra of ours that brings them.
        files: the suffixes of a model's files, that of the one to open first; () where it has no format.
        write: (net, path, metadata): writes a model with metadata, each value as JSON, its first file to `path`.
        write_half: the same in 16-bit floats: its weights, and what is computed where the device can.
        save: (model, path, metadata): `write` of an ONNX graph, where its models may be made of one.
        open: (path, threads, streams): a runner of such a file; 0 threads: it chooses. Raises InputError.
        run: (net, threads): a runner of a copy of a network; needed where it has no format.
        prepare: (part, threads): a part of a network, runnable on random inputs, to be timed.
        bundle: (part): a model's content and further entries of a device bundle's manifest, for `on_device.Bundle`.
        check: raises InputError on a network that its models cannot hold.
        tolerance: what its outputs within ±1 may differ from torch's; larger outputs in proportion.
    """

    title: str
    packages: tuple[str, ...]
    to_write: tuple[str, ...] = ()
    extra: str = ""
    files: tuple[str, ...] = ()
    write: Callable[[PoseNet, Path, Mapping[str, str]], None] | None = None
    write_half: Callable[[PoseNet, Path, Mapping[str, str]], None] | None = None
    save: Callable[[onnx.ModelProto, Path, Mapping[str, str]], None] | None = None
    open: Callable[[Path, int, int], ExportedRunner] | None = None
    run: Callable[[PoseNet, int], Runner] | None = None
    prepare: Callable[[NetPart, int], Run] | None = None
    bundle: Callable[[NetPart], tuple[bytes, dict[str, Any]]] | None = None
    check: Callable[[PoseNet], None] | None = None
    tolerance: float = 1e-4

    def require(self, *packages: str) -> None:
        """Raise InputError that says what to install where a package is missing or broken; default: all of them."""
        from ofa_pose.backends.on_device import runtime_module

        for package in packages or self.packages + self.to_write:
            if importlib.util.find_spec(package) is None:
                # without torch, as on a device, the package alone: the extra would bring torch
                with_extra = self.extra and importlib.util.find_spec("torch")
                wanted = f"'ofa-pose[{self.extra}]'" if with_extra else package
                raise InputError(f"{self.title} needs the package {package}", hint=f"pip install {wanted}")
            try:
                runtime_module(package)
            except (ImportError, OSError) as error:  # such as a shared library that is not there
                if is_memory(error):
                    raise
                if os.strerror(errno.EMFILE) in str(error):
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), package) from None
                what = f"the package {package} is installed and cannot be imported ({' '.join(str(error).split())})"
                hint = f"pip install --force-reinstall {package}, or see what it needs"
                raise InputError(what, hint=MAP_HINT if NOT_MAPPED in what else hint) from None


@dataclass(frozen=True)
class Entry:
    """What is known of a runtime before anything of it is imported."""

    name: str  # as --backend and latency tables name it
    format: str = ""  # of its models, as export names it
    suffix: str = ""  # by which eval, predict and `ofa_pose.runtime` know its models; "" where they do not open them
    file: str = ""  # of this folder that holds its `Backend`; default: the name
    bundled: str = ""  # the suffix of its models in device bundles; "" where none can be made
    bundle: str = ""  # as `latency bundle` names those; default: the format

    @property
    def backend(self) -> Backend:
        """The runtime's record."""
        backend: Backend = importlib.import_module(f"{__package__}.{self.file or self.name}").BACKEND
        return backend


INT8 = "onnxruntime-int8"
CORE_ML = ".mlpackage"  # of its models
TABLE = (
    Entry("onnxruntime", "onnx", ".onnx", bundled=".onnx"),
    Entry(INT8, file="onnxruntime_int8", bundled=".onnx", bundle="onnx-int8"),
    Entry("torch", "torchscript", file="torch_net"),
    Entry("openvino", "openvino", ".xml"),
    Entry("ncnn", "ncnn", ".param", bundled=".param"),
    Entry("litert", "litert", ".tflite", bundled=".tflite.gz"),
)
BACKENDS = {entry.name: entry for entry in TABLE}
FORMATS = {entry.format: entry for entry in TABLE if entry.format}
BUNDLES = {entry.bundle or entry.format: entry for entry in TABLE if entry.bundled}
IN_BROWSERS = ("onnxruntime-web-wasm", "onnxruntime-web-webgpu")  # of latency tables that a page measured
SUFFIXES = {entry.suffix: entry for entry in TABLE if entry.suffix}


def listed(names: Iterable[str]) -> str:
    """Names in words: 'onnx, openvino or ncnn'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def find_backend(name: str) -> Backend:
    """The runtime that a --backend names. Raises InputError where there is none, or it is not installed."""
    if name in IN_BROWSERS:
        hint = "measure there: 'ofa-pose latency bundle --format web', then 'latency import', which verifies it, too"
        raise InputError(f"{name} runs in a browser only", hint=hint)
    if name not in BACKENDS:
        raise InputError(f"no such backend: '{name}'", hint=nearest(name, BACKENDS))
    backend = BACKENDS[name].backend
    backend.require()
    return backend


def make_runner(net: PoseNet, name: str, threads: int = 0) -> Runner:
    """A runner over a copy of `net` as it is now, on the CPU; 0 threads: the runtime chooses. Raises InputError."""
    backend = find_backend(name)
    if backend.run:
        return backend.run(net, threads)
    assert backend.write and backend.open
    if backend.check:
        backend.check(net)
    with scratch_folder() as folder:
        path = folder / f"model{backend.files[0]}"
        backend.write(net, path, {})
        return backend.open(path, threads, 1)


def open_runner(path: str | Path, threads: int = 0, streams: int = 1) -> ExportedRunner:
    """A runner over an exported model, by the suffix of its first file; its others are beside that.

    `streams` calls are meant to be made at once, each in `threads` (0: the runtime chooses). Raises InputError where
    there is no such file, it is not an exported model, its runtime is not installed, or on numbers below those.
    """
    path = Path(path)
    if threads < 0 or streams < 1:  # ncnn would end the process
        raise InputError(f"there are no {threads} threads in {streams} streams", hint="threads from 0, streams from 1")
    if path.suffix == CORE_ML:
        what = "is a model of Core ML, which runs it on Apple's systems alone, such as a Mac"
        raise InputError(what, path, f"name a file that ends in {listed(SUFFIXES)}")
    if path.suffix not in SUFFIXES:
        raise InputError("is not an exported model", path, f"name a file that ends in {listed(SUFFIXES)}")
    if not path.is_file():
        raise InputError("no such file", path, "check the path")
    backend = SUFFIXES[path.suffix].backend
    backend.require(*backend.packages)
    assert backend.open
    return backend.open(path, threads, streams)


def instead_of_checkpoint(path: Path) -> str | None:
    """What to do with a file of an exported model that was taken for a checkpoint; None: of any other file."""
    if path.suffix in SUFFIXES:
        return "predict and eval run exported models; here name the checkpoint"
    formats = {entry: entry.backend.files for entry in FORMATS.values()}
    parts = {entry.suffix: entry for entry, files in formats.items() if any(map(path.name.endswith, files[1:]))}
    if parts:
        return f"it is a part of an exported model: name the {listed(parts)} file beside it"
    for entry, files in formats.items():
        if path.name.endswith(files[0]):
            opened = listed({other.format: other for other in SUFFIXES.values()})
            return f"{entry.backend.title} reads it; here name the checkpoint, or export it as {opened}"
    return None
