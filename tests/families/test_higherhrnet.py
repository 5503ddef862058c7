"""HigherHRNet: the published costs, the contract of its outputs, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.families.counting import count_layers, count_net
from ofa_pose.families.higherhrnet import FAMILY, HigherHRNet, HigherHRNetSpec
from ofa_pose.utils.errors import InputError
from tests.networks import picture, randomised

SHRUNK = ((0, 1), (0, 0, 1), (0, 0, 0, 1))
NANO = HigherHRNetSpec(64, 4, SHRUNK, (1, 2, 2), stem=10, bottleneck=8, deconv=6, deconv_blocks=1, joints=5)
# 14 joints at 512 pixels: parameters in millions, GMACs exact, thop's, the paper's, and as the paper prints them
SCALED = {
    "scaled-higherhrnet-w16": (7.205, 11.2187, 12.5482, 12.4913, 12.50),
    "scaled-higherhrnet-shrink1": (6.714, 8.8783, 10.1580, 10.1135, 10.12),
    "scaled-higherhrnet-shrink2": (7.621, 8.7347, 10.0520, 10.0104, 10.02),
    "scaled-higherhrnet-shrink3": (7.375, 7.8747, 9.1775, 9.1396, 9.15),
    "scaled-higherhrnet-w24": (16.110, 23.7833, 25.4105, 25.3288, 25.3),
}
# 17 joints: parameters in millions; GMACs per output pixel without BatchNorm, by resolution
PUBLISHED: dict[str, tuple[float, dict[int, float]]] = {
    "higherhrnet-w32": (28.645, {512: 47.864, 640: 74.788}),
    "higherhrnet-w48": (63.827, {640: 154.305}),
}


def on_meta(spec: HigherHRNetSpec) -> HigherHRNet:
    with torch.device("meta"):
        return HigherHRNet(spec)


def preset(name: str) -> HigherHRNetSpec:
    spec = FAMILY.presets[name]
    assert isinstance(spec, HigherHRNetSpec)
    return spec


@pytest.mark.parametrize("name", SCALED)
def test_the_shrinking_series_costs_what_the_paper_says(name: str) -> None:
    params, *gmacs, printed = SCALED[name]
    spec = preset(name).with_joints(14)
    figures = count_net(spec, on_meta(spec))
    assert (figures["resolution"], figures["joints"]) == (512, 14)
    assert round(figures["params"] / 1e6, 3) == params
    assert [round(figures["macs"][convention] / 1e9, 4) for convention in ("exact", "thop", "paper")] == gmacs
    assert abs(gmacs[2] - printed) < 0.03


@pytest.mark.parametrize("name", PUBLISHED)
def test_higherhrnet_costs_what_its_paper_says(name: str) -> None:
    params, gmacs = PUBLISHED[name]
    spec = preset(name)
    assert spec.joints == 17 and spec.resolution in gmacs
    for resolution, wanted in gmacs.items():
        rows = count_layers(on_meta(spec), resolution, resolution)
        assert round(sum(row.params for row in rows) / 1e6, 3) == params
        # thop counts 4 for a BatchNorm's element, the paper's convention 2 and 1 for an activation's
        norms = 4 * batch_norm_elements(spec, resolution)
        assert round((sum(row.macs.thop for row in rows) - norms) / 1e9, 3) == wanted


def batch_norm_elements(spec: HigherHRNetSpec, resolution: int) -> int:
    """How many elements all the BatchNorms of a network put out for one image."""
    net, elements = on_meta(spec).eval(), []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: elements.append(output.numel()))
    with torch.no_grad():
        net(torch.empty(1, 3, resolution, resolution, device="meta"))
    return sum(elements)


def test_an_identity_for_a_branch_without_blocks_would_cost_less() -> None:
    spec = preset("scaled-higherhrnet-shrink3").with_joints(14)
    net = on_meta(spec)
    for stage, counts in enumerate(spec.blocks):
        for module in net.stages[stage]:
            for branch, count in enumerate(counts):
                if count == 0:
                    module.branches[branch] = nn.Identity()
    rows = count_layers(net, 512, 512)
    assert round(sum(row.macs.paper for row in rows) / 1e9, 3) == 8.269


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (16, 112)])
def test_outputs_at_any_multiple_of_16(height: int, width: int) -> None:
    net = HigherHRNet(NANO).eval()
    low, high = net(picture(2, height, width))
    assert low.shape == (2, 10, height // 4, width // 4)
    assert high.shape == (2, 5, height // 2, width // 2)


def by_hand(net: HigherHRNet, image: Tensor) -> tuple[Tensor, Tensor]:
    """The published formula over the network's state, with maps doubled until they have the other's resolution."""
    state = net.state_dict()

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.0.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        parts = (state[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def block(name: str, x: Tensor, count: int) -> Tensor:
        y = x
        for layer in range(count):
            y = conv(f"{name}.layers.{layer}", y if layer == 0 else F.relu(y))
        return F.relu(y + (conv(f"{name}.past", x) if f"{name}.past.0.weight" in state else x))

    def branch(name: str, x: Tensor, count: int) -> Tensor:
        for number in range(count):
            x = block(f"{name}.{number}", x, 2)
        return x if count else F.relu6(conv(name, x))

    def way(name: str, x: Tensor, source: int, target: int) -> Tensor:
        if source > target:
            x = conv(name, x)
            for _ in range(source - target):
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for step in range(target - source):
            x = conv(f"{name}.{step}", F.relu(x) if step else x, 2)
        return x

    x = image
    for layer in range(2):
        x = F.relu(conv(f"stem.{layer}", x, 2))
    for layer in range(2, 6):
        x = block(f"stem.{layer}", x, 3)
    maps = [F.relu(conv("first", x))]
    for stage, (counts, modules) in enumerate(zip(net.spec.blocks, net.spec.modules, strict=True)):
        maps.append(F.relu(conv(f"coarser.{stage}", x, 2)))
        for module in range(modules):
            name = f"stages.{stage}.{module}"
            maps = [branch(f"{name}.branches.{i}", maps[i], count) for i, count in enumerate(counts)]
            outputs = 1 if (stage, module) == (2, modules - 1) else len(maps)
            maps = [
                F.relu(torch.stack([way(f"{name}.ways.{i}.{j}", maps[j], j, i) for j in range(len(maps))]).sum(0))
                for i in range(outputs)
            ]
        x = maps[-1]
    low = F.conv2d(maps[0], state["low.weight"], state["low.bias"])
    x = F.conv_transpose2d(torch.cat((maps[0], low), 1), state["deconv.0.weight"], stride=2, padding=1)
    parts = (state[f"deconv.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    x = F.relu(F.batch_norm(x, *parts))
    for number in range(net.spec.deconv_blocks):
        x = block(f"deconv.{3 + number}", x, 2)
    return low, F.conv2d(x, state["high.weight"], state["high.bias"])


@pytest.mark.parametrize("blocks", [SHRUNK, ((2, 1), (1, 0, 2), (1, 1, 0, 1))], ids=["shrunk", "mixed"])
def test_it_computes_the_published_formula(blocks: tuple[tuple[int, ...], ...]) -> None:
    net = randomised(HigherHRNet(replace(NANO, blocks=blocks))).eval()
    image = picture(2, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(net(image), by_hand(net, image), strict=True):
            assert ours.abs().max() > 0.1
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_onnx_computes_the_same_at_two_sizes(tmp_path: Path) -> None:
    net = randomised(HigherHRNet(NANO)).eval()
    names = ["low", "high"]
    axes = {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in ["image", *names]}
    options: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
    torch.onnx.export(net, (picture(),), tmp_path / "net.onnx", input_names=["image"], output_names=names, **options)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for image in (picture(1, 64, 64), picture(2, 48, 80)):
        with torch.no_grad():
            wanted = net(image)
        for found, expected in zip(session.run(names, {"image": image.numpy()}), wanted, strict=True):
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_output_layers_are_those_that_joints_change() -> None:
    few, many = on_meta(NANO), on_meta(NANO.with_joints(9))
    other = many.state_dict()
    changed = {name.rpartition(".")[0] for name, value in few.state_dict().items() if value.shape != other[name].shape}
    assert changed == set(few.output_layers)


def test_training_lowers_the_error() -> None:
    net = HigherHRNet(NANO).train()
    net.reset_parameters(torch.Generator().manual_seed(0))
    image, target = picture(2), torch.rand(2, 5, 32, 32, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    errors = []
    for _ in range(5):
        low, high = net(image)
        error = (high - target).square().mean() + (low[:, :5] - target[:, :, ::2, ::2]).square().mean()
        optimizer.zero_grad()
        error.backward()
        assert all(one.grad is not None for one in net.parameters())
        optimizer.step()
        errors.append(error.item())
    assert errors == sorted(errors, reverse=True)


def test_the_same_generator_draws_the_same_weights() -> None:
    one, other = HigherHRNet(NANO), HigherHRNet(NANO)
    for net in (one, other):
        net.reset_parameters(torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("spec", [NANO, *FAMILY.presets.values()], ids=str)
def test_specs_return_from_dicts(spec: HigherHRNetSpec) -> None:
    assert HigherHRNetSpec.from_dict(spec.to_dict()) == spec
    assert spec.to_dict()["family"] == FAMILY.name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"resolution": 72}, "resolution 72 is not a positive multiple of 16"),
        ({"resolution": 16384}, "resolution 16384 is more than 8192"),
        ({"width": 0}, "widths, counts of modules and joints must be at least 1"),
        ({"stem": 0}, "widths, counts of modules and joints must be at least 1"),
        ({"width": 4097}, "width 4097 is more than 4096"),
        ({"blocks": ((4, 4), (4, 4), (4, 4, 4, 4))}, "it needs blocks of 2, 3 and 4 branches"),
        ({"blocks": ((4, 4), (4, 4, 4), (4, 4, 4, -1))}, "counts of blocks must be at least 0"),
        ({"deconv_blocks": 100}, "blocks 100 is more than 64"),
        ({"modules": (1, 4)}, "3 counts of modules"),
        ({"modules": (1, 4, 17)}, "modules 17 is more than 16"),
        ({"joints": 2000}, "joints 2000 is more than 1000"),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        replace(NANO, **change)
    with pytest.raises(InputError) as caught:
        HigherHRNetSpec.from_dict(NANO.to_dict() | change, "net.yaml")
    assert caught.value.faults[0].where == "net.yaml"
