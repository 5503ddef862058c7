"""Errors tell what is wrong, where, and the hint, and survive the way out of a worker process."""

from __future__ import annotations

import pickle

from ofa_pose.utils.errors import SHOWN_FAULTS, Fault, InputError, OfaPoseError, nearest, shortened


def test_a_fault_is_one_line_of_where_what_and_hint() -> None:
    assert str(Fault("is\nodd", "a.json", "hint\tit")) == "a.json: is odd; hint it"
    assert str(Fault("is odd")) == "is odd"


def test_exit_codes() -> None:
    assert OfaPoseError("x").exit_code == 1
    assert InputError("x").exit_code == 2


def test_many_faults_show_the_first_and_count_the_rest() -> None:
    faults = [Fault(f"fault {number}", "f.json") for number in range(SHOWN_FAULTS + 7)]
    lines = str(InputError.of(faults)).splitlines()
    assert lines[:SHOWN_FAULTS] == [str(fault) for fault in faults[:SHOWN_FAULTS]]
    assert lines[SHOWN_FAULTS:] == [f"… and 7 more ({SHOWN_FAULTS + 7} faults in all)"]
    assert str(InputError.of(faults[:2])).count("\n") == 1


def test_an_input_error_keeps_its_faults_when_pickled() -> None:
    error = InputError.of([Fault("a", "b", "c"), Fault("d")])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, InputError)
    assert again.faults == error.faults and str(again) == str(error)


def test_nearest_names_the_closest_word_or_all() -> None:
    assert nearest("stepz", ["steps", "batch"]) == "did you mean 'steps'?"
    assert nearest("qqq", ["steps", "batch"]) == "choose one of: batch, steps"


def test_a_message_repeats_little_of_what_the_user_wrote_and_nothing_that_moves_the_cursor() -> None:
    line = str(Fault(f"unknown key '{'x' * 10_000}'", "a.json", "choose one of " + "y, " * 5000 + "z"))
    assert len(line) < 2000 and line.startswith("a.json: unknown key 'xxx") and line.endswith("y, z")
    assert "x'; choose one" in line, "its end is kept"
    assert str(Fault("no 'a\x1b[2Kb\ud800'")) == "no 'a\\x1b[2Kb\\ud800'"
    assert shortened("Größe  in\tpx") == "Größe in px"
