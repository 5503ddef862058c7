"""The table of a study by numbers that can be checked by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import pytest

from ofa_pose.studies.summary import draw_summary, summarise, table_text, write_rows

COSTS = {"macs_exact": 30_000_000, "macs_thop": 60_000_000, "macs_paper": 59_000_000, "params": 300_000}


def row(arm: str | None, seed: int, value: float | None, metric: str | None = "AP") -> dict[str, Any]:
    more = {"metric": metric, "value": value, "steps": 10, "seconds": 2.0, **COSTS}
    return {"run": f"run {arm}", "arm": arm, "seed": seed, **more}


ROWS = [
    *(row(None, seed, None, None) for seed in (0, 1)),
    row("a", 0, 0.3),
    row("b", 0, 0.5),
    row("a", 1, 0.5),
    row("b", 1, 0.6),
    row("a", 2, 0.4),
    row("a", 0, 0.9, "accuracy"),
]


def test_means_spreads_and_paired_differences() -> None:
    a, b, classes = summarise(ROWS)
    assert (a.arm, a.metric, a.seeds, a.mean, a.spread) == ("a", "AP", (0, 1, 2), 0.4, 0.1)
    assert a.difference is None and a.difference_spread is None
    assert (b.seeds, b.mean) == ((0, 1), 0.55)
    assert b.difference == pytest.approx(0.15)  # of the seeds that both have
    assert b.difference_spread == pytest.approx(0.07071, abs=1e-5)
    assert (classes.metric, classes.mean, classes.spread, classes.difference) == ("accuracy", 0.9, None, None)


def test_the_table_and_the_file_hold_them(tmp_path: Path) -> None:
    text = table_text(summarise(ROWS))
    assert "| b | 0.550 ± 0.071 | +0.150 ± 0.071 | 30M | 60M | 59M | 300K | 10 | 2 |" in text
    assert "| a | 0.400 ± 0.100 | – |" in text and "| a | 0.900 | – |" in text
    write_rows(tmp_path / "study.csv", ROWS)
    with (tmp_path / "study.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(ROWS) and read[2]["value"] == "0.3" and read[0]["value"] == ""


@pytest.mark.parametrize("kind", ["macs", "bars"])
def test_pictures_have_a_panel_for_each_metric(tmp_path: Path, kind: Any) -> None:
    arms = summarise(ROWS)
    one, both = draw_summary(tmp_path / "one.png", arms[:2], kind), draw_summary(tmp_path / "both.png", arms, kind)
    widths = [cv2.imread(str(path)).shape[1] for path in (one, both)]
    assert widths[1] > 1.8 * widths[0]
    assert draw_summary(tmp_path / "none.png", [], kind) is None
