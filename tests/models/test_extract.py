"""A subnet cut out of the supernet is a plain network that gives the same outputs to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import HEADS, Head
from ofa_pose.models.elastic import Supernet, extract, leading_slice
from ofa_pose.models.litepose import LitePose, Unit
from ofa_pose.utils.errors import InputError
from tests.networks import picture, randomised, same_state

NANO = load_space("litepose-nano")
DEEP = SearchSpace(
    "deep",
    (32, 64),
    (3, 5),
    ((4, 8), (5, 6), (4, 9), (4, 7)),
    ((3, 8),) * 3,
    (1, 2),
    (2, 3, 1, 2),
    5,
    depth=((1, 2), (1, 2, 3), (1,), (1, 2)),
)
STOCK = {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6}
CONTAINERS = {nn.Module, Unit, LitePose}


@pytest.fixture
def supernet(tiny_space: SearchSpace) -> Supernet:
    return randomised(Supernet(tiny_space, 3, torch.Generator().manual_seed(0))).eval()


@torch.no_grad()
def assert_equal_outputs(supernet: Supernet, seed: int) -> None:
    spec = supernet.space.decode(supernet.space.sample(np.random.default_rng(seed)), supernet.spec.joints)
    image = picture(1, 64, 32, seed)
    net = extract(supernet, spec)
    assert net.spec == spec and not net.training
    for whole, cut in zip(supernet(image, spec), net(image), strict=True):
        assert (whole - cut).abs().max() == 0
        assert cut.abs().mean() > 1e-3
    state = supernet.state_dict()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name][tuple(slice(0, size) for size in tensor.shape)]), name
        assert tensor.is_contiguous()


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_any_subnet_of_a_space_with_elastic_expansions(seed: int) -> None:
    space = SearchSpace(
        "s", (32, 64), (3, 5), ((4, 8), (5, 6), (4, 9), (4, 7)), ((3, 8),) * 3, (1, 2, 3), (2, 1, 2, 1), 5
    )
    assert_equal_outputs(randomised(Supernet(space, 2, torch.Generator().manual_seed(seed)), seed).eval(), seed)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), kernel=st.sampled_from((3, 5, 7, 9)), head=st.sampled_from(HEADS))
def test_any_subnet_with_elastic_depth_any_kernel_and_head(seed: int, kernel: int, head: Head) -> None:
    space = replace(DEEP, kernel=kernel, head=head)
    assert_equal_outputs(randomised(Supernet(space, 2, torch.Generator().manual_seed(seed)), seed).eval(), seed)


@torch.no_grad()
def test_a_shallower_net_than_any_subnet_gets_the_leading_blocks_and_a_warning(
    capfd: pytest.CaptureFixture[str],
) -> None:
    space = replace(DEEP, depth=())
    supernet = randomised(Supernet(space, 2, torch.Generator().manual_seed(0))).eval()
    whole = space.largest(2)
    spec = replace(whole, expansions=tuple(stage[:1] for stage in whole.expansions))
    net = extract(supernet, spec)
    words = "the net has blocks 1/1/1/1, space 'deep' 2/3/1/2: the leading blocks are taken"
    assert f"warning: {words}" in capfd.readouterr().err
    with pytest.warns(UserWarning, match=words):
        outputs = supernet(picture(), spec)
    for one, other in zip(outputs, net(picture()), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(value, supernet.state_dict()[name]) for name, value in net.state_dict().items())
    extract(supernet, whole)
    assert capfd.readouterr().err == ""


_nano: list[Supernet] = []


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_any_subnet_of_the_shipped_nano_space(seed: int) -> None:
    if not _nano:
        _nano.append(randomised(Supernet(NANO, 17, torch.Generator().manual_seed(1))).eval())
    assert_equal_outputs(_nano[0], seed)


@torch.no_grad()
def test_channels_last_supernets_too(supernet: Supernet) -> None:
    spec = supernet.space.smallest(3)
    net = extract(supernet.to(memory_format=torch.channels_last), spec)
    for whole, cut in zip(supernet(picture(), spec), net(picture()), strict=True):
        assert torch.allclose(whole, cut, atol=1e-5)


def test_a_cut_net_is_made_of_stock_layers(supernet: Supernet) -> None:
    for module in extract(supernet, supernet.space.smallest(3)).modules():
        kinds = CONTAINERS if list(module.children()) else STOCK
        assert type(module) in kinds, module


def test_a_cut_net_shares_no_memory(supernet: Supernet) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    net = extract(supernet, supernet.space.largest(3))
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    net = extract(supernet, supernet.space.smallest(3))
    for tensor in net.state_dict().values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in net.parameters())


def test_cutting_changes_neither_supernet_nor_its_mode(supernet: Supernet) -> None:
    other = randomised(Supernet(supernet.space, 3, torch.Generator().manual_seed(0)))
    assert not extract(supernet, supernet.space.smallest(3)).training
    assert extract(supernet.train(), supernet.space.smallest(3)).training
    assert supernet.training and same_state(supernet, other)


def test_a_net_of_another_space_or_other_joints_is_refused(supernet: Supernet) -> None:
    spec = supernet.space.smallest(3)
    with pytest.raises(InputError, match="stem 5 is not in space 'tiny'"):
        extract(supernet, replace(spec, stem=5))
    with pytest.raises(InputError, match="other kernels or depths than space 'tiny'"):
        extract(supernet, PRESETS["litepose-xs"])
    with pytest.raises(InputError, match="the supernet has 3 joints, the net 4"):
        extract(supernet, spec.with_joints(4))


def test_leading_slice() -> None:
    tensor = torch.arange(24).reshape(2, 3, 4)
    cut = leading_slice(tensor, (1, 2, 3))
    assert cut.tolist() == [[[0, 1, 2], [4, 5, 6]]] and cut.data_ptr() == tensor.data_ptr()
    assert leading_slice(torch.tensor(5), ()).item() == 5
