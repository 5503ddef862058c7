"""Configs of the LitePose repository."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.presets import (
    PRESETS,
    check_rebuildable,
    check_residuals,
    litepose_from_spec,
    spec_from_litepose,
)
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json

FIXTURES = Path(__file__).parents[3] / "shared/fixtures"
FIXTURE = FIXTURES / "official_pipeline/arch.json"
CHECKPOINT = FIXTURES / "official_checkpoints/litepose_auto_xs_crowdpose.pt"

widths = st.integers(1, 64)
specs = st.builds(
    ArchSpec,
    resolution=st.integers(1, 40).map(lambda n: 16 * n),
    stem=widths,
    stages=st.tuples(widths, widths, widths, widths),
    expansions=st.tuples(*[st.lists(st.integers(1, 8), min_size=1, max_size=5).map(tuple)] * 4),
    deconv=st.tuples(widths, widths, widths),
    kernel=st.sampled_from([3, 5, 7, 9]),
    joints=st.integers(1, 30),
)


@given(specs)
@settings(max_examples=50, deadline=None)
def test_round_trip(spec: ArchSpec) -> None:
    config = litepose_from_spec(spec)
    assert "backbone_setting" in config and "backbone_setting" not in spec.to_dict()  # by which a file is known
    assert spec_from_litepose(config, spec.joints) == spec


def test_a_real_config() -> None:
    if not FIXTURE.is_file():
        pytest.skip(f"{FIXTURE} is not there")
    config = read_json(FIXTURE)
    spec = spec_from_litepose(config, 14)
    assert spec == ArchSpec(
        resolution=128,
        stem=16,
        stages=(16, 32, 48, 80),
        expansions=((6, 6), (6, 6, 6), (6, 6, 6, 6), (6, 6, 6)),
        deconv=(32, 24, 24),
        kernel=7,
        joints=14,
    )
    assert litepose_from_spec(spec) == config


def test_the_presets_are_that_repositorys_own_nets() -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"{CHECKPOINT} is not there")
    config = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)["arch"]
    assert spec_from_litepose(config) == PRESETS["litepose-xs"]


def test_fewer_blocks_than_the_presets_have() -> None:
    config = litepose_from_spec(PRESETS["litepose-s"])
    for stage, depth in zip(config["backbone_setting"], (4, 6, 8, 8), strict=True):
        stage["num_blocks"], stage["block_setting"] = depth, [[6, 7]] * depth
    spec = spec_from_litepose(config)
    assert [len(stage) for stage in spec.expansions] == [4, 6, 8, 8]
    assert replace(spec, expansions=PRESETS["litepose-s"].expansions) == PRESETS["litepose-s"]


def test_a_plain_head_has_no_config_there() -> None:
    with pytest.raises(InputError, match="a LitePose config knows no plain head; use the format yaml"):
        litepose_from_spec(PRESETS["litepose-0.5x-plain"])


def _drop_key(config: dict[str, Any]) -> None:
    del config["deconv_setting"]


def _drop_stage_key(config: dict[str, Any]) -> None:
    del config["backbone_setting"][2]["channel"]


def _restore_last_stride(config: dict[str, Any]) -> None:
    config["backbone_setting"][3]["stride"] = 2


def _mix_kernels(config: dict[str, Any]) -> None:
    config["backbone_setting"][1]["block_setting"][0][1] = 5


def _disagree(config: dict[str, Any]) -> None:
    config["backbone_setting"][0]["num_blocks"] = 7


def _flatten(config: dict[str, Any]) -> None:
    config["backbone_setting"][0]["block_setting"] = [6, 7]


def _stage_short(config: dict[str, Any]) -> None:
    config["backbone_setting"].pop()


def _odd_size(config: dict[str, Any]) -> None:
    config["img_size"] = 250


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_drop_key, "no 'deconv_setting'"),
        (_drop_stage_key, "no 'channel'"),
        (_restore_last_stride, r"strides \[2, 2, 2, 2\]"),
        (_mix_kernels, "kernels 5, 7"),
        (_disagree, "stage 1 has num_blocks 7 but 6"),
        (_flatten, "backbone_setting is malformed"),
        (_stage_short, r"strides \[2, 2, 2\]"),
        (_odd_size, "250"),
    ],
)
def test_faults_name_the_file_and_the_value(spoil: Any, words: str) -> None:
    config = copy.deepcopy(litepose_from_spec(PRESETS["litepose-xs"]))
    spoil(config)
    with pytest.raises(InputError, match=words) as caught:
        spec_from_litepose(config, where="net.json")
    assert str(caught.value).startswith("net.json: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_something_else_entirely(value: Any) -> None:
    with pytest.raises(InputError, match="holds no LitePose config"):
        spec_from_litepose(value, where="net.json")


def test_the_published_nets_are_rebuilt_as_they_are() -> None:
    for spec in PRESETS.values():
        if spec.head == "fusion":
            check_rebuildable(spec)
    with pytest.raises(InputError, match="no plain head"):
        check_rebuildable(PRESETS["litepose-0.5x-plain"])


def test_a_residual_that_only_their_code_has() -> None:
    """Their blocks add one wherever stride and width stay: in stage 4's first block too."""
    spec = replace(PRESETS["litepose-xs"], stages=(16, 32, 80, 80))
    with pytest.raises(InputError, match="stages 3 and 4 are both 80 wide"):
        check_residuals(spec, "a.json")
    check_residuals(replace(spec, stages=(32, 32, 48, 80)))  # stage 2 changes the stride


@pytest.mark.parametrize(("widths", "place"), [({"stem": 12}, "stem is 12"), ({"stages": (8, 16, 36, 40)}, "stage 3")])
def test_widths_that_their_code_rounds(widths: dict[str, Any], place: str) -> None:
    with pytest.raises(InputError, match=f"{place}.*multiple of 8"):
        check_rebuildable(replace(PRESETS["litepose-xs"], **widths))
    check_rebuildable(replace(PRESETS["litepose-xs"], deconv=(12, 18, 21)))  # filters are taken as they are
