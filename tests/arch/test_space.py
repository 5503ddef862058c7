"""Search spaces: genomes name subnets and back, sampling stays inside, files are read strictly."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.errors import InputError
from ofa_pose.files import dump_yaml, parse_yaml, shipped_folder

PAPER = load_space("litepose")
CHOICES = st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True).map(lambda c: tuple(sorted(c)))
SPACES = st.builds(
    SearchSpace,
    name=st.text(min_size=1, max_size=5),
    resolution=CHOICES.map(lambda sides: tuple(32 * side for side in sides)),
    stem=CHOICES,
    stages=st.tuples(*[CHOICES] * 4),
    deconv=st.tuples(*[CHOICES] * 3),
    expansion=CHOICES,
    blocks=st.tuples(*[st.integers(1, 3)] * 4),
    kernel=st.sampled_from((3, 7)),
)


@settings(max_examples=25)
@given(SPACES, st.integers(0, 2**32))
def test_a_sampled_genome_decodes_and_encodes_back(space: SearchSpace, seed: int) -> None:
    genome = space.sample(np.random.default_rng(seed))
    spec = space.decode(genome, joints=5)
    assert space.encode(spec) == genome
    assert space.decode(space.encode(spec), joints=5) == spec
    assert spec.joints == 5 and spec.kernel == space.kernel
    assert tuple(len(stage) for stage in spec.expansions) == space.blocks
    assert spec.resolution in space.resolution and spec.stem in space.stem
    assert all(width in choices for width, choices in zip(spec.stages, space.stages, strict=True))
    assert all(width in choices for width, choices in zip(spec.deconv, space.deconv, strict=True))
    assert all(e in space.expansion for stage in spec.expansions for e in stage)


@settings(max_examples=25)
@given(SPACES)
def test_round_trips_through_dict_and_yaml(space: SearchSpace) -> None:
    assert SearchSpace.from_dict(parse_yaml(dump_yaml(space.to_dict()), "x")) == space
    assert len(space.labels) == len(space.choices) == len(set(space.labels))


@settings(max_examples=25)
@given(SPACES)
def test_uniform_nets_ascend_from_the_smallest_to_the_largest(space: SearchSpace) -> None:
    nets = space.uniform(joints=3)
    assert nets[0] == space.smallest(3) and nets[-1] == space.largest(3)
    assert len(set(nets)) == len(nets)
    for resolution in space.resolution:
        genomes = [space.encode(net) for net in nets if net.resolution == resolution]
        assert genomes
        for one, other in itertools.pairwise(genomes):
            assert all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def test_uniform_nets_of_the_papers_space_are_its_width_multipliers() -> None:
    nets = [net for net in PAPER.uniform(17) if net.resolution == 512]
    assert nets[1] == PRESETS["litepose-0.5x"] and nets[-1] == PRESETS["litepose-1.0x"]
    assert len(nets) == 4


def test_sizes_are_products_of_the_choices(tiny_space: SearchSpace) -> None:
    assert PAPER.size == 5 * 3 * 4**4 * 4**3 == 245_760
    assert load_space("litepose-per-block").size == 245_760 * 3**34
    assert tiny_space.size == 2 * 2 * (2 * 3 * 2 * 2) * 2**3 * 2**6


def test_sampling_is_uniform_over_every_choice(tiny_space: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    draws = np.array([tiny_space.sample(rng) for _ in range(600)])
    for column, choices in zip(draws.T, tiny_space.choices, strict=True):
        share = np.bincount(column, minlength=len(choices)) / len(draws)
        assert np.abs(share - 1 / len(choices)).max() < 0.08
    assert np.abs(np.corrcoef(draws.T) - np.eye(draws.shape[1])).max() < 0.2, "genes are drawn on their own"


def test_the_published_nets_are_in_the_papers_space() -> None:
    for name, spec in PRESETS.items():
        assert PAPER.decode(PAPER.encode(spec), 17) == spec, name


def test_a_net_outside_the_space_is_refused_by_value() -> None:
    xs = PRESETS["litepose-xs"]
    for spec, words in (
        (replace(xs, stem=12), "stem 12 is not in space 'litepose'; choose one of 8, 16, 24"),
        (xs.at(272), "resolution 272 is not in space"),
        (replace(xs, stages=(16, 32, 50, 80)), "stage3 50 is not in space"),
        (replace(xs, deconv=(16, 24, 25)), "deconv3 25 is not in space"),
        (replace(xs, expansions=((6,) * 6, (6,) * 8, (6,) * 10, (6,) * 9 + (4,))), "expansion4.10 4 is not in space"),
        (replace(xs, kernel=5), "use kernel 7 and blocks 6/8/10/10"),
        (replace(xs, expansions=((6,),) * 4), "has other kernels or depths"),
    ):
        with pytest.raises(InputError) as error:
            PAPER.encode(spec)
        assert words in str(error.value)


@pytest.mark.parametrize("genome", [(), (0,), (5,) + (0,) * 42, (-1,) + (0,) * 42, (0,) * 44])
def test_a_genome_outside_the_space_is_refused(genome: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="genome"):
        PAPER.decode(genome, 17)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stem": []}, "the choices [] for stem of space 'litepose' do not ascend"),
        ({"stem": [16, 8]}, "do not ascend"),
        ({"expansion": [6, 6]}, "[6, 6] for expansion1.1"),
        ({"stages": [[8], [8], [8], [16, 8]]}, "[16, 8] for stage4"),
        ({"stages": [[8], [8], [8]]}, "needs 4 stages, 4 block counts and 3 deconv lists"),
        ({"resolution": [100]}, "resolution 100 of space 'litepose'; use multiples of 32"),
        ({"blocks": [6, 8, 10, 0]}, "blocks [6, 8, 10, 0] of space 'litepose'; give every stage a block"),
        ({"blocks": [6, 8, 10, -1]}, "give every stage a block"),
        ({"stem": [0, 8]}, "must be at least 1"),
        ({"kernel": 4}, "kernel 4 is not a positive odd number"),
        ({"kernel": 7.5}, "malformed (7.5 is no whole number)"),
        ({"stem": [8.5]}, "malformed (8.5 is no whole number)"),
        ({"stem": ["8"]}, "malformed"),
        ({"stem": 8}, "malformed"),
        ({"stem": [float("inf")]}, "malformed"),
        ({"stages": None}, "malformed"),
        ({"blockz": [1]}, "unknown key 'blockz' in a search space; did you mean 'blocks'?"),
    ],
)
def test_faults_name_the_file_and_the_gene(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        SearchSpace.from_dict(PAPER.to_dict() | change, "space.yaml")
    assert str(error.value).startswith("space.yaml: ") and words in str(error.value)


def test_a_missing_key_or_no_mapping_is_named() -> None:
    value = PAPER.to_dict()
    del value["deconv"]
    with pytest.raises(InputError, match=r"space\.yaml: the search space has no 'deconv'"):
        SearchSpace.from_dict(value, "space.yaml")
    with pytest.raises(InputError, match="holds no search space"):
        SearchSpace.from_dict([], "space.yaml")


@pytest.mark.parametrize("path", sorted(shipped_folder("search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_spaces_are_named_after_their_files(path: Any) -> None:
    space = load_space(path.stem)
    assert space.name == path.stem
    assert isinstance(space.largest(17), ArchSpec) and space.size > 1
