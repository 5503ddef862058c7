"""The moving average of a network's weights over the steps of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ofa_pose.models.pose_net import PoseNet


class WeightAverage:
    """Exponential moving average of all of a network's weights and BatchNorm statistics.

    torch.optim.swa_utils.AveragedModel counts its steps on the device, and reading that waits for it; its average also
    leans on the first weights for long. Here the decay of a step follows from its number: (1 + step) / (10 + step),
    at most `decay`, as TensorFlow's does.
    """

    def __init__(self, network: PoseNet, decay: float) -> None:
        self._decay = decay
        self._tensors: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self._own = {name: tensor.data for name, tensor in self._tensors.items()}
        self.values = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take up the weights after step `step`, counted from 1. What counts batches is copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        own, theirs = [], []
        for name, tensor in self._tensors.items():
            if tensor.is_floating_point():
                own.append(self.values[name])
                theirs.append(tensor)
            else:
                self.values[name].copy_(tensor)
        torch._foreach_lerp_(own, theirs, 1 - decay)

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Go on from an average that was kept."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The network holds the average for a while, in the place of its weights."""
        try:
            for name, tensor in self._tensors.items():
                tensor.data = self.values[name]
            yield
        finally:
            self.take_back()

    def take_back(self) -> None:
        """Let the network hold its weights: at the end of `lent`, or where a signal cut that short."""
        for name, tensor in self._tensors.items():
            tensor.data = self._own[name]
