"""What a table measures: networks that span a space."""

from __future__ import annotations

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.latency.subjects import NETS, reference_nets
from tests.latency.tables import few_networks


def test_reference_nets_span_the_space() -> None:
    space = load_space("litepose")
    nets = reference_nets(space, 17)
    assert len(set(nets)) == len(nets) == NETS
    assert nets == reference_nets(space, 17)
    assert {space.smallest(17), space.largest(17)} <= set(nets)
    assert {spec.resolution for spec in nets} == set(space.resolution)


def test_a_space_of_few_networks_gives_them_all(tiny_space: SearchSpace) -> None:
    assert len(reference_nets(few_networks(tiny_space), 14)) == 2
