"""The layer plan: every layer of a network with its shape, and how they join. The single truth about a network.

What computes the layers is left open: a net, a supernet, or the writer of another runtime's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

from ofa_pose.arch.spec import ArchSpec

STEM_WIDTH = 32  # channels before the stem's pointwise convolution; not elastic
STAGE_STRIDES = (2, 2, 2, 1)
DECONV_KERNEL = 4
HEAD_KERNEL = 5
Kind = Literal["conv", "deconv", "norm"]


@dataclass(frozen=True)
class Layer:
    """A convolution, transposed convolution or lone BatchNorm with its normalisation and activation.

    Attributes:
        name: path of its module in the network, such as 'stages.0.1.expand'.
        reads, writes: the groups of channels at its input and output; layers that share a group share its order.
        side_in, side_out: in cells, at the spec's resolution.
        norm: a BatchNorm follows (or, for kind 'norm', is the layer).
    """

    name: str
    kind: Kind
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


class Addable(Protocol):
    """What flows along a plan: a tensor, or what stands for one in a graph that is being written."""

    def __add__(self, other: Self, /) -> Self: ...


Value = TypeVar("Value", bound=Addable)
Apply = Callable[[Layer, Any], Any]
"""`apply(layer, input)` computes one layer with its normalisation and activation."""


def run_layers(layers: Sequence[Layer], x: Value, apply: Apply) -> Value:
    """Layers one after another; the stem's: (B, 3, H, W) → (B, C0, H/2, W/2)."""
    for layer in layers:
        x = apply(layer, x)
    return x


@dataclass(frozen=True)
class Block:
    """An MBConv block: expand, depthwise, project; `residual` adds its input to its output."""

    layers: tuple[Layer, Layer, Layer]
    residual: bool

    def run(self, x: Value, apply: Apply) -> Value:
        """(B, cin, h, w) → (B, cout, h/stride, w/stride)."""
        y = run_layers(self.layers, x, apply)
        return x + y if self.residual else y


@dataclass(frozen=True)
class Output:
    """One of the two outputs: separable convolutions on the refined map plus, in a fusion head, on the raw map."""

    refined: tuple[Layer, Layer]
    raw: tuple[Layer, Layer] | None
    raw_source: int

    def run(self, refined: Value, raw: Value, apply: Apply) -> Value:
        """(B, ·, h, w) of both maps → (B, J or 2J, h, w)."""
        refined = run_layers(self.refined, refined, apply)
        return refined + run_layers(self.raw, raw, apply) if self.raw else refined


@dataclass(frozen=True)
class DeconvStep:
    """Deconv of the refined path plus, in a fusion head, deconv of backbone map `raw_source`, then BN and ReLU."""

    refined: Layer
    raw: Layer | None
    raw_source: int
    norm: Layer
    output: Output | None

    def run(self, refined: Value, raw: Value, apply: Apply) -> Value:
        """The step without its output: (B, ·, h, w) of both maps → (B, filters, 2h, 2w)."""
        refined = apply(self.refined, refined)
        if self.raw:
            refined = refined + apply(self.raw, raw)
        result: Value = apply(self.norm, refined)
        return result


@dataclass(frozen=True)
class Plan:
    """A network: stem, four stages of blocks, three deconv steps, two of which lead to an output.

    Backbone maps are numbered 0 (stem, 1/2), 1 to 4 (stages, 1/4, 1/8, 1/16, 1/16).
    """

    spec: ArchSpec
    stem: tuple[Layer, ...]
    stages: tuple[tuple[Block, ...], ...]
    deconv: tuple[DeconvStep, ...]

    def run(self, image: Value, apply: Apply) -> tuple[Value, Value]:
        """Compute the network of images (B, 3, H, W) float, H and W multiples of 16, with `apply(layer, input)`.

        Returns low (B, 2J, H/4, W/4), J heatmaps, then J tag maps, and high (B, J, H/2, W/2), heatmaps.
        """
        maps = [run_layers(self.stem, image, apply)]
        for stage in self.stages:
            x = maps[-1]
            for block in stage:
                x = block.run(x, apply)
            maps.append(x)
        refined, outputs = maps[-1], []
        for step in self.deconv:
            refined = step.run(refined, maps[step.raw_source], apply)
            if step.output:
                outputs.append(step.output.run(refined, maps[step.output.raw_source], apply))
        low, high = outputs
        return low, high

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

    Where these are integer NumPy arrays that broadcast, it is the plan of many networks of the same depths at once:
    channels and sides of its layers are arrays too.
    """
    half, fusion = spec.resolution // 2, spec.head == "fusion"
    image, first, last = (
        _Map("image", 3, spec.resolution),
        _Map("stem.0", STEM_WIDTH, half),
        _Map("stem", spec.stem, half),
    )
    stem = (
        image.to(first, "stem.0", kernel=3, stride=2, act="relu6"),
        first.to(first, "stem.1", kernel=3, depthwise=True, act="relu6"),
        first.to(last, "stem.2"),
    )
    stages: list[list[Block]] = []
    maps = [last]
    for index, expansions in enumerate(spec.expansions):
        stages.append([])
        for number, expansion in enumerate(expansions):
            name, stride = f"stages.{index}.{number}", STAGE_STRIDES[index] if number == 0 else 1
            wide = _Map(f"{name}.hidden", last.channels * expansion, last.side)
            small = wide._replace(side=last.side // stride)
            source, last = last, _Map(f"stages.{index}", spec.stages[index], small.side)
            expand = source.to(wide, f"{name}.expand", act="relu6")
            mix = wide.to(small, f"{name}.depthwise", kernel=spec.kernel, stride=stride, depthwise=True, act="relu6")
            stages[-1].append(Block((expand, mix, small.to(last, f"{name}.project")), residual=number > 0))
        maps.append(last)
    steps: list[DeconvStep] = []
    for index, filters in enumerate(spec.deconv):
        raw, name = len(maps) - 2 - index, f"deconv.{index}"
        source, last = last, _Map(name, filters, last.side * 2)
        refined, fused = (
            one.to(last, f"{name}.{path}", "deconv", kernel=DECONV_KERNEL, stride=2, norm=False)
            for one, path in ((source, "refined"), (maps[raw], "raw"))
        )
        norm, output = last.to(last, f"{name}.norm", "norm", act="relu"), None
        if index:
            result = _Map(f"outputs.{index - 1}", spec.joints * 2 if index == 1 else spec.joints, last.side)
            ways = (_separable(last, result, "refined"), _separable(maps[raw - 1], result, "raw") if fusion else None)
            output = Output(*ways, raw - 1)
        steps.append(DeconvStep(refined, fused if fusion else None, raw, norm, output))
    return Plan(spec, stem, tuple(map(tuple, stages)), tuple(steps))


class _Map(NamedTuple):
    """What layers read and write: its group, and how many channels and cells a side it has."""

    group: str
    channels: int
    side: int

    def to(self, other: _Map, name: str, kind: Kind = "conv", **options: Any) -> Layer:
        """The layer that makes another map of this one."""
        return Layer(
            name, kind, self.group, other.group, self.channels, other.channels, self.side, other.side, **options
        )


def _separable(source: _Map, result: _Map, path: str) -> tuple[Layer, Layer]:
    name = f"{result.group}.{path}"
    depthwise = source.to(source, f"{name}.depthwise", kernel=HEAD_KERNEL, depthwise=True, act="relu")
    return depthwise, source.to(result, f"{name}.pointwise", norm=False)
