"""Several processes train as one does: the same weights, one result, one log; where one fails, one line says so."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.recipe import TrainSettings
from ofa_pose.train.distributed import Processes
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import place
from tests.train.processes import Case, finish, start_training, train, train_in_processes

STEPS = {"steps": 8, "batch": 4, "lr": 1e-2, "workers": 0, "evaluate_every": 4, "checkpoint_every": 4}
SHORT = {**STEPS, "steps": 6, "lr": 3e-3, "evaluate_every": 3, "checkpoint_every": 3}


@pytest.fixture
def case(tiny_dataset: KeypointDataset, tiny_space: SearchSpace, tmp_path: Path) -> Case:
    space = replace(tiny_space, depth=((1,), (1, 2), (1,), (1, 2)))  # some steps leave weights without a gradient
    return Case(
        str(tmp_path / "run"),
        str(tiny_dataset.annotations_path),
        str(tiny_dataset.images[0].path.parent),
        space.to_dict(),
        {**STEPS, "sync_norm": True},
        exact=True,
    )


def records(case: Case) -> list[dict[str, Any]]:
    lines = (Path(case.out) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "data_wait")} for line in lines]


@pytest.mark.parametrize("supernet", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_processes_give_the_weights_of_one(case: Case, supernet: bool) -> None:
    case = replace(case, supernet=supernet)
    alone = replace(case, out=f"{case.out}-alone", seen=[])
    result, weights = train(alone, Processes())
    first, second = train_in_processes(case, 2)
    assert first["seen"] == second["seen"] == alone.seen and len(alone.seen) == STEPS["steps"]
    assert len(set(alone.seen)) > 1
    still = {**alone.settings, "steps": 1, "lr": 1e-12}
    before = train(replace(alone, out=f"{case.out}-before", settings=still), Processes())[1]
    for name, value in weights.items():
        assert torch.allclose(first["weights"][name], value, rtol=0, atol=1e-9), name
        assert torch.equal(first["weights"][name], second["weights"][name]), name
    moved = max(float((weights[name] - before[name]).abs().max()) for name in weights if name.endswith(".weight"))
    assert moved > 1e-3, "so much closer than the weights have gone"
    assert first["result"] == second["result"] and first["AP"] == pytest.approx(result.AP, rel=1e-9)
    for one, other in zip(records(case), records(alone), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert value == (other[key] if key in ("step", "side") else pytest.approx(other[key], rel=1e-9)), key


@pytest.mark.slow
def test_one_result_one_log_one_checkpoint(case: Case) -> None:
    case = replace(case, exact=False, real=True, settings={**SHORT, "sync_norm": False, "ema": 0.5})
    first, second = train_in_processes(case, 2)
    assert first["result"] == second["result"]
    steps = [(record["step"], "val" in record) for record in records(case)]
    assert steps == [(1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (6, True)]
    kept = load_checkpoint(Path(case.out) / "checkpoints" / "last.pt")
    for name, value in kept.weights.items():
        assert torch.equal(value, first["weights"][name]), name
        if "running" not in name:
            assert torch.equal(value, second["weights"][name]), name
    means = [name for name in kept.weights if "running_mean" in name]
    assert not all(torch.equal(first["weights"][name], second["weights"][name]) for name in means), "of its own images"


@pytest.mark.slow
def test_processes_resume_to_the_last_bit(case: Case) -> None:
    case = replace(case, supernet=True, exact=False, settings={**SHORT, "sync_norm": False, "ema": 0.9})
    whole = train_in_processes(replace(case, out=f"{case.out}-whole"), 2)
    failed = finish(start_training(replace(case, fails_at=(1, 4)), 2))
    assert [code for code, _, _ in failed] == [1, 1]
    said = [line for _, _, err in failed for line in err.splitlines() if line.startswith("error")]
    assert said == ["error: process 1 is out of order"]
    assert "Traceback" not in failed[0][2] + failed[1][2]
    resumed = train_in_processes(replace(case, resume=True), 2)
    for rank, (one, other) in enumerate(zip(resumed, whole, strict=True)):
        for name, value in other["weights"].items():
            assert torch.equal(value, one["weights"][name]) or (rank and "running" in name), name
    for name in ("last", "best"):
        kept, wanted = (load_checkpoint(f"{out}/checkpoints/{name}.pt") for out in (case.out, f"{case.out}-whole"))
        assert all(torch.equal(value, kept.weights[key]) for key, value in wanted.weights.items()), name


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(case: Case) -> None:
    case = replace(case, exact=False, settings={**SHORT, "steps": 100_000})
    first, second = start_training(case, 2)
    log = Path(case.out) / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 8:
        assert first.poll() is None and second.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    second.kill()
    (code, _, err), _ = finish([first, second])
    assert code == 1
    assert [line for line in err.splitlines() if "error" in line] == [
        "error: another process of the training has ended, so this one ends too; --resume goes on"
    ]
    assert "Traceback" not in err
    reached = load_checkpoint(Path(case.out) / "checkpoints" / "last.pt").training
    assert reached and reached["step"] >= 3
    settings = {**case.settings, "steps": reached["step"] + 2}
    train(replace(case, resume=True, settings=settings), Processes())
    assert [record["step"] for record in records(case) if "loss" in record] == list(range(1, settings["steps"] + 1))


@pytest.mark.parametrize("told", [(1,), (0, 1)])
@pytest.mark.slow
def test_processes_that_are_told_to_end_keep_the_same_step(case: Case, told: tuple[int, ...]) -> None:
    case = replace(case, exact=False, settings={**SHORT, "steps": 100_000, "checkpoint_every": 1000})
    both = start_training(case, 2)
    log = Path(case.out) / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 8:
        assert all(one.poll() is None for one in both) and time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(2):  # as where a cluster's scheduler and torchrun both tell them
        for rank in told:
            both[rank].send_signal(signal.SIGTERM)
    done = finish(both)
    assert [code for code, _, _ in done] == [143, 143], done
    said = [line for _, _, err in done for line in err.splitlines() if line.startswith("error")]
    reached = load_checkpoint(Path(case.out) / "checkpoints" / "last.pt").training
    assert reached and reached["step"] == max(record["step"] for record in records(case)) >= 6
    kept = f"error: ended by SIGTERM; step {reached['step']} of 100000 is kept; go on with: torchrun --standalone"
    assert len(said) == 1 and said[0].startswith(f"{kept} --nproc-per-node 2 -m ofa_pose pretrain --resume --out ")
    assert "Traceback" not in done[0][2] + done[1][2]


@pytest.mark.parametrize(
    ("world", "settings", "words"),
    [
        (3, {"batch": 16}, r"16 has no 3 equal parts \(3 processes × train.accumulate 1\); make it 15 or 18"),
        (2, {"batch": 6, "accumulate": 2}, "6 has no 4 equal parts .*; make it 4 or 8"),
        (1, {"batch": 1, "accumulate": 2}, "1 has no 2 equal parts .*; make it 2"),
    ],
)
def test_a_batch_without_equal_parts_is_refused(world: int, settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Processes(0, world).share_of_batch(TrainSettings(**settings))
    assert Processes(0, 4).share_of_batch(TrainSettings(batch=24, accumulate=3)) == 6


def test_the_place_among_processes_is_read_whole_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == (0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"4 processes were started .* start them with torchrun"):
        place()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place() == (3, 4, 1) and not Processes.here().leads


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert Processes(5, 8, 1).own_device(gpu) == torch.device("cuda:1") and taken == [1]
    assert Processes(1, 2, 1).own_device(cpu) == cpu and Processes().own_device(gpu) == gpu
    with pytest.raises(InputError, match=r"more processes were started than there are GPUs here \(2\)"):
        Processes(2, 3, 2).own_device(gpu)
    with pytest.raises(InputError, match="all processes would share the device 'cuda:0'"):
        Processes(0, 2, 0).own_device(torch.device("cuda:0"))
