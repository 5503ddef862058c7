"""Depthwise convolutions of trainings: torch's own output, and its gradients within rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models import depthwise
from ofa_pose.models.depthwise import depthwise_conv, weight_gradient
from ofa_pose.models.litepose import LitePose
from tests.networks import picture


def made(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(x: Tensor, weight: Tensor, stride: int, padding: int) -> list[tuple[Tensor, ...]]:
    """Output, and gradients by input and weights, of ours and of torch's."""
    found = []
    for ours in (True, False):
        own_x, own_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        if ours:
            y = depthwise_conv(own_x, own_weight, stride, padding)
        else:
            y = F.conv2d(own_x, own_weight, None, stride, padding, 1, len(weight))
        y.backward(made(tuple(y.shape), 9))
        assert own_x.grad is not None and own_weight.grad is not None
        found.append((y.detach(), own_x.grad, own_weight.grad))
    return found


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([3, 4, 5, 7, 9]),
    st.integers(1, 3),
    st.booleans(),
)
def test_output_and_gradients_are_torchs(
    shape: tuple[int, int, int, int], kernel: int, stride: int, channels_last: bool
) -> None:
    channels, padding = shape[1], kernel // 2
    x = made(shape, 0)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    (y, *ours), (expected, *theirs) = both(x, made((channels, 1, kernel, kernel), 1), stride, padding)
    assert torch.equal(y, expected)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("columns", range(1, 14))
def test_strips_cover_all_columns_once_and_are_narrow(columns: int) -> None:
    strips = depthwise._strips(columns)
    assert [column for strip in strips for column in range(columns)[strip]] == list(range(columns))
    assert all(0 < strip.stop - strip.start <= depthwise.STRIP for strip in strips)
    if columns % 2 and columns >= 3:
        assert any(strip.start == columns - strip.stop for strip in strips), "one is in the middle"


def test_the_same_gradient_every_time() -> None:
    x, gradient = (made((2, 24, 16, 16), seed).contiguous(memory_format=torch.channels_last) for seed in (0, 1))
    weight = made((24, 1, 7, 7), 2)
    first = weight_gradient(x, weight, gradient, 1, 3)
    assert all(torch.equal(first, weight_gradient(x, weight, gradient, 1, 3)) for _ in range(3))


@pytest.mark.parametrize("stride", [1, 2])
def test_its_gradients_have_gradients(stride: int) -> None:
    """A loss may hold a gradient, such as the penalty on one."""
    x, weight = (made(shape, 3).double().requires_grad_() for shape in ((1, 2, 9, 9), (2, 1, 7, 7)))
    assert torch.autograd.gradgradcheck(lambda *of: depthwise._DepthwiseConv.apply(*of, stride, 3), (x, weight))


def test_only_wide_float32_kernels_on_a_cpu_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = depthwise._DepthwiseConv.apply
    monkeypatch.setattr(depthwise._DepthwiseConv, "apply", lambda *args: calls.append(args) or plain(*args))
    x, weight = made((1, 4, 8, 8), 0), made((4, 1, 7, 7), 1).requires_grad_()
    depthwise_conv(x, weight, 1, 3)
    depthwise_conv(x[..., :7], weight, 1, 3)
    depthwise_conv(x, weight, 1, 1)
    assert len(calls) == 1
    with torch.no_grad():
        depthwise_conv(x, weight, 1, 3)
    depthwise_conv(x.double(), weight.double(), 1, 3)
    depthwise_conv(x, weight[..., :3, :3], 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise_conv(x, weight, 1, 3).dtype == torch.bfloat16
    assert len(calls) == 1


def test_a_net_in_training_takes_it_and_its_layers_are_stock_in_evaluation(
    tiny_spec: ArchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = LitePose(tiny_spec, torch.Generator().manual_seed(0))
    depthwise_layers = sum(layer.depthwise for layer in net.plan.layers())
    stock = []
    for layer in net.plan.layers():
        if layer.depthwise:
            net.unit(layer).conv.register_forward_hook(lambda *_: stock.append(1))
    net.eval()(picture(2))
    assert len(stock) == depthwise_layers > 5
    trained = net.train()(picture(2))
    assert len(stock) == depthwise_layers
    monkeypatch.setattr(
        "ofa_pose.models.litepose.depthwise_conv", lambda x, w, s, p: F.conv2d(x, w, None, s, p, 1, len(w))
    )
    assert all(torch.equal(a, b) for a, b in zip(trained, net(picture(2)), strict=True))
