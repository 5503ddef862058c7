"""The site of the documentation has every page, its links lead somewhere, and a broken one ends the build."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import NOTEBOOKS, ROOT, script

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material")),
    reason="mkdocs-material is not installed: pip install -c constraints.txt '.[docs]'",
)


def build(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Build the site."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out), *options]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_navigation_has_every_page_once() -> None:
    outside = set(re.findall(r'"(\w+\.md)",$', (ROOT / "bin" / "site_pages.py").read_text(), flags=re.MULTILINE))
    assert outside == {"index.md", "changelog.md", "contributing.md", "weights.md"}
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {f"notebooks/{path.stem}.md" for path in NOTEBOOKS}
    named = re.findall(r"^ +- [^:]+: (\S+\.md)$", CONFIG, flags=re.MULTILINE)
    assert sorted(named) == sorted(pages | outside)


def test_a_broken_link_is_an_error_and_ci_builds_the_site() -> None:
    assert "links: {not_found: warn, anchors: warn, absolute_links: warn, unrecognized_links: warn}" in CONFIG
    assert "--strict" in (ROOT / "bin" / "site").read_text()
    assert "run: bin/site" in (ROOT / ".github" / "workflows" / "test.yml").read_text()


@needs_mkdocs
@pytest.mark.parametrize(
    ("source", "link", "there"),
    [
        ("README.md", "docs/search.md#budgets-and-macs", "search.md#budgets-and-macs"),
        ("README.md", "docs/notebooks/own-data.ipynb", "notebooks/own-data.md"),
        ("CHANGELOG.md", "docs/many-gpus.md", "many-gpus.md"),
        ("docs/quickstart.md", "../ofa_pose/weights/README.md", "weights.md"),
        ("docs/search.md", "#archives", "#archives"),
        ("docs/notebooks/own-data.md", "../python.md", "../python.md"),
        ("docs/search.md", "https://example.org/docs/a.md", "https://example.org/docs/a.md"),
    ],
)
def test_links_become_the_sites(source: str, link: str, there: str) -> None:
    code = f"```python\nlines[0]({link})\n```\n"
    assert script("site_pages").relinked(f"see [this]({link}).\n{code}", source) == f"see [this]({there}).\n{code}"


@needs_mkdocs
def test_the_site_builds_with_strict_links(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "changelog.html", "notebooks/own-data.html", "commands.html"} <= pages
    text = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="search.html#studies"' in text and "poses.jpg" in text
    assert not re.search(r'href="[^"]*\.(md|ipynb)"', text)
    assert "https://fonts" not in text


@needs_mkdocs
@pytest.mark.slow
def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in (
        *(ROOT / "docs").rglob("*"),
        ROOT / "bin" / "site_pages.py",
        *(ROOT / name for name in script("site_pages").OUTSIDE),
    ):
        if path.is_file():
            (copy / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    (copy / "mkdocs.yml").write_text(CONFIG)
    with (copy / "docs" / "search.md").open("a") as file:
        file.write("\nsee [nothing](recipes.md#of-that-name)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "of-that-name" in done.stdout + done.stderr
