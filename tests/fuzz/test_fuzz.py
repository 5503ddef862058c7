"""A few damaged inputs of every kind, the same each time; and the fuzzer sees what it should."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ofa_pose.utils.errors import InputError
from tests.fuzz import attempt as attempts
from tests.fuzz import kinds
from tests.fuzz.__main__ import main, summary
from tests.fuzz.attempt import FAULT, OK, REFUSED, Outcome, attempt, build
from tests.fuzz.kinds import KINDS, Case
from tests.fuzz.mutate import OTHERS, damaged_bytes, damaged_text, damaged_zip, deep_values, junk, mutated
from tests.fuzz.seeds import make_seeds

INPUTS = 3  # of each kind


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    make_seeds(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_input_is_read_or_refused_in_a_few_lines(kind: str, seeds: Path, tmp_path: Path) -> None:
    found = [attempt(kind, 7, number, seeds, tmp_path / "log") for number in range(INPUTS)]
    assert not [(one.shown, one.why, one.said) for one in found if one.verdict == FAULT]


@pytest.mark.parametrize("kind", ["annotations", "results", "recipes", "spaces", "skeletons", "tables", "archives"])
def test_an_input_without_damage_is_read(
    kind: str, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "damage", lambda path, rng: None)
    monkeypatch.setattr(kinds, "damaged_text", lambda text, rng: b"seed=3")
    monkeypatch.setattr(kinds, "damaged_bytes", lambda content, rng: content)
    monkeypatch.setattr(kinds, "_damage_rows", lambda path, rng: None)
    found = [attempt(kind, 7, number, seeds, tmp_path / "log") for number in range(2)]
    assert [one.verdict for one in found] == [OK, OK]


def test_a_seed_gives_the_same_inputs_again(seeds: Path, tmp_path: Path) -> None:
    for kind in ("annotations", "checkpoints", "archives"):
        folders = [tmp_path / kind / name for name in ("one", "other", "next")]
        for folder, number in zip(folders, (4, 4, 5), strict=True):
            folder.mkdir(parents=True)
            build(kind, 1, number, seeds, folder)
        one, other, following = (
            {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            for folder in folders
        )
        assert one == other != following


def _print(text: str) -> int:
    print(text, file=sys.stderr)
    return 2


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("call", "verdict", "why"),
    [
        (lambda: 0, OK, ""),
        (lambda: _print("error: no\n" * 24 + "error: no"), REFUSED, ""),
        (lambda: _raise(InputError("no")), REFUSED, ""),
        (lambda: _raise(FileNotFoundError(2, "No such file", "a")), REFUSED, ""),
        (lambda: _print("error: no\n" * 25 + "error: no"), FAULT, "more than 25 lines"),
        (lambda: _print("x" * 2001), FAULT, "a line of more than 2000 characters"),
        (lambda: 2, FAULT, "refused without a word"),
        (lambda: 3, FAULT, "exit code 3"),
        (lambda: _print("Traceback (most recent call last):"), FAULT, "a traceback was printed"),
        (lambda: _raise(ValueError("odd")), FAULT, "ValueError at"),
        (lambda: _raise(SystemExit(1)), FAULT, "SystemExit at"),
    ],
)
def test_what_is_a_fault(
    call: Callable[[], Any], verdict: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "odd", lambda seeds, folder, rng: Case("odd()", call))
    found = attempt("odd", 0, 0, tmp_path, tmp_path / "log")
    assert found.verdict == verdict and found.why.startswith(why) and bool(found.why) == bool(why)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the most memory is that since the start")
def test_memory_that_a_call_takes_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BYTES", 100 << 20)
    monkeypatch.setitem(KINDS, "odd", lambda seeds, folder, rng: Case("odd()", lambda: len(b"x" * (200 << 20)) * 0))
    assert attempt("odd", 0, 0, tmp_path, tmp_path / "log").why == "more than 2 GB of memory"


def test_damage_is_damage() -> None:
    value, rng = {"a": [1, 2, {"b": "c"}], "d": None}, Random(0)
    with deep_values():
        changed = [mutated(value, rng) != value for _ in range(300)]
    assert sum(changed) > 200 and value == {"a": [1, 2, {"b": "c"}], "d": None}
    assert sum(damaged_text("a: 1\nb: two\n", rng) != b"a: 1\nb: two\n" for _ in range(100)) > 80
    assert sum(damaged_bytes(bytes(range(200)), rng) != bytes(range(200)) for _ in range(100)) > 80
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", "b")
    packed = content.getvalue()
    assert sum(damaged_zip(packed, rng) != packed for _ in range(100)) > 80


def test_what_is_put_in_is_no_part_of_another_input() -> None:
    rng, shared = Random(0), {id(one) for one in OTHERS if isinstance(one, list | dict)}
    for _ in range(500):
        waiting = [junk(rng)]
        while waiting:
            one = waiting.pop()
            assert id(one) not in shared
            waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def test_the_table_counts_every_outcome() -> None:
    found = [Outcome("a", number, verdict) for number, verdict in enumerate((OK, OK, REFUSED, FAULT))]
    table = summary([*found, Outcome("b", 0, OK)])
    assert [list(column.cells) for column in table.columns] == [
        ["a", "b", "all"],
        ["4", "1", "5"],
        ["2", "1", "3"],
        ["1", "0", "1"],
        ["1", "0", "1"],
    ]


@pytest.mark.slow
def test_a_process_that_ends_is_a_fault_and_its_input_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--inputs", "2", "--kind", "skeletons", "--kind", "results", "--keep", str(tmp_path)]) == 0
    assert "skeletons" in capsys.readouterr().err and not list(tmp_path.iterdir())
