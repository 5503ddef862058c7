"""docs/files.md names every key and column that runs write, and no other."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.cli import run
from ofa_pose.searches.surrogate import Screening
from tests.cli.conftest import data, net, recipe, supernet  # noqa: F401  (fixtures)
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
ONLY_SOMETIMES = {"latency_ms"}  # with a latency table


def documented(name: str) -> list[str]:
    """The keys of a table of the page, 'stage1 … stage4' as its ends."""
    table = PAGE.partition(f"<!-- keys: {name} -->\n\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert cells, f"no table of {name}"
    return [key for cell in cells for key in re.findall(r"`([\w.]+)`", cell)]


@pytest.fixture(scope="module")
def search(supernet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The run directory of a tiny search."""
    out = tmp_path_factory.mktemp("search") / "run"
    words = ["search", "--supernet", str(supernet), "--params", "1G", "--out", str(out), "--device", "cpu", "--quiet"]
    assert run(words) == 0
    return out


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def kind(record: Mapping[str, Any]) -> str:
    """Which table of the page a record is of."""
    names = {"val": "evaluation", "calibration": "calibration", "evaluations": "generation"}
    return next((name for key, name in names.items() if key in record), "step")


def test_the_keys_of_a_trainings_records(supernet: Path, net: Path) -> None:  # noqa: F811
    found = [record for folder in (supernet, net) for record in records(folder)]
    assert {"step", "evaluation"} <= set(map(kind, found)) <= {"step", "evaluation", "calibration"}
    for record in found:
        assert list(record) == documented(kind(record)), record
    (*_, of_supernet) = (record["val"] for record in records(supernet) if "val" in record)
    (*_, of_net) = (record["val"] for record in records(net) if "val" in record)
    assert set(of_supernet) == {"AP", "AP_largest", "AP_middle", "AP_smallest"} and {"AP50", "AR"} <= set(of_net)
    assert all(f"`{name}`" in PAGE or name in PAGE for name in of_supernet)


def test_the_keys_of_a_searchs_records(search: Path) -> None:
    for record in records(search):
        assert list(record) == documented("generation")


def test_a_surrogates_keys_are_on_the_page() -> None:
    for name in re.findall(r'"(surrogate\w*)"', (Screening.report.__doc__ or "")):
        assert f"`{name}`" in PAGE, name


def test_the_columns_of_history(search: Path) -> None:
    with (search / "history.csv").open(newline="", encoding="utf-8") as file:
        columns = csv.DictReader(file).fieldnames or []
    named = [name for name in documented("history") if name not in ONLY_SOMETIMES]
    assert set(named) <= set(columns)
    families = {re.sub(r"[\d.]+$", "", name) for name in named}
    assert {name for name in columns if re.sub(r"[\d.]+$", "", name) not in families} == set()
    assert [name for name in columns if name in named] == named, "the order is that of the file"


def test_the_columns_of_an_archive(search: Path) -> None:
    with closing(sqlite3.connect(search / "archive.sqlite")) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert {*tables} - {"sqlite_sequence"} == {"bases", "evaluations"}
        for table in ("bases", "evaluations"):
            assert [row[1] for row in file.execute(f"PRAGMA table_info({table})")] == documented(table)
        (metrics,) = file.execute("SELECT metrics FROM evaluations").fetchone()
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
    assert {"AP", "AP50", "AP_draws"} <= set(json.loads(metrics))


def test_the_files_of_a_run_are_on_the_page(search: Path, supernet: Path) -> None:  # noqa: F811
    for folder in (search, supernet):
        for path in folder.iterdir():
            assert f"`{path.name}`" in PAGE or f"`{path.name}/" in PAGE, path
