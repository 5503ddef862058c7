"""`ofa-pose data check`: its page of pictures, and what it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.reports.test_label_page import pictures


def test_data_check_writes_the_page(call: Call, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "labels.html"
    own = ("data", "check", "--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    done = call(*own, "--pictures", page, "--count", 3)
    assert done.code == 0 and len(pictures(page)) == 3 and f"open in a browser: {page}" in done.err
    done = call(
        *own, "--pictures", page, "--count", 3, "--augmented", "--recipe", "nano", "--set", "augment.rotation=99"
    )
    assert done.code == 0 and len(pictures(page)) == 6, done.err
    assert "At 192 pixels, turned by up to ±99°" in page.read_text()
    again = call(*own, "--against", data / "val" / "annotations.json", "--json").result["against"]
    assert again["same_annotations"] and len(again["shared_images"]) == again["images"] == 8
    train = ("--against", data / "train" / "annotations.json", "--against-images", data / "train" / "images")
    assert call(*own, *train, "--json").result["against"]["shared_images"] == []
    shown = call(*own, *train)
    assert shown.code == 0 and "shared images" in shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--augmented",), "add --pictures"),
        (("--pictures", "p.html", "--recipe", "nano"), "add --augmented"),
        (("--pictures", "p.html", "--set", "augment.flip=0"), "add --augmented"),
        (("--against-images", "x"), "add --against"),
        (("--pictures", "p.html", "--count", "0"), "out of range"),
        (("--pictures", "."), "name a file, such as labels.html"),
        (("--pictures", "p.html", "--augmented", "--recipe", "nanu"), "nano"),
    ],
)
def test_options_that_say_nothing_are_refused(
    call: Call,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    own = ("data", "check", "--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    refused = call(*own, *words)
    assert refused.code == 2 and message in refused.err and not (tmp_path / "p.html").exists()
