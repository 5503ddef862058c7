"""Where pages load onnxruntime-web from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofa_pose.utils.errors import InputError
from ofa_pose.web.runtime_files import CDN, NEEDED, VERSION, add_runtime
from tests.test_floors import ROOT

PAGE = '<head><meta name="onnxruntime-web" content=""></head>'
NAMES = {name for names in NEEDED.values() for name in names}


def test_the_cdn_has_the_version_that_is_tested() -> None:
    package = json.loads((ROOT / "tests" / "browser" / "package.json").read_text())
    assert package["dependencies"]["onnxruntime-web"] == VERSION and f"@{VERSION}/" in CDN


def test_without_files_a_page_loads_from_the_cdn(tmp_path: Path) -> None:
    assert f'content="{CDN}"' in add_runtime(PAGE, tmp_path, None)
    assert not any(tmp_path.iterdir())


def test_the_files_needed_are_copied(tmp_path: Path) -> None:
    files, folder = tmp_path / "dist", tmp_path / "page"
    files.mkdir()
    folder.mkdir()
    for name in (*NAMES, "ort.all.mjs"):
        (files / name).write_text(name)
    assert 'content="./onnxruntime-web/"' in add_runtime(PAGE, folder, files)
    assert {path.name: path.read_text() for path in (folder / "onnxruntime-web").iterdir()} == {n: n for n in NAMES}
    (files / "ort.webgpu.min.mjs").unlink()
    with pytest.raises(InputError, match=r"dist: is not a folder .* \(ort\.webgpu\.min\.mjs is missing\); npm install"):
        add_runtime(PAGE, tmp_path, files)
