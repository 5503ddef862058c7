"""Folders that are there whole or not at all, and folders for what is needed for a moment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import check_folder, naming, temporary_folder

_LEFT = ".ofa-pose-"  # in the names of the folders that `temporary_folder` makes


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; when that went well it is `path`, which is not there yet or is empty.

    A process that is killed leaves nothing that the next one takes for somebody's. An empty folder stays the one that
    it is, which may be where a disk is mounted: it gets what was written into a folder inside it.

    Raises:
        InputError: `path` holds something, at the beginning or the end, or is a file.
    """
    check_empty(path)
    filled = path.is_dir()
    place = path / (path.absolute().name or "new") if filled else path
    with naming(path, instead_of=place), temporary_folder(place) as folder:
        yield folder
        check_empty(path)
        if not filled:
            folder.replace(path)
            return
        for part in sorted(folder.iterdir()):
            part.replace(path / part.name)


def check_empty(path: Path, hint: str = "name a new folder for --out") -> None:
    """Raise InputError where a folder holds something, but for what a killed process left, or `path` is a file."""
    check_folder(path)
    if path.is_dir() and any(not (one.name.startswith(".") and _LEFT in one.name) for one in path.iterdir()):
        raise InputError("is not empty", path, hint)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this user alone where the system keeps temporary files, removed at the end.

    So is what a killed process left of its own. A full disk is said of there.
    """
    with temporary_folder(Path(tempfile.gettempdir(), "ofa-pose")) as folder:
        private = folder / "files"
        private.mkdir(mode=0o700)
        yield private
