"""How far a run is, read from files as they are while it goes on, was cut off, or has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import ofa_pose
from ofa_pose.monitor import live
from ofa_pose.monitor.live import lines_of, sparkline, watch_run
from ofa_pose.monitor.run_state import read_state, warn_if_cut_off
from ofa_pose.utils import atomic, console
from ofa_pose.utils.errors import InputError

STEPS = [{"step": n, "loss": 2.0 / n, "low": 0.1, "lr": 1e-3, "data_wait": 0.01, "seconds": n / 4} for n in range(1, 9)]
EVALUATED = {"step": 4, "val": {"AP": 0.25, "AP50": 0.5, "AR_large": None}, "seconds": 1.0}
Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Write a run directory."""

    def make(command: str, records: Sequence[Mapping[str, Any]] = (), recipe: str = "", cut: str = "") -> Path:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "command.txt").write_text(f"ofa-pose {command} --out run\n")
        (folder / "recipe.yaml").write_text(recipe)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records) + cut)
        return folder

    return make


def test_a_training_under_way(made: Make) -> None:
    folder = made("finetune", [*STEPS[:4], EVALUATED, *STEPS[4:6]], "train: {steps: 16}", cut='{"step": 7, "lo')
    state = read_state(folder)
    assert (state.command, state.unit, state.done, state.total, state.ended) == ("finetune", "steps", 6, 16, False)
    assert state.speed == pytest.approx(4) and state.seconds_left == pytest.approx(10 / 4)
    assert state.best == {"AP": 0.25, "at": 4} and state.last["loss"] == STEPS[5]["loss"]
    assert state.curves["loss"] == tuple((one["step"], one["loss"]) for one in STEPS[:6])
    assert state.curves["val/AP"] == ((4, 0.25),) and "val/AR_large" not in state.curves
    assert state.poses is None and 0 <= state.seconds_silent < 60
    (folder / "poses.jpg").touch()
    assert read_state(folder).poses == folder / "poses.jpg"
    assert json.loads(json.dumps(state.to_dict()))["curves"]["val/AP"] == [[4, 0.25]]


def test_no_line_is_wider_than_the_terminal(made: Make) -> None:
    steps = [
        {**one, "lr": 1e-4 * one["step"] / 3, "loss": 0.09719 / one["step"], "data_wait": 2.265e-4} for one in STEPS
    ]
    values = {"AP": 0.123456, "AP_largest": 0.000123456, "AP_middle": 0.0234567, "AP_smallest": 0.00345678}
    evaluated = [
        {"step": step, "val": {name: step * ap for name, ap in values.items()}, "seconds": 1} for step in (1, 8)
    ]
    folder = made("train-supernet", [*steps, *evaluated], "train: {steps: 16}")
    lines = [line for line in lines_of(read_state(folder)) if str(folder) not in line]
    assert len(lines) > 6 and max(map(len, lines)) <= 80


def test_speed_is_that_since_a_run_was_resumed(made: Make) -> None:
    again = [{**one, "seconds": (one["step"] - 4) / 2} for one in STEPS[4:]]
    assert read_state(made("pretrain", [*STEPS[:4], *again])).speed == pytest.approx(2)
    assert read_state(made("pretrain", [*STEPS[:4], again[0]])).speed is None


def test_a_training_that_has_ended_and_one_that_has_just_begun(made: Make) -> None:
    last = {**EVALUATED, "step": 8}
    done = read_state(made("train-supernet", [*STEPS, last], "train: {steps: 8}"))
    assert done.ended and done.seconds_left is None and done.done == 8
    (done.run / "provenance.jsonl").write_text('{"started": "2026-01-01"}\n')
    assert not read_state(done.run).ended  # its decoder is being calibrated
    with (done.run / "provenance.jsonl").open("a") as file:
        file.write('{"ended": "2026-01-01", "seconds": 3}\n')
    assert read_state(done.run).ended
    (done.run / "provenance.jsonl").unlink()
    begun = read_state(made("train-supernet", [], "train: [not, a, recipe]"))
    assert (begun.done, begun.total, begun.speed, begun.best, begun.ended) == (0, None, None, None, False)
    assert any("0 steps" in line for line in lines_of(begun))


def test_a_search(made: Make) -> None:
    generation = {"step": 0, "evaluations": 3, "AP": 0.4, "AP_mean": 0.2, "macs": 10, "seconds": 6.0}
    folder = made("search", [generation], "search: {population: 3, generations: 2}")
    rows = [
        "1,0,uniform,0-0,0.2,1.0",
        "2,0,sample,0-1,,1.0",
        "3,0,sample,1-1,0.4,1.0",
        "4,1,mutation,1-0,0.3,2.0",
        "5,1",
    ]
    (folder / "history.csv").write_text("order,generation,origin,genome,AP,seconds\n" + "\n".join(rows))
    state = read_state(folder)
    assert (state.unit, state.done, state.total, state.ended) == ("subnets", 4, 9, False)
    assert state.curves["AP"] == ((1, 0.2), (3, 0.4), (4, 0.3))
    assert state.curves["best AP"] == ((1, 0.2), (3, 0.4), (4, 0.4)) and state.best == {"AP": 0.4, "at": 3}
    assert state.speed == pytest.approx(0.5) and state.seconds_left == pytest.approx(10)
    assert "0.2 of the last generation" in "\n".join(lines_of(state))
    (folder / "metrics.jsonl").unlink()
    assert read_state(folder).speed == pytest.approx(4 / 5)
    (folder / "result.json").touch()
    assert read_state(folder).ended


