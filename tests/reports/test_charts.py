"""Charts: what they show is what they were given."""

from __future__ import annotations

import pytest

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.reports import charts


def test_the_same_figure_gives_the_same_svg(tiny_spec: ArchSpec) -> None:
    one, other = (charts.svg(charts.network_chart(tiny_spec, tiny_spec), "net", "a <net>") for _ in range(2))
    assert (
        one == other
        and one.startswith('<svg role="img" aria-label="a &lt;net&gt;"')
        and one.rstrip().endswith("</svg>")
    )
    assert f">{tiny_spec.stages[3]} of {tiny_spec.stages[3]}, 2 blocks</text>" in one  # text stays text
    assert "var(--blue)" in one and charts.BLUE not in one


def test_the_best_so_far_never_falls_and_failures_are_left_out() -> None:
    aps = [0.1, None, 0.3, 0.2, 0.4]
    dots, best = charts.progress_chart(aps).axes[0].lines
    assert list(dots.get_xdata()) == [1, 3, 4, 5]
    assert list(best.get_ydata()) == [0.1, 0.3, 0.3, 0.4, 0.4]
    assert not charts.progress_chart([None]).axes[0].lines[0].get_xdata().size


def test_a_supernets_subnets_have_a_curve_each() -> None:
    val = [{"AP": 0.2, "AP_largest": 0.4, "AP_middle": 0.2, "AP_smallest": 0.1}, {"AP_largest": 0.5}]
    validated = [{"step": step, "val": entry} for step, entry in enumerate(val)]
    trained = [{"step": step, "loss": 1 / step} for step in range(1, 200)]
    trained = [{**one, "lr": 0.1, "push": 1.0, "pull": None} for one in trained]
    loss, aps, parts, rate = charts.training_charts(trained, validated, "x")
    assert all(f">{name}</text>" in aps for name in ("largest", "middle", "smallest"))
    assert ">loss by part</text>" in parts and ">learning rate</text>" in rate and ">training loss" in loss
    assert len(list(charts.training_charts([{"step": 1, "loss": 0.5}], [], "x"))) == 1


def test_choices_show_their_median_and_their_best() -> None:
    pairs = [(8, 0.1), (8, 0.3), (8, 0.2), (16, 0.5)]
    first = charts.choice_chart("stem", pairs, 16).axes[0]
    median, best = first.lines[-2:]
    assert list(median.get_ydata()) == pytest.approx([0.2, 0.5]) and list(best.get_ydata()) == [0.3, 0.5]
    labels = first.get_xticklabels()
    assert [label.get_text() for label in labels] == ["8", "16"]
    assert [label.get_fontweight() for label in labels] == ["normal", "bold"]
