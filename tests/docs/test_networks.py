"""docs/networks.md: families and figures are those of the code, and its words on the published ones hold."""

from __future__ import annotations

import re

import pytest

from ofa_pose.families.profile import profile_net
from ofa_pose.families.table import TABLE, find_family, load_net
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
ROW = r"^\| `([\w.-]+)` \| (\d+) \| (MACs|parameters) \| ([\d.]+) \| ([\d.]+) \|$"
PUBLISHED = re.findall(ROW, PAGE, flags=re.MULTILINE)


def rounded(count: str, like: str) -> str:
    """A figure with as many decimals as another has."""
    return f"{float(count):.{len(like.partition('.')[2])}f}"


def test_the_families_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+\)[^|]*) \|", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [*TABLE]
    for name, title in rows:
        assert title.startswith(find_family(name).title)


@pytest.mark.parametrize(("net", "joints", "figure", "published", "counted"), PUBLISHED)
def test_the_counts_beside_published_figures(net: str, joints: str, figure: str, published: str, counted: str) -> None:
    figures = profile_net(load_net(net, int(joints)))
    value = figures["params"] / 1e6 if figure == "parameters" else figures["macs"]["paper"] / 1e9
    assert rounded(str(value), counted) == counted


def test_what_differs_from_published_figures_is_said() -> None:
    differing = {net: (published, counted) for net, _, _, published, counted in PUBLISHED}
    differing = {net: pair for net, pair in differing.items() if rounded(pair[1], pair[0]) != pair[0]}
    lite = {net: pair for net, pair in differing.items() if net.startswith("litepose")}
    assert {net: rounded(counted, published) for net, (published, counted) in lite.items()} == {
        "litepose-m": "7.9",
        "litepose-l": "13.7",
    }
    assert all(abs(float(counted) / float(published) - 1) < 0.01 for published, counted in lite.values())
    others = {net: pair for net, pair in differing.items() if net not in lite}
    assert len(others) == 4 and all(net.startswith("scaled-") for net in others)
    assert all(abs(float(rounded(one, other)) - float(other)) < 0.0101 for other, one in others.values())
