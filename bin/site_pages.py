"""What mkdocs calls while it builds the site: it adds the pages that lie outside docs/, and the notebooks as pages.

Links are written as they lead in the repository, so that they work there too; here they are made the site's.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {  # a page of the repository, and what the site calls it
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "ofa_pose/weights/README.md": "weights.md",
}
LINK = re.compile(r"^```.*?^```|(\]\()([^)\s]+)(\))", re.MULTILINE | re.DOTALL)  # or a block of code, which stays


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, and a page for each notebook."""
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page's text with links that lead to the site's pages."""
    sources = {name: source for source, name in OUTSIDE.items()}
    return relinked(markdown, sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))


def relinked(text: str, source: str) -> str:
    """The text of the page at `source`, a path in the repository, with links that lead where the site has things."""
    here = posixpath.dirname(site_path(source))

    def link(match: re.Match[str]) -> str:
        path, mark, anchor = (match[2] or "").partition("#")
        if not path or re.match(r"\w+:", path):
            return match[0]
        there = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        return f"{match[1]}{posixpath.relpath(there, here or '.')}{mark}{anchor}{match[3]}"

    return LINK.sub(link, text)


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site, before pages become HTML."""
    path = OUTSIDE.get(path, path.removeprefix("docs/"))
    return f"{path.removesuffix('.ipynb')}.md" if path.endswith(".ipynb") else path


def notebook_page(path: Path) -> str:
    """A notebook's cells as Markdown, with a link to the file."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    parts = [f"```python\n{text}\n```" if cells[i]["cell_type"] == "code" else text for i, text in enumerate(texts)]
    title, *rest = parts
    return (
        "\n\n".join([title, f"The notebook itself: `docs/notebooks/{path.name}`, to run with Jupyter.", *rest]) + "\n"
    )
