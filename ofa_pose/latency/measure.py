"""Measuring on the runtimes of this machine: pieces and networks made runnable, and timed into a latency table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ofa_pose.arch.plan import Apply, Layer
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.folding import NetPart, whole
from ofa_pose.backends.on_device import Run
from ofa_pose.backends.runners import INPUT
from ofa_pose.backends.runtimes import find_backend
from ofa_pose.latency.latency_table import Header, LatencyTable
from ofa_pose.latency.pieces import Part, Subject, piece_part, table_subjects
from ofa_pose.models.litepose import LitePose, Unit, make_layer
from ofa_pose.utils import files
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError

SAVE_S = 5.0


@dataclass(frozen=True)
class Device:
    """A runtime of this machine: `load(subject)()` computes a piece or a network once, at batch 1.

    Attributes:
        runtime: its name and version.
        threads: of one run.
        prepare: see `Backend`.
    """

    runtime: str
    threads: int
    prepare: Callable[[NetPart, int], Run]

    def load(self, subject: Subject) -> Run:
        """Make it runnable, with random weights, on random inputs."""
        return self.prepare(net_part(subject), self.threads)


def open_device(backend: str, threads: int) -> Device:
    """The device of a --backend.

    Raises InputError where there is none, its package is missing, or threads would wait for each other's processors.
    """
    record = find_backend(backend)
    if threads > (there := on_device.processors()):
        raise InputError(f"{threads} threads on {there} processors", hint=f"measure at most {there}")
    on_device.keep_memory()
    assert record.prepare
    version = on_device.runtime_module(record.packages[0]).__version__.split("-")[0]
    return Device(f"{backend} {version}", threads, record.prepare)


def net_part(subject: Subject) -> NetPart:
    """A piece or a whole network with random weights, always the same."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(subject, ArchSpec):
        return whole(LitePose(subject, generator).eval().requires_grad_(False))
    part = piece_part(subject)
    names = {"stem": (INPUT,), "block": ("x",)}.get(subject.kind, ("x.0", "x.1"))
    inputs = {name: (layer.cin, layer.side_in) for name, layer in zip(names, part.reads, strict=False)}
    net = PieceNet(part, generator)
    return NetPart(net, inputs, {"y": part.layers[-1].cout}, net.walk)


class PieceNet(nn.Module):
    """A part of a network as a module in eval mode."""

    def __init__(self, part: Part, generator: torch.Generator) -> None:
        super().__init__()
        self.part = part
        for layer in part.layers:
            unit = make_layer(layer)
            self.add_module(layer.name.replace(".", "_"), unit)
            if layer.kind != "norm":
                LitePose.init_conv(layer, unit.conv.weight, generator)
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """The output for inputs (B, channels, side, side); an image is normalised already."""
        return self.walk(lambda layer, x: self.unit(layer)(x), *inputs)

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""
        return getattr(self, layer.name.replace(".", "_"))

    def walk(self, apply: Apply, *inputs: Any) -> tuple[Any]:
        """Compute the part with `apply(layer, input)`."""
        return (self.part.run(inputs[0], inputs[-1], apply),)


def build_table(
    path: Path, space: SearchSpace, joints: int, backend: str, threads: int, share: float, rounds: int, resume: bool
) -> LatencyTable:
    """See `ofa_pose.latency_build`; the table is written as it grows."""
    files.check_folder(path.parent)
    device = open_device(backend, threads)
    machine = (on_device.cpu_name(), os.cpu_count() or 1, on_device.today())
    header = Header(space, joints, backend, device.runtime, threads, *machine, share, rounds)
    table = _open(path, header, resume)
    subjects = table_subjects(space, joints, share)
    done, saved = sum(len(table.ratios.setdefault(subject, [])) for subject in subjects), time.monotonic()
    try:
        with progress("latency", rounds * len(subjects), "timings", done) as meter:
            anchor: Subject = space.smallest(joints)
            for new in on_device.sweep(device.load, threads, anchor, table.anchor, table.ratios, rounds):
                meter.step(len(new), f"anchor {table.anchor[-1]:.2f} ms")
                if time.monotonic() - saved > SAVE_S:
                    table.save(path)
                    saved = time.monotonic()
    finally:
        if table.anchor:
            table.save(path)
    return table


def _open(path: Path, header: Header, resume: bool) -> LatencyTable:
    if not path.exists():
        return LatencyTable(header)
    if not resume:
        raise InputError("exists already", path, "add --resume to go on with it, or name another file")
    table = LatencyTable.load(path)
    if differing := ", ".join(table.header.differing(header)):
        raise InputError(f"is a table with other settings ({differing})", path, "name another file")
    return table
