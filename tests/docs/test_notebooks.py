"""The notebooks of docs/ run from their first cell to their last, at tiny sizes; what they call exists."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
from pathlib import Path
from typing import Any

import matplotlib
import pytest

import ofa_pose
import ofa_pose.runtime
from tests.docs.pages import NOTEBOOKS, ROOT, anchors, calls, cells

TINY_SETTINGS = [
    *("train.batch=2", "train.workers=0", "train.evaluate_images=2", "data.search_share=0.5"),
    *("search.population=3", "search.generations=1", "search.images=2", "search.calibration_images=2"),
]
TINY: dict[str, dict[str, Any]] = {  # what the first cell's sizes are replaced with
    "own-data": {"IMAGES": {"train": 8, "val": 2, "test": 2}, "SIDE": 64, "STEPS": {"supernet": 1, "finetune": 1}},
    "design-a-space": {"IMAGES": {"train": 8, "val": 2}, "STEPS": 1},
}


def test_there_are_two() -> None:
    assert {path.stem for path in NOTEBOOKS} == {*TINY}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_calls_exists(notebook: Path) -> None:
    for text in cells(notebook, "code"):
        for name, call in calls(ast.parse(text)):
            function = getattr(ofa_pose, name)
            if call is not None:
                given = {word.arg: word.value for word in call.keywords if word.arg}
                inspect.signature(function).bind(*call.args, **given)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    value = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in value["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert value["cells"][0]["cell_type"] == "markdown" and value["cells"][0]["source"][0].startswith("# ")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_links_of_a_notebook_lead_somewhere(notebook: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(cells(notebook, "markdown"))):
        path, _, anchor = target.partition("#")
        file = (notebook.parent / path).resolve()
        assert file.is_relative_to(ROOT) and file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    first, *rest = cells(notebook, "code")
    sizes = {**TINY[notebook.stem], "SETTINGS": TINY_SETTINGS}
    assert all(f"\n{name}" in first for name in sizes)
    tiny = "\n".join(f"{name} = {value!r}" for name, value in sizes.items())
    (tmp_path / "cells.py").write_text("\n\n".join([first, tiny, *rest]), encoding="utf-8")
    names = runpy.run_path("cells.py")
    assert (names["HERE"] / "search" / "best.pt").exists()
