"""What docs/extending.md adds to the package: each diff applies, touches what it promises, and its script runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, links

RECIPES = ROOT / "docs" / "recipes"
COPIED = ("ofa_pose", "search_spaces", "recipes", "setup.cfg")


@dataclass(frozen=True)
class Change:
    """What a diff does to one file."""

    path: str
    new: bool
    added: int
    removed: int


def changes(diff: str) -> list[Change]:
    """The files of a diff as `git diff` writes it."""
    found = []
    for part in re.split(r"^diff --git ", diff, flags=re.MULTILINE)[1:]:
        path = re.search(r"^\+\+\+ b/(\S+)", part, flags=re.MULTILINE)
        assert path, part
        lines = part[part.index("\n@@") :].splitlines()
        count = [sum(line.startswith(sign) for line in lines) for sign in "+-"]
        found.append(Change(path[1], "new file mode" in part, *count))
    return found


def test_the_recipes_are_the_six_that_are_promised() -> None:
    names = {path.name for path in RECIPES.iterdir()}
    scripts = {f"{name}.py" for name in ("runtime", "search-dimension", "family", "algorithm", "loss", "metric")}
    assert names == scripts | {"runtime.diff", "search-dimension.diff", "family.diff"}


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_the_recipe_works_on_a_copy_of_the_package(script: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    diff = script.with_suffix(".diff")
    if diff.exists():
        subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
        subprocess.run(["git", "apply", diff], cwd=copy, check=True)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["runtime", "family"])
def test_it_is_one_file_and_one_line(name: str) -> None:
    found = changes((RECIPES / f"{name}.diff").read_text(encoding="utf-8"))
    inside = [change for change in found if change.path != "setup.cfg"]
    assert sum(change.new for change in inside) == 1
    (table,) = [change for change in inside if not change.new]
    assert table.added <= 1 and table.removed <= 1, table


def test_a_search_dimension_is_two_files() -> None:
    found = changes((RECIPES / "search-dimension.diff").read_text(encoding="utf-8"))
    assert len([change for change in found if not change.path.endswith(".yaml")]) <= 2


def test_what_the_page_quotes_is_in_the_files() -> None:
    page = ROOT / "docs" / "extending.md"
    files = {path: path.read_text(encoding="utf-8") for path in RECIPES.iterdir()}
    quoted = [block for language in ("python", "diff") for block in blocks(language) if block.page == page]
    assert len(quoted) >= 5
    for block in quoted:
        assert any(block.text in text for text in files.values()), f"{block} quotes no file of docs/recipes"
    assert {f"recipes/{path.name}" for path in files} <= set(links(page))
