"""setup.cfg installs every package of the tree, and the shipped YAML and weights with them."""

from __future__ import annotations

import configparser
from pathlib import Path

from ofa_pose.arch.space import load_space
from ofa_pose.checkpoints.checkpoint import find_checkpoint
from ofa_pose.utils import files

ROOT = Path(__file__).resolve().parent.parent


def test_every_package_is_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ofa_pose").rglob("*.py")}
    assert listed == {".".join(folder.parts) for folder in folders} | {"ofa_pose.recipes", "ofa_pose.search_spaces"}


def test_shipped_files_are_found_from_any_folder(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    assert load_space("litepose-nano").size == 26244
    for name in ("nano", "coco"):
        assert files.find_yaml("recipes", name).is_file()
    assert find_checkpoint("litepose-nano-coco").stat().st_size <= 3e6
