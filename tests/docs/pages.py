"""The documentation as tests read it: pages, their fenced blocks, code spans, headings and links; notebooks."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ofa_pose/weights/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """Every block of a language, '' for those that name none, on all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(page, line, match[1], match[2]))
    return [block for block in found if block.language == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """The code spans of a page, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


ARRAY = re.compile(r"^(\w+)=\((.*?)\)[^\n]*$", re.MULTILINE | re.DOTALL)


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each call of ofa-pose in a shell block, without what starts it; an array stands for its words.

    Arrays are those of the block, and of the blocks above it.
    """
    above = "".join(block.page.read_text(encoding="utf-8").splitlines(keepends=True)[: block.line])
    arrays = {name: " ".join(words.split()) for name, words in ARRAY.findall(above + block.text)}
    text = ARRAY.sub("", block.text).replace("\\\n", " ")
    text = re.sub(r'"\$\{(\w+)\[@\]\}"', lambda match: arrays[match[1]], text)
    for line in text.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] in (["ofa-pose"], ["bin/ofa-pose"]):
            yield words[1:]
        elif "torchrun" in words[:2] and "ofa_pose" in words:
            yield words[words.index("ofa_pose") + 1 :]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that lie in this repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not re.match(r"\w+:", target)]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call | None]]:
    """The names of `ofa_pose` that code uses, each with the call, if it is one."""
    called = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ofa_pose":
            yield node.attr, called.get(node)


def cells(notebook: Path, kind: str) -> list[str]:
    """The texts of a notebook's cells of a kind, 'code' or 'markdown'."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def script(name: str) -> Any:
    """A script of bin/ as a module."""
    described = importlib.util.spec_from_file_location(f"bin_{name}", ROOT / "bin" / f"{name}.py")
    assert described and described.loader
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module
