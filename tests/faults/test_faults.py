"""bin/faults itself: what it counts as a change of a file, how it judges a call, where its table goes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.__main__ import END, MARK, PAGE, fill, table, try_faults
from tests.faults.calls import Fault, Operations, ends_in_a_line
from tests.faults.kinds import SAME, TOLD, WRONG
from tests.faults.works import Work

EVENTS = [
    ("open", ("/run/a.txt", None, os.O_WRONLY | os.O_CREAT)),
    ("open", ("/run/a.txt", None, os.O_RDONLY)),
    ("open", ("/elsewhere/a.txt", None, os.O_WRONLY)),
    ("open", (3, None, os.O_WRONLY)),
    ("import", ("/run", None, 1)),
    ("os.rename", ("/run/a.txt", "/run/b.txt", -1, -1)),
    ("os.remove", (Path("/run/b.txt"), -1)),
    ("os.rmdir", ("/run/.b.ofa-pose-0", -1)),
]


def test_changes_of_files_in_a_folder_are_counted_and_one_of_them_fails() -> None:
    counting = Operations(Fault(Path("/run")))
    for event in EVENTS:
        counting(*event)
    assert counting.count == 4
    failing = Operations(Fault(Path("/run"), operation=2, number=errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as error:
        for event in EVENTS:
            failing(*event)
    assert error.value.filename == "/run/a.txt" and failing.count == 2


def test_what_is_flushed_in_a_folder_is_counted_too_and_its_error_names_no_file(tmp_path: Path) -> None:
    counting, failing = Operations(Fault(tmp_path)), Operations(Fault(tmp_path, operation=2, number=errno.EIO))
    with (tmp_path / "a.txt").open("wb") as file:
        counting.flush(file.fileno())
        failing.flush(file.fileno())
        with pytest.raises(OSError, match="Input/output error") as error:
            failing.flush(file.fileno())
    with open(os.devnull, "wb") as file, contextlib.suppress(OSError):  # which cannot be flushed
        counting.flush(file.fileno())
    assert error.value.filename is None and counting.count == 1


def test_a_work_has_the_trials_folder_or_one_in_it_where_it_writes_beside_its_own() -> None:
    def left(out: Path) -> None:
        pass

    assert Work(["export"], left).call(Path("/run")) == ["export", "--out", "/run"]
    assert Work(["data", "synth"], left, "").call(Path("/run")) == ["data", "synth", "/run"]
    assert Work(["data", "convert"], left, inside="new").call(Path("/run"))[-2:] == ["--out", "/run/new"]


def test_a_call_ends_in_a_line_or_not() -> None:
    said = "warning: a\nerror: a.pt: No space left on device\n"
    assert ends_in_a_line(said, 1) and ends_in_a_line(said, 2)
    assert not ends_in_a_line(said, 0) and not ends_in_a_line(said, 134) and not ends_in_a_line(said, None)
    assert not ends_in_a_line("Traceback (most recent call last):\n" + said, 1) and not ends_in_a_line(said + said, 1)
    assert not ends_in_a_line("", 1)


def test_the_table_takes_its_place_on_the_page() -> None:
    found = {"killed": Counter({SAME: 5, TOLD: 1}), "a full disk": Counter({SAME: 3, WRONG: 1})}
    shown = table(found, 3.2, 7)
    assert "| killed | 6 | 5 | 1 | 0 |\n| a full disk | 4 | 3 | 0 | 1 |\n| all | 10 | 8 | 1 | 1 |\n" in shown
    assert fill(f"a\n{MARK}old\n{END}\nb\n", shown) == f"a\n{MARK}{shown}{END}\nb\n"
    assert fill(PAGE.read_text(encoding="utf-8"), shown).count("| all |") == 1
    with pytest.raises(SystemExit, match="has no place for the table"):
        fill("a page", shown)


@pytest.mark.slow
def test_every_fault_once(tmp_path: Path) -> None:
    for kind, counts in try_faults(1, 1, "", tmp_path).items():
        assert counts.total() and not counts[WRONG], kind
