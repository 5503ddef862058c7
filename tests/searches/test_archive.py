"""The archive keeps every evaluation, whatever happens to the process, the file or the disk."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.searches.archive import Archive, check_archive, find_archive
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.limits import no_more_files
from tests.searches.small_spaces import small_space

BASIS = {"sha256": "ab" * 32, "search": ["a.json", 7, 7]}
SPEC = small_space().smallest(17)
COSTS = {
    **{f"macs_{key}": count for key, count in spec_macs(SPEC).to_dict().items()},
    "params": spec_params(SPEC),
    "latency_ms": None,
}


def evaluated(*genome: int, ap: float | None = 0.25) -> tuple[Any, ...]:
    return genome, SPEC, None, {"AP": ap, "AR": float("nan"), "sizes": [1, None]}, 1.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.sqlite"


@pytest.fixture
def held(path: Path) -> Iterator[Archive]:
    """An archive with two evaluations."""
    with Archive(path, BASIS, locked_s=0.2) as archive:
        archive.put(*evaluated(0, 1), seed=3)
        archive.put(*evaluated(1, 1, ap=None), seed=3)
        yield archive


def rows(path: Path) -> list[sqlite3.Row]:
    """As any SQLite tool reads it."""
    file = sqlite3.connect(path)
    file.row_factory = sqlite3.Row
    found = file.execute("SELECT * FROM evaluations ORDER BY id").fetchall()
    file.close()
    return found


def test_rows_are_complete_and_readable_by_any_sqlite_tool(held: Archive, path: Path) -> None:
    first, second = rows(path)  # while it is open
    assert [first["genome"], second["genome"]] == ["0-1", "1-1"]
    assert json.loads(first["spec"]) == SPEC.to_dict()
    assert {key: first[key] for key in COSTS} == COSTS
    assert json.loads(first["metrics"]) == {"AP": 0.25, "AR": None, "sizes": [1, None]}
    assert (first["AP"], first["seconds"], first["seed"], first["supernet"]) == (0.25, 1.5, 3, "ab" * 32)
    assert second["AP"] is None
    assert first["time"].startswith("20") and first["time"].endswith("+00:00")
    file = sqlite3.connect(path)
    assert [json.loads(text) for (text,) in file.execute("SELECT basis FROM bases")] == [BASIS]
    assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()


def test_what_was_put_is_found_on_its_basis_alone(held: Archive, path: Path) -> None:
    assert held.outcomes([(0, 1), (1, 1), (0, 0)]) == {(0, 1): (0.25, 1.5), (1, 1): (-float("inf"), 1.5)}
    with Archive(path, {**BASIS, "search": ["b.json", 7, 7]}) as other:
        assert other.outcomes([(0, 1)]) == {}
        other.put(*evaluated(0, 1, ap=0.5), seed=0)
    assert held.outcomes([(0, 1)]) == {(0, 1): (0.25, 1.5)}
    with Archive(path, dict(reversed(BASIS.items()))) as again:  # the order of keys says nothing
        assert again.outcomes([(0, 1)]) == {(0, 1): (0.25, 1.5)}


def test_what_was_evaluated_twice_at_once_is_kept_once(held: Archive, path: Path) -> None:
    with Archive(path, BASIS) as other:
        other.put(*evaluated(0, 1, ap=0.75), seed=4)
    assert held.outcomes([(0, 1)]) == {(0, 1): (0.25, 1.5)} and len(rows(path)) == 2


def test_what_was_known_at_a_time_can_be_told_later(held: Archive) -> None:
    last = held.last
    held.put(*evaluated(2, 2, ap=0.5), seed=0)
    assert held.until(last) == [((0, 1), 0.25)]  # without the one that gave no number
    assert held.until(held.last) == [((0, 1), 0.25), ((2, 2), 0.5)]
    assert held.until(0) == []


def test_a_run_directory_names_its_archive(tmp_path: Path) -> None:
    assert find_archive(tmp_path) == tmp_path / "archive.sqlite"
    assert find_archive(tmp_path / "other.sqlite") == tmp_path / "other.sqlite"


def _write_for_ever(path: Path) -> None:
    with Archive(path, BASIS) as archive:
        for number in range(10**6):
            archive.put(*evaluated(number), seed=0)


@pytest.mark.parametrize("after_ms", [0, 3, 40, 200])
def test_a_kill_at_any_moment_leaves_whole_rows(path: Path, after_ms: int) -> None:
    writer = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path,))
    writer.start()
    while not path.exists():
        time.sleep(0.0005)
    time.sleep(after_ms / 1000)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with Archive(path, BASIS) as archive:
        archive.put(*evaluated(10**7), seed=0)
    genomes = [int(row["genome"]) for row in rows(path)]
    assert genomes == [*range(len(genomes) - 1), 10**7]
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_a_locked_archive_is_named_after_a_while(held: Archive, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OfaPoseError, match=r"archive\.sqlite: is locked by another process .waited 0\.2 s.*--resume"):
        held.put(*evaluated(5, 5), seed=0)
    with pytest.raises(OfaPoseError, match="is locked by another process"):
        Archive(path, BASIS, locked_s=0.1)
    other.execute("ROLLBACK")
    other.close()
    held.put(*evaluated(5, 5), seed=0)  # it goes on as soon as it may
    assert len(rows(path)) == 3


def test_a_full_disk_is_told_and_nothing_is_lost(held: Archive, path: Path) -> None:
    pages = held._file.execute("PRAGMA page_count").fetchone()[0]
    held._file.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite then raises is what it raises on a full disk
    with pytest.raises(OfaPoseError, match=r"archive\.sqlite: the disk is full; .* kept") as told:
        for number in range(1000):
            held.put(*evaluated(7, number), seed=0)
    assert told.value.exit_code == 1
    kept = rows(path)
    assert [row["genome"] for row in kept[:2]] == ["0-1", "1-1"] and len(kept) == 2 + number
    held._file.execute("PRAGMA max_page_count = 100000")
    held.put(*evaluated(9, 9), seed=0)
    assert len(rows(path)) == len(kept) + 1


@pytest.mark.parametrize("content", [b"order,generation\n1,0\n", b"SQLite format 3\0", b"\0" * 4096])
def test_what_is_no_archive_is_refused_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"archive\.sqlite: is not an archive of a search, or damaged; restore it"):
        Archive(path, BASIS)
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused_untouched(path: Path) -> None:
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE evaluations (a)")
    file.commit()
    file.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="is not an archive of a search"):
        Archive(path, BASIS)
    assert path.read_bytes() == before


def test_a_damaged_archive_is_refused_untouched(path: Path) -> None:
    with Archive(path, BASIS) as archive:
        for number in range(200):
            archive.put(*evaluated(number), seed=0)
    whole = path.read_bytes()
    for damaged in (
        whole[:5000],
        whole[:8192] + b"\xff" * 8192 + whole[16384:],
        whole[:100] + b"\x99" * 200,
        whole.replace(b"NOT NULL,", b"NOT NULL\xff"),  # the schema
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"archive\.sqlite: is damaged"):
            Archive(path, BASIS)
        assert path.read_bytes() == damaged
        assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_an_archive_of_another_format_is_refused_untouched(path: Path) -> None:
    with Archive(path, BASIS) as archive:
        archive._file.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(InputError, match="is an archive of format 2, this version of ofa-pose reads 1"):
        check_archive(path)
    assert path.read_bytes() == before


def test_a_file_that_was_killed_before_its_first_transaction_is_taken(path: Path) -> None:
    path.touch()
    with Archive(path, BASIS) as archive:
        archive.put(*evaluated(1), seed=0)
    assert len(rows(path)) == 1


def test_places_that_cannot_hold_an_archive_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/a\.sqlite: cannot be written .*choose another --archive"):
        Archive(tmp_path / "nowhere" / "a.sqlite", BASIS)
    with pytest.raises(InputError, match="cannot be read"):
        check_archive(tmp_path)


@pytest.mark.parametrize("but", range(4))
@pytest.mark.parametrize("is_new", [False, True])
def test_too_few_handles_are_not_a_place_that_cannot_hold_an_archive(path: Path, but: int, is_new: bool) -> None:
    if not is_new:
        Archive(path, BASIS).__exit__(None, None, None)
    try:
        with no_more_files(but), Archive(path, BASIS | {"search": []}):
            pass
    except OSError as error:
        assert (error.errno, error.filename) == (errno.EMFILE, str(path))
    Archive(path, BASIS).__exit__(None, None, None)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("genome", "0-x", "invalid literal"),
        ("genome", b"\xff", "bytes"),
        ("genome", "0-1", "genome of 2 genes for a space of"),
        ("genome", "-".join("9" * len(small_space().genes)), "is outside the space"),
        ("AP", "many", "'many' is not a number"),
        ("AP", b"1", "not a number"),
        ("AP", float("inf"), "inf is not a number"),
        ("AP", 1.5, "1.5 is not an AP"),
        ("AP", -0.1, "-0.1 is not an AP"),
    ],
)
def test_a_row_that_another_program_wrote_is_named(
    held: Archive, path: Path, column: str, value: Any, words: str
) -> None:
    space = small_space()
    genome = "-".join("0" * len(space.genes))
    with sqlite3.connect(path) as file:
        file.execute("UPDATE evaluations SET genome = ? WHERE id = 1", (genome,))
        file.execute(f"UPDATE evaluations SET {column} = ? WHERE id = 1", (value,))
    file.close()
    with pytest.raises(InputError, match=rf"archive\.sqlite: evaluation 1 is damaged \(.*{words}.*delete that row"):
        held.until(held.last, space)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER later BEFORE INSERT ON evaluations BEGIN DELETE FROM evaluations; END",
        "CREATE TRIGGER at_once AFTER INSERT ON bases BEGIN DELETE FROM evaluations; END",
        "CREATE VIEW other AS SELECT * FROM evaluations",
    ],
)
def test_what_runs_with_a_write_is_refused_when_opened_and_later(held: Archive, path: Path, statement: str) -> None:
    before = [tuple(row) for row in rows(path)]
    with sqlite3.connect(path) as file:
        file.execute(statement)
    file.close()
    with pytest.raises(InputError, match=r"archive\.sqlite: holds a (trigger|view), '.*', which no archive does"):
        Archive(path, {"sha256": "another"})
    with pytest.raises(InputError, match="which no archive does"):
        held.put(*evaluated(0, 2), seed=3)
    assert [tuple(row) for row in rows(path)] == before


@pytest.mark.parametrize(("column", "value"), [("AP", 7.0), ("AP", -1.0), ("seconds", -5.0)])
def test_an_outcome_that_cannot_be_is_named(held: Archive, path: Path, column: str, value: Any) -> None:
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE evaluations SET {column} = ?", (value,))
    file.close()
    with pytest.raises(InputError, match=rf"evaluation 1 is damaged \({value} is not a"):
        held.outcomes([(0, 1)])


@pytest.mark.parametrize(("column", "value"), [("AP", "x"), ("seconds", b""), ("seconds", "later")])
def test_an_outcome_that_is_no_number_is_named(held: Archive, path: Path, column: str, value: Any) -> None:
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE evaluations SET {column} = ?", (value,))
    file.close()
    with pytest.raises(InputError, match=r"evaluation 1 is damaged \(.* is not a number\)"):
        held.outcomes([(0, 1)])


def test_an_ap_that_is_not_that_of_its_metrics_is_not_believed(held: Archive, path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("UPDATE evaluations SET AP = 0.26 WHERE AP = 0.25")
    file.close()
    for read in (lambda: held.outcomes([(0, 1)]), lambda: held.until(9)):
        with pytest.raises(InputError, match=r"evaluation 1 is damaged \(its AP 0.26 is not that of its metrics\)"):
            read()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE evaluations SET metrics = ?", (f'{{"AP": {10**400}}}',))
    file.close()
    with pytest.raises(InputError, match=r"evaluation 1 is damaged \("):
        held.until(9)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of POSIX")
def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or a device, not a file"):
        Archive(tmp_path / "pipe", BASIS)
