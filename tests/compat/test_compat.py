"""What the command line did before is what it does now: every command, files of earlier code, calls that are refused.

transcript.json holds what it did, world/ what earlier code wrote; `record.py` makes both. More keys are no fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.replay import PARTS, calm, make_call, prepare, read_transcript
from tests.compat.shapes import changed_files, missing

QUICK = ("models", "refused")
AWAY = 0.02  # how far a figure may be from what it was: machines add up in other orders


ROUNDING = 1e-2


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """In what a call differs from what it did before, a line each."""
    if now["code"] != before["code"]:
        yield f"exit code was {before['code']}, is {now['code']}: {now['errors']}"
        return
    if now["traceback"]:
        yield "stderr holds a traceback"
    if bool(now["errors"]) != bool(before["errors"]):
        yield f"errors were {before['errors']}, are {now['errors']}"
    yield from missing(before["prints"], now["prints"], "stdout")
    for where, figure in before.get("figures", {}).items():
        other = now["figures"].get(where)
        within = AWAY if isinstance(figure, float) else 0
        if other is not None and abs(other - figure) > within:
            yield f"stdout{where}: was {figure}, is {other}"
    if "files" in before:
        yield from changed_files(before["files"], now["files"])


@pytest.mark.parametrize(
    "part", [part if part in QUICK else pytest.param(part, marks=pytest.mark.slow) for part in PARTS]
)
def test_calls_do_what_they_did(
    part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["ofa-pose"])
    calm()
    prepare(part, tmp_path)
    faults = []
    for before in read_transcript(part):
        now = make_call(before["call"], tmp_path, capfd.readouterr, before.get("leaves"), fixed=part == "old")
        faults += [f"{before['call']}\n    {line}" for line in differences(before, now)]
    assert not faults, "\n".join(faults)
    assert not list(tmp_path.glob("nothing*")), "a call that was refused has left something"
    if part == "old":
        found, exported, before = (people(tmp_path / name) for name in ("poses", "modelled", "found"))
        assert found == pytest.approx(before, abs=ROUNDING), "an old checkpoint finds other poses"
        assert exported == pytest.approx(before, abs=ROUNDING), "an old model finds other poses"


def people(folder: Path) -> list[float]:
    """How many poses `predict` has found, and the means of their scores and coordinates."""
    found = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    numbers = [[pose["score"], *pose["keypoints"]] for pose in found]
    return [len(found), *(sum(column) / len(found) for column in zip(*numbers, strict=True))]
