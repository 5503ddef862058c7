"""The benchmark of searches runs from end to end, on a made-up table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench import search
from tests.searches.evaluated_space import draw_space, load_table


@pytest.mark.slow
def test_quick_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("sys.argv", ["search", "--drawn", "1", "--seeds", "1", "--json"])
    search.main()
    shown = capsys.readouterr()
    assert "Hypervolume missing" in shown.err and "Evaluations to get within" in shown.err
    figures = json.loads(shown.out)
    assert [row["share"] for row in figures["budgets"]] == [0.25, 0.5, 0.75]
    for row in figures["budgets"]:
        assert row["allowed"] == row["feasible"] // 10 and 0 < row["close"] < row["feasible"]
        assert list(row["ways"]) == list(search.WAYS)
        assert 1 <= row["ways"]["random"]["median"] <= row["feasible"]
        assert -1 <= (row["ways"]["paper + surrogate"].get("tau") or 0) <= 1
    gaps = figures["front"]["gaps"]
    assert 0 <= gaps["nsga2"]["median"] < gaps["random"]["median"] < 1


def test_random_search_needs_what_chance_says() -> None:
    """The median of hypergeometric waiting, which depends on nothing but how many there are."""
    subnets = draw_space(6)
    row = search.reach(subnets, 0.5, seeds=30, ways=("random",))
    left = 1 - row["close"] / (row["feasible"] - np.arange(row["feasible"] - row["close"]))
    expected = int(np.argmax(np.cumprod(left) < 0.5)) + 1
    assert row["ways"]["random"]["median"] == pytest.approx(expected, rel=0.5)


def test_a_folder_without_a_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        search.parse(["--table", str(tmp_path)])
    assert "has no table.csv" in capsys.readouterr().err


def test_a_table_is_read_whole(tmp_path: Path) -> None:
    subnets = draw_space(0)
    rows = ["genome,macs_thop,macs_exact,macs_paper,params,AP"]
    for genome, cost, ap in zip(subnets.genomes, subnets.costs, subnets.aps, strict=True):
        rows.append(f"{'-'.join(map(str, genome))},{cost},0,0,0,{ap}")
    (tmp_path / "space.yaml").write_text((search.FOLDER / "space.yaml").read_text())
    (tmp_path / "table.csv").write_text("\n".join(rows))
    read = load_table(tmp_path)
    assert read.genomes == subnets.genomes
    np.testing.assert_array_equal(read.costs, subnets.costs)
    np.testing.assert_array_equal(read.aps, subnets.aps)
    (tmp_path / "table.csv").write_text("\n".join(rows[:-1]))
    with pytest.raises(AssertionError, match="1943 of 1944"):
        load_table(tmp_path)
