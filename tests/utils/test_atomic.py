"""Folders are whole or not there, also where they lay empty before, and a killed process's temporary ones go."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ofa_pose.formats.reading import unpacked
from ofa_pose.utils import atomic
from ofa_pose.utils.atomic import new_folder, scratch_folder
from ofa_pose.utils.errors import InputError
from tests.limits import largest_file

KILLED = """
import os, sys
from pathlib import Path
from ofa_pose.utils.atomic import {name}
with {name}({path}) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), 9)
"""


def killed_in(name: str, path: str) -> None:
    """Let a process fill a folder and be killed."""
    assert subprocess.run([sys.executable, "-c", KILLED.format(name=name, path=path)]).returncode == -9


@contextmanager
def temporary_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In it the system keeps temporary files in a folder."""
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder


@pytest.mark.parametrize("empty", [False, True])
def test_what_a_killed_process_left_does_not_make_a_new_folder_somebodys(tmp_path: Path, empty: bool) -> None:
    path = tmp_path / "out"
    if empty:
        path.mkdir()
    killed_in("new_folder", f"Path({str(path)!r})")
    assert len([one for one in tmp_path.rglob("half") if one.is_file()]) == 1
    with new_folder(path) as folder:
        (folder / "whole").write_text("whole")
        (folder / "more").mkdir()
    assert {one.name for one in path.iterdir()} == {"whole", "more"} and [*tmp_path.iterdir()] == [path]


