"""The supernet: a subnet is an argument of forward, reads leading slices only, and leaves no trace of itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from tests.networks import picture, randomised, same_state


def sampled(space: SearchSpace, seed: int) -> ArchSpec:
    return space.decode(space.sample(np.random.default_rng(seed)), joints=3)


def slices(supernet: Supernet, spec: ArchSpec) -> Iterator[tuple[str, Tensor, tuple[slice, ...]]]:
    """Every parameter of the supernet, with the part of it that the subnet reads."""
    shapes = {name: parameter.shape for name, parameter in LitePose(spec).named_parameters()}
    for name, parameter in supernet.named_parameters():
        yield name, parameter, tuple(slice(0, size) for size in shapes[name])


@pytest.fixture
def supernet(tiny_space: SearchSpace) -> Supernet:
    return randomised(Supernet(tiny_space, 3, torch.Generator().manual_seed(0)))


@torch.no_grad()
def test_the_largest_subnet_is_the_supernet_as_a_fixed_net(supernet: Supernet, tiny_space: SearchSpace) -> None:
    net = LitePose(tiny_space.largest(3)).eval()
    net.load_state_dict(supernet.state_dict())
    supernet.eval()
    for outputs in zip(supernet(picture()), supernet(picture(), tiny_space.largest(3)), net(picture()), strict=True):
        assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


@torch.no_grad()
def test_interleaved_subnets_give_what_each_gives_alone(supernet: Supernet, tiny_space: SearchSpace) -> None:
    supernet.eval()
    specs = [sampled(tiny_space, seed) for seed in range(3)]
    assert len(set(specs)) == 3
    before = copy.deepcopy(supernet)
    alone = [copy.deepcopy(supernet)(picture(), spec) for spec in specs]
    for index in (0, 1, 0, 2, 1, 2, 0):
        for ours, fresh in zip(supernet(picture(), specs[index]), alone[index], strict=True):
            assert torch.equal(ours, fresh)
    assert same_state(supernet, before)
    assert supernet.__dict__.keys() == before.__dict__.keys()


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_a_training_step_touches_the_subnets_slices_alone(tiny_space: SearchSpace, seed: int) -> None:
    supernet = randomised(Supernet(tiny_space, 3, torch.Generator().manual_seed(0))).train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    spec = sampled(tiny_space, seed)
    low, high = supernet(picture(2), spec)
    (low.square().mean() + high.square().mean()).backward()
    for name, parameter, part in slices(supernet, spec):
        assert parameter.grad is not None, name
        outside = parameter.grad.clone()
        outside[part] = 0
        assert not outside.any(), f"{name} has a gradient outside the subnet"
        assert parameter.grad[part].any(), f"{name} has no gradient inside the subnet"
    state = supernet.state_dict()
    for name, buffer in LitePose(spec).named_buffers():
        if buffer.ndim:
            width = len(buffer)
            assert torch.equal(state[name][width:], before[name][width:]), f"{name} changed outside the subnet"
            assert not torch.equal(state[name][:width], before[name][:width]), f"{name} did not learn"


def test_a_training_step_of_a_subnet_is_that_of_its_slices(supernet: Supernet, tiny_space: SearchSpace) -> None:
    """Gradients and running statistics equal those of the same net cut out, in training mode too."""
    spec = sampled(tiny_space, 4)
    net = LitePose(spec)
    state = supernet.state_dict()
    shapes = net.state_dict()
    net.load_state_dict({name: state[name][tuple(slice(0, n) for n in shapes[name].shape)] for name in shapes})
    image = picture(2)
    for module, outputs in ((supernet.train(), supernet(image, spec)), (net.train(), net(image))):
        sum(output.square().mean() for output in outputs).backward()
        assert module.training
    ours = dict(net.named_parameters())
    for name, parameter, part in slices(supernet, spec):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad[part], ours[name].grad, atol=1e-5, rtol=1e-4), name
    for name, buffer in net.named_buffers():
        if buffer.ndim:
            assert torch.equal(supernet.state_dict()[name][: len(buffer)], buffer), name
