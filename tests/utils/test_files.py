"""Files are whole or absent, faults name their place, and YAML reads numbers as people write them."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.utils import atomic, files
from ofa_pose.utils.errors import InputError
from tests.limits import largest_file, lowest_free, no_more_files

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_what_fails_on_a_full_disk_names_the_file_that_was_meant(tmp_path: Path) -> None:
    for write in (lambda: files.write_text(tmp_path / "a.txt", "x" * 5000), lambda: in_folder(tmp_path / "a.model")):
        with largest_file(4096), pytest.raises(OSError, match="too large") as error:
            write()
        assert Path(error.value.filename).parent == tmp_path and Path(error.value.filename).stem == "a"
    with pytest.raises(RuntimeError, match="another"), atomic.temporary_folder(tmp_path / "b"):
        raise RuntimeError("another")
    inside = atomic.temporary_folder(tmp_path / "c")
    with largest_file(4096), pytest.raises(OSError, match="too large") as error, inside as folder:
        files.write_text(folder / "part.txt", "x" * 5000)
    assert error.value.filename == str(tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_library_that_could_not_open_its_second_file_is_said_to_have_had_too_few_handles(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = atomic.temporary_folder(tmp_path / "a")
    try:
        with pytest.raises(OSError, match="Too many open files") as error, folder:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free() + 2, hard))
            raise RuntimeError("Can't open xml file")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error.value.filename == str(tmp_path / "a") and not list(tmp_path.iterdir())


def in_folder(path: Path) -> None:
    """What a library does that has words of its own for a full disk."""
    with atomic.temporary_folder(path):
        raise RuntimeError("iostream error")


def test_a_file_that_cannot_be_opened_for_want_of_handles_is_not_called_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with no_more_files(), pytest.raises(OSError, match="Too many open files") as error:
        files.read_json(tmp_path / "a.json")
    assert error.value.filename == str(tmp_path / "a.json") and not isinstance(error.value, InputError)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_makes_folders_and_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "x" / "y" / "a.txt", "né")
    finally:
        os.umask(before)
    path = tmp_path / "x" / "y" / "a.txt"
    assert path.read_bytes() == "né".encode()
    assert path.stat().st_mode & 0o777 == 0o640


HELD = """
import sys, time
from pathlib import Path
from ofa_pose.utils import atomic
with atomic.replacing(sys.argv[1]) as file, atomic.temporary_folder(Path(sys.argv[2])) as folder:
    file.write_text("half")
    (folder / "more").write_text("half")
    print(file.name, folder.name, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_goes_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "out"
    mine = tmp_path / ".model-notes.onnx"
    mine.write_text("a user's")
    running = subprocess.Popen([sys.executable, "-c", HELD, path, out], stdout=subprocess.PIPE, text=True)
    assert running.stdout
    names = running.stdout.readline().split()
    with atomic.replacing(path) as file, atomic.temporary_folder(out) as folder:
        assert {file.name, folder.name}.isdisjoint(names)
        file.write_text("whole")
    assert path.read_text() == "whole"
    assert {one.name for one in tmp_path.iterdir()} == {path.name, mine.name, *names}, "the other one still writes"
    running.kill()
    running.communicate()
    assert (tmp_path / names[1] / "more").exists()
    with atomic.replacing(path) as file, atomic.temporary_folder(out) as folder:
        assert {file.name, folder.name} == {*names}
        assert not file.read_bytes() and not list(folder.iterdir())
    assert {one.name for one in tmp_path.iterdir()} == {path.name, mine.name}


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            files.write_text(tmp_path / "a.txt", f"{number}" * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert set((tmp_path / "a.txt").read_text()) < set("01234567") and len((tmp_path / "a.txt").read_text()) == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("lasting", [True, False])
def test_a_file_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    path, synced = tmp_path / "a.txt", list[tuple[bool, bool]]()
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((path.exists(), os.path.isdir(f"/dev/fd/{handle}"))))
    with atomic.replacing(path, lasting) as temporary:
        temporary.write_text("x")
    assert synced == ([(False, False), (True, True)] if lasting else [])


def test_permissions_are_the_usual_ones_whoever_makes_the_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic.replacing(tmp_path / "a.txt") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic.temporary_folder(tmp_path / "b") as folder:
            folder.replace(tmp_path / "b")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, None]})
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": [1, None]}


