"""The tables of MACs in docs/search.md: every figure is what `ofa-pose profile` gives, beside the paper's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.presets import PRESETS, load_spec
from ofa_pose.arch.space import load_space
from ofa_pose.costs.macs import layer_macs, profile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
# Wang et al., CVPR 2022 (arXiv 2205.01271): GMACs of the main results and of the ablations of kernels and head.
PUBLISHED = {
    "litepose-xs": "1.2",
    "litepose-s": "5.0",
    "litepose-m": "7.8",
    "litepose-l": "13.7",
    "litepose-0.5x-k3": "3.77",
    "litepose-0.5x-k5": "4.14",
    "litepose-0.5x": "4.69",
    "litepose-0.5x-k9": "5.33",
    "litepose-0.5x-plain": "4.06",
}


def rows(first: str) -> dict[str, list[str]]:
    """The table under the header cell `first`: rows by the name of their net."""
    lines = PAGE[PAGE.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {next(cell for cell in row if cell in PRESETS): row for row in cells}


def giga(macs: int) -> str:
    return f"{macs / 1e9:.4f} G"


def test_the_page_lists_every_net_of_the_paper_with_its_published_figure() -> None:
    assert {name: row[2] for name, row in rows("the paper's net").items()} == {
        name: f"{figure} G" for name, figure in PUBLISHED.items()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_counted_beside_published(name: str) -> None:
    counted = profile(load_spec(name, 14))["macs"]["paper"]
    _, _, _, shown, difference = rows("the paper's net")[name]
    assert shown == giga(counted)
    assert difference == f"{100 * (counted / 1e9 / float(PUBLISHED[name]) - 1):.1f} %".replace("-0.0", "0.0")
    digits = len(PUBLISHED[name].split(".")[1])
    assert (f"{counted / 1e9:.{digits}f}" == PUBLISHED[name]) == (name != "litepose-0.5x-k9"), "all but one round to it"


def test_what_the_page_says_of_the_one_that_does_not_come_out() -> None:
    nets = [PRESETS[name].with_joints(14) for name in ("litepose-0.5x-k9", "litepose-0.5x")]
    pairs = zip(*(make_plan(net).layers() for net in nets), strict=True)
    mixed = sum(layer_macs(seven if nine.name.startswith("stages.2.") else nine).paper for nine, seven in pairs)
    assert giga(mixed) == "5.3267 G" and "(5.3267 G is what" in TEXT
    by_side = {k: profile(replace(nets[1], kernel=k))["macs"]["paper"] for k in (3, 5, 7, 9)}
    slopes = {(by_side[k] - by_side[3]) / (k**2 - 9) for k in (5, 7, 9)}
    assert len(slopes) == 1, "MACs grow with the square of the side"


def test_what_the_page_says_of_the_plain_head() -> None:
    plain, fusion = (profile(load_spec(name, 14))["macs"]["paper"] for name in ("litepose-0.5x-plain", "litepose-0.5x"))
    layers = make_plan(load_spec("litepose-0.5x", 14)).layers()
    raw = {layer.name: layer_macs(layer).paper for layer in layers if "raw" in layer.name}
    assert fusion == plain + sum(raw.values())
    kept = sum(macs for name, macs in raw.items() if name.startswith("outputs."))
    assert giga(plain + kept) == "4.1146 G" and "it would be 4.1146 G" in TEXT


def test_the_searched_nets_in_all_conventions() -> None:
    for name, (_, resolution, thop, exact, _, params) in rows("net, 14 joints").items():
        found = profile(load_spec(name, 14))
        assert int(resolution) == found["resolution"]
        assert (thop, exact) == (giga(found["macs"]["thop"]), giga(found["macs"]["exact"]))
        assert params == f"{found['params'] / 1e6:.3f} M"


def test_the_sizes_of_the_spaces() -> None:
    shown = dict(line.strip("| ").split(" | ")[::2] for line in PAGE.splitlines() if line.startswith("| `litepose"))
    sizes = {f"`{path.stem}`": load_space(path.stem).size for path in (ROOT / "search_spaces").glob("*.yaml")}
    exponent = len(str(sizes["`litepose-per-block`"])) - 1
    assert exponent == 21
    short = {name: f"{size:,}" if size < 1e9 else f"{size / 1e21:.1f} × 10²¹" for name, size in sizes.items()}
    assert shown == short


def test_the_range_of_the_nano_space() -> None:
    space = load_space("litepose-nano")
    least, most = (round(profile(spec)["macs"]["thop"] / 1e6) for spec in (space.smallest(17), space.largest(17)))
    assert f"{least} to {most} MMACs (thop, 17 joints)" in TEXT