def test_what_a_resumed_search_looks_up_again_does_not_count_for_its_speed(made: Make) -> None:
    counts = [(0, 40, 0, 0.01), (1, 80, 0, 0.02), (2, 120, 20, 10.02)]
    keys = ("step", "evaluations", "measured", "seconds")
    records = [dict(zip(keys, values, strict=True)) for values in counts]
    assert read_state(made("search", records)).speed == pytest.approx(2)
    folder = made("search", records[:2])
    assert read_state(folder).speed is None
    (folder / "history.csv").write_text("order,AP,seconds\n1,0.2,4.0\n2,0.3,6.0\n")  # what they took when measured
    assert read_state(folder).speed == pytest.approx(0.2)


def test_a_run_that_was_stopped_says_how_to_go_on_and_one_that_goes_on_does_not(made: Make) -> None:
    folder = made("finetune", STEPS, "train: {steps: 16}")
    lines = lines_of(read_state(folder))
    assert "  stopped        no process of this machine works on it" in lines
    assert f"  go on with     ofa-pose finetune --resume --out {folder}" in lines
    with atomic.locked(folder / "command.txt", 0) as free:
        assert free and read_state(folder).running
        assert not any(line.startswith(("  stopped", "  go on")) for line in lines_of(read_state(folder)))
    (folder / "command.txt").write_text("ofa-pose finetune --objective mine --out run\n")
    assert "  go on with     the same call and resume=True" in lines_of(read_state(folder))


def test_a_checkpoint_of_a_training_that_was_cut_off_is_warned_of(
    made: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = made("train-supernet", [*STEPS, {**EVALUATED, "step": 8}], "train: {steps: 16}")
    best = folder / "checkpoints" / "best.pt"
    warn_if_cut_off(best)
    told = f"{folder}: its training was cut off after 8 of 16 steps; go on with: ofa-pose train-supernet --resume --out"
    assert told in capfd.readouterr().err
    with atomic.locked(folder / "command.txt", 0):
        warn_if_cut_off(best)
    assert f"{folder}: its training goes on, 8 of 16 steps are done" in capfd.readouterr().err
    (folder / "recipe.yaml").write_text("train: {steps: 8}")
    for path in (best, tmp_path / "checkpoints" / "copied.pt", tmp_path / "copied.pt", None):
        warn_if_cut_off(path)
    (folder / "metrics.jsonl").unlink()
    (folder / "provenance.jsonl").write_text('{"ended": "2026-11-27"}\n')
    warn_if_cut_off(best)
    assert not capfd.readouterr().err


def test_where_there_are_no_locks_it_cannot_be_said_whether_a_run_goes_on(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "fcntl", None)
    shown = "\n".join(lines_of(read_state(made("finetune", STEPS))))
    assert "ago; whether it still runs cannot be seen here" in shown and "stopped" not in shown


def test_losses_are_called_by_words(made: Make) -> None:
    losses = {"loss": 3.0, "low": 1.5, "high": 1.0, "push": 0.25, "pull": 0.125, "mine": 0.5, "grad_norm": 7.0}
    lines = lines_of(read_state(made("finetune", [{"step": 1, **losses, "side": 64}])))
    for line in ("heatmap loss  1.5 at 1/4 of the input's sides, 1 at 1/2", "last          mine 0.5"):
        assert f"  {line}" in lines
    assert "  tag loss      0.25 between people, 0.125 within a person" in lines


@pytest.mark.parametrize(("command", "message"), [("demo", "names demo"), ("'", "names none"), ("", "names --out")])
def test_other_folders_are_refused(made: Make, tmp_path: Path, command: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_state(made(command))
    for folder, told in ((tmp_path, "holds no run"), (tmp_path / "gone", "no such run directory")):
        with pytest.raises(InputError, match=told):
            ofa_pose.watch(folder)


def test_damaged_records_are_left_out(made: Make) -> None:
    odd = [{"step": "1", "loss": 1}, {"loss": 2}, {"step": 1, "loss": float("nan")}, {"step": 2, "val": [1]}]
    state = read_state(made("pretrain", [*odd, {"step": True, "loss": 1.0}, *STEPS[:2]]))
    assert [value for _, value in state.curves["loss"]] == [2.0, 1.0]


def test_bytes_that_are_not_utf_8_are_left_out(made: Make) -> None:
    folder = made("pretrain", STEPS[:2])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9\xff}\n' + bytes(100))
    assert len(read_state(folder).curves["loss"]) == len(STEPS[:2])
    folder = made("search", [])
    (folder / "history.csv").write_bytes(b"order,AP,seconds\n1,0.5,1\n2,0.\xff,1\n3,0.25,1\n" + bytes(100))
    assert [value for _, value in read_state(folder).curves["AP"]] == [0.5, 0.25]


@pytest.mark.parametrize(
    "number", ["9" * 400, "9" * 308, "1e308", "-1e308", "5e-324", "-1", "1e999", '"x"', "[]", "{}"]
)
def test_numbers_that_no_run_writes_end_nothing(made: Make, number: str) -> None:
    names = ("step", "loss", "lr", "seconds", "evaluations", "measured", "low")
    lines = [json.dumps({**STEPS[n], name: "?"}).replace('"?"', number) for n in (0, 3, 7) for name in names]
    lines += [f'{{"step": 3, "val": {{"AP": {number}, "AR": {number}}}}}', f'{{"step": 3, "val": {number}}}']
    lines += [json.dumps({**STEPS[7], "loss": loss}) for loss in (1e308, -1e308)]
    for command in ("finetune", "search"):
        folder = made(command, [*STEPS, EVALUATED], "train: {steps: 9}\nsearch: {population: 9, generations: 2}")
        with (folder / "metrics.jsonl").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        (folder / "history.csv").write_text(f"AP,seconds\n0.5,1\n{number},1\n0.25,{number}\n0.25,{number}\n")
        state = read_state(folder)
        assert len(lines_of(state)) > 3 and (state.best or {"AP": 0.5})["AP"] <= 0.5
        json.dumps(state.to_dict(), allow_nan=False)
        warn_if_cut_off(folder / "checkpoints" / "best.pt")


def test_bars() -> None:
    assert sparkline([1e308, -1e308], 40) == sparkline([1e308, -1e308, 1e308, -1e308], 2) == "▁▁"
    assert len(sparkline([10**308] * 50 + [0] * 50, 3)) == 3
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 40) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 1, 1], 40) == "▁▁▁" and sparkline([5], 40) == "▁"
    assert sparkline(list(range(1000)), 8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([n % 7 for n in range(101)], 40)) == 40


