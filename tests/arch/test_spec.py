"""ArchSpec: strict reading, round trips, a digest that names the network."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import HEADS, ArchSpec
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, parse_yaml

WIDTH = st.integers(1, 200)
EXPANSIONS = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(tuple)
SPECS = st.builds(
    ArchSpec,
    resolution=st.integers(1, 64).map(lambda side: side * 16),
    stem=WIDTH,
    stages=st.tuples(*[WIDTH] * 4),
    expansions=st.tuples(*[EXPANSIONS] * 4),
    deconv=st.tuples(*[WIDTH] * 3),
    kernel=st.sampled_from((1, 3, 5, 7, 9)),
    joints=st.integers(1, 40),
    head=st.sampled_from(HEADS),
)
XS = PRESETS["litepose-xs"]


@settings(max_examples=30)
@given(SPECS)
def test_round_trips_through_dict_yaml_and_json(spec: ArchSpec) -> None:
    value = spec.to_dict()
    assert ArchSpec.from_dict(value) == spec
    assert ArchSpec.from_dict(parse_yaml(dump_yaml(value), "x")) == spec
    again = ArchSpec.from_dict(json.loads(json.dumps(value)))
    assert again == spec and hash(again) == hash(spec) and again.digest == spec.digest


@settings(max_examples=30)
@given(SPECS, SPECS)
def test_the_digest_differs_where_the_spec_does(one: ArchSpec, other: ArchSpec) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_the_digest_is_the_same_in_every_version() -> None:
    assert len(XS.digest) == 12
    assert len({XS.digest, XS.at(320).digest, XS.with_joints(14).digest, replace(XS, kernel=5).digest}) == 4
    assert XS.digest == "261946244b69"


def test_a_fusion_head_is_not_written_so_that_files_and_digests_stay_what_they_were() -> None:
    assert list(XS.to_dict()) == ["resolution", "stem", "stages", "expansions", "deconv", "kernel", "joints"]
    plain = replace(XS, head="plain")
    assert plain.to_dict() == XS.to_dict() | {"head": "plain"} and plain.digest != XS.digest


def test_at_and_with_joints_change_one_value() -> None:
    assert XS.at(320).to_dict() == XS.to_dict() | {"resolution": 320}
    assert XS.with_joints(14).to_dict() == XS.to_dict() | {"joints": 14}


def test_kernel_and_joints_may_be_left_out() -> None:
    value = XS.to_dict()
    del value["kernel"], value["joints"]
    assert ArchSpec.from_dict(value) == replace(XS, kernel=7, joints=17)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": 250}, "resolution 250 is not a positive multiple of 16"),
        ({"resolution": 0}, "resolution 0 is not a positive multiple of 16"),
        ({"stem": 0}, "must be at least 1"),
        ({"stages": [16, 32, 48]}, "it needs 4 stages"),
        ({"stages": [16, 32, 48, -8]}, "must be at least 1"),
        ({"deconv": [16, 24]}, "3 deconv filters"),
        ({"expansions": [[6], [6], [], [6]]}, "at least one block"),
        ({"expansions": [[6], [6], [0], [6]]}, "must be at least 1"),
        ({"kernel": 4}, "kernel 4 is not a positive odd number"),
        ({"joints": 0}, "must be at least 1"),
        ({"joints": 10**7, "kernel": 65}, "kernel 65 is more than 63; joints 10000000 is more than 1000"),
        ({"resolution": 16 * 10**20}, "resolution 1600000000000000000000 is more than 8192"),
        ({"deconv": [16, 24, 10**6]}, "width 1000000 is more than 4096"),
        ({"expansions": [[6], [6] * 65, [65], [6]]}, "expansion 65 is more than 64; blocks 65 is more than 64"),
        ({"head": "fused"}, "head 'fused' is none of fusion, plain"),
        ({"head": ["plain"]}, "head ['plain'] is none of fusion, plain"),
        ({"head": None}, "head None is none of"),
        ({"stem": "16"}, "'stem' of the network spec is '16', not a whole number; write it as in stem: 8"),
        ({"stem": 16.5}, "is 16.5, not a whole number"),
        ({"stem": True}, "is True, not a whole number"),
        ({"stem": None}, "is None, not a whole number"),
        ({"stem": float("inf")}, "is inf, not a whole number"),
        ({"stem": float("nan")}, "is nan, not a whole number"),
        ({"stages": 16}, "'stages' of the network spec is 16, not a list of whole numbers; write it as in stages: ["),
        ({"stem": [16]}, "'stem' of the network spec is [16], not a whole number"),
        ({"stages": {1: 16}}, "is {1: 16}, not a list of whole numbers"),
        ({"stages": "1234"}, "is '1234', not a list of whole numbers"),
        ({"expansions": [6, 6, 6, 6]}, "is [6, 6, 6, 6], not a list of lists of whole numbers"),
        ({"stemm": 16}, "unknown key 'stemm' in a network spec; did you mean 'stem'?"),
    ],
)
def test_faults_name_the_file_and_the_value(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        ArchSpec.from_dict(XS.to_dict() | change, "net.yaml")
    assert str(error.value).startswith("net.yaml: ") and words in str(error.value)


@pytest.mark.parametrize("key", ["resolution", "stem", "stages", "expansions", "deconv"])
def test_a_missing_key_is_named(key: str) -> None:
    value = XS.to_dict()
    del value[key]
    with pytest.raises(InputError, match=f"net.yaml: the network spec has no '{key}'"):
        ArchSpec.from_dict(value, "net.yaml")


@pytest.mark.parametrize("value", [None, 3, [], "litepose-xs"])
def test_no_spec(value: Any) -> None:
    with pytest.raises(InputError, match="holds no network spec"):
        ArchSpec.from_dict(value, "net.yaml")


def test_whole_floats_are_whole_numbers() -> None:
    spec = ArchSpec.from_dict(XS.to_dict() | {"stem": 16.0})
    assert spec == XS and type(spec.stem) is int


def test_the_text_of_a_spec_is_short_where_expansions_are_equal() -> None:
    assert str(XS) == "256;16;16,32,48,80;16,24,24;e6;k7;blocks 6/8/10/10"
    assert str(replace(XS, head="plain")) == f"{XS};plain head"
    mixed = replace(XS, expansions=((2,), (4, 6), (6,), (6,)))
    assert str(mixed) == "256;16;16,32,48,80;16,24,24;e2|4,6|6|6;k7;blocks 1/2/1/1"
