"""MACs and parameters against thop, torch's own counter, the network itself, and the published figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import thop
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.costs.macs import CONVENTIONS, Macs, layer_macs, layer_params, spec_macs, spec_params
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.seeding import generator

SPACES = ("litepose", "litepose-per-block", "litepose-nano")
# GMACs at batch 1 on the net's own square input: joints 14, then 17; parameters in millions for 14 joints
PUBLISHED = {
    "litepose-xs": {"exact": (0.8829, 0.8858), "thop": (1.2202, 1.2232), "paper": 1.2023, "params": 1.676},
    "litepose-s": {"exact": (3.6141, 3.6244), "thop": (5.0411, 5.0513), "paper": 4.9813, "params": 2.731},
    "litepose-m": {"exact": (5.2637, 5.2757), "thop": (7.9180, 7.9300), "paper": 7.8416, "params": 3.534},
    "litepose-l": {"exact": (9.9620, 9.9793), "thop": (13.8341, 13.8514), "paper": 13.7131, "params": 5.738},
}


def meta_net(spec: ArchSpec) -> tuple[LitePose, torch.Tensor]:
    """The network and its input without memory: counting takes shapes only."""
    with torch.device("meta"):
        return LitePose(spec), torch.empty(1, 3, spec.resolution, spec.resolution)


def thop_count(spec: ArchSpec) -> tuple[float, float]:
    """MACs and parameters as thop counts them."""
    with same_shape_steps():
        net, image = meta_net(spec)
        return thop.profile(net, inputs=(image,), verbose=False)


def sampled(name: str, count: int) -> set[ArchSpec]:
    """Distinct random subnets of a shipped space, of 14 and 17 joints."""
    space, rng = load_space(name), generator("test macs", name)
    specs: set[ArchSpec] = set()
    while len(specs) < count:
        specs.add(space.decode(space.sample(rng), int(rng.choice([14, 17]))))
    return specs


@contextmanager
def same_shape_steps() -> Iterator[None]:
    """Skip what keeps shapes (norms, activations, drawing weights): on the meta device that is where the time goes."""

    def same(x: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return x

    with (
        mock.patch.object(F, "batch_norm", same),
        mock.patch.object(F, "hardtanh", same),
        mock.patch.object(F, "relu", same),
        mock.patch.object(LitePose, "reset_parameters", lambda *_: None),
    ):
        yield


@pytest.mark.parametrize("name", SPACES)
def test_random_subnets_equal_thop(name: str) -> None:
    for spec in sampled(name, 15):
        assert (spec_macs(spec).thop, spec_params(spec)) == thop_count(spec), spec


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_any_kernel_and_head_equals_thop_and_half_of_torchs_count(kernel: int, head: Head) -> None:
    space = replace(load_space("litepose-depth"), kernel=kernel, head=head)
    rng = generator("test macs", kernel, head)
    for _ in range(3):
        spec = space.decode(space.sample(rng), 14)
        assert (spec_macs(spec).thop, spec_params(spec)) == thop_count(spec), spec
        with same_shape_steps(), FlopCounterMode(display=False) as counter:
            net, image = meta_net(spec)
            net(image)
        assert 2 * spec_macs(spec).exact == counter.get_total_flops(), spec


@pytest.mark.parametrize("name", SPACES)
def test_exact_is_half_of_torchs_count(name: str) -> None:
    for spec in sampled(name, 5):
        with same_shape_steps(), FlopCounterMode(display=False) as counter:
            net, image = meta_net(spec)
            net(image)
        assert 2 * spec_macs(spec).exact == counter.get_total_flops(), spec  # it counts a multiply and an add as two


def test_thop_counts_a_real_net_alike() -> None:
    spec = load_space("litepose-nano").smallest(3)
    image = torch.zeros(1, 3, spec.resolution, spec.resolution)
    assert thop.profile(LitePose(spec), inputs=(image,), verbose=False) == thop_count(spec)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    figures, spec = PUBLISHED[name], PRESETS[name]
    counted = {joints: spec_macs(spec.with_joints(joints)) for joints in (14, 17)}
    assert tuple(round(counted[j].exact / 1e9, 4) for j in (14, 17)) == figures["exact"]
    assert tuple(round(counted[j].thop / 1e9, 4) for j in (14, 17)) == figures["thop"]
    assert round(counted[14].paper / 1e9, 4) == figures["paper"]
    assert round(spec_params(spec.with_joints(14)) / 1e6, 3) == figures["params"]


def test_paper_convention_by_hand() -> None:
    """Per output pixel + 2 per BatchNorm element + 1 per activation element, on single layers of XS."""
    layers = {layer.name: layer for layer in make_plan(PRESETS["litepose-xs"].with_joints(14)).layers()}
    stem = 32 * 128 * 128
    assert layer_macs(layers["stem.0"]).paper == stem * 3 * 9 + 2 * stem + stem
    narrow = 16 * 128 * 128
    assert layer_macs(layers["stem.2"]).paper == narrow * 32 + 2 * narrow  # no activation
    deconv = 16 * 32 * 32
    assert layer_macs(layers["deconv.0.refined"]).paper == deconv * 80 * 16
    assert layer_macs(layers["deconv.0.norm"]).paper == 3 * deconv
    assert layer_macs(layers["outputs.0.raw.pointwise"]).paper == 28 * 64 * 64 * 16


def test_parameters_are_the_networks_own() -> None:
    spec = PRESETS["litepose-s"]
    with torch.device("meta"):
        net = LitePose(spec)
    assert spec_params(spec) == sum(p.numel() for p in net.parameters())
    for layer in make_plan(spec).layers():
        assert layer_params(layer) == sum(p.numel() for p in net.unit(layer).parameters())


def test_layers_add_up() -> None:
    plan = make_plan(PRESETS["litepose-xs"])
    total = sum((layer_macs(layer) for layer in plan.layers()), Macs(0, 0, 0))
    assert total == spec_macs(plan.spec)
    assert tuple(total.to_dict()) == CONVENTIONS


def test_doubling_the_side_quadruples_every_count() -> None:
    spec = PRESETS["litepose-xs"]
    small, large = spec_macs(spec), spec_macs(spec.at(2 * spec.resolution))
    assert large == Macs(4 * small.thop, 4 * small.exact, 4 * small.paper)
