"""Pieces and whole networks, made runnable on the runtimes of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ofa_pose.arch.plan import Apply, Block, Layer, Output, run_layers
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import INPUT
from ofa_pose.backends.folding import NetPart, whole
from ofa_pose.backends.on_device import Run, keep_memory, processors
from ofa_pose.backends.runtimes import find_backend
from ofa_pose.latency.pieces import Part, part_layers, piece_part
from ofa_pose.latency.subjects import Subject
from ofa_pose.models.litepose import LitePose, Unit, make_layer
from ofa_pose.utils.errors import InputError


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

    Raises:
        InputError: there is none, its package is missing, or there are more threads than processors, which would
            measure how they wait for each other.
    """
    record = find_backend(backend)
    if threads > processors():
        raise InputError(f"{threads} threads on {processors()} processors", hint=f"measure at most {processors()}")
    keep_memory()
    assert record.prepare
    return Device(f"{backend} {record.version}", threads, record.prepare)


def net_part(subject: Subject) -> NetPart:
    """A piece or a whole network with random weights, always the same."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(subject, ArchSpec):
        return whole(LitePose(subject, generator).eval().requires_grad_(False))
    net = PieceNet(piece_part(subject), generator)
    return NetPart(net, _inputs(net.part), {"y": net.layers[-1].cout}, net.walk)


class PieceNet(nn.Module):
    """A piece as a module in eval mode."""

    def __init__(self, part: Part, generator: torch.Generator) -> None:
        super().__init__()
        self.part, self.layers = part, tuple(part_layers(part))  # in the order of execution
        self._names = {layer.name: f"layer{index}" for index, layer in enumerate(self.layers)}
        for layer in self.layers:
            unit = make_layer(layer)
            self.add_module(self._names[layer.name], unit)
            if layer.kind != "norm":
                LitePose.init_conv(layer, unit.conv.weight, generator)
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """The output for inputs (B, channels, side, side); an image is normalised already."""
        return self.walk(lambda layer, x: self.unit(layer)(x), *inputs)

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""
        return getattr(self, self._names[layer.name])

    def walk(self, apply: Apply, *inputs: Any) -> tuple[Any]:
        """Compute the piece with `apply(layer, input)`."""
        part, first, last = self.part, inputs[0], inputs[-1]
        if isinstance(part, tuple):
            return (run_layers(part, first, apply),)
        if isinstance(part, Block):
            return (part.run(first, apply),)
        return (part.run(first, last, apply),)


def _inputs(part: Part) -> dict[str, tuple[int, int]]:
    """The name of every input, and its (channels, side)."""
    if isinstance(part, tuple):
        return {INPUT: (3, part[0].side_in)}
    if isinstance(part, Block):
        return {"x": (part.layers[0].cin, part.layers[0].side_in)}
    refined, raw = (part.refined[0], part.raw and part.raw[0]) if isinstance(part, Output) else (part.refined, part.raw)
    return {f"x.{index}": (layer.cin, layer.side_in) for index, layer in enumerate((refined, raw)) if layer}
