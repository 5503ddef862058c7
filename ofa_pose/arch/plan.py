"""The layer plan: every layer of a network with its shape, and how they join. The single truth about a network.

Supernet, extracted net, MAC counter, channel sorting and latency tables all read it, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ofa_pose.arch.spec import ArchSpec

STEM_WIDTH = 32  # channels before the stem's pointwise convolution; not elastic
STAGE_STRIDES = (2, 2, 2, 1)
DECONV_KERNEL = 4
HEAD_KERNEL = 5


@dataclass(frozen=True)
class Layer:
    """A convolution, transposed convolution or lone BatchNorm with its normalisation and activation.

    Attributes:
        name: path of its module in the network, such as 'stages.0.1.expand'.
        reads, writes: names of the channel groups at its input and output; layers that share a group share its order.
        side_in, side_out: input and output sides in cells, at the spec's resolution.
        norm: a BatchNorm follows (or, for kind 'norm', is the layer).
    """

    name: str
    kind: Literal["conv", "deconv", "norm"]
    reads: str
    writes: str
    cin: int
    cout: int
    side_in: int
    side_out: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    norm: bool = True
    act: Literal["relu6", "relu"] | None = None

    @property
    def groups(self) -> int:
        """Groups of the convolution: as many as channels if depthwise, else 1."""
        return self.cin if self.depthwise else 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(cout, cin / groups, k, k) of a convolution, (cin, cout, k, k) of a transposed one."""
        channels = (self.cin, self.cout) if self.kind == "deconv" else (self.cout, self.cin // self.groups)
        return (*channels, self.kernel, self.kernel)

    @property
    def padding(self) -> int:
        """Padding that keeps side_out = side_in / stride (conv) or side_in × stride (deconv 4×4 stride 2)."""
        return (self.kernel - self.stride) // 2 if self.kind == "deconv" else self.kernel // 2


@dataclass(frozen=True)
class Block:
    """An MBConv block: expand, depthwise, project; `residual` adds its input to its output."""

    layers: tuple[Layer, Layer, Layer]
    residual: bool


@dataclass(frozen=True)
class Output:
    """One of the two outputs: separable convolutions on the refined map plus, in a fusion head, on the raw map."""

    refined: tuple[Layer, Layer]
    raw: tuple[Layer, Layer] | None
    raw_source: int


@dataclass(frozen=True)
class DeconvStep:
    """Deconv of the refined path plus, in a fusion head, deconv of backbone map `raw_source`, then BN and ReLU."""

    refined: Layer
    raw: Layer | None
    raw_source: int
    norm: Layer
    output: Output | None


@dataclass(frozen=True)
class Plan:
    """A network: stem, four stages of blocks, three deconv steps, two of which lead to an output.

    Backbone maps are numbered 0 (stem, 1/2), 1 to 4 (stages, 1/4, 1/8, 1/16, 1/16).
    """

    spec: ArchSpec
    stem: tuple[Layer, ...]
    stages: tuple[tuple[Block, ...], ...]
    deconv: tuple[DeconvStep, ...]

    def layers(self) -> Iterator[Layer]:
        """Every layer, in the order of execution."""
        yield from self.stem
        for stage in self.stages:
            for block in stage:
                yield from block.layers
        yield from self.head()

    def head(self) -> Iterator[Layer]:
        """The layers of the deconv steps and of the outputs."""
        for step in self.deconv:
            yield step.refined
            if step.raw:
                yield step.raw
            yield step.norm
            if step.output:
                yield from step.output.refined
                yield from step.output.raw or ()


@lru_cache(maxsize=512)  # 40 kB each
def make_plan(spec: ArchSpec) -> Plan:
    """The layer plan of a network."""
    return build_plan(spec)


def build_plan(spec: ArchSpec) -> Plan:
    """`make_plan` for whatever has an ArchSpec's fields, kept nowhere.

    Where fields are integer NumPy arrays that broadcast, the plan is that of many networks at once: channels and sides
    of its layers are arrays too. Depths are those of `spec.expansions`, the same in all of them.
    """
    side = spec.resolution // 2
    stem = (
        Layer("stem.0", "conv", "image", "stem.0", 3, STEM_WIDTH, spec.resolution, side, 3, 2, act="relu6"),
        Layer("stem.1", "conv", "stem.0", "stem.0", STEM_WIDTH, STEM_WIDTH, side, side, 3, 1, True, act="relu6"),
        Layer("stem.2", "conv", "stem.0", "stem", STEM_WIDTH, spec.stem, side, side),
    )
    stages, maps = [], [_Map("stem", spec.stem, side)]
    for index in range(len(spec.stages)):
        stages.append(_stage(spec, index, maps[-1]))
        last = stages[-1][-1].layers[2]
        maps.append(_Map(last.writes, last.cout, last.side_out))
    return Plan(spec, stem, tuple(stages), _deconv_steps(spec, maps))


@dataclass(frozen=True)
class _Map:
    group: str
    channels: int
    side: int


def _stage(spec: ArchSpec, index: int, source: _Map) -> tuple[Block, ...]:
    blocks = []
    for number, expansion in enumerate(spec.expansions[index]):
        name, stride = f"stages.{index}.{number}", STAGE_STRIDES[index] if number == 0 else 1
        inner, group, width = f"{name}.hidden", f"stages.{index}", spec.stages[index]
        hidden, side = source.channels * expansion, source.side // stride
        sides = (source.side, source.side)
        expand = Layer(f"{name}.expand", "conv", source.group, inner, source.channels, hidden, *sides, act="relu6")
        shape = (hidden, hidden, source.side, side, spec.kernel, stride)
        depthwise = Layer(f"{name}.depthwise", "conv", inner, inner, *shape, depthwise=True, act="relu6")
        project = Layer(f"{name}.project", "conv", inner, group, hidden, width, side, side)
        blocks.append(Block((expand, depthwise, project), residual=number > 0))
        source = _Map(group, width, side)
    return tuple(blocks)


def _deconv_steps(spec: ArchSpec, maps: list[_Map]) -> tuple[DeconvStep, ...]:
    refined, steps = maps[-1], []
    for index, filters in enumerate(spec.deconv):
        source, side, group = len(maps) - 2 - index, refined.side * 2, f"deconv.{index}"
        step = _Map(group, filters, side)
        norm = Layer(f"{group}.norm", "norm", group, group, filters, filters, side, side, act="relu")
        raw = _deconv("raw", maps[source], step) if spec.head == "fusion" else None
        output = _output(spec, index - 1, step, maps[source - 1], source - 1) if index else None
        steps.append(DeconvStep(_deconv("refined", refined, step), raw, source, norm, output))
        refined = step
    return tuple(steps)


def _deconv(path: str, source: _Map, step: _Map) -> Layer:
    shape = (source.channels, step.channels, source.side, step.side, DECONV_KERNEL, 2)
    return Layer(f"{step.group}.{path}", "deconv", source.group, step.group, *shape, norm=False)


def _output(spec: ArchSpec, index: int, refined: _Map, raw: _Map, raw_source: int) -> Output:
    channels = spec.joints * 2 if index == 0 else spec.joints

    def separable(path: str, source: _Map) -> tuple[Layer, Layer]:
        name, width, side = f"outputs.{index}.{path}", source.channels, source.side
        shape = (width, width, side, side, HEAD_KERNEL)
        depthwise = Layer(f"{name}.depthwise", "conv", source.group, source.group, *shape, depthwise=True, act="relu")
        shape = (width, channels, side, side, 1)
        pointwise = Layer(f"{name}.pointwise", "conv", source.group, f"outputs.{index}", *shape, norm=False)
        return depthwise, pointwise

    raw_layers = separable("raw", raw) if spec.head == "fusion" else None
    return Output(separable("refined", refined), raw_layers, raw_source)
