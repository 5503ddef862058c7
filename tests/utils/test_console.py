"""The progress display, on a terminal and piped, with a known end and without one."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.table import Table

from ofa_pose.utils import console


class Clock:
    """A clock that goes on only when asked to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], io.StringIO]:
    def show(terminal: bool) -> io.StringIO:
        text = io.StringIO()
        style = {"color_system": None, "soft_wrap": True}
        made = console._PlainConsole(file=text, force_terminal=terminal, width=100, **style)
        monkeypatch.setattr(console, "_err", made)
        return text

    return show


def work(clock: Clock, total: int | None, steps: int, seconds: float) -> None:
    with console.progress("predict", total, "frames") as meter:
        for _ in range(steps):
            clock.now += seconds
            meter.step(2)


def test_piped_with_a_known_end(clock: Clock, shown: Callable[[bool], io.StringIO]) -> None:
    text = shown(False)
    work(clock, 40, 20, 1.0)
    assert text.getvalue().splitlines() == [
        "predict: 30/40 frames, 2.0/s, 5 s left",
        "predict: 40/40 frames, 2.0/s, 20 s",
    ]


def test_piped_without_a_known_end(clock: Clock, shown: Callable[[bool], io.StringIO]) -> None:
    text = shown(False)
    work(clock, None, 20, 1.0)
    assert text.getvalue().splitlines() == ["predict: 30 frames, 2.0/s, 15 s", "predict: 40 frames, 2.0/s, 20 s"]


def test_what_was_said_is_not_said_again(clock: Clock, shown: Callable[[bool], io.StringIO]) -> None:
    text = shown(False)
    work(clock, None, 1, 16.0)
    assert text.getvalue().splitlines() == ["predict: 2 frames, 0.1/s, 16 s"]


@pytest.mark.parametrize("total", [4, None])
def test_short_work_says_nothing_when_piped(
    clock: Clock, shown: Callable[[bool], io.StringIO], total: int | None
) -> None:
    text = shown(False)
    work(clock, total, 2, 0.5)
    assert text.getvalue() == ""


@pytest.mark.parametrize("total", [40, None])
def test_on_a_terminal(clock: Clock, shown: Callable[[bool], io.StringIO], total: int | None) -> None:
    text = shown(True)
    work(clock, total, 20, 1.0)
    last = text.getvalue()[text.getvalue().rindex("predict") :]
    assert "40/40" in last and "2.0 frames/s" in last


def test_a_terminal_without_a_known_end_shows_what_is_done(shown: Callable[[bool], io.StringIO]) -> None:
    text = shown(True)
    with console.progress("predict", None, "frames") as meter:
        meter.step(7)
        assert meter._bar is not None
        meter._bar.refresh()
        assert "7/?" in text.getvalue()


def test_interrupted_work_says_no_end(clock: Clock, shown: Callable[[bool], io.StringIO]) -> None:
    text = shown(False)
    with pytest.raises(KeyboardInterrupt), console.progress("predict", None) as meter:
        clock.now += 5
        meter.step(3)
        raise KeyboardInterrupt
    assert text.getvalue() == ""


def test_a_line_that_is_said_repeats_little_of_what_the_user_wrote(shown: Callable[[bool], io.StringIO]) -> None:
    text = shown(False)
    console.warn("x" * 10_000 + "\nsecond")
    console.say("y" * 10_000)
    first, second, third = text.getvalue().splitlines()
    assert first.startswith("warning: xx") and second == "second" and third.startswith("yy")
    assert max(map(len, (first, third))) < 2000


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_shown_while_it_is_quiet(clock: Clock, shown: Callable[[bool], io.StringIO], terminal: bool) -> None:
    text = shown(terminal)
    with pytest.raises(ZeroDivisionError), console.quiet():
        work(clock, 40, 20, 1.0)
        console.say("unheard")
        console.warn("unheard")
        raise ZeroDivisionError
    assert text.getvalue() == ""
    console.say("heard")
    assert "heard" in text.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_but_warnings_is_shown(clock: Clock, shown: Callable[[bool], io.StringIO], terminal: bool) -> None:
    text = shown(terminal)
    with console.quiet(but_warnings=True):
        work(clock, 40, 20, 1.0)
        console.say("unheard")
        console.show_facts({"un": "heard"}, title="unheard")
        console.show(Table("unheard"))
        console.say_command("next: unheard")
        console.warn("heard")
        with console.quiet():
            console.warn("unheard")
    assert text.getvalue() == "warning: heard\n"
    console.say("heard")
    assert text.getvalue().count("heard\n") == 2


