"""Makers of test material for networks."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from ofa_pose.models.litepose import LitePose

N = TypeVar("N", bound=nn.Module)


def randomised(net: N, seed: int = 0) -> N:
    """Give a network, in place, random BatchNorm statistics and scales and outputs that are not near zero."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.5, 0.5),
                    (module.running_mean, -0.5, 0.5),
                    (module.running_var, 0.5, 2.0),
                ):
                    tensor.copy_(torch.rand(tensor.shape, generator=source) * (high - low) + low)
        for name, weight in net.named_parameters():
            if ".pointwise." in name:
                weight.copy_(torch.randn(weight.shape, generator=source) * 0.2)
    return net


def picture(batch: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """Random normalised images (B, 3, H, W)."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def same_state(one: LitePose, other: LitePose) -> bool:
    """Whether two networks hold the same names with the same values, to the last bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def hide_package(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Make a package seem not to be installed, to whoever looks for it before importing it."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def packed_otherwise(content: bytes, method: int) -> bytes:
    """A zip file whose directory says of every part that it is packed by a method, which it is not."""
    changed, start = bytearray(content), content.find(b"PK\x01\x02")
    while start >= 0:
        changed[start + 10 : start + 12] = method.to_bytes(2, "little")
        start = content.find(b"PK\x01\x02", start + 46)
    return bytes(changed)