def test_reading_faults_name_the_file_and_the_place(tmp_path: Path) -> None:
    missing, binary, bad = tmp_path / "no.json", tmp_path / "b.json", tmp_path / "c.json"
    binary.write_bytes(b"\xff\xfe\x00")
    bad.write_text('{"a": 1,\n "b": }')
    for path, words in ((missing, "no such file"), (tmp_path, "folder"), (binary, "not a text file")):
        with pytest.raises(InputError, match=words) as error:
            files.read_json(path)
        assert str(path) in str(error.value)
    with pytest.raises(InputError) as error:
        files.read_json(bad)
    assert f"{bad}:2:7" in str(error.value)
    bad.write_text("a: 1\nb: [1, 2\nc: 3\n")
    with pytest.raises(InputError) as error:
        files.read_yaml(bad)
    assert f"{bad}:3" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[" * 100_000 + "]" * 100_000, "is nested too deeply", id="lists"),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, "is nested too deeply", id="objects"),
        pytest.param('{"a": ' + "9" * 5000 + "}", "a number too long", id="digits"),
    ],
)
def test_json_that_python_cannot_hold_is_an_input_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        files.read_json(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e+3", -2500.0), (".5e1", 5.0), ("1.e2", 100.0), ("3", 3), ("1_0e1", 100.0)]
    + [("1e", "1e"), ("e5", "e5"), ("1.2.3e4", "1.2.3e4"), ("v1e3", "v1e3"), ("'1e3'", "1e3"), ("1e3m", "1e3m")]
    + [("2024-01-01", "2024-01-01"), ("2024-13-45", "2024-13-45"), ("1:30", "1:30"), ("1:30.5", "1:30.5")]
    + [("+1_000", 1000), ("0", 0), ("017", 15), ("08", "08"), ("0x1F", 31), ("-0b11", -3), ("1.", 1.0), ("-.5", -0.5)]
    + [("-.inf", -math.inf), (".5_0", 0.5), ("1_", 1), ("_1", "_1"), (".", "."), ("1e400", math.inf)],
)
def test_yaml_reads_exponents_as_numbers_and_nothing_more(text: str, value: Any) -> None:
    read = files.parse_yaml(f"a: {text}", "x")["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "9" * 400,
        "a: " + "9" * 5000,
        "a: !!timestamp 2024-13-45",
        "a: !!set {b, c}",
        "a: !!binary aGk=",
        "a: !!omap [b: 1]",
        "a: 0x_",
        "- [",
        "a: *b",
        "a: !!python/object:os.system x",
        "\x00",
    ],
)
def test_yaml_that_cannot_be_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="is not valid YAML"):
        files.parse_yaml(text, "recipe.yaml")


@settings(max_examples=60)
@given(st.text(alphabet="ab01-_.:eE+x[]{}!&*#'\" \n", max_size=12))
def test_yaml_of_any_text_gives_a_value_or_an_input_error(text: str) -> None:
    try:
        files.parse_yaml(text, "x")
    except InputError as error:
        assert str(error).startswith("x")


@settings(max_examples=200)
@given(
    st.sampled_from(["int", "float", "bool", "null", "str", "seq", "map", "timestamp", "value", "merge", "x"]),
    st.one_of(
        st.text(alphabet="019-_.:eExb[]{}'", max_size=8),
        st.builds(lambda a, b, n: a + b * n, st.sampled_from(["1", "0x"]), st.sampled_from([":59", "1"]), st.just(500)),
    ),
)
def test_yaml_of_any_tag_gives_a_value_or_an_input_error(tag: str, text: str) -> None:
    try:
        files.parse_yaml(f"a: !!{tag} {text}", "x")
    except InputError as error:
        assert str(error).startswith("x")


@pytest.mark.parametrize("text", ["1" * 10**6 + "x", "1_" * 10**5 + "e", "1" + ":59" * 10**5, "1" + "." * 10**5 + "e"])
def test_a_long_text_that_begins_like_a_number_is_read_at_once(text: str) -> None:
    assert files.parse_yaml(f"a: {text}", "x") == {"a": text}


@pytest.mark.parametrize("digits", ["1" * 10**6, "0x" + "f" * 10**5, "1e" + "9" * 10**5, "!!float 1" + ":59" * 10**5])
def test_a_number_of_very_many_digits_is_refused(digits: str) -> None:
    with pytest.raises(InputError, match=r"x:1: is not valid YAML \(a number is too large\)"):
        files.parse_yaml(f"a: {digits}", "x")


@pytest.mark.parametrize("tag", ["int", "float"])
def test_a_tag_of_a_number_on_a_list_of_lists_is_refused_at_once(tag: str) -> None:
    lists = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(InputError, match="is not valid YAML"):
        files.parse_yaml(f"a0: &a0 [x]\n{lists}z: !!{tag} [*a29]", "x")


