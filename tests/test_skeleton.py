"""Skeletons: flips are involutions, the grouping order starts at the torso, files are read strictly."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ofa_pose.skeleton import (
    BUILT_IN,
    COCO,
    CROWDPOSE,
    DEFAULT_SIGMA,
    Skeleton,
    draft,
    load_skeleton,
    one_sided,
    same_joints,
)
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml

CUSTOM = {"name": "stick", "joints": ["l_end", "middle", "r_end"], "flip_pairs": [["l_end", "r_end"]]}


@pytest.mark.parametrize("skeleton", BUILT_IN.values(), ids=BUILT_IN)
def test_built_in_skeletons_are_valid(skeleton: Skeleton) -> None:
    count = len(skeleton.joints)
    assert len(skeleton.sigmas) == count == len(set(skeleton.joints))
    flip = skeleton.flip_index
    assert sorted(flip) == list(range(count)) and [flip[j] for j in flip] == list(range(count))
    for joint, other in zip(skeleton.joints, (skeleton.joints[j] for j in flip), strict=True):
        assert other == joint.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
    assert all(skeleton.sigmas[j] == skeleton.sigmas[flip[j]] for j in range(count))
    assert {j for limb in skeleton.limbs for j in limb} == set(range(count)), "every joint hangs on a limb"
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton


def test_sigmas_are_those_of_the_evaluators() -> None:
    params = pytest.importorskip("pycocotools.cocoeval").Params("keypoints")
    assert np.allclose(COCO.sigmas, params.kpt_oks_sigmas)
    crowdpose = [0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79]
    assert np.allclose(CROWDPOSE.sigmas, np.array(crowdpose) / 10)
    assert (len(COCO.joints), len(CROWDPOSE.joints)) == (17, 14)


@pytest.mark.parametrize("skeleton", BUILT_IN.values(), ids=BUILT_IN)
def test_the_grouping_order_goes_from_the_torso_outwards(skeleton: Skeleton) -> None:
    order = [skeleton.joints[j] for j in skeleton.grouping_order]
    assert sorted(order) == sorted(skeleton.joints)
    for side in ("left", "right"):
        arm = [order.index(f"{side}_{part}") for part in ("shoulder", "elbow", "wrist")]
        leg = [order.index(f"{side}_{part}") for part in ("hip", "knee", "ankle")]
        assert arm == sorted(arm) and leg == sorted(leg)
    assert order[0].endswith(("shoulder", "hip", "neck"))


def test_the_grouping_order_without_limbs_is_that_of_the_joints() -> None:
    assert Skeleton("x", ("a", "b", "c"), (0.1,) * 3, (), ()).grouping_order == (0, 1, 2)


def test_the_largest_skeleton_has_its_order_in_a_moment() -> None:
    count = 1000
    limbs = tuple((place, (place + step) % count) for place in range(count) for step in range(1, 11))
    joints = tuple(map(str, range(count)))
    since = time.process_time()
    assert Skeleton("ring", joints, (0.1,) * count, (), limbs).grouping_order == tuple(range(count))
    assert time.process_time() - since < 20


def test_a_custom_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stick.yaml"
    path.write_text(dump_yaml({**CUSTOM, "limbs": [["l_end", "middle"], ["middle", "r_end"]]}))
    skeleton = load_skeleton(path)
    assert skeleton == Skeleton(
        "stick", ("l_end", "middle", "r_end"), (DEFAULT_SIGMA,) * 3, ((0, 2),), ((0, 1), (1, 2))
    )
    assert skeleton.flip_index == (2, 1, 0) and skeleton.grouping_order == (1, 0, 2)


def test_joints_named_by_numbers_are_read() -> None:
    assert Skeleton.from_dict({"joints": [1, 2], "flip_pairs": [[1, 2]]}).flip_index == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": ["a", "a", "b"]}, "distinct names"),
        ({"joints": []}, "distinct names"),
        ({"joints": "l_end"}, "joints of a skeleton is not a list"),
        ({"sigmas": [0.1]}, "1 sigmas for 3 joints"),
        ({"sigmas": [0.1, 0.1, 0]}, "sigma 0 is not a positive number"),
        ({"sigmas": [0.1, 0.1, float("nan")]}, "sigma nan is not a positive number"),
        ({"sigmas": [0.1, 0.1, 10**400]}, "is not a positive number"),
        ({"sigmas": [0.1, "wide", 0.1]}, "sigma 'wide' is not a positive number"),
        ({"flip_pairs": [["l_end", "tail"]]}, "unknown joint 'tail' in flip_pairs; use names of: l_end, middle, r_end"),
        ({"flip_pairs": [["l_end"]]}, "is not a pair"),
        ({"flip_pairs": [3]}, "is not a pair"),
        ({"flip_pairs": [["l_end", "r_end"], ["r_end", "middle"]]}, "'r_end' is twice in flip_pairs"),
        ({"flip_pairs": [["middle", "middle"]]}, "'middle' is twice in flip_pairs"),
        ({"limbs": {"l_end": "middle"}}, "limbs of a skeleton is not a list"),
        ({"mirror": "yes"}, "mirror is 'yes'; give true or false"),
        ({"joints": [f"j{place}" for place in range(1001)]}, "has 1,001 joints; give at most 1,000"),
        ({"limbs": [["l_end", "r_end"]] * 10_001}, "has 10,001 limbs; give at most 10,000"),
        ({"joints": ["l " * 1000, "b"]}, "a name of 2,000 characters; give names of at most 200 characters"),
        ({"flip_pair": []}, "unknown key 'flip_pair' in a skeleton; did you mean 'flip_pairs'?"),
    ],
)
def test_faults_of_a_custom_skeleton(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Skeleton.from_dict({**CUSTOM, **change}, "stick.yaml")
    assert str(error.value).startswith("stick.yaml: ") and message in str(error.value)


@pytest.mark.parametrize("value", [None, [], "coco", {"name": "x"}])
def test_no_skeleton(value: Any) -> None:
    with pytest.raises(InputError, match="is not a skeleton"):
        Skeleton.from_dict(value, "x.yaml")


def test_loading_by_name() -> None:
    assert load_skeleton("coco") is COCO and load_skeleton("crowdpose") is CROWDPOSE
    with pytest.raises(InputError, match="no such skeleton: 'cocoo'"):
        load_skeleton("cocoo")


def test_same_joints_asks_for_the_order_too() -> None:
    assert same_joints(list(CROWDPOSE.joints)) is CROWDPOSE
    assert same_joints(COCO.joints[::-1]) is None


def test_a_draft_takes_known_sigmas_pairs_by_name_and_valid_limbs() -> None:
    names = (
        "nose",
        "left_hip",
        "right_hip",
        "heel_l",
        "heel_r",
        "LeftHand",
        "RightHand",
        "l_eye",
        "r_eye",
        "left_alone",
    )
    drafted = draft("mine", names, [[1, 2], [2, 3], [3, 99], [-1, 1]])
    assert drafted.flip_pairs == ((1, 2), (3, 4), (5, 6), (7, 8))
    assert drafted.sigmas == (0.026, 0.107, 0.107) + (DEFAULT_SIGMA,) * 7
    assert drafted.limbs == ((0, 1), (1, 2))
    assert not drafted.mirror and one_sided(names) == ["left_alone"]
    assert Skeleton.from_dict(drafted.to_dict()) == drafted


SIDES = st.sampled_from([("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R")])
PARTS = st.sampled_from(["eye", "wrist", "fore_paw", "hindleg", "Ear", "Antenna"])


@st.composite
def sided_names(draw: st.DrawFn) -> tuple[str, str]:
    """The same joint on both sides, named as annotators do."""
    part, sides, number = draw(PARTS), draw(SIDES), draw(st.sampled_from(["", "1", "_2"]))
    before, gap = draw(st.booleans()), draw(st.sampled_from(["_", "-", ".", " ", ""]))
    glued = not gap and not (before and part[0].isupper()) and not (sides[0][0].isupper() and not before)
    assume(not (glued and sides[0] == "L"))  # 'Leye' is tried below; 'eyel' next to 'eyer' is no rule

    def name(side: str) -> str:
        return (side + gap + part if before else part + gap + side) + number

    return name(sides[0]), name(sides[1])


@given(st.lists(sided_names(), min_size=1, max_size=6, unique_by=lambda pair: pair[0].lower()), st.randoms())
def test_the_sides_in_joint_names_make_pairs(pairs: list[tuple[str, str]], random: Random) -> None:
    names = [name for pair in pairs for name in pair]
    assume(len(set(names)) == len(names))
    random.shuffle(names)
    drafted = draft("mine", [*names, "nose"])
    found = {frozenset(drafted.joints[joint] for joint in pair) for pair in drafted.flip_pairs}
    assert found == {frozenset(pair) for pair in pairs} and drafted.mirror


@pytest.mark.parametrize(
    "pair",
    [("Lelbow", "Relbow"), ("LF_paw", "RF_paw"), ("pawFL", "pawFR"), ("eye left (l)", "eye right (r)"), ("L1", "R1")],
)
def test_other_ways_to_write_a_side(pair: tuple[str, str]) -> None:
    drafted = draft("mine", ["nose", *pair])
    assert drafted.flip_pairs == ((1, 2),) and drafted.mirror


@pytest.mark.parametrize("missing", ["LEye", "eye_left", "l-eye", "legL1", "RIGHT.wrist"])
def test_a_joint_whose_other_side_is_missing_forbids_mirroring(missing: str) -> None:
    names = ["nose", "l_hip", "r_hip", missing]
    assert one_sided(names) == [missing]
    assert draft("mine", names).flip_pairs == ((1, 2),) and not draft("mine", names).mirror


def test_names_without_sides_forbid_mirroring_until_a_file_allows_it(tmp_path: Path) -> None:
    drafted = draft("mine", ["snout", "tail"])
    assert not drafted.mirror and one_sided(drafted.joints) == []
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(drafted.to_dict()))
    assert not load_skeleton(path).mirror
    path.write_text(dump_yaml({**drafted.to_dict(), "mirror": True}))
    assert load_skeleton(path).mirror
    assert not Skeleton.from_dict({"joints": ["snout", "tail"]}).mirror
    assert Skeleton.from_dict({"joints": ["snout", "tail"], "flip_pairs": []}).mirror


def test_limbs_that_count_from_0_are_seen_by_their_0() -> None:
    names = ["nose", "left_ear", "right_ear"]
    assert draft("mine", names, [[0, 1], [0, 2]]).limbs == draft("mine", names, [[1, 2], [1, 3]]).limbs
