"""LitePose as a plain network of stock layers, built from a layer plan."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import spec_params
from ofa_pose.models.depthwise import depthwise_conv
from ofa_pose.models.pose_net import MOST_PARAMS, OUTPUT_STD, PoseNet
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count

ACTIVATIONS = {"relu6": nn.ReLU6, "relu": nn.ReLU}


class Unit(nn.Sequential):
    """The stock modules of one plan layer: conv (or transposed conv), norm, act, as far as the layer has them."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.BatchNorm2d
    act: nn.Module

    def weight(self) -> NDArray[np.float64]:
        """The convolution's: (cout, cin / groups, k, k), or (cin, cout, k, k) of a transposed one; float64."""
        return _array(self.conv.weight)

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the BatchNorm does in eval mode, in float64: scale (C,), then shift (C,)."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().cpu().double().numpy()
    return array


def make_layer(layer: Layer) -> Unit:
    """The modules of one plan layer."""
    unit = Unit()
    if layer.kind != "norm":
        make = nn.ConvTranspose2d if layer.kind == "deconv" else nn.Conv2d
        shape = (layer.cin, layer.cout, layer.kernel, layer.stride, layer.padding)
        unit.add_module("conv", make(*shape, groups=layer.groups, bias=False))
    if layer.norm:
        unit.add_module("norm", nn.BatchNorm2d(layer.cout))
    if layer.act:
        unit.add_module("act", ACTIVATIONS[layer.act]())
    return unit


class LitePose(PoseNet):
    """A LitePose network of fixed shape (Wang et al., CVPR 2022) made of nn.Conv2d, nn.BatchNorm2d and the like.

    Parameters are named after the plan's layers: 'stages.0.1.expand.conv.weight'.
    """

    def __init__(self, spec: ArchSpec, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if spec_params(spec) > MOST_PARAMS:
            most = format_count(MOST_PARAMS)
            what = f"the net ({spec}) has {format_count(spec_params(spec))} parameters, more than {most}"
            raise InputError(what, hint="give it fewer blocks, lower widths or expansions")
        self.spec: ArchSpec = spec
        self.plan = make_plan(spec)
        last = (layer.name for layer in self.plan.layers() if layer.name.endswith(".pointwise"))
        self.output_layers = tuple(f"{name}.conv" for name in last)
        for layer in self.plan.layers():
            _place(self, layer.name, make_layer(layer))
        self.reset_parameters(generator)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → low (B, 2J, H/4, W/4), high (B, J, H/2, W/2)."""
        return self.plan.run(image, self.apply_layer)

    def apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
        """Compute one layer of the plan."""
        unit = self.unit(layer)
        if not (self.training and layer.depthwise):
            return unit(x)
        return unit.act(unit.norm(depthwise_conv(x, unit.conv.weight, layer.stride, layer.padding)))

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer of the plan."""
        return cast(Unit, self.get_submodule(layer.name))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """He-normal (fan out) weights, unit BatchNorms, near-zero output layers; drawn from `generator`."""
        for layer in self.plan.layers():
            unit = self.unit(layer)
            if layer.norm:
                unit.norm.reset_parameters()
            if layer.kind != "norm":
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
