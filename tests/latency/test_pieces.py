"""Pieces against the layers of the plans that they are read off; networks that span a space."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import HEADS, ArchSpec
from ofa_pose.costs.macs import layer_macs, spec_macs
from ofa_pose.latency import pieces as pieces_module
from ofa_pose.latency.pieces import (
    NETS,
    Piece,
    groups,
    piece_part,
    plan_pieces,
    reference_nets,
    scaled_widths,
    space_pieces,
    spanning_pieces,
)
from ofa_pose.utils.errors import InputError
from tests.latency.tables import few_networks

widths_ = st.integers(1, 200)


@st.composite
def specs(draw: st.DrawFn) -> ArchSpec:
    stages = tuple(draw(widths_) for _ in range(4))
    expansions = tuple(tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))) for _ in range(4))
    return ArchSpec(
        16 * draw(st.integers(1, 32)),
        draw(widths_),
        stages,
        expansions,
        tuple(draw(widths_) for _ in range(3)),
        draw(st.sampled_from([1, 3, 5, 7])),
        draw(st.integers(1, 30)),
        draw(st.sampled_from(HEADS)),  # type: ignore[arg-type]
    )


@settings(max_examples=60)
@given(specs())
def test_the_parts_of_pieces_make_up_the_network(spec: ArchSpec) -> None:
    plan = make_plan(spec)
    parts = [piece_part(piece) for piece in plan_pieces(plan)]
    layers = [layer for part in parts for layer in part.layers]
    assert sum(layer_macs(layer).thop for layer in layers) == spec_macs(spec).thop

    def shape(layer):
        sides = (layer.side_in, layer.side_out)
        return (layer.kind, layer.cin, layer.cout, *sides, layer.kernel, layer.stride, layer.depthwise, layer.act)

    assert sorted(map(shape, layers), key=str) == sorted(map(shape, plan.layers()), key=str)
    residuals = [block.residual for stage in plan.stages for block in stage]
    assert [part.piece["residual"] for part in parts if part.piece.kind == "block"] == residuals


@settings(max_examples=60)
@given(specs())
def test_pieces_read_back_what_they_write(spec: ArchSpec) -> None:
    pieces = plan_pieces(make_plan(spec))
    assert [Piece.parse(str(piece)) for piece in pieces] == pieces
    codes = {(piece.kind, int(piece.code())) for piece in pieces}
    assert len(codes) == len(set(pieces))


@pytest.mark.parametrize(
    "text", ["", "block", "bolt cin=3", "stem cout=8", "stem cout=8 side=-3", "stem side=8 cout=3"]
)
def test_what_is_not_a_piece_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a piece"):
        Piece.parse(text or "nothing", "table.json")


def test_a_block_is_known_by_all_its_sizes() -> None:
    spec = load_space("litepose-nano").smallest(17)
    assert str(plan_pieces(make_plan(spec))[1]) == ("block cin=8 hidden=48 cout=8 side=48 stride=2 kernel=7 residual=0")


@pytest.mark.parametrize("name", ["litepose-nano", "litepose", "litepose-per-block", "litepose-depth"])
def test_a_space_has_the_pieces_of_its_subnets(name: str) -> None:
    space = load_space(name)
    pieces = space_pieces(space, 17)
    assert len(set(pieces)) == len(pieces)
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(100):
        found |= set(plan_pieces(make_plan(space.decode(space.sample(rng), 17))))
    assert found <= set(pieces)
    if name == "litepose-nano":
        assert len(pieces) == 591
        assert len(found) > 400


def test_no_piece_is_in_a_space_that_none_of_its_subnets_has(tiny_space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(3000):
        found |= set(plan_pieces(make_plan(tiny_space.decode(tiny_space.sample(rng), 14))))
    assert found == set(space_pieces(tiny_space, 14))


@pytest.mark.parametrize("name", ["litepose-nano", "litepose", "litepose-per-block"])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_spanning_pieces_reach_the_ends_of_every_width(name: str, share: float) -> None:
    pieces = space_pieces(load_space(name), 17)
    kept = spanning_pieces(pieces, share)
    assert len(set(kept)) == len(kept) and set(kept) <= set(pieces)
    if share == 1.0:
        assert kept == pieces
    inside = groups(kept)
    for key, group in groups(pieces).items():
        whole, part = (np.array([one.widths for one in some]) for some in (group, inside[key]))
        assert (whole.min(0) == part.min(0)).all() and (whole.max(0) == part.max(0)).all()
        assert scaled_widths(group).max() <= 1


def test_a_share_is_about_what_is_kept() -> None:
    pieces = space_pieces(load_space("litepose"), 17)
    assert 0.5 <= len(spanning_pieces(pieces, 0.5)) / len(pieces) < 0.65


def test_sizes_beyond_the_codes_are_refused() -> None:
    with pytest.raises(InputError, match="too large"):
        Piece("stem", (20_000, 64)).code()


def test_reference_nets_span_the_space() -> None:
    space = load_space("litepose")
    nets = reference_nets(space, 17)
    assert len(set(nets)) == len(nets) == NETS
    assert nets == reference_nets(space, 17)
    assert {space.smallest(17), space.largest(17)} <= set(nets)
    assert {spec.resolution for spec in nets} == set(space.resolution)


def test_a_space_of_few_networks_gives_them_all(tiny_space: SearchSpace) -> None:
    assert len(reference_nets(few_networks(tiny_space), 14)) == 2


def test_a_space_of_more_pieces_than_anybody_measures_is_refused() -> None:
    many = tuple(range(8, 1024, 8))
    space = SearchSpace("wide", (64,), (8,), (many,) * 4, ((8,),) * 3, tuple(range(1, 65)), (1, 1, 1, 1), 3)
    with pytest.raises(InputError, match="space 'wide' has more than 1,000,000 pieces"):
        space_pieces(space, 17)


@pytest.mark.parametrize("spare", [0, 1])
def test_pieces_of_all_kinds_are_counted_together(spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("litepose")
    count = len(space_pieces(space, 17))
    monkeypatch.setattr(pieces_module, "MOST_PIECES", count - 1 + spare)
    with nullcontext() if spare else pytest.raises(InputError, match="more than 1,475 pieces, too many"):
        assert len(space_pieces(space, 17)) == count


def test_a_share_of_many_pieces_takes_no_hours() -> None:
    many = [Piece("block", (8, hidden, cout, 16, 1, 3, 0)) for hidden in range(1, 301) for cout in range(1, 301)]
    assert spanning_pieces(many[::-1], 1.0) == many
    assert 9 <= len(spanning_pieces(many, 1e-4)) <= 10
    with pytest.raises(InputError, match=r"a share of 0\.5 of 90,000 pieces takes too long to be chosen; ask"):
        spanning_pieces(many, 0.5)
