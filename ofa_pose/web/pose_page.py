"""A page that finds poses in a browser: its files beside a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ofa_pose.utils import files
from ofa_pose.web.runtime_files import add_runtime, shipped_text

PAGE, SETTINGS = "index.html", "model.json"
DECODER, GROUPING = "decode.js", "grouping.js"
COPIED = ("style.css", "app.js", "draw.js", "model.js")
IMPORT = f'import {{ group }} from "./{GROUPING}";\n'


def decoder_text() -> str:
    """decode.js with the grouping inside it: one module that imports nothing."""
    before, after = shipped_text(DECODER).split(IMPORT)
    return before + after + "\n" + shipped_text(GROUPING)


def write_page(folder: Path, model: str, metadata: Mapping[str, str], runtime_files: Path | None) -> None:
    """Write the page's files into a folder that holds the model.

    Args:
        model: its file's name.
        metadata: the model's, each value as JSON; model.json says the same, as a browser reads none of a model's.
        runtime_files: see `add_runtime`.

    Raises:
        InputError: as `add_runtime` does.
    """
    page = add_runtime(shipped_text(PAGE), folder, runtime_files)
    files.write_json(folder / SETTINGS, {"model": model, **{key: json.loads(said) for key, said in metadata.items()}})
    for name in COPIED:
        files.write_text(folder / name, shipped_text(name))
    files.write_text(folder / DECODER, decoder_text())
    files.write_text(folder / PAGE, page)
