"""Starting a supernet: sorting keeps the function and orders every elastic group; wrong checkpoints are refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import COCO, CROWDPOSE
from ofa_pose.train.pretrained import importances, initialise, sort_channels
from ofa_pose.utils.errors import InputError
from tests.networks import picture, randomised, same_state

MIXED = ArchSpec(64, 6, (8, 8, 10, 10), ((2, 3), (2, 2), (3,), (2, 1, 2)), (7, 8, 6), 5, 4)


def packed(net: LitePose, space: SearchSpace | None = None) -> Checkpoint:
    skeleton = COCO if net.spec.joints == 17 else CROWDPOSE
    kind = "supernet" if isinstance(net, Supernet) else "net"
    return Checkpoint(kind, net.spec, space, skeleton, copy.deepcopy(net.state_dict()))  # type: ignore[arg-type]


def flows(net: LitePose) -> dict[str, torch.Tensor]:
    """The importances found another way: how the sum of all outputs grows with each channel of a linear net that has
    the shares as weights."""
    sources: dict[str, torch.Tensor] = {}
    values: dict[str, torch.Tensor] = {}
    for layer in net.plan.layers():
        if layer.kind == "norm" or layer.depthwise:
            continue
        for group, width in ((layer.reads, layer.cin), (layer.writes, layer.cout)):
            if group not in values:
                sources[group] = torch.zeros(width, requires_grad=True)
                values[group] = sources[group] + 0
        weight = net.unit(layer).conv.weight.detach().abs().sum((2, 3))
        weight = weight.T if layer.kind == "deconv" else weight
        share = weight / weight.sum(1, keepdim=True)
        values[layer.writes] = values[layer.writes] + share @ values[layer.reads]
    outputs = [value.sum() for group, value in values.items() if group.startswith("outputs.")]
    grads = torch.autograd.grad(torch.stack(outputs).sum(), list(sources.values()))
    return dict(zip(sources, grads, strict=True))


@pytest.mark.parametrize(
    "spec",
    [MIXED, load_space("litepose-nano").largest(5), replace(MIXED, head="plain", kernel=9)],
    ids=["mixed", "nano", "plain"],
)
def test_sorting_keeps_the_function_and_orders_every_elastic_group(spec: ArchSpec) -> None:
    net = randomised(LitePose(spec, torch.Generator().manual_seed(0))).eval()
    image = picture(2)
    with torch.no_grad():
        before = [output.clone() for output in net(image)]
        old = copy.deepcopy(net)
        sort_channels(net)
        after = net(image)
    for one, other in zip(before, after, strict=True):
        assert (one - other).abs().max() <= 1e-4 and one.abs().mean() > 0.05
    blocks = {f"stages.{s}.{b}.hidden" for s, stage in enumerate(spec.expansions) for b in range(len(stage))}
    expected = {"stem", *(f"stages.{s}" for s in range(4)), *(f"deconv.{i}" for i in range(3)), *blocks}
    unsorted, ordered, other_way = importances(old), importances(net), flows(net)
    assert ordered.keys() - {"image", "stem.0"} == expected
    for group in expected:
        assert (unsorted[group].diff() > 0).any(), f"{group} was in order before, the test shows nothing"
        assert (ordered[group].diff() <= 1e-4 * ordered[group].max()).all(), f"{group} is not in order"
        assert torch.allclose(ordered[group], other_way[group], rtol=1e-4), f"{group} is not what reaches the outputs"
    for group in ("image", "stem.0"):
        assert torch.allclose(ordered[group], unsorted[group], rtol=1e-5), f"{group} is not elastic"
    assert torch.equal(net.get_submodule("stem.0.conv").weight, old.get_submodule("stem.0.conv").weight)


def test_a_channel_that_alone_carries_the_tags_is_kept_however_small_its_weights() -> None:
    net = randomised(LitePose(MIXED, torch.Generator().manual_seed(0)))
    tags = net.get_submodule("outputs.0.refined.pointwise.conv").weight
    with torch.no_grad():
        tags[MIXED.joints :] = 0
        tags[MIXED.joints :, -1] = 1e-3  # one channel carries the tags
        tags[: MIXED.joints, -1] = 0
        net.get_submodule("deconv.2.refined.conv").weight[-1] *= 0.01
        importance = importances(net)["deconv.1"]
    assert int(importance.argmax()) == MIXED.deconv[1] - 1


def test_sorting_keeps_the_function_in_training_mode_and_sorts_once() -> None:
    net = randomised(LitePose(MIXED, torch.Generator().manual_seed(0))).train()
    other = copy.deepcopy(net)
    sort_channels(net)
    with torch.no_grad():
        for one, two in zip(net(picture(4)), other(picture(4)), strict=True):
            assert (one - two).abs().max() <= 1e-4
    again = copy.deepcopy(net)
    sort_channels(again)
    weights = [parameter.double().sum() for parameter in again.parameters()]
    assert all(torch.isclose(a, b.double().sum()) for a, b in zip(weights, net.parameters(), strict=True))


def test_a_pretrained_net_starts_a_supernet_sorted(tiny_space: SearchSpace) -> None:
    source = randomised(LitePose(tiny_space.largest(14), torch.Generator().manual_seed(0))).eval()
    checkpoint = packed(source)
    supernet = Supernet(tiny_space, 14)
    assert initialise(supernet, checkpoint, checkpoint.skeleton) == ["channels sorted by importance"]
    with torch.no_grad():
        for one, other in zip(supernet.eval()(picture()), source(picture()), strict=True):
            assert (one - other).abs().max() <= 1e-4
    assert not same_state(supernet, source)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in checkpoint.weights.items())


def test_without_sorting_the_weights_are_taken_as_they_are(tiny_spec: ArchSpec) -> None:
    source, net = randomised(LitePose(tiny_spec)), LitePose(tiny_spec)
    assert initialise(net, packed(source), packed(source).skeleton) == []
    assert same_state(net, source)


def test_a_supernets_checkpoint_is_never_sorted_again(tiny_space: SearchSpace) -> None:
    source, supernet = randomised(Supernet(tiny_space, 14)), Supernet(tiny_space, 14)
    assert initialise(supernet, packed(source, tiny_space), packed(source).skeleton) == []
    assert same_state(supernet, source)


def test_the_resolution_of_the_checkpoint_does_not_matter(tiny_spec: ArchSpec) -> None:
    source, net = randomised(LitePose(tiny_spec.at(320))), LitePose(tiny_spec)
    initialise(net, packed(source), packed(source).skeleton)
    assert same_state(net, source) and net.spec.resolution == tiny_spec.resolution


def test_other_joints_keep_the_trunk_and_start_the_outputs_anew(tiny_spec: ArchSpec) -> None:
    source = randomised(LitePose(tiny_spec.with_joints(17)))
    net = LitePose(tiny_spec, torch.Generator().manual_seed(3))
    fresh = copy.deepcopy(net.state_dict())
    checkpoint = packed(source)
    notes = initialise(net, checkpoint, CROWDPOSE)
    there = f"17 joints there ({checkpoint.skeleton.name})"
    assert notes == [f"{there}, 14 here (crowdpose): the trunk is kept, 4 output layers start anew"]
    for name, value in net.state_dict().items():
        origin = fresh if ".pointwise." in name else source.state_dict()
        assert torch.equal(value, origin[name]), name
    assert checkpoint.weights.keys() == source.state_dict().keys()
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in checkpoint.weights.items())


def test_importance_comes_from_the_trained_outputs_where_they_start_anew(tiny_space: SearchSpace) -> None:
    source = packed(randomised(LitePose(tiny_space.largest(17))))
    same, other = Supernet(tiny_space, 17), Supernet(tiny_space, 14)
    initialise(same, source, COCO)
    initialise(other, source, CROWDPOSE)
    for name, value in other.state_dict().items():
        if ".pointwise." not in name or not name.startswith("outputs"):
            assert torch.equal(value, same.state_dict()[name]), name


def test_as_many_joints_of_other_names_start_the_outputs_anew_too(tiny_spec: ArchSpec) -> None:
    source = packed(randomised(LitePose(tiny_spec)))
    names = tuple(f"point {j}" for j in range(tiny_spec.joints))
    other = replace(source.skeleton, name="points", joints=names)
    for skeleton, outputs_kept in ((source.skeleton, True), (other, False)):
        net = LitePose(tiny_spec)
        notes = initialise(net, source, skeleton)
        assert bool(notes) != outputs_kept
        same = [torch.equal(v, source.weights[n]) for n, v in net.state_dict().items() if ".pointwise." in n]
        assert all(same) if outputs_kept else not any(same)


@pytest.mark.parametrize(
    "change",
    [
        {"stem": 4, "stages": (5, 6, 8, 10), "deconv": (4, 3, 6)},
        {"kernel": 1},
        {"expansions": ((1,), (2,), (2,), (1, 1))},
        {"stem": 6, "kernel": 1, "expansions": ((1,), (1, 2), (2,), (1,)), "stages": (5, 6, 7, 16)},
    ],
    ids=["widths", "kernel", "blocks", "all"],
)
@pytest.mark.parametrize("supernet", [False, True])
def test_a_larger_net_begins_with_the_outputs_of_a_smaller_one(
    tiny_space: SearchSpace, change: dict[str, Any], supernet: bool
) -> None:
    spec = tiny_space.largest(14)
    smaller = randomised(LitePose(replace(spec, **change), torch.Generator().manual_seed(1))).eval()
    seed = torch.Generator().manual_seed(2)
    net = Supernet(tiny_space, 14, seed) if supernet else LitePose(spec, seed)
    notes = initialise(net, packed(smaller), CROWDPOSE)
    assert notes[0] == "channels sorted by importance" and "weights are taken over" in notes[1]
    with torch.no_grad():
        for one, other in zip(net.eval()(picture()), smaller(picture()), strict=True):
            assert (one - other).abs().max() <= 1e-4 and one.abs().mean() > 0.05
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(3):  # a block that was added learns when its scale has left zero
        optimizer.zero_grad()
        torch.stack([output.square().mean() for output in net.train()(picture(4))]).sum().backward()
        optimizer.step()
    idle = [name for name, one in net.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize(
    "change",
    [{"stem": 12, "stages": (9, 10, 14, 18), "deconv": (9, 9, 9)}, {"kernel": 5}, {"head": "plain"}, {"stem": 4}],
    ids=["wider", "kernel", "head", "narrower"],
)
def test_what_is_shared_with_another_net_is_taken_over_and_counted(tiny_spec: ArchSpec, change: dict[str, Any]) -> None:
    source = randomised(LitePose(replace(tiny_spec, **change), torch.Generator().manual_seed(1)))
    net = LitePose(tiny_spec, torch.Generator().manual_seed(2))
    fresh = copy.deepcopy(net.state_dict())
    notes = initialise(net, packed(source), CROWDPOSE)
    sort_channels(source)
    state, taken, layers = source.state_dict(), 0, 0
    for layer in net.plan.layers():
        before = taken
        for name in (f"{layer.name}.conv.weight", f"{layer.name}.norm.weight", f"{layer.name}.norm.bias"):
            if name in state and name in fresh:
                target, given = net.state_dict()[name], state[name]
                shared = [slice(0, min(a, b)) for a, b in zip(target.shape[:2], given.shape[:2], strict=True)]
                middle = [
                    slice((one - min(one, other)) // 2, (one + min(one, other)) // 2)
                    for one, other in zip(target.shape[2:], given.shape[2:], strict=True)
                ]
                back = [
                    slice((other - min(one, other)) // 2, (other + min(one, other)) // 2)
                    for one, other in zip(target.shape[2:], given.shape[2:], strict=True)
                ]
                assert torch.equal(target[(*shared, *middle)], given[(*shared, *back)]), name
                taken += target[(*shared, *middle)].numel()
            elif name in fresh:
                assert torch.equal(net.state_dict()[name], fresh[name]), name
        layers += taken > before
    whole = sum(parameter.numel() for parameter in net.parameters())
    every = len(list(net.plan.layers()))
    share = f"{100 * taken / whole:.3g} %"
    some = f"{layers} of {every} layers and {share} of the weights are taken over, the rest starts anew"
    assert notes[-1] == ("all weights are taken over" if taken == whole else some)
    assert taken < whole or change.get("stem") == 12 or "head" not in change


def test_a_damaged_checkpoint_is_refused_and_changes_nothing(tiny_spec: ArchSpec) -> None:
    net, checkpoint = LitePose(tiny_spec), packed(LitePose(replace(tiny_spec, stem=4)))
    before = copy.deepcopy(net)
    for name, value in (("stem.2.conv.weight", torch.zeros(3)), ("stem.0.norm.bias", None)):
        weights = {key: one for key, one in {**checkpoint.weights, name: value}.items() if one is not None}
        with pytest.raises(InputError, match=name):
            initialise(net, replace(checkpoint, weights=weights), CROWDPOSE)
    assert same_state(net, before)
