"""The figures of a search space are those of its subnets."""

from __future__ import annotations

import itertools
import json

import pytest

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import CONVENTIONS, spec_macs, spec_params
from ofa_pose.costs.space_profile import describe_space, profile_space
from ofa_pose.utils.errors import InputError


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
    found = profile_space(space, 5, Budget.parse(limit, None, convention))
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
    found = profile_space(space, 17, Budget.parse("40M", None, "thop"))["resolutions"]
    assert found["96"]["admitted"] > 0 == found["128"]["admitted"] == found["192"]["admitted"]
    with pytest.raises(InputError, match="raise --macs to at least"):
        profile_space(space, 17, Budget.parse("1M", None, "thop"))
    assert "admitted" not in profile_space(space, 17)["resolutions"]["96"]


def test_a_line_says_which_budgets_can_be_kept() -> None:
    space = load_space("litepose-nano")
    line = describe_space(space, 17)
    assert line.startswith("litepose-nano: 26,244 subnets of 35.2M to 431M MACs (thop)") and "\n" not in line
    least, most = line.split("--macs ")[1].split(" and more, ")
    profile_space(space, 17, Budget.parse(least, None, "thop"))  # the advice holds
    every = profile_space(space, 17, Budget.parse(most.split()[0], None, "thop"))
    assert every["budget"]["subnets"] == space.size
