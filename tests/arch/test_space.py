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
from ofa_pose.arch.spec import HEADS, ArchSpec
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, parse_yaml, shipped_folder

PAPER = load_space("litepose")
CHOICES = st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True).map(lambda c: tuple(sorted(c)))
DEPTHS = st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True).map(lambda c: tuple(sorted(c)))
RIGID = st.builds(
    SearchSpace,
    name=st.text(min_size=1, max_size=5),
    resolution=CHOICES.map(lambda sides: tuple(32 * side for side in sides)),
    stem=CHOICES,
    stages=st.tuples(*[CHOICES] * 4),
    deconv=st.tuples(*[CHOICES] * 3),
    expansion=CHOICES,
    blocks=st.tuples(*[st.integers(1, 3)] * 4),
    kernel=st.sampled_from((3, 5, 7, 9)),
    head=st.sampled_from(HEADS),
)
ELASTIC = st.builds(
    lambda space, depth: replace(space, depth=depth, blocks=tuple(choices[-1] for choices in depth)),
    RIGID,
    st.tuples(*[DEPTHS] * 4),
)
SPACES = st.one_of(RIGID, ELASTIC)


@settings(max_examples=25)
@given(SPACES, st.integers(0, 2**32))
def test_a_sampled_genome_decodes_and_encodes_back(space: SearchSpace, seed: int) -> None:
    genome = space.sample(np.random.default_rng(seed))
    spec = space.decode(genome, joints=5)
    assert space.encode(spec) == genome
    assert space.decode(space.encode(spec), joints=5) == spec
    assert (spec.joints, spec.kernel, spec.head) == (5, space.kernel, space.head)
    depths = space.depths
    assert all(len(stage) in choices for stage, choices in zip(spec.expansions, depths, strict=True))
    assert space.check_subnet(spec) == ""
    assert spec.resolution in space.resolution and spec.stem in space.stem
    assert all(width in choices for width, choices in zip(spec.stages, space.stages, strict=True))
    assert all(width in choices for width, choices in zip(spec.deconv, space.deconv, strict=True))
    assert all(e in space.expansion for stage in spec.expansions for e in stage)


def test_genomes_of_the_same_subnet_have_one_canonical_form_and_the_size_counts_subnets() -> None:
    one = ((8,),)
    space = SearchSpace("s", (32,), (8,), one * 4, one * 3, (1, 2), (2, 1, 3, 1), 3, depth=((1, 2), (1,), (1, 3), (1,)))
    forms: dict[ArchSpec, set[tuple[int, ...]]] = {}
    for genome in itertools.product(*(range(len(choices)) for choices in space.choices)):
        forms.setdefault(space.decode(genome, 1), set()).add(space.canonical(genome))
    assert len(forms) == space.size == (2 + 4) * 2 * (2 + 8) * 2
    assert all(canonical == {space.encode(spec)} for spec, canonical in forms.items())


@settings(max_examples=25)
@given(SPACES, st.integers(0, 2**32))
def test_genes_say_what_a_genome_means(space: SearchSpace, seed: int) -> None:
    genome = space.sample(np.random.default_rng(seed))
    spec = space.decode(genome, joints=2)
    assert space.values(genome) == [gene.value(spec) for gene in space.genes]
    assert space.canonical([len(choices) - 1 for choices in space.choices]) == space.encode(space.largest(2))
    left_out = {index for index, depth, least in space.optional if genome[depth] < least}
    for index, gene in enumerate(space.genes):
        inside = gene.block is None or gene.block < spec.depth[gene.stage or 0]
        assert (index in left_out) == (not inside)
        assert (gene.name, gene.choices) == (space.labels[index], space.choices[index])


def test_the_order_of_genes_is_that_of_archives() -> None:
    space = SearchSpace(
        "s", (32,), (8,), ((8,),) * 4, ((8,),) * 3, (1, 2), (2, 1, 1, 1), 3, depth=((1, 2), *((1,),) * 3)
    )
    stages, deconvs = [f"stage{i}" for i in (1, 2, 3, 4)], [f"deconv{i}" for i in (1, 2, 3)]
    blocks = ["expansion1.1", "expansion1.2", "expansion2.1", "expansion3.1", "expansion4.1"]
    depths = [f"depth{i}" for i in (1, 2, 3, 4)]
    assert list(space.labels) == ["resolution", "stem", *stages, *deconvs, *depths, *blocks]
    assert list(replace(space, depth=()).labels) == ["resolution", "stem", *stages, *deconvs, *blocks]
    assert space.optional == ((space.labels.index("expansion1.2"), space.labels.index("depth1"), 1),)


def test_a_space_without_elastic_depth_is_written_as_before() -> None:
    assert list(PAPER.to_dict()) == ["name", "resolution", "stem", "expansion", "blocks", "stages", "deconv", "kernel"]


