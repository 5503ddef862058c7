"""The layer plan describes the network that is really built: names, shapes, sides, groups, residuals, fusion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from ofa_pose.arch.plan import Layer, Plan, make_plan
from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.models.litepose import LitePose
from tests.networks import picture

XS = PRESETS["litepose-xs"].with_joints(14)


def test_the_sides_and_channels_are_those_of_the_tensors(tiny_spec: ArchSpec) -> None:
    seen: dict[str, tuple[torch.Size, torch.Size]] = {}

    class Watched(LitePose):
        def apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
            y = super().apply_layer(layer, x)
            seen[layer.name] = (x.shape[1:], y.shape[1:])
            return y

    net = Watched(tiny_spec)
    net(picture(height=tiny_spec.resolution, width=tiny_spec.resolution))
    layers = list(net.plan.layers())
    assert [layer.name for layer in layers] == list(seen), "the plan's order is that of the execution"
    for layer in layers:
        before, after = seen[layer.name]
        assert tuple(before) == (layer.cin, layer.side_in, layer.side_in), layer.name
        assert tuple(after) == (layer.cout, layer.side_out, layer.side_out), layer.name


def test_every_layer_has_its_modules_and_no_other_module_exists(tiny_spec: ArchSpec) -> None:
    net = LitePose(tiny_spec)
    leaves = {name for name, module in net.named_modules() if not list(module.children())}
    expected = set()
    for layer in net.plan.layers():
        parts = {"conv": layer.kind != "norm", "norm": layer.norm, "act": layer.act is not None}
        expected |= {f"{layer.name}.{part}" for part, there in parts.items() if there}
        unit = net.unit(layer)
        if layer.kind != "norm":
            kind = nn.ConvTranspose2d if layer.kind == "deconv" else nn.Conv2d
            conv = unit.conv
            assert type(conv) is kind and conv.bias is None
            assert tuple(conv.weight.shape) == layer.weight_shape
            assert (conv.in_channels, conv.out_channels, conv.groups) == (layer.cin, layer.cout, layer.groups)
            assert (conv.kernel_size, conv.stride, conv.padding) == (
                (layer.kernel,) * 2,
                (layer.stride,) * 2,
                (layer.padding,) * 2,
            )
        if layer.norm:
            assert unit.norm.num_features == layer.cout
        if layer.act:
            assert type(unit.act) is {"relu": nn.ReLU, "relu6": nn.ReLU6}[layer.act]
    assert leaves == expected


def groups_of(plan: Plan) -> dict[str, set[int]]:
    widths: dict[str, set[int]] = {}
    for layer in plan.layers():
        widths.setdefault(layer.reads, set()).add(layer.cin)
        widths.setdefault(layer.writes, set()).add(layer.cout)
    return widths


@pytest.mark.parametrize("name", PRESETS)
def test_layers_of_one_group_have_its_width(name: str) -> None:
    plan = make_plan(PRESETS[name])
    assert all(len(widths) == 1 for widths in groups_of(plan).values())
    for layer in plan.layers():
        if layer.depthwise or layer.kind == "norm":
            assert layer.reads == layer.writes
        if layer.kind != "deconv":
            assert layer.side_out * layer.stride == layer.side_in
        else:
            assert layer.side_out == layer.side_in * layer.stride
    names = [layer.name for layer in plan.layers()]
    assert len(set(names)) == len(names)


def test_the_published_shape() -> None:
    plan = make_plan(XS)
    first, depthwise, last = plan.stem
    assert (first.cout, first.kernel, first.stride, first.act) == (32, 3, 2, "relu6")
    assert depthwise.depthwise and (depthwise.kernel, depthwise.act) == (3, "relu6")
    assert (last.cout, last.kernel, last.act, last.norm) == (16, 1, None, True)
    assert [len(stage) for stage in plan.stages] == [6, 8, 10, 10]
    assert [stage[-1].layers[2].side_out for stage in plan.stages] == [64, 32, 16, 16]
    for stage in plan.stages:
        for number, block in enumerate(stage):
            expand, depthwise, project = block.layers
            assert (expand.act, depthwise.act, project.act) == ("relu6", "relu6", None)
            assert expand.cout == 6 * expand.cin and depthwise.kernel == 7
            assert number == 0 or depthwise.stride == 1
    assert [step.raw_source for step in plan.deconv] == [3, 2, 1], "raw maps of stages 3, 2 and 1"
    assert [step.norm.side_out for step in plan.deconv] == [32, 64, 128]
    outputs = [step.output for step in plan.deconv]
    assert outputs[0] is None and outputs[1] is not None and outputs[2] is not None
    assert (outputs[1].raw_source, outputs[2].raw_source) == (1, 0), "stage 1 at 1/4, the stem at 1/2"
    for output, channels in ((outputs[1], 28), (outputs[2], 14)):
        for depthwise, pointwise in (output.refined, output.raw):
            assert depthwise.kernel == 5 and depthwise.depthwise and depthwise.act == "relu"
            assert (pointwise.cout, pointwise.kernel, pointwise.norm, pointwise.act) == (channels, 1, False, None)


def test_a_residual_is_where_a_block_is_not_its_stages_first_whatever_the_widths() -> None:
    equal = ArchSpec(64, 8, (8, 8, 8, 8), ((2,) * 3, (2,) * 2, (2,), (2,) * 2), (8, 8, 8), 3, 2)
    for spec in (equal, replace(equal, stages=(8, 16, 24, 24)), XS):
        for stage in make_plan(spec).stages:
            assert [block.residual for block in stage] == [False] + [True] * (len(stage) - 1)
            for block in stage[1:]:
                assert block.layers[0].cin == block.layers[2].cout and block.layers[1].stride == 1


def test_equal_specs_share_a_plan() -> None:
    assert make_plan(XS) is make_plan(replace(XS))


@dataclass(frozen=True)
class Trace:
    """The channel group of a value, its channels and side, and the names of all layers before it."""

    group: str
    channels: int
    side: int
    before: frozenset[str] = frozenset()

    def __add__(self, other: Trace) -> Trace:
        assert (self.group, self.channels, self.side) == (other.group, other.channels, other.side)
        return replace(self, before=self.before | other.before)


def traced(layer: Layer, x: Trace) -> Trace:
    assert (x.group, x.channels, x.side) == (layer.reads, layer.cin, layer.side_in), layer.name
    return Trace(layer.writes, layer.cout, layer.side_out, x.before | {layer.name})


@pytest.mark.parametrize("head", HEADS)
def test_every_layer_reads_what_it_says_and_the_outputs_rest_on_all_of_them(tiny_spec: ArchSpec, head: Head) -> None:
    spec = replace(tiny_spec, head=head)
    plan = make_plan(spec)
    low, high = plan.run(Trace("image", 3, spec.resolution), traced)
    assert (low.channels, low.side) == (2 * spec.joints, spec.resolution // 4)
    assert (high.channels, high.side) == (spec.joints, spec.resolution // 2)
    assert low.before | high.before == {layer.name for layer in plan.layers()}
    assert not any(name.startswith("deconv.2") for name in low.before)


def test_parts_are_walked_alone(tiny_spec: ArchSpec) -> None:
    plan = make_plan(tiny_spec)
    block = next(block for stage in plan.stages for block in stage if block.residual)
    expand, _, project = block.layers
    out = block.run(Trace(expand.reads, expand.cin, expand.side_in, frozenset({"before"})), traced)
    assert out.channels == project.cout and out.before == {"before", *(layer.name for layer in block.layers)}
    step = plan.deconv[0]
    assert step.raw is not None
    refined, raw = (Trace(layer.reads, layer.cin, layer.side_in) for layer in (step.refined, step.raw))
    assert step.run(refined, raw, traced).before == {step.refined.name, step.raw.name, step.norm.name}
