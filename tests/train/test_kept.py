"""Checkpoints to go on from: as many as are asked for, and a damaged one is named and passed over."""

from __future__ import annotations

import errno
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_pose.checkpoints import checkpoint
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.checkpoints.digest import digest
from ofa_pose.recipe import TrainSettings
from ofa_pose.train.distributed import Processes
from ofa_pose.train.kept import newest_whole
from ofa_pose.train.loop import _Loop
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.config import check_config
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import Interrupted
from tests.networks import same_state
from tests.train import test_loop
from tests.train.test_loop import SHORT, MakeJob, records, same

__all__ = ["make_job"]
make_job = test_loop.make_job


def kept(folder: Path) -> dict[str, int]:
    """The checkpoints and their steps."""
    found = {path.name: load_checkpoint(path).training for path in (folder / "checkpoints").glob("last*.pt")}
    return {name: training["step"] for name, training in found.items() if training}


def flip(path: Path, rng: random.Random) -> None:
    """Change one bit of one of a checkpoint's weights in its file."""
    weights = [one for one in load_checkpoint(path).weights.values() if one.numel() > 16]
    content, wanted = bytearray(path.read_bytes()), rng.choice(weights).contiguous().numpy().tobytes()
    content[content.index(wanted) + rng.randrange(len(wanted))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize(("keep", "names"), [(1, [8]), (2, [8, 6]), (4, [8, 6, 4, 2]), (9, [8, 6, 4, 2, 0])])
def test_so_many_are_kept(make_job: MakeJob, keep: int, names: list[int]) -> None:
    job = make_job("run", settings=SHORT.model_copy(update={"checkpoint_every": 2, "keep": keep}))
    job.fit()
    newest, *older = names
    assert kept(job.run.path) == {"last.pt": newest, **{f"last-{step}.pt": step for step in older}}
    assert not list(job.run.path.rglob(".*"))


def test_a_file_system_without_links_will_do(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    job = make_job("run")
    job.fit()
    assert kept(job.run.path) == {"last.pt": 8, "last-4.pt": 4}


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_taken(
    make_job: MakeJob, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make_job("whole")
    result = whole.fit()
    begun = make_job("run")
    begun.fit()
    if damage == "bit":
        flip(begun.run.last, random.Random(0))
    elif damage == "cut":
        begun.run.last.write_bytes(begun.run.last.read_bytes()[:5000])
    else:
        begun.run.last.unlink()
    capsys.readouterr()
    resumed = make_job("run", resume=True)
    assert resumed.fit() == result
    told = " ".join(capsys.readouterr().err.split())
    assert ("last.pt: is " in told and "the checkpoint before it is taken, of step 4" in told) == (damage != "gone")
    assert records(resumed) == records(whole) and same_state(resumed.objective.network, whole.objective.network)
    assert kept(begun.run.path) == {"last.pt": 8, "last-4.pt": 4}
    for name in ("last", "best"):
        one, other = (load_checkpoint(getattr(job.run, name)) for job in (resumed, whole))
        assert same(one.weights, other.weights) and same(one.training, other.training) and one.info == other.info


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_checkpoints_that_the_disk_does_not_give_are_damaged_ones(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    job = make_job("run")
    job.fit()
    read, bad = checkpoint.read_summed, {job.run.last: job.run.last.stat(), job.run.best: job.run.best.stat()}

    def fail(path: Path) -> Any:
        if path in bad and path.stat().st_mtime_ns == bad[path].st_mtime_ns:
            raise OSError(number, os.strerror(number))
        return read(path)

    monkeypatch.setattr(checkpoint, "read_summed", fail)
    if number != errno.EIO:  # the file may be whole
        with pytest.raises(OSError, match=os.strerror(number)):
            newest_whole(job.run.path)
        return
    found, damaged = newest_whole(job.run.path)
    what = f"cannot be read ({os.strerror(number)})"
    assert found.path == job.run.last.with_name("last-4.pt") and [one.faults[0].what for one in damaged] == [what]
    assert make_job("run", resume=True).fit()["step"] == 8
    told = " ".join(capsys.readouterr().err.split())
    assert f"last.pt: {what}; the checkpoint before it is taken, of step 4" in told
    assert f"best.pt: {what}; the best is sought anew from step 4 on" in told


def test_where_all_are_damaged_nothing_is_begun(make_job: MakeJob) -> None:
    job = make_job("run")
    job.fit()
    for path in (job.run.last, job.run.last.with_name("last-4.pt")):
        path.write_bytes(b"x")
    lines = records(job)
    with pytest.raises(InputError, match=r"last\.pt: is not a checkpoint, or a truncated one"):
        make_job("run", resume=True).fit()
    assert records(job) == lines


def test_a_damaged_best_checkpoint_is_made_anew(make_job: MakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job("run")
    job.fit()
    lines = records(job)
    flip(job.run.best, random.Random(1))
    again = make_job("run", resume=True)
    assert again.fit()["step"] == 8
    assert "the best is sought anew from step 8 on" in " ".join(capsys.readouterr().err.split())
    assert load_checkpoint(job.run.best).info["step"] == 8 and records(job) == lines


def test_minutes_between_checkpoints(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = check_config(TrainSettings, {**SHORT.model_dump(), "checkpoint_every": "1.5min", "keep": 9}, "here")
    assert not settings.is_due(10, 89.9) and settings.is_due(1, 90.0)
    job = make_job("run", settings=settings)
    now = iter(range(0, 10**6, 31))
    monkeypatch.setattr("ofa_pose.train.kept.time", SimpleNamespace(monotonic=lambda: float(next(now))))
    job.fit()
    assert len(kept(job.run.path)) > 3
    for wrong in ("0min", "min", "-1min", "1h", 0, 0.5, None):
        with pytest.raises(InputError) as raised:
            check_config(TrainSettings, {"checkpoint_every": wrong}, "here")
        what = "checkpoint_every: write a number of steps, or minutes, from 1min, as in 10min"
        assert str(raised.value) == f"here: {what} (got {wrong!r}); correct that value"


@pytest.mark.parametrize("rank", [0, 1])
def test_minutes_begin_anew_in_every_process(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Those that write nothing read their figures then, for which a GPU is waited for."""
    settings = check_config(TrainSettings, {**SHORT.model_dump(), "checkpoint_every": "1min"}, "here")
    job = make_job("run", settings=settings)
    now, saved, save = [0.0], list[int](), _Loop.save
    monkeypatch.setattr("ofa_pose.train.kept.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(_Loop, "save", lambda loop: (saved.append(loop.step), save(loop)))
    objective = job.objective

    def loss(batch: Any, step: int) -> Any:
        now[0] += 20
        return objective.loss(batch, step)

    slow: Any = SimpleNamespace(network=objective.network, resolution=objective.resolution, loss=loss)
    replace(job, objective=slow, training=replace(job.training, processes=Processes(rank))).fit()
    assert saved == [0, 3, 6, 8]


@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_call_that_is_interrupted_in_a_step_ends_after_it(make_job: MakeJob, step: int) -> None:
    """As in a notebook; after step 8, the last one, only its evaluation is left."""
    whole = make_job("whole")
    result, before = whole.fit(), signal.getsignal(signal.SIGINT)
    job = make_job("run")
    objective = job.objective

    class Interrupting:
        network = objective.network
        resolution = staticmethod(objective.resolution)

        @staticmethod
        def loss(batch: Any, number: int) -> Any:
            if number == step - 1:
                signal.raise_signal(signal.SIGINT)
            return objective.loss(batch, number)

    with pytest.raises(KeyboardInterrupt):
        replace(job, objective=Interrupting()).fit()
    assert signal.getsignal(signal.SIGINT) == before
    assert load_checkpoint(job.run.last).training["step"] == step  # type: ignore[index]
    again = make_job("run", resume=True)
    assert again.fit() == result and records(again) == records(whole)
    assert same_state(again.objective.network, whole.objective.network)


def test_what_is_told_to_end_while_the_decoder_is_calibrated_calibrates_again(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = [15]

    def told(training: TrainingRun) -> dict[str, Any]:
        if ends:
            raise Interrupted(ends.pop())
        return {"AP": 0.75}

    monkeypatch.setattr(TrainingRun, "calibrate_best", told)
    job = make_job("run")
    kept = "step 8 of 8 is kept, the decoder is still to be calibrated; go on with: ofa-pose pretrain --resume --out"
    with pytest.raises(Interrupted, match=kept):
        replace(job, training=replace(job.training, calibrate=True)).fit()
    again = make_job("run", resume=True)
    assert replace(again, training=replace(again.training, calibrate=True)).fit()["AP"] == 0.75


@pytest.mark.parametrize("when", [0, 3, 8])
def test_what_is_told_to_end_in_an_evaluation_evaluates_again(make_job: MakeJob, when: int) -> None:
    """An evaluation may take longer than is left before a process that was told to end is killed."""
    whole = make_job("whole", evaluate_start=True)
    result = whole.fit()
    job = make_job("run", evaluate_start=True)
    ends = {0: 1, 3: 2, 8: 4}[when]
    calls, evaluate = [], job.evaluate

    def told() -> dict[str, Any]:
        calls.append(1)
        if len(calls) == ends:
            raise Interrupted(15)
        return evaluate()

    with pytest.raises(Interrupted, match=rf"step {when} of 8 is kept; go on with: ofa-pose pretrain --resume --out"):
        replace(job, evaluate=told).fit()
    assert load_checkpoint(job.run.last).training["step"] == when  # type: ignore[index]
    again = make_job("run", resume=True, evaluate_start=True)
    assert again.fit() == result and records(again) == records(whole)
    ended = [load_checkpoint(one.run.last).training for one in (again, whole)]
    assert digest(ended[0]) == digest(ended[1])