def test_an_empty_folder_stays_the_one_that_it_is(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.mkdir()
    before = path.stat().st_ino
    with new_folder(path) as folder:
        (folder / "a").touch()
        assert not (path / "a").exists() and folder.parent == path
    assert path.stat().st_ino == before and [one.name for one in path.iterdir()] == ["a"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(InputError, match="is not empty; name a new folder"), new_folder(path):
        path.mkdir()
        (path / "another's").touch()
    with pytest.raises(InputError, match="is not empty"), new_folder(path):
        pytest.fail("it began")
    assert [one.name for one in tmp_path.rglob("*")] == ["out", "another's"]


def test_a_full_disk_is_said_of_the_folder_that_was_meant(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path):
        with largest_file(4096), pytest.raises(OSError, match="too large") as error, new_folder(path):
            raise RuntimeError("iostream error")
        assert error.value.filename == str(path) and not [*tmp_path.iterdir()]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(ZeroDivisionError), new_folder(path) as folder:
            (folder / "a").touch()
            raise ZeroDivisionError
    assert [*tmp_path.rglob("*")] == [tmp_path / "empty"]


def test_a_zip_file_that_a_killed_process_unpacked_goes_when_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.json", "{}")
    with temporary_files(tmp_path / "tmp", monkeypatch) as kept:
        killed_in("scratch_folder", "")
        assert [*kept.rglob("half")]
        with unpacked(tmp_path / "a.zip", with_images=True) as folder, scratch_folder() as other:
            assert folder.is_relative_to(kept) and other != folder and not [*kept.rglob("half")]
            assert (folder / "a.json").read_text() == "{}"
            assert os.stat(folder).st_mode & 0o777 == 0o700
        assert not [*kept.iterdir()]


@pytest.mark.skipif(atomic.fcntl is None, reason="there are no locks")
def test_who_waits_for_a_file_that_is_removed_gets_the_next_one(tmp_path: Path) -> None:
    path, got, end = tmp_path / "lock", threading.Event(), threading.Event()

    def wait() -> None:
        with atomic.locked(path, 10.0) as free:
            assert free and path.exists()
            got.set()
            end.wait(30.0)

    waiting = threading.Thread(target=wait, daemon=True)
    with atomic.locked(path, 0.0) as free:
        assert free
        waiting.start()
        assert not got.wait(0.3)
        path.unlink()
    assert got.wait(5.0) and atomic.is_locked(path)  # a file of that name, not the one that is gone
    end.set()
    waiting.join()


def test_a_folder_that_is_gone_meanwhile_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(FileNotFoundError) as caught, atomic.locked_in(path, 5.0):
        pass
    assert not path.exists() and caught.value.filename == str(path)
    path.mkdir()
    with atomic.locked_in(path, 0.0) as free:
        assert free
        shutil.rmtree(path)
        with pytest.raises(FileNotFoundError), atomic.locked_in(path, 5.0):
            pass
    assert not path.exists()


@pytest.mark.skipif(atomic.fcntl is None, reason="there are no locks")
@pytest.mark.parametrize("lock", [atomic.locked, atomic.locked_beside, atomic.locked_in])
def test_a_lock_holds_where_only_what_may_be_written_to_can_be_locked(
    lock: Callable[..., AbstractContextManager[bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_what_may_be_written_to(monkeypatch)
    path = tmp_path if lock is atomic.locked_in else tmp_path / "a"
    for _ in range(2):
        with lock(path, 0.0) as first, lock(path, 0.0) as second:
            assert first and not second
    assert [one.name for one in tmp_path.iterdir()] == (["a"] if lock is atomic.locked else [])


@pytest.mark.skipif(atomic.fcntl is None, reason="there are no locks")
def test_there_too_the_next_attempt_at_a_file_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_what_may_be_written_to(monkeypatch)
    (tmp_path / ".a.ofa-pose-0.txt").write_text("half")
    with atomic.replacing(tmp_path / "a.txt") as temporary, atomic.replacing(tmp_path / "a.txt") as other:
        temporary.write_text("a")
        other.write_text("b")
        assert temporary.name == ".a.ofa-pose-0.txt" and other.name == ".a.ofa-pose-1.txt"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "a")]


def only_what_may_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be locked as NFS does it: for itself alone only what a process has open to write to."""
    import fcntl

    real = fcntl.flock

    def flock(handle: int, how: int) -> None:
        if how & fcntl.LOCK_EX and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_file_that_is_gone_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    opened, real = [], os.open

    def gone(name: Path, *given: int) -> int:
        handle = real(name, *given)
        opened.append(handle)
        os.unlink(name)
        return handle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", gone)
        with atomic.locked(path, 0.3) as free:
            assert free is False
    assert len(opened) > 1


MANY = """
import sys
from ofa_pose.utils.atomic import scratch_folder
for _ in range(200):
    with scratch_folder() as folder:
        (folder / "a").write_text("a")
"""


@pytest.mark.skipif(atomic.fcntl is None, reason="there are no locks")
def test_many_processes_have_scratch_folders_of_their_own(tmp_path: Path) -> None:
    call, environment = [sys.executable, "-c", MANY], {**os.environ, "TMPDIR": str(tmp_path)}
    processes = [subprocess.Popen(call, env=environment, stderr=subprocess.PIPE) for _ in range(5)]
    assert [process.communicate()[1] for process in processes] == [b""] * 5
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files")
def test_what_lies_where_a_scratch_folder_would_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        place = folder
        assert folder.stat().st_mode & 0o777 == 0o700
    os.mkfifo(place)
    with scratch_folder() as folder:
        assert folder.is_dir()
    monkeypatch.setattr(Path, "unlink", _refused)
    if place.exists():
        os.remove(place)
    place.write_text("another user's")
    with scratch_folder() as folder:
        assert folder != place and place.read_text() == "another user's"


def _refused(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_parts_that_lead_to_others_come_last_and_a_new_disk_counts_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost+found").mkdir()
    moved, real = [], Path.replace

    def replace(path: Path, target: Path) -> Path:
        moved.append(path.name)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with new_folder(tmp_path, ("index.html",)) as folder:
        (folder / "index.html").touch()
        (folder / "models.bin").touch()
    assert moved == ["models.bin", "index.html"]
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "models.bin", "lost+found"}


def test_a_fault_of_a_file_that_is_not_there_keeps_its_name() -> None:
    with pytest.raises(FileNotFoundError, match="none"), scratch_folder() as folder:
        (folder / "none").read_text()