def test_lines_of_a_terminal_break_between_words(shown: Callable[[bool], io.StringIO]) -> None:
    text, path = shown(True), "runs/" + "a-long-name/" * 12
    console.say(f"{'word ' * 30}{path} at-the-end")
    console.warn("word " * 30)
    lines = text.getvalue().splitlines()
    assert path in " ".join(lines).split() and all(line.endswith(("word", path, "at-the-end")) for line in lines)
    assert max(len(line) for line in lines if path not in line) <= 100
    piped = shown(False)
    console.say("word " * 30)
    assert piped.getvalue().count("\n") == 1


def test_a_command_that_takes_several_lines_is_one_to_a_shell(shown: Callable[[bool], io.StringIO]) -> None:
    command = f"ofa-pose finetune --subnet '{'a b/' * 12}' --supernet {'c/' * 20} --out …"
    text = shown(True)
    console.say_command(f"next: {command}")
    assert text.getvalue().count(" \\\n    --") == 3
    as_read = text.getvalue().removeprefix("next: ").replace("\\\n", "")  # by a shell
    assert shlex.split(as_read) == shlex.split(command)
    piped = shown(False)
    console.say_command(f"next: {command}")
    assert piped.getvalue() == f"next: {command}\n"


def test_facts_stand_below_each_other_and_are_never_cut(shown: Callable[[bool], io.StringIO]) -> None:
    text, path = shown(True), "/" + "long/" * 30
    console.show_facts({"net": "word " * 30, "checkpoint": path, "": "x"}, title="search")
    lines = text.getvalue().splitlines()
    assert lines[0] == "search" and lines[1].startswith("  net         word") and lines[2].startswith(" " * 14 + "word")
    assert max(len(line) for line in lines if path not in line) <= 100
    assert f"  checkpoint  {path}" in text.getvalue().replace("\n" + " " * 14 + path, path + "\n")
    assert lines[-1] == "              x"


def test_a_number_stays_beside_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    together = ["0.5320 ± 0.0213", "170M (thop)", "523K parameters", "12.3 ms", "1,200 subnets", "640 × 480", "95 %"]
    for width in range(24, 110):
        text = io.StringIO()
        terminal = console._PlainConsole(file=text, force_terminal=True, width=width, color_system=None, soft_wrap=True)
        monkeypatch.setattr(console, "_err", terminal)
        console.say(f"words, {', '.join(together)}")
        console.show_facts({"costs": ", ".join(together)})
        assert all(text.getvalue().count(one) == 2 for one in together), text.getvalue()
        assert max(map(len, text.getvalue().splitlines())) <= width


def test_a_wide_table_is_not_cut(shown: Callable[[bool], io.StringIO]) -> None:
    text, table = shown(False), Table(box=None)
    for place in range(5):
        table.add_column(f"{place}" * 30, no_wrap=True)
    table.add_row(*["x" * 40] * 5)
    console.show(table)
    assert "…" not in text.getvalue() and text.getvalue().count("x" * 40) == 5


def test_a_line_is_shown_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor names of emoji in what users call their files and splits."""
    console.warn("data.yaml:train: [bold] :smile:")
    console.say("data.yaml:train: [bold] :smile:")
    assert capfd.readouterr().err.count("data.yaml:train: [bold] :smile:") == 2


def test_a_reader_that_goes_away_ends_nothing() -> None:
    code = "import sys; from ofa_pose.utils.console import *\nfor one in 'ab': say(one); warn(one)\n"
    code += "with progress('c', 1) as meter: meter.step()\nprint('d', file=sys.stderr, flush=True)\nsys.exit(7)"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stderr=writing, stdout=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert done.returncode == 7 and not done.stdout


@pytest.mark.parametrize("size", ["0", "-5", "²", "wide", "9" * 5000])
def test_a_terminal_of_no_size(size: str) -> None:
    code = "from ofa_pose.utils.console import *\nsay('a line'); show_facts({'name': 'value'}); warn('that is odd')\n"
    given = os.environ | {"COLUMNS": size, "LINES": size, "FORCE_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "that is odd" in done.stderr, done.stderr


def test_what_steers_a_terminal_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    terminal = console._PlainConsole(file=shown, force_terminal=True, color_system=None, width=200, soft_wrap=True)
    monkeypatch.setattr(console, "_err", terminal)
    name = "a\x1b]0;title\x07\x1b[2Jb\rc"
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    console.show(table)
    console.say(name)
    console.warn(name)
    with console.progress("reading", 2) as meter:
        meter.step(note=name)
    text = re.sub("\x1b\\[[0-9?;]*[A-Za-z]", "", shown.getvalue())  # what draws the bar
    assert "title" in text and "2Jb" in text and not {"\x1b", "\x07"} & {*text} and "\rc" not in text
