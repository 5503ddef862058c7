"""Run directories read back, and the chain that they form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofa_pose.errors import InputError
from ofa_pose.report.runs import chain, read_run, run_of


def make_run(path: Path, *commands: str, metrics: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "command.txt").write_text("".join(f"ofa-pose {command}\n" for command in commands))
    (path / "metrics.jsonl").write_text(metrics)
    return path


def test_a_run_tells_its_last_command_and_its_records(tmp_path: Path) -> None:
    records = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}, {"step": 2, "val": {"AP": 0.25}, "seconds": 1.0}]
    metrics = "\n".join(map(json.dumps, records)) + '\n{"step": 3, "lo'
    run = read_run(make_run(tmp_path / "a", "pretrain --out a", "pretrain --out 'a b' --resume", metrics=metrics))
    assert (run.job, run.command) == ("pretrain", ("pretrain", "--out", "a b", "--resume"))
    assert list(run.metrics) == records
    assert (run.trained, run.validated) == (records[:1], records[2:])
    assert (run.recipe, run.rows("history.csv"), run.best()) == ("", [], {})


def test_sources_are_what_the_command_names(tmp_path: Path) -> None:
    words = "finetune --subnet s/best.yaml --supernet=super --teacher litepose-nano-coco --seed 3 --init"
    run = read_run(make_run(tmp_path / "a", words))
    assert run.sources == {"--subnet": "s/best.yaml", "--supernet": "super", "--teacher": "litepose-nano-coco"}


def test_the_chain_is_followed_to_its_beginning_each_run_once(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", f"pretrain --out {tmp_path / 'teacher'}")
    supernet = make_run(tmp_path / "supernet", f"train-supernet --init {teacher}")
    search = make_run(tmp_path / "search", f"search --supernet {supernet / 'checkpoints' / 'best.pt'}")
    for file in (supernet / "checkpoints" / "best.pt", search / "front" / "001.yaml"):
        file.parent.mkdir()
        file.touch()
    words = f"--subnet {search / 'front' / '001.yaml'} --supernet {supernet} --teacher {teacher} --init nowhere"
    found = chain(make_run(tmp_path / "tuned", f"finetune {words}"))
    assert [(run.path.name, role) for run, role in found] == [
        ("teacher", "starting weights"),
        ("supernet", "supernet"),
        ("search", "choice of the subnet"),
        ("tuned", ""),
    ]


def test_a_run_that_started_from_itself_ends(tmp_path: Path) -> None:
    own = make_run(tmp_path / "a", f"pretrain --init {tmp_path / 'a'}")
    assert [run.path for run, _ in chain(own)] == [own]


def test_where_a_path_lies(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "pretrain")
    (tmp_path / "alone.pt").touch()
    assert run_of(str(run)) == run
    for value in ("litepose-nano-coco", str(tmp_path / "alone.pt"), str(tmp_path / "none" / "best.pt")):
        assert run_of(value) is None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, told in (
        (tmp_path / "none", "no such run directory"),
        (tmp_path / "file", "is no run directory"),
        (tmp_path, r"holds no run \(command\.txt is missing\)"),
    ):
        with pytest.raises(InputError, match=told):
            read_run(path)
