"""Run directories read back, and the chain that they form."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ofa_pose.reports.runs import SOURCES, chain, read_run, source
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import plan_run


def make_run(path: Path, *commands: str, metrics: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "command.txt").write_text("".join(f"ofa-pose {command}\n" for command in commands))
    (path / "metrics.jsonl").write_text(metrics)
    return path


def test_a_run_has_its_commands_and_its_records(tmp_path: Path) -> None:
    records = [{"step": 1, "loss": 0.5}, {"step": 2, "val": {"AP": 0.25}, "seconds": 1.0}]
    useless = [{"step": 2, "loss": None}, {"loss": 1.0}, {"step": "3", "loss": 1.0}, {"step": 3, "val": {"AP": None}}]
    metrics = "\n".join(map(json.dumps, [*records, *useless])) + '\n{"step": 4, "loss": NaN}\n[1]\n{"step": 3, "lo'
    run = read_run(make_run(tmp_path / "a", "pretrain --out a", "pretrain --out 'a b' --resume", metrics=metrics))
    assert (run.job, run.name) == ("pretrain", "pretrain in a/")
    assert run.commands == (("pretrain", "--out", "a"), ("pretrain", "--out", "a b", "--resume"))
    assert (run.trained, run.validated) == (records[:1], records[1:])
    assert (run.recipe, run.best(), run.table("search.json")) == ("", None, {})


@pytest.mark.parametrize("command", ["", "\n\n", "ofa-pose\n", "ofa-pose pretrain --init 'x\n"])
def test_a_damaged_command_is_no_fault(command: str, tmp_path: Path) -> None:
    (make_run(tmp_path / "a") / "command.txt").write_text(command)
    run = read_run(tmp_path / "a")
    assert run.job in ("run", "pretrain") and len(chain(run)) == 1


def test_sources_are_what_the_command_names(tmp_path: Path) -> None:
    words = "finetune --subnet s/best.yaml --supernet=super --teacher litepose-nano-coco --seed 3 --init"
    run = read_run(make_run(tmp_path / "a", words))
    named = {option: value for option in SOURCES if (value := run.option(option))}
    assert named == {"--subnet": "s/best.yaml", "--supernet": "super", "--teacher": "litepose-nano-coco"}


def test_a_resumed_run_has_the_sources_of_the_command_that_began_it(tmp_path: Path) -> None:
    commands = ["pretrain --init older", "pretrain --init start", "pretrain --resume", "pretrain --resume --init a"]
    assert read_run(make_run(tmp_path / "a", *commands)).sources == {"--init": "start"}
    commands = ["pretrain --init older", "pretrain", "pretrain --resume"]  # the first was killed before it began
    assert read_run(make_run(tmp_path / "b", *commands)).sources == {}


def test_the_chain_is_followed_to_its_beginning_each_run_once(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", f"pretrain --out {tmp_path / 'teacher'}")
    supernet = make_run(tmp_path / "supernet", f"train-supernet --init {teacher}")
    search = make_run(tmp_path / "search", f"search --supernet {supernet / 'checkpoints' / 'best.pt'}")
    for file in (supernet / "checkpoints" / "best.pt", search / "front" / "001.yaml"):
        file.parent.mkdir()
        file.touch()
    words = f"--subnet {search / 'front' / '001.yaml'} --supernet {supernet} --teacher {teacher} --init nowhere"
    found = chain(read_run(make_run(tmp_path / "tuned", f"finetune {words}")))
    assert [(run.path.name, role) for run, role in found] == [
        ("teacher", "starting weights"),
        ("supernet", "supernet"),
        ("search", "choice of the subnet"),
        ("tuned", ""),
    ]


def test_a_run_that_started_from_itself_ends(tmp_path: Path) -> None:
    own = make_run(tmp_path / "a", f"pretrain --init {tmp_path / 'a'}")
    assert [run.path for run, _ in chain(read_run(own))] == [own]


def test_relative_sources_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "runs" / "supernet", "train-supernet --out runs/supernet")
    search = make_run(tmp_path / "runs" / "search", "search --supernet runs/supernet --out runs/search")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [run.path.name for run, _ in chain(read_run(search))] == ["supernet", "search"]
    assert [run.path.name for run, _ in chain(read_run("../runs/search"))] == ["supernet", "search"]
    moved = search.rename(tmp_path / "moved")
    assert len(chain(read_run(moved))) == 1


def test_where_a_source_lies(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "pretrain")
    (tmp_path / "alone.pt").touch()
    for value, folder in (
        (str(run), run),
        ("litepose-nano-coco", None),
        (str(tmp_path / "alone.pt"), None),
        (str(tmp_path / "none" / "best.pt"), None),
        ("x" * 5000, None),
    ):
        found = source(read_run(make_run(tmp_path / "b", f"pretrain --init {value}")), "--init")
        assert (found and found.path) == folder


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    make_run(tmp_path / "study", "table --supernet x --out study")
    for path, words in (
        (tmp_path / "none", "no such run directory; name a folder that"),
        (tmp_path / "file", "is not a run directory"),
        (tmp_path, r"holds no run \(command\.txt is missing\)"),
        (tmp_path / "study", "holds a table study"),
    ):
        with pytest.raises(InputError, match=words):
            read_run(path)


@pytest.mark.parametrize("name", ["recipe.yaml", "command.txt", "metrics.jsonl", "result.json", "best.yaml"])
def test_links_are_not_followed_out_of_a_run(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "a", "pretrain --out a")
    (tmp_path / "secret").write_text("ofa-pose search\n")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=f"a/{name}: is a link that leads out of the run"):
        read_run(run)
    (tmp_path / "link").symlink_to(make_run(tmp_path / "b", "pretrain --out b"))
    assert read_run(tmp_path / "link").job == "pretrain"  # the run itself may lie elsewhere


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e400"])
def test_results_hold_numbers(tmp_path: Path, number: str) -> None:
    run = read_run(make_run(tmp_path / "a", "search --out a"))
    (run.path / "result.json").write_text(f'{{"front": [{{"AP": {number}}}]}}')
    with pytest.raises(InputError, match=r"result\.json: holds a number that is none"):
        run.table("result.json")


@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.jsonl", "result.json", "best.yaml", "samples"])
def test_a_link_to_itself_is_nothing(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "a", "pretrain --out a")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(name)
    assert read_run(run).job == "pretrain"


def test_a_command_may_name_a_path_that_is_no_utf_8(tmp_path: Path) -> None:
    words = ["pretrain", "--out", os.fsdecode(b"a\xff")]
    plan_run(tmp_path / "a", "seed: 1\n", argv=words).open()
    assert read_run(tmp_path / "a").commands == (tuple(words),)