def test_what_is_shown_fits_80_columns(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    many = [{**STEPS[n % 8], "step": n + 1, "seconds": n / 4} for n in range(500)]
    lines = lines_of(read_state(made("finetune", [*many, {**EVALUATED, "step": 400}], "train: {steps: 1000}")))
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    text = "\n".join(lines)
    assert re.search(r"500 of 1,000 steps \(50%\)", lines[0]) and re.search(r"loss +[▁▂▃▄▅▆▇█]{8,} +0\.", text)
    assert "best           AP 0.2500, after step 400, without the flip test" in text
    assert "4.00 steps/s, 2 min 5 s left" in text and "ago" in text


def test_without_a_terminal_it_is_shown_once(made: Make, capfd: pytest.CaptureFixture[str]) -> None:
    state = watch_run(made("finetune", STEPS), every=1000, once=False)
    assert state.done == 8 and "finetune" in capfd.readouterr().err


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_terminal_is_kept_up_to_date_until_the_end_or_ctrl_c(
    made: Make, monkeypatch: pytest.MonkeyPatch, by_hand: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    terminal = console._PlainConsole(stderr=True, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "_err", terminal)
    folder, slept = made("finetune", STEPS[:2], "train: {steps: 8}"), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if by_hand and len(slept) == 2:
            raise KeyboardInterrupt
        made("finetune", [*STEPS, *([{**EVALUATED, "step": 8}] if len(slept) == 3 else [])], "train: {steps: 8}")

    monkeypatch.setattr(live.time, "sleep", sleep)
    state = watch_run(folder, every=7, once=False)
    assert state.ended is not by_hand and len(slept) == (2 if by_hand else 3) and slept[0] == 7
    shown = capfd.readouterr().err
    assert "2 of 8 steps" in shown and "8 of 8 steps" in shown


def test_a_run_that_is_not_there_yet_is_waited_for_on_a_terminal(
    made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    terminal = console._PlainConsole(stderr=True, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(console, "_err", terminal)
    folder, last = tmp_path / "run", {**EVALUATED, "step": 8}
    steps = [lambda: folder.mkdir(), (folder / "command.txt").touch]
    steps.append(lambda: made("finetune", [*STEPS, last], "train: {steps: 8}"))
    monkeypatch.setattr(live.time, "sleep", lambda seconds: steps.pop(0)())
    with pytest.raises(InputError, match="no such run directory"):
        watch_run(folder, every=1, once=True)
    assert watch_run(folder, every=1, once=False).ended and not steps
    assert "no run has begun there yet; waiting for it" in capfd.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="holds no run"):
        watch_run(tmp_path / "other", every=1, once=False)
