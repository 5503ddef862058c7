"""LitePose computes what section 3 of the paper describes; here it is written out once more, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.models.litepose import OUTPUT_STD, LitePose
from ofa_pose.utils.errors import InputError
from tests.networks import picture, randomised, same_state

SPEC = ArchSpec(64, 6, (8, 8, 10, 10), ((2, 3), (2, 2), (3,), (2, 1, 2)), (7, 8, 6), 5, 4)


class ByHand:
    """The network's formula over its state dict, with no plan: strides, residuals and fusion as published."""

    def __init__(self, net: LitePose) -> None:
        self.state = net.state_dict()

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            self.state[f"{name}.norm.{part}"].view(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    def conv(self, name: str, x: Tensor, stride: int = 1, norm: bool = True) -> Tensor:
        weight = self.state[f"{name}.conv.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        return self.norm(name, x) if norm else x

    def deconv(self, name: str, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.state[f"{name}.conv.weight"], stride=2, padding=1)

    def head(self, name: str, x: Tensor) -> Tensor:
        return self.conv(f"{name}.pointwise", F.relu(self.conv(f"{name}.depthwise", x)), norm=False)

    def __call__(self, x: Tensor, depths: tuple[int, ...], fusion: bool) -> tuple[Tensor, Tensor]:
        x = F.relu6(self.conv("stem.0", x, stride=2))
        x = F.relu6(self.conv("stem.1", x))
        maps = [self.conv("stem.2", x)]
        for stage, depth in enumerate(depths):
            x = maps[-1]
            for block in range(depth):
                name, stride = f"stages.{stage}.{block}", (2, 2, 2, 1)[stage] if block == 0 else 1
                y = F.relu6(self.conv(f"{name}.expand", x))
                y = self.conv(f"{name}.project", F.relu6(self.conv(f"{name}.depthwise", y, stride)))
                x = y if block == 0 else x + y
            maps.append(x)
        outputs = []
        for step in range(3):
            fused = self.deconv(f"deconv.{step}.refined", x)
            if fusion:
                fused = fused + self.deconv(f"deconv.{step}.raw", maps[3 - step])
            x = F.relu(self.norm(f"deconv.{step}.norm", fused))
            if step:
                name = f"outputs.{step - 1}"
                output = self.head(f"{name}.refined", x)
                outputs.append(output + self.head(f"{name}.raw", maps[2 - step]) if fusion else output)
        return outputs[0], outputs[1]


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("head", HEADS)
def test_the_forward_pass_is_the_published_formula(head: Head, kernel: int) -> None:
    net = randomised(LitePose(replace(SPEC, head=head, kernel=kernel))).eval()
    image = picture(2, 64, 96)
    assert any(".raw." in name for name in net.state_dict()) == (head == "fusion")
    for ours, theirs in zip(net(image), ByHand(net)(image, (2, 2, 1, 3), head == "fusion"), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
        assert theirs.abs().mean() > 0.05, "the comparison is not one of zeros"


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 48), (96, 32)])
def test_outputs_stand_at_a_quarter_and_a_half_of_any_multiple_of_16(height: int, width: int) -> None:
    net = LitePose(SPEC).eval()
    low, high = net(picture(2, height, width))
    assert low.shape == (2, 2 * 4, height // 4, width // 4)
    assert high.shape == (2, 4, height // 2, width // 2)


def test_a_generator_decides_the_weights_alone() -> None:
    def make(seed: int) -> LitePose:
        return LitePose(SPEC, torch.Generator().manual_seed(seed))

    first = make(1)
    torch.manual_seed(5)
    assert same_state(first, make(1)) and not same_state(first, make(2))


def test_weights_start_as_he_normal_and_outputs_near_zero() -> None:
    net = LitePose(PRESETS["litepose-xs"], torch.Generator().manual_seed(0))
    for layer in net.plan.layers():
        unit = net.unit(layer)
        if layer.norm:
            assert torch.equal(unit.norm.weight, torch.ones(layer.cout)) and not unit.norm.bias.any()
        if layer.kind == "norm" or unit.conv.weight.numel() < 500:
            continue
        readers = layer.kernel**2 * (1 if layer.depthwise else layer.cout) / (4 if layer.kind == "deconv" else 1)
        expected = OUTPUT_STD if layer.name.endswith("pointwise") else (2 / readers) ** 0.5
        assert unit.conv.weight.std().item() == pytest.approx(expected, rel=0.15), layer.name


@torch.no_grad()
def test_activations_neither_vanish_nor_explode_at_the_start() -> None:
    net = LitePose(PRESETS["litepose-xs"].at(64), torch.Generator().manual_seed(0)).train()
    x = picture(4)
    for output in net(x):
        assert 1e-6 < output.std() < 0.1
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var.max() < 1e3


def test_names_follow_the_plan() -> None:
    names = set(dict(LitePose(SPEC).named_parameters()))
    assert {"stem.0.conv.weight", "stages.3.2.project.norm.bias", "deconv.1.raw.conv.weight"} <= names
    assert {"deconv.2.norm.norm.weight", "outputs.0.refined.pointwise.conv.weight"} <= names


def test_a_net_that_would_fill_the_memory_is_not_begun() -> None:
    wide = ArchSpec(64, 4096, (4096,) * 4, ((64,) * 9,) * 4, (4096,) * 3)
    with pytest.raises(InputError, match=r"has 79\.4G parameters, more than 200M; give it fewer"):
        LitePose(wide)
