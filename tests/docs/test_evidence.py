"""bin/evidence puts what studies found where docs/evidence.md has a place for it, and nowhere else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with places for two studies, and a finished study beside it."""
    text = "# Evidence\n\n{}old\n{}\n\nwords\n\n{}{}\n"
    marks = [f"<!-- {name} is written by bin/evidence -->\n" for name in ("one", "two")]
    (tmp_path / "evidence.md").write_text(text.format(marks[0], "<!-- end -->", marks[1], "<!-- end -->"))
    study = tmp_path / "runs" / "one"
    study.mkdir(parents=True)
    (study / "study.md").write_text("# one\n\nWhat?\n\n|  | AP |\n| --- | ---: |\n| a | 0.500 |\n\nMeans of 2 seeds.\n")
    (study / "study.csv").write_text("run,seed,seconds\na,0,100\na,1,200\n")
    cv2.imwrite(str(study / "study.png"), np.zeros((4, 4, 3), np.uint8))
    return tmp_path / "evidence.md"


def call(page: Path, monkeypatch: pytest.MonkeyPatch, study: str) -> None:
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "bin" / "evidence.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["evidence", str(page.parent / "runs" / study)])
    module.main()


def test_a_study_goes_to_its_place(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(page, monkeypatch, "one")
    text = page.read_text()
    assert "| a | 0.500 |\n\n![one](evidence/one.png)\n\n2 runs, 5 minutes" in text
    assert "old" not in text and "What?" not in text and "\nwords\n" in text and text.count("<!-- end -->") == 2
    assert (page.parent / "evidence" / "one.png").exists()
    call(page, monkeypatch, "one")
    assert page.read_text() == text


def test_a_study_without_a_place_is_refused(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page.read_text()
    (page.parent / "runs" / "one").rename(page.parent / "runs" / "three")
    with pytest.raises(SystemExit, match="three is written by bin/evidence"):
        call(page, monkeypatch, "three")
    assert page.read_text() == before
