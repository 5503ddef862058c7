"""What a run keeps of how it was computed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_pose.checkpoints.provenance import PROVENANCE, data_statistics, input_digests, machine, note_end, note_start
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.utils.files import sha256, shipped_weights
from ofa_pose.utils.run_dir import plan_run


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / PROVENANCE).read_text().splitlines()]


def test_each_command_keeps_how_it_began_and_ended(tmp_path: Path, tiny_dataset: KeypointDataset) -> None:
    before = datetime.now(UTC)
    for resume in (False, True):
        run = plan_run(tmp_path / "a", "seed: 1\n", resume, argv=["pretrain", "--init", "litepose-nano-coco"])
        run.open()
        note_start(run, torch.device("cpu"), {"train": tiny_dataset}, processes=2)
        run.last.parent.mkdir(exist_ok=True)
        run.last.touch()  # so that there is something to resume
    note_end(run, 12.34)
    first, second, end = records(tmp_path / "a")
    assert first.keys() == second.keys() and (end["seconds"], second["processes"]) == (12.3, 2)
    assert (datetime.fromisoformat(first["started"]) - before).total_seconds() < 60
    assert (
        first["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
        and first["machine"]["cores"] > 0
    )
    weights = shipped_weights()["litepose-nano-coco"]
    assert first["inputs"] == {"--init": {"path": "litepose-nano-coco", "sha256": sha256(weights)}}


def test_a_resumed_run_keeps_what_it_began_from(
    tmp_path: Path, tiny_dataset: KeypointDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    first, other = tmp_path / "first.pt", tmp_path / "other.pt"
    first.write_bytes(b"1")
    other.write_bytes(b"2")
    began = {"--init": {"path": str(first), "sha256": sha256(first)}}
    for given in (["--init", str(first)], ["--resume"], ["--resume", "--init", str(other)]):
        run = plan_run(tmp_path / "a", "seed: 1\n", "--resume" in given, argv=["pretrain", *given])
        run.open()
        note_start(run, torch.device("cpu"), {})
        run.last.parent.mkdir(exist_ok=True)
        run.last.touch()
        assert records(tmp_path / "a")[-1]["inputs"] == began
        warned = "--init" in given and "--resume" in given
        assert (f"--init {other} is not read: the run goes on" in capfd.readouterr().err) is warned


@pytest.mark.parametrize("kept", [None, 5, {"--init": 5}, {"--init": {"path": 5}}])
def test_a_damaged_record_keeps_no_run_from_going_on(tmp_path: Path, kept: Any) -> None:
    run = plan_run(tmp_path, "seed: 1\n", argv=["pretrain"])
    run.open()
    run.last.parent.mkdir()
    run.last.touch()
    (tmp_path / "provenance.jsonl").write_text(json.dumps({"inputs": kept}) + "\n")
    again = plan_run(tmp_path, "seed: 1\n", True, argv=["pretrain", "--resume", "--init", "litepose-nano-coco"])
    note_start(again, torch.device("cpu"), {})
    assert "--init" in records(tmp_path)[-1]["inputs"]


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", bytes(5000)])
def test_nor_do_bytes_that_are_not_utf_8(tmp_path: Path, damage: bytes) -> None:
    run = plan_run(tmp_path, "seed: 1\n", argv=["pretrain", "--init", "litepose-nano-coco"])
    run.open()
    note_start(run, torch.device("cpu"), {})
    run.last.parent.mkdir()
    run.last.touch()
    path = tmp_path / "provenance.jsonl"
    path.write_bytes(damage + b"\n" + path.read_bytes() + damage)
    note_start(plan_run(tmp_path, "seed: 1\n", True, argv=["pretrain", "--resume"]), torch.device("cpu"), {})
    assert json.loads(path.read_bytes().splitlines()[-1])["inputs"]["--init"]["path"] == "litepose-nano-coco"


def test_what_a_killed_run_left_is_not_the_next_ones(tmp_path: Path, tiny_dataset: KeypointDataset) -> None:
    for _ in range(2):  # no checkpoint was written
        run = plan_run(tmp_path / "a", "seed: 1\n", argv=["pretrain"])
        run.open()
        note_start(run, torch.device("cpu"), {})
    assert len(records(tmp_path / "a")) == 1


def test_statistics_are_counts_of_the_data(tiny_dataset: KeypointDataset) -> None:
    found = data_statistics(tiny_dataset)
    joints = np.concatenate([one.keypoints.reshape(-1, 3) for one in tiny_dataset.images])
    assert found["images"] == len(tiny_dataset) and found["people"] == tiny_dataset.people
    assert (found["joints"], found["hidden"]) == ((joints[:, 2] > 0).sum(), (joints[:, 2] == 1).sum())
    assert found["sha256"] == tiny_dataset.fingerprint and json.dumps(found)


def test_files_that_a_command_names_have_their_digests(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("a: 1\n")
    words = ["finetune", "--subnet", str(tmp_path / "best.yaml"), "--teacher", "gone", "--out", "x"]
    assert input_digests(words) == {
        "--subnet": {"path": str(tmp_path / "best.yaml"), "sha256": sha256(tmp_path / "best.yaml")}
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_is_named() -> None:
    assert machine(torch.device("cuda"))["gpu"] == torch.cuda.get_device_name()
