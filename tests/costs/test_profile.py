"""The figures of a network, layer by layer and as a whole."""

from __future__ import annotations

import itertools
import json

import pytest

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs import profile as profiling
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import CONVENTIONS, Macs, spec_macs, spec_params
from ofa_pose.models import litepose
from ofa_pose.utils.errors import InputError, OfaPoseError

TINY = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3,), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


def test_profile_of_a_preset() -> None:
    value = profiling.profile(PRESETS["litepose-xs"].with_joints(14))
    assert (value["name"], value["resolution"], value["joints"]) == ("litepose-xs", 256, 14)
    assert value["params"] == 1_675_552
    assert value["macs"] == spec_macs(PRESETS["litepose-xs"].with_joints(14)).to_dict()
    assert all(type(number) is int for number in (value["params"], *value["macs"].values()))


def test_profile_names() -> None:
    assert profiling.profile(TINY)["name"] == str(TINY)
    assert profiling.profile(TINY, "mine")["name"] == "mine"
    assert profiling.profile(PRESETS["litepose-xs"].at(320))["name"] != "litepose-xs"


def test_layer_rows_add_up_to_the_profile() -> None:
    rows, whole = profiling.layer_rows(TINY), profiling.profile(TINY)
    assert sum(row["params"] for row in rows) == whole["params"]
    for convention, total in whole["macs"].items():
        assert sum(row["macs"][convention] for row in rows) == total
    assert len({row["name"] for row in rows}) == len(rows)
    json.dumps(rows)


def test_layer_rows_describe_the_layers() -> None:
    rows = {row["name"]: row for row in profiling.layer_rows(TINY)}
    depthwise = rows["stages.1.0.depthwise"]
    assert depthwise["operator"] == "depthwise conv 3×3 /2"
    assert (depthwise["cin"], depthwise["cout"], depthwise["side"]) == (24, 24, 8)
    assert depthwise["params"] == 24 * 9 + 2 * 24
    assert depthwise["macs"]["exact"] == 24 * 9 * 64
    assert rows["deconv.0.raw"]["operator"] == "deconv 4×4 ×2"
    assert rows["deconv.0.norm"]["operator"] == "norm"
    assert rows["stem.2"]["operator"] == "conv 1×1"


def test_thop_agrees_and_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert litepose.check_with_thop(TINY) == spec_macs(TINY).thop
    assert litepose.check_with_thop(TINY) == spec_macs(TINY).thop  # nothing left behind by the first
    assert capsys.readouterr().out == ""


def test_thop_that_disagrees_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litepose, "spec_macs", lambda spec: Macs(1, 2, 3))
    with pytest.raises(OfaPoseError, match="thop counts"):
        litepose.check_with_thop(TINY)


def every_subnet(space: SearchSpace) -> list[ArchSpec]:
    genomes = itertools.product(*(range(len(choices)) for choices in space.choices))
    return [space.decode(genome, 5) for genome in {space.canonical(genome) for genome in genomes}]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_spaces_figures_are_those_of_all_its_subnets(convention: str) -> None:
    space = SearchSpace(
        "small", (32, 64), (4, 8), ((4, 8), (4,), (8, 12), (8, 16)), ((4,), (4, 8), (6,)), (1, 2), (1, 1, 2, 1), 3,
        depth=((1,), (1,), (1, 2), (1,)),
    )  # fmt: skip
    subnets = every_subnet(space)
    limit = sorted(getattr(spec_macs(spec), convention) for spec in subnets)[len(subnets) // 3]
    found = profiling.profile_space(space, 5, Budget.parse(limit, None, convention))
    assert json.loads(json.dumps(found)) == found and found["subnets"] == len(subnets)
    for name in CONVENTIONS:
        costs = [getattr(spec_macs(spec), name) for spec in subnets]
        assert found["macs"][name] == {"least": min(costs), "most": max(costs)}
    sizes = [spec_params(spec) for spec in subnets]
    assert found["params"] == {"least": min(sizes), "most": max(sizes)}
    inside = [spec for spec in subnets if getattr(spec_macs(spec), convention) <= limit]
    assert found["budget"]["exact"] and found["budget"]["subnets"] == len(inside) < len(subnets)
    assert found["budget"]["macs"][convention]["most"] == limit and "keep" in found["budget"]["text"]
    for side, row in found["resolutions"].items():
        own = [spec for spec in subnets if spec.resolution == int(side)]
        assert row["subnets"] == len(own) and row["admitted"] == len([spec for spec in inside if spec in own])
        costs = [getattr(spec_macs(spec), convention) for spec in own]
        assert row["macs"][convention] == {"least": min(costs), "most": max(costs)}


def test_a_budget_that_one_resolution_alone_can_keep() -> None:
    space = load_space("litepose-nano")
    found = profiling.profile_space(space, 17, Budget.parse("40M", None, "thop"))["resolutions"]
    assert found["96"]["admitted"] > 0 == found["128"]["admitted"] == found["192"]["admitted"]
    with pytest.raises(InputError, match="raise --macs to at least"):
        profiling.profile_space(space, 17, Budget.parse("1M", None, "thop"))
    assert "admitted" not in profiling.profile_space(space, 17)["resolutions"]["96"]


def test_a_line_says_which_budgets_can_be_kept() -> None:
    space = load_space("litepose-nano")
    line = profiling.describe_space(space, 17)
    assert line.startswith("litepose-nano: 26,244 subnets of 35.2M to 431M MACs (thop)") and "\n" not in line
    least, most = line.split("--macs ")[1].split(" and more, ")
    profiling.profile_space(space, 17, Budget.parse(least, None, "thop"))  # the advice holds
    every = profiling.profile_space(space, 17, Budget.parse(most.split()[0], None, "thop"))
    assert every["budget"]["subnets"] == space.size
