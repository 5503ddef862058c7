"""The sandwich rule: the largest and the smallest are in every step, gradients add up, one pass is held at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ofa_pose.arch.space import SearchSpace
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.elastic import Supernet
from ofa_pose.train.losses import distillation_loss
from ofa_pose.train.objectives import Losses, SandwichSampling, UniformSampling, label_losses
from ofa_pose.train.updates import backpropagate
from tests.networks import randomised
from tests.train.test_objectives import SETTINGS, labelled

MakeSandwich = Callable[..., tuple[SandwichSampling, Supernet]]


@pytest.fixture
def make_sandwich(tiny_space: SearchSpace) -> MakeSandwich:
    def make(count: int = 2, seed: int = 3) -> tuple[SandwichSampling, Supernet]:
        supernet = randomised(Supernet(tiny_space, 14, torch.Generator().manual_seed(0)))
        return SandwichSampling(supernet, seed, SETTINGS, count), supernet

    return make


def batch_of(objective: SandwichSampling, step: int) -> Batch:
    return labelled(objective.resolution(step), step)


def gradients(net: Supernet) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


@pytest.mark.parametrize("count", [1, 3])
def test_the_largest_and_the_smallest_are_in_every_step(
    make_sandwich: MakeSandwich, tiny_space: SearchSpace, count: int
) -> None:
    objective, supernet = make_sandwich(count)
    uniform = UniformSampling(supernet, 3, SETTINGS)
    drawn = set()
    for step in range(40):
        subnets = objective.subnets(step)
        assert len(subnets) == 2 + count and {spec.resolution for spec in subnets} == {objective.resolution(step)}
        side = objective.resolution(step)
        assert subnets[0] == replace(tiny_space.largest(14), resolution=side)
        assert subnets[1] == replace(tiny_space.smallest(14), resolution=side)
        assert subnets[2] == uniform.subnet(step) and side == uniform.resolution(step)
        assert objective.subnets(step) == subnets
        drawn |= set(subnets[2:])
    assert len(drawn) > 10 * count


def test_the_others_learn_heatmaps_from_labels_and_from_the_largests(
    make_sandwich: MakeSandwich,
) -> None:
    objective, supernet = make_sandwich()
    supernet.eval()
    batch = batch_of(objective, 0)
    first, *others = objective.loss(batch, 0)
    largest, *smaller = objective.subnets(0)
    with torch.no_grad():
        low, high = supernet(normalise(batch.images), largest)
    expected = label_losses(low, high, batch, SETTINGS)
    assert {name: value.item() for name, value in first.items()} == {n: v.item() for n, v in expected.items()}
    assert len(others) == len(smaller) == 3
    for spec, losses in zip(smaller, others, strict=True):
        with torch.no_grad():
            own_low, own_high = supernet(normalise(batch.images), spec)
        labels = label_losses(own_low, own_high, batch, SETTINGS)
        assert losses.keys() == {*labels, "teacher_low", "teacher_high"}
        for name in labels:
            share = 1 if name in ("push", "pull") else 1 - SETTINGS.distill
            assert losses[name].item() == pytest.approx(share * labels[name].item()), (
                "tags are learnt from labels alone"
            )
        small = distillation_loss(own_low[:, :14], low[:, :14], batch.mask, SETTINGS.foreground)
        large = distillation_loss(own_high, high, batch.mask, SETTINGS.foreground)
        assert losses["teacher_low"].item() == pytest.approx(SETTINGS.distill * small.item())
        assert losses["teacher_high"].item() == pytest.approx(SETTINGS.distill * SETTINGS.high * large.item())


def test_its_gradients_are_the_sum_of_the_plain_ones(make_sandwich: MakeSandwich) -> None:
    objective, supernet = make_sandwich()
    supernet.train()
    batch, images = batch_of(objective, 1), normalise(batch_of(objective, 1).images)
    supernet.zero_grad()
    sums = backpropagate(objective.loss(batch, 1))
    together = gradients(supernet)

    largest, *smaller = objective.subnets(1)
    supernet.zero_grad()
    low, high = supernet(images, largest)
    parts = [label_losses(low, high, batch, SETTINGS)]
    for spec in smaller:
        own_low, own_high = supernet(images, spec)
        labels = label_losses(own_low, own_high, batch, SETTINGS)
        heat = distillation_loss(own_low[:, :14], low[:, :14].detach(), batch.mask, SETTINGS.foreground)
        more = SETTINGS.high * distillation_loss(own_high, high.detach(), batch.mask, SETTINGS.foreground)
        share = SETTINGS.distill
        kept = {name: (1 - share) * labels[name] for name in ("low", "high")}
        parts.append({**labels, **kept, "teacher_low": share * heat, "teacher_high": share * more})
    torch.stack([value for losses in parts for value in losses.values()]).sum().backward()

    for one, other in zip(together, gradients(supernet), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert any(gradient.any() for gradient in together)
    for name, value in sums.items():
        plain = sum(losses[name].item() for losses in parts if name in losses)
        assert value.item() == pytest.approx(plain, rel=1e-5) and not value.requires_grad


def test_each_subnets_loss_is_backpropagated_before_the_next_is_computed(make_sandwich: MakeSandwich) -> None:
    objective, supernet = make_sandwich()
    order = []
    supernet.register_forward_pre_hook(lambda *_: order.append("forward"))
    supernet.unit(supernet.plan.stem[0]).conv.weight.register_hook(lambda _: order.append("backward"))
    backpropagate(objective.loss(batch_of(objective, 2), 2))
    assert order == ["forward", "backward"] * 4


def test_the_largest_learns_nothing_from_the_others(make_sandwich: MakeSandwich) -> None:
    objective, supernet = make_sandwich()
    supernet.train()
    batch = batch_of(objective, 0)

    def only(number: int) -> list[Tensor]:
        supernet.zero_grad()
        for place, losses in enumerate(objective.loss(batch, 0)):
            if place == number:
                torch.stack(list(losses.values())).sum().backward()
        return gradients(supernet)

    smallest = objective.subnets(0)[1]
    assert smallest.stem == 4
    stem = [name for name, _ in supernet.named_parameters()].index("stem.2.conv.weight")
    assert only(0)[stem][4:].any() and not only(1)[stem][4:].any(), "the smallest's loss reaches its own slices alone"


def test_one_dict_of_losses_is_backpropagated_as_before(make_sandwich: MakeSandwich) -> None:
    supernet = make_sandwich()[1].train()
    objective = UniformSampling(supernet, 3, SETTINGS)
    batch = labelled(objective.resolution(0))
    losses: Losses = objective.loss(batch, 0)
    supernet.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    plain = gradients(supernet)
    supernet.zero_grad()
    sums = backpropagate(objective.loss(batch, 0))
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(supernet), strict=True))
    assert {name: value.item() for name, value in sums.items()} == {n: v.item() for n, v in losses.items()}
