"""Charts: what they show is what they were given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.reports import charts
from ofa_pose.reports.charts import Curve, panel

NUMBER = r"-?\d+(?:\.\d+)?"


def paths(svg: str, kind: str) -> list[str]:
    """What the paths of a class are drawn by."""
    return [one.attrib["d"] for one in ElementTree.fromstring(svg).iter("path") if one.attrib["class"] == kind]


def points(path: str) -> list[tuple[float, float]]:
    """The places that a path begins at or goes to."""
    return [(float(x), float(y)) for x, y in re.findall(rf"[ML]({NUMBER}) ({NUMBER})", path)]


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter("text")]


def axis_value(svg: str, y: float) -> float:
    """What a height stands for, by the numbers at the axis."""
    marks = [one for one in ElementTree.fromstring(svg).iter("text") if one.attrib["text-anchor"] == "end"]
    (low, at_low), (high, at_high) = [
        (float(one.text or "nan"), float(one.attrib["y"]) - 4) for one in (marks[0], marks[-1])
    ]
    return low + (y - at_low) / (at_high - at_low) * (high - low)


def test_the_same_network_gives_the_same_svg(tiny_spec: ArchSpec) -> None:
    one, other = (charts.network_chart(tiny_spec, tiny_spec) for _ in range(2))
    assert one == other and one.startswith('<svg class="chart" role="img" aria-label="channels of each part')
    assert f"{tiny_spec.stages[3]} of {tiny_spec.stages[3]}, 2 blocks" in texts(one)
    wide = [
        float(bar.attrib["width"]) for bar in ElementTree.fromstring(one).iter("rect") if bar.attrib["class"] == "blue"
    ]
    assert [bar / wide[0] for bar in wide] == pytest.approx(
        [s / tiny_spec.stages[0] for s in tiny_spec.stages], rel=0.02
    )


def test_points_stand_where_the_axes_say() -> None:
    shown = panel("a <label>", [Curve([(0, 0.1), (10, 0.9), (20, 0.35)], style="marked")], "step & more", "AP")
    assert 'aria-label="a &lt;label&gt;"' in shown and "step & more" in texts(shown)
    drawn = points(paths(shown, "blue")[0])
    assert [axis_value(shown, y) for _, y in drawn] == pytest.approx([0.1, 0.9, 0.35], abs=0.005)
    assert drawn[1][0] - drawn[0][0] == pytest.approx(drawn[2][0] - drawn[1][0], abs=0.2)
    assert points(paths(shown, "blue dots")[0]) == drawn


@pytest.mark.parametrize("value", [0.0, 1e-7, 3.0, 1e12, -5.0])
def test_one_value_and_none_have_a_chart(value: float) -> None:
    shown = panel("one", [Curve([(1, value)], style="dots")], "x", "y")
    ((x, y),) = points(paths(shown, "blue dots")[0])
    assert 0 < x < 400 and 0 < y < 250 and len(texts(shown)) > 4
    ElementTree.fromstring(panel("none", [], "x", "y"))


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.0, 0.0021, ["0.0000", "0.0005", "0.0010", "0.0015", "0.0020"]),
        (-3, 12_000, ["0", "5,000", "10,000"]),
    ],
)
def test_numbers_at_an_axis_are_round(low: float, high: float, expected: list[str]) -> None:
    assert [text for _, text in charts._ticks(low, high, 5)] == expected


def test_the_best_so_far_never_falls_and_failures_are_left_out() -> None:
    shown = charts.progress_chart([0.1, None, 0.3, 0.2, 0.4])
    dots = points(paths(shown, "grey dots")[0])
    assert [axis_value(shown, y) for _, y in dots] == pytest.approx([0.1, 0.3, 0.2, 0.4], abs=0.005)
    (stairs,) = (path for path in paths(shown, "blue"))
    heights = [float(y) for y in re.findall(rf"[MV](?:{NUMBER} )?({NUMBER})", stairs)]
    assert heights == sorted(heights, reverse=True) and axis_value(shown, heights[-1]) == pytest.approx(0.4, abs=0.005)
    assert not paths(charts.progress_chart([None]), "grey dots")


def test_a_supernets_subnets_have_a_curve_each() -> None:
    val = [{"AP": 0.2, "AP_largest": 0.4, "AP_middle": 0.2, "AP_smallest": 0.1}, {"AP_largest": 0.5}]
    validated = [{"step": step, "val": entry} for step, entry in enumerate(val)]
    trained = [{"step": step, "loss": 1 / step} for step in range(1, 200)]
    trained = [{**one, "lr": 0.1, "push": 1.0, "pull": None} for one in trained]
    loss, aps, parts, rate = charts.training_charts(trained, validated)
    assert {"largest", "middle", "smallest"} <= {*texts(aps)} and len(paths(loss, "mark")) == 2
    assert (
        "loss by part" in texts(parts)
        and "learning rate" in texts(rate)
        and "training loss, spikes cut off" in texts(loss)
    )
    assert len(list(charts.training_charts([{"step": 1, "loss": 0.5}], []))) == 1


def test_long_runs_are_drawn_by_some_of_their_points() -> None:
    trained = [{"step": step, "loss": 1.0 + step % 7} for step in range(1, 50_001)]
    (loss,) = charts.training_charts(trained, [])
    assert 300 < len(points(paths(loss, "grey thin")[0])) <= charts.MANY and len(loss) < 20_000


def test_choices_show_their_median_and_their_best() -> None:
    pairs = [(8, 0.1), (8, 0.3), (8, 0.2), (16, 0.5)]
    shown = charts.choice_chart("stem", pairs, 16)
    median = [axis_value(shown, y) for _, y in points(paths(shown, "blue")[0])]
    best = [axis_value(shown, y) for _, y in points(paths(shown, "red bars")[0])]
    assert median == pytest.approx([0.2, 0.5], abs=0.005) and best == pytest.approx([0.3, 0.5], abs=0.005)
    marked = {one.text: one.attrib.get("font-weight") for one in ElementTree.fromstring(shown).iter("text")}
    assert (marked["8"], marked["16"]) == (None, "bold")


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1, max_size=9))
@example([0, 5e-324])
@example([1e308, -1e308])
@example([1.79e308])
def test_any_finite_numbers_have_charts(values: list[float]) -> None:
    trained = [{"step": 2**n, "loss": value, "lr": value, "low": value} for n, value in enumerate(values)]
    shown = [*charts.training_charts(trained, [{"step": 1, "val": {"AP": value}} for value in values])]
    shown += [
        charts.progress_chart(values),
        charts.choice_chart("stem", [(n % 2, one) for n, one in enumerate(values)]),
    ]
    for chart in shown:
        ElementTree.fromstring(chart)
        assert not re.search(r"\b(nan|inf)\b", chart)
