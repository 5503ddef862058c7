"""Every message that docs/troubleshooting.md explains is one that the code can say."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.+?`(?:, `.+?`)*) \| (.*) \| (.*) \|$", PAGE, flags=re.MULTILINE)
MESSAGES = [message.strip("`") for cell, *_ in ROWS for message in cell.split("`, `")]


@pytest.fixture(scope="module")
def texts() -> str:
    """Every text in the code, a line each, with … for the values in it; texts that stand side by side are one."""
    found = []
    for path in sorted((ROOT / "ofa_pose").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_page_explains_messages() -> None:
    assert len(MESSAGES) > 50 and len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_says_it(message: str, texts: str) -> None:
    parts = [part.strip() for part in message.split("…") if part.strip(" '")]
    pattern = r"[^\n]*".join(map(re.escape, parts))
    assert re.search(pattern, texts) or all(part in texts for part in parts)
