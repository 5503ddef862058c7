"""Depthwise convolution for training on CPUs, whose weights' gradient is several times as fast as torch's.

oneDNN has a kernel for it only where a depthwise convolution is at most three columns wide and has no stride; for a
wider one, such as LitePose's 7×7, it multiplies every channel with fifteen others too. So the gradient is put together
from strips of three columns, and that of a convolution with a stride from the phases of its input.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIP = 3  # columns


def depthwise_conv(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """`F.conv2d` of (B, C, H, W) with a weight (C, 1, k, k), a group a channel; the same output to the last bit.

    Where gradients are taken of float32 tensors on a CPU the weights' is summed in another order.
    """
    fast = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and weight.shape[-1] > STRIP
    if fast and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        result: Tensor = _DepthwiseConv.apply(x, weight, stride, padding)
        return result
    return F.conv2d(x, weight, None, stride, padding, 1, len(weight))


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _gradients(x, weight, gradient, ctx.stride, ctx.padding, (True, False))[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, weight, gradient, ctx.stride, ctx.padding)
        return of_input, of_weight, None, None


def weight_gradient(x: Tensor, weight: Tensor, gradient: Tensor, stride: int, padding: int) -> Tensor:
    """The gradient (C, 1, k, k) of a depthwise convolution's weights.

    Args:
        x: its input (B, C, H, W).
        weight: of which the shape alone matters.
        gradient: of its output (B, C, h, w), channels last in memory.
    """
    height, width = gradient.shape[2:]
    result = torch.empty(weight.shape)
    for down, right in product(range(stride), repeat=2):
        # Rows and columns of the weights that meet the same phase of the input, x[..., first::stride].
        weights, found = (of[..., down::stride, right::stride] for of in (weight, result))
        (above, first_row), (before, first_column) = (divmod(start - padding, stride) for start in (down, right))
        phase = x[..., first_row::stride, first_column::stride]
        for column in range(0, weights.shape[3], STRIP):
            part = weights[..., column : column + STRIP]
            left, rows, columns = -before - column, height + part.shape[2] - 1, width + part.shape[3] - 1
            sides = (left, columns - left - phase.shape[3], -above, rows + above - phase.shape[2])
            strip = F.pad(phase, sides).contiguous(memory_format=torch.channels_last)
            found[..., column : column + STRIP] = _gradients(strip, part, gradient, 1, 0, (False, True))[1]
    return result


def _gradients(
    x: Tensor, weight: Tensor, gradient: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """A depthwise convolution's gradients by its input and its weights, as torch computes them."""
    both = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), [*wanted, False])
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(gradient, x, weight, None, *both)
    return of_input, of_weight