def test_merges_of_merges_are_refused_before_they_are_made() -> None:
    begin = "a0: &a0 {x: 1}\n"
    text = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 30))
    with pytest.raises(InputError, match=r"x:\d: is not valid YAML \(stands for far too many values\)"):
        files.parse_yaml(begin + text, "x")
    assert files.parse_yaml(begin + "b: {<<: *a0, y: 2}", "x") == {"a0": {"x": 1}, "b": {"x": 1, "y": 2}}


@settings(max_examples=40)
@given(VALUES)
def test_yaml_round_trip(value: Any) -> None:
    assert files.parse_yaml(files.dump_yaml(value), "x") == value


@pytest.mark.parametrize("text", ["1e-3", "12e4", "-.5e1", "1.5", "true", "null", "2024-01-01"])
def test_yaml_keeps_strings_that_look_like_something_else(text: str) -> None:
    assert files.parse_yaml(files.dump_yaml({"a": text}), "x") == {"a": text}


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"pose" * 1000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"pose" * 1000).hexdigest()


def test_yaml_is_found_by_path_or_by_shipped_name(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("a: 1")
    assert files.find_yaml("search_spaces", own) == own
    shipped = files.shipped_folder("search_spaces") / "litepose-nano.yaml"
    assert files.find_yaml("search_spaces", "litepose-nano") == shipped
    assert files.find_yaml("search_spaces", "litepose-nano.yaml") == shipped
    with pytest.raises(InputError, match="no such search space: 'litepose-nani'; did you mean 'litepose-nano'"):
        files.find_yaml("search_spaces", "litepose-nani")
    with pytest.raises(InputError, match="no such search space"):
        files.find_yaml("search_spaces", tmp_path / "litepose-nano.yaml")


@pytest.mark.parametrize("read", [files.read_json, files.read_yaml])
def test_a_hundred_levels_are_read_and_more_are_refused(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * files.DEEPEST + "[1], 2" + "]" * files.DEEPEST)
    with pytest.raises(InputError, match=r"a\.json: is nested too deeply, more than 100 levels"):
        read(path)
    path.write_text("[" * (files.DEEPEST - 1) + "1" + "]" * (files.DEEPEST - 1))
    value = read(path)
    for _ in range(files.DEEPEST - 1):
        (value,) = value
    assert value == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: &a [*a]", id="a list that holds itself"),
        pytest.param(
            "a0: &a0 [[]]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            id="lists of lists of lists",
        ),
        pytest.param("{a: " * 5000, id="mappings"),
    ],
)
def test_yaml_that_stands_for_far_more_than_it_holds(text: str) -> None:
    with pytest.raises(InputError, match=r"x\.yaml: (is nested too deeply|stands for far too many values)"):
        files.parse_yaml(text, "x.yaml")


def test_yaml_that_would_take_minutes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {'x' * files.LONGEST_YAML}")
    with pytest.raises(InputError, match="is YAML of more than 1 MB"):
        files.read_yaml(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_and_devices_are_no_files_to_read(tmp_path: Path) -> None:
    pipe = tmp_path / "a.json"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        for read in (files.read_text, files.read_json, files.read_yaml, files.sha256):
            with pytest.raises(InputError, match=f"{path}: is a pipe or a device, not a file"):
                read(path)
    with pytest.raises(InputError, match="holds a NUL, which no path does"):
        files.read_text("a\0b")


def test_files_of_no_text_or_too_much_of_it_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.touch()
    os.truncate(path, 1 << 40)  # which takes no room on the disk
    for read in (files.read_text, files.read_json, files.read_yaml):
        with pytest.raises(InputError, match="is not a text file"):
            read(path)
    path.write_text(" " * 4096)
    os.truncate(path, 1 << 40)
    for read, most in ((files.read_text, "4,096"), (files.read_csv, "4,096"), (files.read_yaml, "4")):
        with pytest.raises(InputError, match=f"is text of more than {most} MB"):
            read(path)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder in which none can be made")
def test_where_no_folder_can_be_made_the_one_that_was_meant_is_named() -> None:
    with pytest.raises(OSError) as caught, atomic.temporary_folder(Path("/proc/none")):
        pass
    assert caught.value.filename == "/proc/none"


def test_links_in_a_circle_lead_somewhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert files.real(tmp_path / "a").parent == files.real(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        files.read_text(tmp_path / "a")


def test_it_is_seen_whether_a_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert atomic.is_locked(path) is None
    with atomic.locked(path, 0) as free:
        assert free and atomic.is_locked(path)
    assert atomic.is_locked(path) is False
    with atomic.locked(path, 0) as free:  # looking has left nothing behind
        assert free
