"""A plan is walked with whatever computes its layers: here what flows is the set of layers that a value rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.arch.walk import run_block, run_plan, run_step


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
    low, high = run_plan(plan, Trace("image", 3, spec.resolution), traced)
    assert (low.channels, low.side) == (2 * spec.joints, spec.resolution // 4)
    assert (high.channels, high.side) == (spec.joints, spec.resolution // 2)
    assert low.before | high.before == {layer.name for layer in plan.layers()}
    assert not any(name.startswith("deconv.2") for name in low.before)


def test_parts_are_walked_alone(tiny_spec: ArchSpec) -> None:
    plan = make_plan(tiny_spec)
    block = next(block for stage in plan.stages for block in stage if block.residual)
    expand, _, project = block.layers
    out = run_block(block, Trace(expand.reads, expand.cin, expand.side_in, frozenset({"before"})), traced)
    assert out.channels == project.cout and out.before == {"before", *(layer.name for layer in block.layers)}
    step = plan.deconv[0]
    assert step.raw is not None
    refined, raw = (Trace(layer.reads, layer.cin, layer.side_in) for layer in (step.refined, step.raw))
    assert run_step(step, refined, raw, traced).before == {step.refined.name, step.raw.name, step.norm.name}
