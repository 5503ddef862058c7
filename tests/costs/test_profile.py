"""The figures of a network, layer by layer and as a whole."""

from __future__ import annotations

import json

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import layer_rows, profile, spec_macs

TINY = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3,), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


def test_profile_of_a_preset() -> None:
    value = profile(PRESETS["litepose-xs"].with_joints(14))
    assert (value["name"], value["resolution"], value["joints"]) == ("litepose-xs", 256, 14)
    assert value["params"] == 1_675_552
    assert value["macs"] == spec_macs(PRESETS["litepose-xs"].with_joints(14)).to_dict()
    assert all(type(number) is int for number in (value["params"], *value["macs"].values()))


def test_profile_names() -> None:
    assert profile(TINY)["name"] == str(TINY)
    assert profile(TINY, "mine")["name"] == "mine"
    assert profile(PRESETS["litepose-xs"].at(320))["name"] != "litepose-xs"


def test_layer_rows_add_up_to_the_profile() -> None:
    rows, whole = layer_rows(TINY), profile(TINY)
    assert sum(row["params"] for row in rows) == whole["params"]
    for convention, total in whole["macs"].items():
        assert sum(row["macs"][convention] for row in rows) == total
    assert len({row["name"] for row in rows}) == len(rows)
    json.dumps(rows)


def test_layer_rows_describe_the_layers() -> None:
    rows = {row["name"]: row for row in layer_rows(TINY)}
    depthwise = rows["stages.1.0.depthwise"]
    assert depthwise["operator"] == "depthwise conv 3×3 /2"
    assert (depthwise["cin"], depthwise["cout"], depthwise["side"]) == (24, 24, 8)
    assert depthwise["params"] == 24 * 9 + 2 * 24
    assert depthwise["macs"]["exact"] == 24 * 9 * 64
    assert rows["deconv.0.raw"]["operator"] == "deconv 4×4 ×2"
    assert rows["deconv.0.norm"]["operator"] == "norm"
    assert rows["stem.2"]["operator"] == "conv 1×1"
