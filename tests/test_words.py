"""The words of the package are the field's, and no name has two meanings."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("ofa_pose/**/*.py", "recipes/*", "search_spaces/*", "README.md", "CONTRIBUTING.md", "docs/*.md", "bin/*")
MOST_FILES = 12  # of Python in a folder of the package

INSTEAD = {  # a word's pattern, and what to write
    r"mend(?:s|ed|ing)?": "hint, correct",
    r"fore(?:tell(?:s|ing)?|told)": "predict",
    r"forecast\w*": "predict",
    r"havens?": "feasible start",
    r"brood\w*": "offspring",
    r"prescreen\w*": "screening",
    r"ceilings?": "limit",
    r"judg(?:e[sd]?|ing|e?ments?)": "evaluate",
    r"(?:spread)?sheets?": "table",
    r"landscapes?": "table",
    r"insides": "contents",
    r"told": "reported, named",
    r"(?<!there )(?<!There )(?:is|are|was|were) no (?!longer\b|less\b|more\b|other\b|better\b|worse\b)\w+": "is not a",
}
ALLOWED = {  # exact text that stands where users' files have it, and why it stays
    '"judging"': "a key of search.json",
    "judged: ": "the field of a result that is a key of result.json, and what its docstring says of it",
    "result.judged": "that field is read",
    "judged=": "that field is given its value",
}


def texts() -> Iterator[tuple[Path, str]]:
    """What is read: every file of `PLACES` without the exact texts that are allowed."""
    for pattern in PLACES:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                for allowed in ALLOWED:
                    text = text.replace(allowed, "")
                yield path.relative_to(ROOT), text


@pytest.mark.parametrize(("pattern", "instead"), INSTEAD.items(), ids=INSTEAD.values())
def test_words_are_plain(pattern: str, instead: str) -> None:
    word = re.compile(rf"(?<![A-Za-z]){pattern}(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{path}:{number}: '{match[0]}', write {instead}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in word.finditer(line)
    ]
    assert not found, "\n".join(found)


def test_such_words_would_be_seen() -> None:
    for text in ("the mend", "_haven", "Ceiling(1)", "judge_with(", "a_sheet", "is no checkpoint", "was told"):
        assert any(re.search(rf"(?<![A-Za-z]){one}(?![A-Za-z])", text, re.IGNORECASE) for one in INSTEAD), text
    for text in ("recommend", "there is no checkpoint", "is no longer", "amendment", "photosheets"):
        assert not any(re.search(rf"(?<![A-Za-z]){one}(?![A-Za-z])", text, re.IGNORECASE) for one in INSTEAD), text


def packages() -> Iterator[tuple[str, Path]]:
    """Every Python file of the package with the package it belongs to."""
    for path in sorted((ROOT / "ofa_pose").rglob("*.py")):
        yield path.relative_to(ROOT / "ofa_pose").parts[0], path


def test_no_class_has_the_name_of_another_packages_class() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for package, path in packages():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].add(package)
    assert not {name: sorted(where) for name, where in homes.items() if len(where) > 1}


def test_no_file_has_the_name_of_another_packages_file() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for package, path in packages():
        homes[path.stem].add(package)
    del homes["__init__"]
    assert not {name: sorted(where) for name, where in homes.items() if len(where) > 1}


def test_folders_are_small() -> None:
    folders = {path.parent for _, path in packages()}
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > MOST_FILES}


CUTE = ("making", "lights", "films", "insides", "landscape", "makers", "helpers", "things", "stuff")


def test_helpers_of_tests_are_named_for_what_they_make() -> None:
    helpers = [path.stem for path in (ROOT / "tests").rglob("*.py") if not path.stem.startswith("test_")]
    assert not [name for name in helpers if name in CUTE]
