"""Rounded networks: that they compute what the int8 file computes, and that they learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.spec import ArchSpec, Head
from ofa_pose.backends.folding import whole
from ofa_pose.backends.runners import INPUT, OUTPUTS, planes
from ofa_pose.data.loader import normalise
from ofa_pose.models import fake_quantise
from ofa_pose.models.fake_quantise import QuantisedLitePose, round_map, round_weight
from ofa_pose.models.litepose import LitePose
from tests.networks import randomised

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from ofa_pose.backends.onnxruntime import onnx_model  # noqa: E402
from ofa_pose.backends.onnxruntime_int8 import float_nodes, measure_ranges, quantised, quantised_maps  # noqa: E402

SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)


def network(head: Head = "fusion", seed: int = 0) -> QuantisedLitePose:
    net = randomised(LitePose(replace(SPEC, head=head), torch.Generator().manual_seed(seed)), seed)
    return QuantisedLitePose.of(net).eval()


def tensor(images: np.ndarray = IMAGES) -> torch.Tensor:
    return normalise(torch.from_numpy(images).permute(0, 3, 1, 2))


def graph_run(model: onnx.ModelProto, names: list[str]) -> list[np.ndarray]:
    """Maps of an int8 model computed in float between its roundings, whatever the processor's integer kernels do."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    for name in names:
        if name not in OUTPUTS:
            shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options)
    return session.run(names, {INPUT: planes(IMAGES)})


@pytest.mark.parametrize("head", ["fusion", "plain"])
def test_each_map_is_that_of_the_exported_model(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same maps are rounded. Of the same maps before it, each is the same, but where rounding is a close call."""
    net = network(head)
    model = onnx_model(whole(net))
    ranges = measure_ranges(model, [planes(IMAGES)])
    names = quantised_maps(model)
    inner = [f"{name}_DequantizeLinear_Output" for name in names]
    *maps, low_expected, high_expected = graph_run(quantised(model, ranges), [*inner, *OUTPUTS])
    expected = dict(zip(names, maps, strict=True))
    found: dict[str, torch.Tensor] = {}
    original = fake_quantise._Rounding.map

    def go_on(self: fake_quantise._Rounding, name: str, x: torch.Tensor) -> fake_quantise._Rounded:
        assert name not in found
        found[name] = original(self, name, x).tensor
        return fake_quantise._Rounded(self, name, torch.from_numpy(expected[name]))

    monkeypatch.setattr(fake_quantise._Rounding, "map", go_on)
    with torch.no_grad():
        low, high = net.rounded(tensor(), ranges)
    assert found.keys() == {*names}
    for name in names:
        least, greatest = ranges[name]
        steps = np.abs(found[name].numpy() - expected[name]) * 255 / (max(greatest, 0.0) - min(least, 0.0))
        assert steps.max() < 1.01 and steps.mean() < 0.02, name  # biases are rounded too, much more finely
    for mine, theirs in ((low, low_expected), (high, high_expected)):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("head", ["fusion", "plain"])
def test_each_weight_is_that_of_the_exported_model(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded before a BatchNorm is folded in they are the same whole numbers; what stays float is never rounded."""
    net = network(head)
    model = onnx_model(whole(net))
    made = quantised(model, measure_ranges(model, [planes(IMAGES)]))
    held = {one.name: onnx.numpy_helper.to_array(one).astype(int) for one in made.graph.initializer}
    weights: list[tuple[np.ndarray, int]] = []

    def record(weight: torch.Tensor, axis: int = 0) -> torch.Tensor:
        rounded = round_weight(weight, axis)
        scale = weight.abs().amax([dim for dim in range(4) if dim != axis], keepdim=True) / 127
        weights.append(((rounded / scale).round().detach().numpy().astype(int), axis))
        return rounded

    monkeypatch.setattr(fake_quantise, "round_weight", record)
    net.rounded(tensor())
    left = float_nodes(model.graph.node)
    kinds = ("Conv", "ConvTranspose")
    names = [node.input[1] for node in model.graph.node if node.op_type in kinds and node.name not in left]
    for (mine, axis), name in zip(weights, names, strict=True):
        theirs = held[f"{name}_quantized"]
        sign = np.sign((mine * theirs).sum(tuple({0, 1, 2, 3} - {axis}), keepdims=True))  # that of the norm's scale
        assert np.abs(mine - theirs * sign).max() <= 1 and (mine != theirs * sign).mean() < 0.01, name


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(-3, 3))
def test_rounding_of_maps(seed: int, size: float, centre: float) -> None:
    """At most 256 values, 0 one of them, each at most half a step away; what lies outside a span goes to its end."""
    x = size * (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) + centre)
    step = (max(float(x.max()), 0.0) - min(float(x.min()), 0.0)) / 255
    rounded = round_map(x)
    assert len(rounded.unique()) <= 256
    assert (rounded - x).abs().max() <= 1.01 * step  # the ends move with the zero point, by half a step at most
    assert (round_map(torch.cat([x, torch.zeros_like(x)]))[2:] == 0).all()
    clipped = round_map(x, (0.0, size))
    assert clipped.min() >= 0 and clipped.max() <= size * 1.0001


def test_gradients_go_through_inside_the_range_alone() -> None:
    x = torch.tensor([-1.0, 0.2, 0.5, 3.0]).view(1, 1, 2, 2).requires_grad_()
    round_map(x, (0.0, 1.0)).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_dead_map_and_a_dead_weight() -> None:
    zeros = torch.zeros(2, 3, 4, 4)
    assert (round_map(zeros) == 0).all() and (round_weight(zeros) == 0).all()


def test_in_training_it_rounds_and_else_it_does_not() -> None:
    net = network()
    plain = LitePose(SPEC).eval()
    plain.load_state_dict(net.state_dict())  # the same names
    for found, expected in zip(net(tensor()), plain(tensor()), strict=True):
        assert torch.equal(found, expected)
    low, high = net.train()(tensor())
    exact = plain.train()(tensor())
    assert not torch.equal(low, exact[0])
    (low.square().sum() + high.square().sum()).backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert not torch.equal(
        net.state_dict()["stem.0.norm.running_mean"], network().state_dict()["stem.0.norm.running_mean"]
    )
