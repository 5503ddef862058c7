"""Objectives: what a step trains is a function of the step; a teacher teaches heatmaps and learns nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import LossSettings
from ofa_pose.train.losses import distillation_loss, heatmap_loss, heatmaps, tag_loss
from ofa_pose.train.objectives import Distillation, FixedNet, UniformSampling, label_losses
from ofa_pose.utils.seeding import generator
from tests.networks import randomised

SETTINGS = LossSettings(sigma=1.5, foreground=10.0, push=0.1, pull=0.2, high=0.5)


def labelled(side: int = 64, seed: int = 0, joints: int = 14) -> Batch:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    keypoints = np.dstack([rng.uniform(0, side, (2 * 3, joints, 2)), rng.integers(0, 3, (2 * 3, joints, 1))])
    mask = torch.from_numpy((rng.random((2, side // 2, side // 2)) > 0.2).astype(np.uint8))
    return Batch(images, torch.from_numpy(keypoints.reshape(2, 3, joints, 3).astype(np.float32)), mask, side)


@pytest.fixture
def make_net(tiny_spec: ArchSpec) -> Callable[..., LitePose]:
    def make(seed: int = 0, **change: object) -> LitePose:
        spec = replace(tiny_spec, **change)  # type: ignore[arg-type]
        return randomised(LitePose(spec, torch.Generator().manual_seed(seed)), seed)

    return make


def test_label_losses_are_their_definitions() -> None:
    batch = labelled()
    low, high = torch.randn(2, 28, 16, 16), torch.randn(2, 14, 32, 32)
    losses = label_losses(low, high, batch, SETTINGS)
    push, pull = tag_loss(low[:, 14:], batch.keypoints, 4)
    small, large = (heatmaps(batch.keypoints, (n, n), 64 / n, SETTINGS.sigma) for n in (16, 32))
    assert torch.equal(losses["low"], heatmap_loss(low[:, :14], small, batch.mask, 10.0))
    assert torch.equal(losses["high"], 0.5 * heatmap_loss(high, large, batch.mask, 10.0))
    assert torch.equal(losses["push"], 0.1 * push) and torch.equal(losses["pull"], 0.2 * pull)
    assert losses.keys() == {"low", "high", "push", "pull"} and all(value > 0 for value in losses.values())


def test_a_fixed_nets_resolution_is_a_function_of_the_step(make_net: Callable[..., LitePose]) -> None:
    objective = FixedNet(make_net(), (32, 64, 96), 5, SETTINGS)
    sides = [objective.resolution(step) for step in range(300)]
    assert [objective.resolution(step) for step in reversed(range(300))] == sides[::-1]
    other = FixedNet(make_net(), (32, 64, 96), 6, SETTINGS)
    assert sides != [other.resolution(step) for step in range(300)]
    assert all(70 < sides.count(side) < 130 for side in (32, 64, 96))
    fixed = FixedNet(make_net(), (64,), 5, SETTINGS)
    assert {fixed.resolution(step) for step in range(9)} == {64}


def test_a_fixed_net_learns_from_labels(make_net: Callable[..., LitePose]) -> None:
    net, batch = make_net().eval(), labelled()
    losses = FixedNet(net, (64,), 0, SETTINGS).loss(batch, 0)
    expected = label_losses(*net(normalise(batch.images)), batch, SETTINGS)
    assert {name: value.item() for name, value in losses.items()} == {n: v.item() for n, v in expected.items()}


def test_the_subnet_of_a_step_is_a_function_of_the_step_and_uniform(tiny_space: SearchSpace) -> None:
    objective, other = (UniformSampling(Supernet(tiny_space, 14), seed, SETTINGS) for seed in (3, 4))
    drawn = [objective.subnet(step) for step in range(600)]
    assert [objective.subnet(step) for step in range(599, -1, -1)] == drawn[::-1]
    assert drawn[:50] != [other.subnet(step) for step in range(50)]
    genomes = np.array([tiny_space.encode(spec) for spec in drawn])
    for column, choices in zip(genomes.T, tiny_space.choices, strict=True):
        assert np.abs(np.bincount(column, minlength=len(choices)) / 600 - 1 / len(choices)).max() < 0.08
    assert {spec.joints for spec in drawn} == {14}


def test_a_supernet_learns_the_steps_subnet_at_its_resolution(tiny_space: SearchSpace) -> None:
    supernet = randomised(Supernet(tiny_space, 14, torch.Generator().manual_seed(0))).eval()
    objective = UniformSampling(supernet, 3, SETTINGS)
    seen = set()
    for step in range(6):
        spec = tiny_space.decode(tiny_space.sample(generator(3, "subnet", step)), 14)
        assert objective.subnet(step) == spec and objective.resolution(step) == spec.resolution
        batch = labelled(spec.resolution, step)
        losses = objective.loss(batch, step)
        expected = label_losses(*supernet(normalise(batch.images), spec), batch, SETTINGS)
        assert {n: v.item() for n, v in losses.items()} == {n: v.item() for n, v in expected.items()}
        seen.add(spec)
    assert len(seen) > 3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_distillation_mixes_labels_and_teacher(make_net: Callable[..., LitePose], share: float) -> None:
    net, teacher, batch = make_net(0).eval(), make_net(1), labelled()
    settings = SETTINGS.model_copy(update={"distill": share})
    losses = Distillation(net, (64,), 0, settings, teacher).loss(batch, 0)
    labels = label_losses(*net(normalise(batch.images)), batch, settings)
    with torch.no_grad():
        low, high = net(normalise(batch.images))
        teacher_low, teacher_high = teacher.eval()(normalise(batch.images))
    for name in ("low", "high"):
        assert losses[name].item() == pytest.approx((1 - share) * labels[name].item())
    for name in ("push", "pull"):
        assert losses[name].item() == labels[name].item(), "tags are learnt from labels alone"
    for name, weight, ours, theirs in (("low", 1, low[:, :14], teacher_low[:, :14]), ("high", 0.5, high, teacher_high)):
        expected = share * weight * distillation_loss(ours, theirs, batch.mask, settings.foreground)
        assert losses[f"teacher_{name}"].item() == pytest.approx(expected.item())


def test_with_all_of_the_teacher_the_labels_heatmaps_do_not_matter(make_net: Callable[..., LitePose]) -> None:
    net = make_net(0).eval()
    objective = Distillation(net, (64,), 0, SETTINGS.model_copy(update={"distill": 1.0}), make_net(1))
    batch = labelled()
    moved = replace(batch, keypoints=labelled(seed=9).keypoints)
    gradients = []
    for one in (batch, moved):
        losses = objective.loss(one, 0)
        net.zero_grad()
        (sum(value for name, value in losses.items() if name not in ("push", "pull"))).backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert any(gradient.any() for gradient in gradients[0])


def test_a_teacher_of_another_size_sees_the_same_crops_and_learns_nothing(make_net: Callable[..., LitePose]) -> None:
    net = make_net(0)
    teacher = make_net(1, resolution=96, stem=12, stages=(12, 10, 14, 18), deconv=(8, 10, 12)).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    seen = []
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = Distillation(net, (64,), 0, SETTINGS, teacher)
    batch = labelled()
    net.train()
    losses = objective.loss(batch, 0)
    torch.stack(list(losses.values())).sum().backward()
    size = (96, 96)
    resized = F.interpolate(normalise(batch.images), size, mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(seen[0], resized)
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert losses["teacher_low"] > 0 and losses["teacher_high"] > 0
    assert objective.network is net and objective.resolution(3) == 64


def test_a_net_that_is_its_own_teacher_has_nothing_to_learn_from_it(make_net: Callable[..., LitePose]) -> None:
    net = make_net(0).eval()
    losses = Distillation(net, (64,), 0, SETTINGS, make_net(0)).loss(labelled(), 0)
    assert losses["teacher_low"] == 0 and losses["teacher_high"] == 0
