"""Multiply-adds and parameters of any network of stock modules, in the conventions of `costs.macs`.

exact: multiply-adds of convolutions, transposed ones (input pixels × weights) and linear layers; nothing else.
thop:  what thop.profile counts: a transposed convolution per output pixel, 4 per BatchNorm element, for average pools
       and upsampling modules what it has for them, nothing for activations and max-pools.
paper: per output pixel + 2 per BatchNorm element + 1 per element of a ReLU or ReLU6. Other activations are free, as
       are pools and upsampling modules: so EfficientHRNet, with SiLU, has the LitePose paper's figures.

What a network computes without a module (sums, `F.interpolate`, `torch.cat`) is free in all of them, as it is for thop,
and so are biases, though they are parameters.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import NetSpec
from ofa_pose.costs.macs import Macs
from ofa_pose.utils.errors import OfaPoseError

UPSAMPLING = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}  # thop's, per element
ACTIVATIONS = (nn.ReLU, nn.ReLU6)  # those that cost something in the paper's convention
WORDS = {  # of the modules that cost something beside convolutions, by the first class that fits
    nn.BatchNorm2d: "norm",
    nn.Linear: "linear",
    nn.AdaptiveAvgPool2d: "average pool",
    nn.AvgPool2d: "average pool",
    nn.Upsample: "upsample",
}
COUNTED: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d, *WORDS, *ACTIVATIONS)
NOTHING = Macs(0, 0, 0)


@dataclass(frozen=True)
class LayerCost:
    """What one module costs at batch 1, with the BatchNorm and activation that take its output next.

    Attributes:
        name: the module's path in the network; a module that runs twice has a row for each time.
        operator: in words, such as 'depthwise conv 7×7 /2' or 'deconv 4×4 ×2'.
        cin, cout: channels of its input and its output.
        size: height and width of the output, in cells; (1, 1) of a linear layer.
        params: trainable parameters, in the first row that uses them.
        macs: multiply-adds in each convention.
    """

    name: str
    operator: str
    cin: int
    cout: int
    size: tuple[int, int]
    params: int
    macs: Macs


def count_net(spec: NetSpec, net: nn.Module) -> dict[str, Any]:
    """The figures of a spec's network at its input size, as `costs.macs.profile` has them but for the name.

    Returns:
        {'resolution', 'joints', 'params', 'macs': {'thop', 'exact', 'paper'}}

    Raises:
        OfaPoseError: a parameter belongs to no module that is counted.
    """
    rows = count_layers(net, *spec.input_size)
    macs = sum((row.macs for row in rows), Macs(0, 0, 0))
    params = sum(row.params for row in rows)
    return {"resolution": spec.resolution, "joints": spec.joints, "params": params, "macs": macs.to_dict()}


def count_layers(net: nn.Module, height: int, width: int) -> list[LayerCost]:
    """A row for each module in the order of execution, in eval mode, on an image (1, 3, height, width).

    A copy of the network runs, on the meta device: shapes alone are computed, and the network stays as it is. Modules
    that cost nothing have no row.

    Raises:
        OfaPoseError: a parameter belongs to no module that is counted; it names the module.
    """
    counted = _on_meta(net).eval()
    rows: list[LayerCost] = []
    seen: set[int] = set()  # ids of the parameters that are in a row
    last: list[Tensor] = []  # the output of the last row, where there is one

    def count(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, params, macs = inputs[0], _own(module, seen), _macs(module, inputs[0], output)
        seen.update(map(id, params))
        size = sum(one.numel() for one in params)
        if macs == NOTHING and not params:
            return
        if last and x is last[0] and isinstance(module, (nn.BatchNorm2d, *ACTIVATIONS)):
            rows[-1] = replace(rows[-1], params=rows[-1].params + size, macs=rows[-1].macs + macs)
        else:
            rows.append(LayerCost(name, _operator(module), x.shape[1], output.shape[1], _size(output), size, macs))
        last[:] = [output]

    for name, module in counted.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = torch.empty_like  # type: ignore[method-assign]  # torch's own takes most of the time here
        if isinstance(module, COUNTED):
            module.register_forward_hook(partial(count, name))
    dtype = next((one.dtype for one in counted.parameters()), torch.float32)
    with torch.no_grad():
        counted(torch.empty(1, 3, height, width, dtype=dtype, device="meta"))
    for name, module in counted.named_modules():
        if _own(module, seen):
            why = "never runs" if isinstance(module, COUNTED) else "has parameters, and no rule says what it costs"
            raise OfaPoseError(f"module '{name}' ({type(module).__name__}) {why}")
    return rows


def _on_meta(net: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes only."""
    memo: dict[int, Any] = {id(one): nn.Parameter(one.to("meta"), one.requires_grad) for one in net.parameters()}
    return copy.deepcopy(net, memo | {id(one): one.to("meta") for one in net.buffers()})


def _own(module: nn.Module, seen: set[int]) -> list[nn.Parameter]:
    """A module's parameters, without those of modules in it, that are not seen yet."""
    return [one for one in module.parameters(recurse=False) if id(one) not in seen]


def _size(x: Tensor) -> tuple[int, int]:
    return (x.shape[2], x.shape[3]) if x.dim() == 4 else (1, 1)


def _macs(module: nn.Module, x: Tensor, y: Tensor) -> Macs:
    """What a module costs that makes y of x."""
    elements = y.numel()
    match module:
        case nn.Conv2d():
            macs = elements * module.weight[0].numel()
            return Macs(macs, macs, macs)
        case nn.ConvTranspose2d():
            by_output = elements * (module.in_channels // module.groups) * math.prod(module.kernel_size)
            return Macs(by_output, x.numel() * module.weight[0].numel(), by_output)
        case nn.Linear():
            return Macs(*(elements * module.in_features,) * 3)
        case nn.BatchNorm2d():
            return Macs((4 if module.affine else 2) * elements, 0, 2 * elements)
        case nn.AdaptiveAvgPool2d():
            return Macs(x.numel() + elements, 0, 0)
        case nn.AvgPool2d():
            return Macs(elements, 0, 0)
        case nn.Upsample():
            return Macs(UPSAMPLING.get(module.mode, 0) * elements, 0, 0)
        case _:
            return Macs(0, 0, elements)


def _operator(module: nn.Module) -> str:
    """A module's operator in words, such as 'depthwise conv 7×7 /2' or 'deconv 4×4 ×2'."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        deconv, groups = isinstance(module, nn.ConvTranspose2d), module.groups
        kind = "" if groups == 1 else "depthwise " if groups == module.in_channels else "grouped "
        step = f" {'×' if deconv else '/'}{module.stride[0]}" if module.stride[0] > 1 else ""
        kernel = "×".join(map(str, module.kernel_size))
        return f"{kind}{'deconv' if deconv else 'conv'} {kernel}{step}"
    return next((word for kind, word in WORDS.items() if isinstance(module, kind)), "activation")
