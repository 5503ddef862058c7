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

STRIP = 3  # columns


def depthwise_conv(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """`F.conv2d` of (B, C, H, W) with a weight (C, 1, k, k), a group a channel; the same output to the last bit.

    Where gradients are taken of float32 tensors on a CPU the weights' is summed in another order.
    """
    if torch.is_grad_enabled() and _is_slow(x, weight, padding):
        result: Tensor = _DepthwiseConv.apply(x, weight, stride, padding)
        return result
    return F.conv2d(x, weight, None, stride, padding, 1, len(weight))


def _is_slow(x: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether torch takes long for the weights' gradient: a wide kernel, within maps that are wider."""
    kernel, floats = weight.shape[-1], x.dtype == weight.dtype == torch.float32
    shaped = STRIP < kernel == 2 * padding + 1 and kernel < min(x.shape[2:])
    plain = not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return shaped and floats and plain and x.device.type == "cpu"


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _gradients(x, weight, gradient, (ctx.stride,) * 2, (ctx.padding,) * 2, (True, False))[0]
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
    result = weight.new_empty(weight.shape)
    for down, right in product(range(stride), repeat=2):
        # Rows and columns of the weights that meet the same phase of the input, x[..., first::stride].
        weights, found = (of[..., down::stride, right::stride] for of in (weight, result))
        (above, first_row), (before, first_column) = (divmod(start - padding, stride) for start in (down, right))
        phase = x[..., first_row::stride, first_column::stride]
        for columns in _strips(weights.shape[3]):
            part = weights[..., columns]
            left, top = -before - columns.start, -above
            right_side = width + part.shape[3] - 1 - left - phase.shape[3]
            bottom = height + part.shape[2] - 1 - top - phase.shape[2]
            margins = (left, right_side, top, bottom)
            source, sides = phase, (top, left)
            if stride > 1 or margins != (left, left, top, top):
                source, sides = F.pad(phase, margins).contiguous(memory_format=torch.channels_last), (0, 0)
            found[..., columns] = _gradients(source, part, gradient, (1, 1), sides, (False, True))[1]
    return result


def _strips(columns: int) -> list[slice]:
    """Parts of at most `STRIP` columns; one is in the middle, where the input needs no margins of different widths."""
    first = min((columns - STRIP) // 2 % STRIP or STRIP, columns)
    starts = [0, *range(first, columns, STRIP)]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], columns], strict=True)]


def _gradients(
    x: Tensor,
    weight: Tensor,
    gradient: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """A depthwise convolution's gradients by its input and its weights, as torch computes them."""
    how = (stride, padding, (1, 1), False, (0, 0), len(weight), [*wanted, False])
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(gradient, x, weight, None, *how)
    return of_input, of_weight
