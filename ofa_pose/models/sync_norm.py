"""BatchNorm over the batches of all processes, of whole layers and of a supernet's leading channels.

torch's SyncBatchNorm runs on GPUs alone and on whole layers alone; this is a few lines of autograd on any device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.utils.process import exchange


class SyncNorm(nn.BatchNorm2d):
    """A BatchNorm that in training normalises by the statistics of all processes' batches, which are equally large.

    With running statistics that are equal on all of them. In eval mode it is a plain BatchNorm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); statistics are computed in float32 at least."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return self.normalise(x, self.running_mean, self.running_var, self.weight, self.bias)

    def normalise(self, x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with leading slices (C,) of this layer's tensors; the first two take up statistics."""
        if not self.training:
            return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, self.eps)
        values = x.to(scale.dtype)
        found_mean, found_variance, count = global_statistics(values)
        assert self.momentum is not None
        with torch.no_grad():
            mean.lerp_(found_mean.to(mean.dtype), self.momentum)
            variance.lerp_((found_variance * (count / max(count - 1, 1))).to(variance.dtype), self.momentum)
        factor = scale * (found_variance + self.eps).rsqrt().to(scale.dtype)
        centred = values - _per_channel(found_mean.to(values.dtype))
        return (centred * _per_channel(factor) + _per_channel(shift)).to(x.dtype)


def synchronise(net: nn.Module) -> None:
    """Put a `SyncNorm` in the place of every BatchNorm, with the same parameters and statistics."""
    for parent in list(net.modules()):
        for key, before in parent.named_children():
            if isinstance(before, nn.BatchNorm2d):
                norm = SyncNorm(before.num_features, before.eps, before.momentum, device="meta")
                for name, tensor in (*before.named_parameters(), *before.named_buffers()):
                    setattr(norm, name, tensor)
                setattr(parent, key, norm.train(before.training))


def global_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance (C,) of all processes' equally large (B, C, H, W), in float64, and how many values.

    One exchange of 2 C numbers. Their squares are subtracted in float64: the variance of a batch apart from its mean
    stays exact.
    """
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    variance, mean = variance.double(), mean.double()
    world = dist.get_world_size()
    mean, square = (_Sum.apply(torch.stack([mean, variance + mean.square()])) / world).unbind()
    return mean, (square - mean.square()).clamp(min=0), x.numel() // x.shape[1] * world


class _Sum(torch.autograd.Function):
    """The sum over processes; as each adds to the sum of all, so do the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    total = x.contiguous().clone()
    with exchange():
        dist.all_reduce(total)
    return total


def _per_channel(x: Tensor) -> Tensor:
    return x.view(1, -1, 1, 1)
