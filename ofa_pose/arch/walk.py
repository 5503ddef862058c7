"""Computing a layer plan, whatever computes its layers: a net, a supernet, or the writer of another runtime's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.plan import Block, DeconvStep, Layer, Output, Plan


class Addable(Protocol):
    """What flows along a plan: a tensor, or what stands for one in a graph that is being written."""

    def __add__(self, other: Self, /) -> Self: ...


Value = TypeVar("Value", bound=Addable)
Apply = Callable[[Layer, Any], Any]
"""`apply(layer, input)` computes one layer with its normalisation and activation."""


class LayerWeights(Protocol):
    """The weights of one layer in eval mode, as arrays of float64."""

    def weight(self) -> NDArray[np.float64]:
        """The convolution's: (cout, cin / groups, k, k), or (cin, cout, k, k) of a transposed one."""
        ...

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the BatchNorm does: scale (C,), then shift (C,)."""
        ...


class Units(Protocol):
    """What holds the weights of plan layers: a network, or a lone part of one."""

    def unit(self, layer: Layer) -> LayerWeights:
        """The weights of one layer."""
        ...


def run_plan(plan: Plan, image: Value, apply: Apply) -> tuple[Value, Value]:
    """Walk a plan, computing each layer with `apply(layer, input)`.

    Args:
        image: (B, 3, H, W) float, H and W multiples of 16.

    Returns:
        low (B, 2J, H/4, W/4): J heatmaps, then J tag maps; high (B, J, H/2, W/2): heatmaps.
    """
    maps = [run_layers(plan.stem, image, apply)]
    for stage in plan.stages:
        x = maps[-1]
        for block in stage:
            x = run_block(block, x, apply)
        maps.append(x)
    refined, outputs = maps[-1], []
    for step in plan.deconv:
        refined = run_step(step, refined, maps[step.raw_source], apply)
        if step.output:
            outputs.append(run_output(step.output, refined, maps[step.output.raw_source], apply))
    low, high = outputs
    return low, high


def run_layers(layers: Sequence[Layer], x: Value, apply: Apply) -> Value:
    """Layers one after another; the stem's: (B, 3, H, W) → (B, C0, H/2, W/2)."""
    for layer in layers:
        x = apply(layer, x)
    return x


def run_block(block: Block, x: Value, apply: Apply) -> Value:
    """One MBConv block: (B, cin, h, w) → (B, cout, h/stride, w/stride)."""
    y = run_layers(block.layers, x, apply)
    return x + y if block.residual else y


def run_step(step: DeconvStep, refined: Value, raw: Value, apply: Apply) -> Value:
    """One deconv step without its output: (B, ·, h, w) → (B, filters, 2h, 2w). A plain head does not read `raw`."""
    refined = apply(step.refined, refined)
    if step.raw:
        refined = refined + apply(step.raw, raw)
    result: Value = apply(step.norm, refined)
    return result


def run_output(output: Output, refined: Value, raw: Value, apply: Apply) -> Value:
    """One output: (B, ·, h, w) → (B, J or 2J, h, w). A plain head does not read `raw`."""
    refined = run_layers(output.refined, refined, apply)
    return refined + run_layers(output.raw, raw, apply) if output.raw else refined
