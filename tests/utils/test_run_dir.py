"""Run directories: what they hold, what they refuse, and metrics that survive a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_pose.utils import run_dir as module
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import write_text
from ofa_pose.utils.run_dir import PROGRESS, RunDir, changed_keys, check_basis, kept_checkpoints, plan_run


def records(run: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def opened(*args: Any, **kwargs: Any) -> RunDir:
    run = plan_run(*args, **kwargs)
    run.open()
    return run


def begun(out: Path) -> RunDir:
    run = opened(out, "seed: 1\n", argv=["pretrain", "--out", "a b"])
    run.last.parent.mkdir()
    run.last.touch()
    return run


def test_a_run_holds_its_recipe_and_every_command(tmp_path: Path) -> None:
    run = begun(tmp_path / "deep" / "run")
    opened(run.path, "seed: 2\n", resume=True, argv=["pretrain", "--resume"])
    assert (run.path / "recipe.yaml").read_text() == "seed: 2\n"
    commands = (run.path / "command.txt").read_text().splitlines()
    assert commands == ["ofa-pose pretrain --out 'a b'", "ofa-pose pretrain --resume"]


def test_the_zeros_that_a_loss_of_power_leaves_are_no_command(tmp_path: Path) -> None:
    run = opened(tmp_path, "", argv=["pretrain"])
    with (tmp_path / "command.txt").open("ab") as file:
        file.write(bytes(100))
    assert module.read_command(tmp_path / "command.txt") == ["ofa-pose pretrain"]
    run.open()
    assert module.read_command(tmp_path / "command.txt") == ["ofa-pose pretrain"] * 2


def test_another_process_keeps_out_as_long_as_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREED_S", 0.0)
    out, message = tmp_path / "run", "run: another process runs there; wait until it ends, or name another place"
    late = plan_run(out, "seed: 1\n", argv=[])
    run = plan_run(out, "seed: 1\n", argv=[])
    with run.held():
        run.open()
        with pytest.raises(InputError, match=message), late.held():  # planned while nothing was there
            late.open()
        with pytest.raises(InputError, match=message):
            plan_run(out, "seed: 1\n", resume=True)
        run.last.parent.mkdir()
        run.last.touch()
    with pytest.raises(InputError, match=message), late.held():
        late.open()
    again = plan_run(out, "seed: 1\n", resume=True, argv=[])
    with again.held():
        again.open()
    with pytest.raises(InputError, match="another"), again.held():
        raise InputError("another fault")
    plan_run(out, "seed: 1\n", resume=True)


@pytest.mark.parametrize("zeros", [60, 5000])
def test_a_command_that_a_loss_of_power_made_zeros_is_none(tmp_path: Path, zeros: int) -> None:
    (tmp_path / "command.txt").write_bytes(bytes(zeros))
    assert module.read_command(tmp_path / "command.txt") == []


def test_the_zeros_that_a_loss_of_power_leaves_at_a_logs_end_are_passed_over(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    for step in (1, 2):
        run.log({"step": step})
    with run.metrics.open("ab") as file:
        file.write(bytes(3000))
    assert [record["step"] for _, record in module.read_records(run.metrics)] == [1, 2]
    run.forget_after(1)
    assert run.metrics.read_text() == '{"step": 1}\n'


@given(st.integers(0, 40), st.binary(min_size=1, max_size=40) | st.integers(1, 5000).map(bytes))
def test_whatever_a_log_holds_its_whole_records_are_read(place: int, damage: bytes) -> None:
    with TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        for step in (1, 2, 3):
            run.log({"step": step})
        content = run.metrics.read_bytes()
        run.metrics.write_bytes(content[:place] + damage + content[place + len(damage) :])
        whole = run.metrics.read_bytes().split(b"\n")
        wanted = [step for step in (1, 2, 3) if b'{"step": %d}' % step in whole]
        assert {*wanted} <= {record["step"] for _, record in module.read_records(run.metrics)}
        run.forget_after(2)
        assert {1, 2} & {*wanted} <= {record["step"] for record in records(run)} <= {*range(3)}


@pytest.mark.parametrize("step", ["null", '"5"', "1.5", "[1]", "true"])
def test_a_step_that_is_no_number_of_steps_is_no_record(
    tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{{"step": {step}}}\n{{"step": 2}}\n')
    run = plan_run(tmp_path, "", argv=[])
    assert "2 steps were logged there" in " ".join(capsys.readouterr().err.split())
    run.forget_after(1)
    assert run.metrics.read_text() == '{"step": 1}\n'
    told = " ".join(capsys.readouterr().err.split())
    assert told.endswith("metrics.jsonl: damaged lines are left out (1)")
    run.forget_after(1)
    assert not capsys.readouterr().err


def test_a_file_that_is_replaced_is_one_processs_alone_and_nothing_stays_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FREED_S", 0.0)
    path = tmp_path / "table.json"
    for _ in range(2):
        with module.alone_on(path):
            write_text(path, "{}")
            with pytest.raises(InputError, match=r"table\.json: another process runs there"), module.alone_on(path):
                pass
        assert [one.name for one in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks are of systems that fork")
def test_a_killed_process_keeps_nobody_out_nor_do_those_that_it_forked(tmp_path: Path) -> None:
    code = "import os, sys, time; from pathlib import Path; from ofa_pose.utils.run_dir import RunDir\n"
    code += "run = RunDir(Path(sys.argv[1]), 'seed: 1')\nwith run.held():\n    run.open()\n"
    code += "    if os.fork() == 0:\n        time.sleep(1)\n        os._exit(0)\n"
    code += "    print('begun', flush=True)\n    time.sleep(60)\n"
    running = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline() == "begun\n"
    running.kill()
    running.wait()
    with plan_run(tmp_path, "seed: 1\n", resume=True, argv=[]).held():
        pass


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    with pytest.raises(InputError, match=r"holds a run already \(checkpoints/last\.pt\); add --resume"):
        opened(tmp_path / "run", "", argv=[])
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "seed: 1\n"


@pytest.mark.parametrize("other", [name for name in PROGRESS if name != "history.csv"])
def test_another_kind_of_run_is_not_overwritten(tmp_path: Path, other: str) -> None:
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).touch()
    with pytest.raises(InputError, match=rf"holds a run already \({other}\); choose another --out"):
        plan_run(tmp_path, "", progress="history.csv")
    with pytest.raises(InputError, match=rf"holds a run already \({other}\); choose another --out"):
        plan_run(tmp_path, "", resume=True, progress="history.csv")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_checkpoint_starts_again_and_says_so(
    tmp_path: Path, resume: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(tmp_path / "other", "", argv=[]).log({"step": 7})
    capsys.readouterr()
    assert not opened(tmp_path / "other", "", resume, argv=[]).metrics.exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "7 steps were logged there and no checkpoint is left of them; the training begins anew" in told


@pytest.mark.parametrize("resume", [False, True])
def test_a_best_checkpoint_without_a_last_one_is_not_overwritten(tmp_path: Path, resume: bool) -> None:
    run = begun(tmp_path / "run")
    run.best.touch()
    run.last.unlink()
    with pytest.raises(InputError, match=r"holds checkpoints/best\.pt of a run whose checkpoints/last\.pt is gone"):
        plan_run(run.path, "", resume)
    run.last.with_name("last-40.pt").touch()
    assert not plan_run(run.path, "seed: 1\n", resume=True).fresh, "an older one will do"


def test_the_checkpoints_of_a_run_are_listed_from_the_newest(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    for name in ("last-5.pt", "last-40.pt", "last-x.pt", "best.pt"):
        run.last.with_name(name).touch()
    assert [path.name for path in kept_checkpoints(run.path)] == ["last.pt", "last-40.pt", "last-5.pt"]


@pytest.mark.parametrize(("world", "machines"), [(2, "--standalone"), (6, "--nnodes 3 …")])
def test_processes_of_torchrun_go_on_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int, machines: str
) -> None:
    environment = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    run = plan_run(tmp_path, "", argv=["pretrain", "--recipe", "nano"])
    words = f"-m ofa_pose pretrain --resume --out {tmp_path}"
    assert run.go_on == f"go on with: torchrun {machines} --nproc-per-node 2 {words}"


def test_how_to_go_on_is_a_command(tmp_path: Path) -> None:
    run = plan_run(tmp_path / "a b", "", argv=["finetune", "--subnet", "x"])
    assert run.go_on == f"go on with: ofa-pose finetune --resume --out '{tmp_path / 'a b'}'"
    assert plan_run(tmp_path, "", argv=["pretrain", "--objective", "f"]).go_on.endswith("and resume=True")
    assert RunDir(tmp_path).go_on == ""


def test_a_resumed_run_tells_of_another_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begun(tmp_path / "run")
    opened(run.path, "seed: 1\n", resume=True, argv=[])
    assert not capsys.readouterr().err
    opened(run.path, "seed: 2\n", resume=True, argv=[])
    assert "goes on with this one: seed was 1, is 2" in " ".join(capsys.readouterr().err.split())


def test_nothing_is_written_before_the_run_is_opened(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    plan_run(run.path, "seed: 2\n", resume=True, argv=["pretrain", "--resume"])
    plan_run(tmp_path / "new", "seed: 2\n", argv=[])
    assert (run.path / "recipe.yaml").read_text() == "seed: 1\n"
    assert len((run.path / "command.txt").read_text().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_changed_keys_at_any_depth() -> None:
    before, now = {"a": {"b": 1, "c": [1]}, "d": None, "f": 4}, {"a": {"b": 2, "c": [1]}, "d": None, "e": 3}
    assert changed_keys(before, now) == ["a.b was 1, is 2", "f was 4, is not given", "e was not given, is 3"]


def test_an_empty_or_foreign_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert opened(tmp_path, "", argv=[]).path == tmp_path
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_faults(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, resume, words in (
        (tmp_path / "file", False, "is a file, not a folder"),
        (tmp_path / "file" / "run", False, "file: is a file, not a folder"),
    ):
        with pytest.raises(InputError, match=words):
            opened(out, "", resume, argv=[])


def test_resuming_where_nothing_is_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = plan_run(tmp_path / "none", "", resume=True, argv=[])
    assert run.fresh and not run.path.exists()
    assert "holds no checkpoints/last.pt to go on from yet; it begins" in " ".join(capsys.readouterr().err.split())


def test_what_is_not_finite_is_written_as_null_at_any_depth(tmp_path: Path) -> None:
    run = opened(tmp_path, "", argv=[])
    run.log({"step": 1, "loss": float("nan"), "val": {"AP": float("inf"), "AR": 0.5, "deep": {"x": float("-inf")}}})
    run.log({"step": 2, "name": "é"})
    assert records(run) == [
        {"step": 1, "loss": None, "val": {"AP": None, "AR": 0.5, "deep": {"x": None}}},
        {"step": 2, "name": "é"},
    ]


def test_a_resumed_run_forgets_later_steps_and_a_half_written_line(tmp_path: Path) -> None:
    run = opened(tmp_path, "", argv=[])
    for step in range(1, 6):
        run.log({"step": step, "loss": step / 2})
    with run.metrics.open("a") as file:
        file.write('{"step": 6, "lo')
    run.forget_after(3)
    run.log({"step": 4})
    assert [record["step"] for record in records(run)] == [1, 2, 3, 4]


def test_a_resumed_run_forgets_what_it_does_again_after_the_same_step(tmp_path: Path) -> None:
    run = opened(tmp_path, "", argv=[])
    written = [{"step": 2}, {"step": 2, "val": 1}, {"step": 3}, {"step": 3, "val": 2}, {"step": 3, "calibration": 1}]
    for record in written:
        run.log(record)
    run.forget_after(3)
    assert records(run) == written[:4]
    run.forget_after(3, evaluated=False)
    assert records(run) == written[:3]


def test_forgetting_nothing(tmp_path: Path) -> None:
    run = opened(tmp_path, "", argv=[])
    run.forget_after(3)
    assert not run.metrics.exists()


def test_a_resumed_run_shares_its_basis() -> None:
    before = {"sha256": "a", "space": {"stem": 8}, "algorithm": {"seed": 0, "deep": {"x": 1}}, "kept": None}
    check_basis(before, before, Path("run"))
    check_basis(before, {"sha256": "a", "of a later version": 1}, Path("run"))
    for now, words in (
        ({"sha256": "b"}, "run: was begun with another supernet; resume with the settings of that run"),
        ({"space": {}}, "another space;"),
        ({"algorithm": {"seed": 1, "deep": {}}}, "algorithm.seed was 0, is 1, algorithm.deep.x was 1, is not given;"),
        ({"kept": 3}, "another kept: kept was not given, is 3"),
    ):
        with pytest.raises(InputError, match=words):
            check_basis(before, {**before, **now}, Path("run"))