def test_depths_are_drawn_evenly() -> None:
    space, rng = load_space("litepose-depth"), np.random.default_rng(0)
    counts = [[len(stage) for stage in space.decode(space.sample(rng), 1).expansions] for _ in range(400)]
    for stage, choices in zip(np.array(counts).T, space.depth, strict=True):
        assert set(stage) == set(choices) and abs((stage == choices[0]).mean() - 0.5) < 0.1


@settings(max_examples=25)
@given(SPACES, st.data())
def test_a_shallower_net_than_any_subnet_is_taken_with_a_warning(space: SearchSpace, data: st.DataObject) -> None:
    spec = space.decode(space.sample(np.random.default_rng(data.draw(st.integers(0, 99)))), 3)
    cut = tuple(stage[: data.draw(st.integers(1, len(stage)))] for stage in spec.expansions)
    depths = space.depths
    trained = all(len(stage) in choices for stage, choices in zip(cut, depths, strict=True))
    warning = space.check_subnet(replace(spec, expansions=cut))
    assert (warning == "") == trained
    if warning:
        assert f"the net has blocks {'/'.join(str(len(stage)) for stage in cut)}, space" in warning
        with pytest.raises(InputError, match="other kernels or depths"):
            space.encode(replace(spec, expansions=cut))


def test_a_net_that_no_supernet_of_the_space_holds_is_refused() -> None:
    xs = PRESETS["litepose-xs"]
    shallow = replace(xs, expansions=((6,) * 4, (6,) * 6, (6,) * 8, (6,) * 8))
    assert "blocks 4/6/8/8, space 'litepose' 6/8/10/10: the leading" in PAPER.check_subnet(shallow)
    assert load_space("litepose-depth").check_subnet(shallow) == ""
    for spec, words in (
        (replace(shallow, stem=12), "stem 12 is not in space"),
        (replace(shallow, kernel=5), "use kernel 7 and blocks 6/8/10/10"),
        (replace(shallow, expansions=((6, 4), *shallow.expansions[1:])), "expansion1.2 4 is not in space"),
        (replace(shallow, expansions=((6,) * 7, *shallow.expansions[1:])), "other kernels or depths"),
        (replace(shallow, head="plain"), "a plain head, space 'litepose' a fusion head"),
    ):
        with pytest.raises(InputError) as error:
            PAPER.check_subnet(spec)
        assert words in str(error.value)


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
    assert nets[2] == PRESETS["litepose-0.75x"] and len(nets) == 4


def test_sizes_are_products_of_the_choices(tiny_space: SearchSpace) -> None:
    assert PAPER.size == 5 * 3 * 4**4 * 4**3 == 245_760
    assert load_space("litepose-per-block").size == 245_760 * 3**34
    assert load_space("litepose-depth").size == 245_760 * 2**4
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
        space = replace(PAPER, kernel=spec.kernel, head=spec.head)
        assert (space == PAPER) == (not name.startswith("litepose-0.5x-"))
        assert space.decode(space.encode(spec), 17) == spec, name


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
        ({"depth": [[4, 6], [6, 8], [8, 10], [8, 9]]}, "do not go from 1 or more to its blocks [6, 8, 10, 10]"),
        ({"depth": [[4, 6], [6, 8], [8, 10]]}, "do not go from 1 or more to its blocks"),
        ({"depth": [[0, 6], [8], [10], [10]]}, "do not go from 1 or more to its blocks"),
        ({"depth": [[-2, 6], [8], [10], [10]]}, "do not go from 1 or more to its blocks"),
        ({"depth": [[6], [8], [], [10]]}, "the choices [] for depth3"),
        ({"depth": [[6, 4], [8], [10], [10]]}, "[6, 4] for depth1"),
        ({"depth": 6}, "'depth' of the search space is 6, not a list of lists of whole numbers"),
        ({"depth": None}, "is None, not a list of lists"),
        ({"head": "fused"}, "head 'fused' is none of fusion, plain"),
        ({"stem": [0, 8]}, "must be at least 1"),
        ({"kernel": 4}, "kernel 4 is not a positive odd number"),
        ({"kernel": 7.5}, "'kernel' of the search space is 7.5, not a whole number"),
        ({"stem": [8.5]}, "is [8.5], not a list of whole numbers"),
        ({"stem": ["8"]}, "is ['8'], not a list of whole numbers"),
        ({"stem": 8}, "is 8, not a list of whole numbers; write it as in stem: [8, 16]"),
        ({"name": [1]}, "'name' of the search space is [1], not a text"),
        ({"stem": {8: 16}}, "not a list of whole numbers"),
        ({"stem": [float("inf")]}, "is [inf], not a list of whole numbers"),
        ({"stages": None}, "is None, not a list of lists"),
        ({"blocks": [6, 8, 10, 10**9]}, "has 1000000000 blocks in a stage, more than 64"),
        ({"stem": list(range(8, 137))}, "has 129 choices for stem, more than 128"),
        (
            {"blocks": [6, 8, 10, 40], "expansion": [4, 6]},
            "has 73 elastic dimensions, more than 64; give its stages fewer",
        ),
        ({"stages": [[8], [8], [8], [16, 8192]]}, "width 8192 is more than 4096"),
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
