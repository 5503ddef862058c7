"""TensorBoard's event files hold what metrics.jsonl holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.monitor.event_files import check_log, curves, event_files
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import RunDir


def test_names_of_curves() -> None:
    step = {"step": 3, "loss": 0.5, "lr": 1e-3, "data_wait": 0.1, "seconds": 2.0, "bad": None, "flag": True}
    assert dict(curves(step)) == {"train/loss": 0.5, "train/lr": 1e-3, "time/data_wait": 0.1, "time/seconds": 2.0}
    assert dict(curves({"step": 3, "val": {"AP": 0.5, "AR": None}, "seconds": 2.0})) == {"val/AP": 0.5}
    generation = {"step": 0, "evaluations": 4, "AP": 0.5, "seconds": 9.0}
    assert dict(curves(generation)) == {"search/evaluations": 4, "search/AP": 0.5, "time/seconds": 9.0}
    assert not dict(curves({"step": 3, "calibration": {}})) and not dict(curves({"loss": 1.0}))


def test_other_logs_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_log(None)
    with pytest.raises(InputError, match="no such log: 'tensorbord'; did you mean 'tensorboard'"):
        check_log("tensorbord")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'ofa-pose\[tensorboard\]'"):
        check_log("tensorboard")


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with event_files(None, run):
        run.log({"step": 1, "loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of event files."""
    reader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_event_files_hold_the_records(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunDir(tmp_path)
    with event_files("tensorboard", run):
        for step in range(1, 6):
            run.log({"step": step, "loss": step / 2, "seconds": 1.0})
        run.log({"step": 5, "val": {"AP": 0.25}})
    run.log({"step": 6, "loss": 0.0})  # nobody listens any more
    found = scalars(tmp_path / "tensorboard")
    assert found["train/loss"] == [(step, step / 2) for step in range(1, 6)] and found["val/AP"] == [(5, 0.25)]


def test_a_resumed_run_replaces_what_it_writes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunDir(tmp_path)
    for step, last in ((None, 5), (2, 4)):
        with event_files("tensorboard", run, step):
            for number in range((step or 0) + 1, last + 1):
                run.log({"step": number, "loss": float(last)})
    assert scalars(tmp_path / "tensorboard")["train/loss"] == [(1, 5.0), (2, 5.0), (3, 4.0), (4, 4.0)]
