"""The counter over stock modules against LitePose's plan, thop, and counts by hand."""

from __future__ import annotations

import copy

import pytest
import thop
import torch
from torch import Tensor, nn

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import Macs, layer_rows, profile
from ofa_pose.families.counting import count_layers, count_net
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.seeding import generator
from tests.networks import same_state

SPACES = ("litepose-nano", "litepose-depth")


def random_spec(space: str) -> ArchSpec:
    rng = generator("test counting", space)
    return load_space(space).decode(load_space(space).sample(rng), 14)


def on_meta(spec: ArchSpec) -> LitePose:
    with torch.device("meta"):
        return LitePose(spec)


@pytest.mark.parametrize("spec", [*PRESETS.values(), *map(random_spec, SPACES)], ids=[*PRESETS, *SPACES])
def test_litepose_counts_equal_the_plans(spec: ArchSpec) -> None:
    whole = profile(spec)
    del whole["name"]
    assert count_net(spec, on_meta(spec)) == whole


def test_litepose_rows_are_the_plans() -> None:
    spec = random_spec("litepose-nano")
    rows, wanted = count_layers(on_meta(spec), spec.resolution, spec.resolution), layer_rows(spec)
    assert len(rows) == len(wanted)
    for row, layer in zip(rows, wanted, strict=True):
        assert row.name in (f"{layer['name']}.conv", f"{layer['name']}.norm")
        assert (row.operator, row.cin, row.cout) == (layer["operator"], layer["cin"], layer["cout"])
        assert row.size == (layer["side"], layer["side"])
        assert (row.params, row.macs.to_dict()) == (layer["params"], layer["macs"])


class Mixed(nn.Module):
    """Every module that has a rule, one of them run twice, after another that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, (3, 5), 2, (1, 2)), nn.BatchNorm2d(8, affine=False), nn.SiLU())
        self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.rest = nn.Sequential(
            nn.ELU(),
            nn.MaxPool2d(2),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2),
            nn.BatchNorm2d(6),
            nn.Hardswish(),
            nn.AvgPool2d(2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Upsample(scale_factor=2),
            nn.Hardsigmoid(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
            nn.LeakyReLU(),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.twice(self.twice(self.first(x))))


def test_a_net_of_all_modules_equals_thop() -> None:
    rows = count_layers(Mixed(), 32, 48)
    macs, params = thop.profile(Mixed(), inputs=(torch.zeros(1, 3, 32, 48),), verbose=False)
    assert sum(row.macs.thop for row in rows) == macs
    assert sum(row.params for row in rows) == params == sum(one.numel() for one in Mixed().parameters())


def test_a_net_of_all_modules_by_hand() -> None:
    half, small = 16 * 24, 8 * 12
    first, twice, deconv, linear = 8 * half * 45, 8 * half * 18, 6 * half * 64, 30
    rows = [(row.name, row.operator, row.cin, row.cout, row.size, row.params) for row in count_layers(Mixed(), 32, 48)]
    assert rows == [
        ("first.0", "conv 3×5 /2", 3, 8, (16, 24), 8 * 45 + 8),
        ("twice", "grouped conv 3×3", 8, 8, (16, 24), 8 * 18 + 8),
        ("twice", "grouped conv 3×3", 8, 8, (16, 24), 0),
        ("rest.2", "grouped deconv 4×4 ×2", 8, 6, (16, 24), 8 * 48 + 6 + 12),
        ("rest.5", "average pool", 6, 6, (8, 12), 0),
        ("rest.6", "upsample", 6, 6, (16, 24), 0),
        ("rest.7", "upsample", 6, 6, (32, 48), 0),
        ("rest.9", "average pool", 6, 6, (1, 1), 0),
        ("rest.11", "linear", 6, 5, (1, 1), 35),
    ]
    assert [row.macs for row in count_layers(Mixed(), 32, 48)] == [
        Macs(first + 2 * 8 * half, first, first + 2 * 8 * half),
        Macs(twice, twice, twice),
        Macs(twice, twice, twice),
        Macs(deconv + 4 * 6 * half, deconv // 4, deconv + 2 * 6 * half),
        Macs(6 * small, 0, 0),
        Macs(11 * 6 * half, 0, 0),
        Macs(6 * 4 * half, 0, 0),
        Macs(6 * 4 * half + 6, 0, 0),
        Macs(linear, linear, linear),
    ]


def test_shared_parameters_count_once() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False))
    net[1].weight = net[0].weight
    rows = count_layers(net, 4, 4)
    assert [row.params for row in rows] == [9, 0]
    assert rows[0].macs == rows[1].macs == Macs(144, 144, 144)


def test_of_activations_relus_alone_cost_something() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.SiLU(), nn.ELU(), nn.ReLU6(), nn.Sigmoid())
    assert [(row.operator, row.macs.paper) for row in count_layers(net, 4, 4)] == [
        ("conv 1×1", 144 + 48),
        ("activation", 48),
    ]


def test_an_activation_after_a_sum_has_a_row() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x + self.act(self.conv(x)))

    rows = count_layers(Residual(), 4, 4)
    assert [(row.name, row.operator, row.macs.paper) for row in rows] == [
        ("conv", "conv 1×1", 144 + 48),
        ("act", "activation", 48),
    ]


def test_the_network_stays_as_it_is() -> None:
    net = Mixed().train()
    net.first.eval()
    before, modes = copy.deepcopy(net), [module.training for module in net.modules()]
    count_layers(net, 32, 48)
    assert same_state(net, before)
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())
    assert {one.device.type for one in net.parameters()} == {"cpu"}


def test_a_half_precision_network_is_counted() -> None:
    assert count_layers(Mixed().half(), 32, 48) == count_layers(Mixed(), 32, 48)


@pytest.mark.parametrize("module", [nn.PReLU(), nn.GroupNorm(1, 3)], ids=lambda one: type(one).__name__)
def test_parameters_without_a_rule_are_named(module: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(module))
    name = type(module).__name__
    with pytest.raises(OfaPoseError, match=rf"module '1\.0' \({name}\) has parameters, and no rule says what it costs"):
        count_layers(net, 4, 4)


def test_a_modules_own_parameter_without_a_rule_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.conv = nn.Parameter(torch.ones(1)), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.conv(x)

    with pytest.raises(OfaPoseError, match="Scaled"):
        count_layers(Scaled(), 4, 4)


def test_a_module_that_never_runs_is_named() -> None:
    net = LitePose(random_spec("litepose-nano"))
    net.spare = nn.Conv2d(1, 1, 1)
    with pytest.raises(OfaPoseError, match=r"module 'spare' \(Conv2d\) never runs"):
        count_layers(net, 64, 64)
