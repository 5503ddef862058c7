"""LitePose as a plain network of stock layers, built from a layer plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ofa_pose.arch.plan import Block, DeconvStep, Layer, Output, Plan, make_plan
from ofa_pose.arch.spec import ArchSpec

ACTIVATIONS = {"relu6": nn.ReLU6, "relu": nn.ReLU}
OUTPUT_STD = 1e-3  # near-zero outputs at the start: large random heatmaps take thousands of steps to unlearn

Apply = Callable[[Layer, Tensor], Tensor]


def run_plan(plan: Plan, image: Tensor, apply: Apply) -> tuple[Tensor, Tensor]:
    """Walk a plan, computing each layer with `apply(layer, input)`.

    Args:
        image: (B, 3, H, W) float, H and W multiples of 16.

    Returns:
        low (B, 2J, H/4, W/4): J heatmaps, then J tag maps; high (B, J, H/2, W/2): heatmaps.
    """
    maps = [run_stem(plan.stem, image, apply)]
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


def run_stem(layers: Sequence[Layer], image: Tensor, apply: Apply) -> Tensor:
    """The stem of a plan: (B, 3, H, W) → (B, C0, H/2, W/2)."""
    for layer in layers:
        image = apply(layer, image)
    return image


def run_block(block: Block, x: Tensor, apply: Apply) -> Tensor:
    """One MBConv block: (B, cin, h, w) → (B, cout, h/stride, w/stride)."""
    y = x
    for layer in block.layers:
        y = apply(layer, y)
    return x + y if block.residual else y


def run_step(step: DeconvStep, refined: Tensor, raw: Tensor, apply: Apply) -> Tensor:
    """One deconv step without its output: (B, ·, h, w) → (B, filters, 2h, 2w). A plain head does not read `raw`."""
    refined = apply(step.refined, refined)
    if step.raw:
        refined = refined + apply(step.raw, raw)
    return apply(step.norm, refined)


def run_output(output: Output, refined: Tensor, raw: Tensor, apply: Apply) -> Tensor:
    """One output: (B, ·, h, w) → (B, J or 2J, h, w). A plain head does not read `raw`."""
    for layer in output.refined:
        refined = apply(layer, refined)
    if not output.raw:
        return refined
    for layer in output.raw:
        raw = apply(layer, raw)
    return refined + raw


class Unit(nn.Sequential):
    """The stock modules of one plan layer: conv (or transposed conv), norm, act, as far as the layer has them."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.BatchNorm2d
    act: nn.Module


class Units(Protocol):
    """What holds the modules of plan layers: a network, or a lone part of one."""

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""
        ...


def make_layer(layer: Layer) -> Unit:
    """The modules of one plan layer."""
    unit = Unit()
    if layer.kind != "norm":
        kind = nn.ConvTranspose2d if layer.kind == "deconv" else nn.Conv2d
        unit.add_module(
            "conv",
            kind(
                layer.cin,
                layer.cout,
                layer.kernel,
                stride=layer.stride,
                padding=layer.padding,
                groups=layer.groups,
                bias=False,
            ),
        )
    if layer.norm:
        unit.add_module("norm", nn.BatchNorm2d(layer.cout))
    if layer.act:
        unit.add_module("act", ACTIVATIONS[layer.act]())
    return unit


class LitePose(nn.Module):
    """A LitePose network of fixed shape (Wang et al., CVPR 2022) made of nn.Conv2d, nn.BatchNorm2d and the like.

    Parameters are named after the plan's layers: 'stages.0.1.expand.conv.weight'.
    """

    def __init__(self, spec: ArchSpec, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.plan = make_plan(spec)
        for layer in self.plan.layers():
            _place(self, layer.name, make_layer(layer))
        self.reset_parameters(generator)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → low (B, 2J, H/4, W/4), high (B, J, H/2, W/2)."""
        return run_plan(self.plan, image, self.apply_layer)

    def apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
        """Compute one layer of the plan."""
        return self.unit(layer)(x)

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer of the plan."""
        return cast(Unit, self.get_submodule(layer.name))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """He-normal (fan out) weights, unit BatchNorms, near-zero output layers; drawn from `generator`."""
        for layer in self.plan.layers():
            unit = self.unit(layer)
            if layer.norm:
                unit.norm.reset_parameters()
            if layer.kind == "norm":
                continue
            self.init_conv(layer, unit.conv.weight, generator)

    @staticmethod
    @torch.no_grad()
    def init_conv(layer: Layer, weight: Tensor, generator: torch.Generator | None) -> None:
        """Draw one layer's weights in place."""
        fan_out = layer.kernel**2 * (1 if layer.depthwise else layer.cout)
        if layer.kind == "deconv":
            fan_out //= layer.stride**2
        std = OUTPUT_STD if layer.name.endswith(".pointwise") else (2.0 / fan_out) ** 0.5
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, last = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, module)
