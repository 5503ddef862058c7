"""Files and folders that are there whole or not at all, and such as one process has for itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from ofa_pose.utils.errors import InputError, is_used_up

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOM = 1 << 20  # bytes that a disk which is not full has room for
AT_ONCE = 8  # files that a library writes at a time, at most
_LEFT = ".ofa-pose-"  # in the name of whatever is temporary
LOCK = f"{_LEFT}lock"  # in a folder that a process has for itself
_OF_DISKS = "lost+found"  # lies in the uppermost folder of a new disk


@contextlib.contextmanager
def replacing(path: str | Path, lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, else removed.

    What a killed process left of its attempt at the same file goes; what another one writes just now stays.

    Args:
        lasting: wait for the disk, so that a loss of power leaves what was there or what is new.
    """
    path = Path(path)
    check_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _claim(path, _make_file)
    except OSError as error:  # name the file that was meant, not the temporary one
        raise type(error)(error.errno, error.strerror, str(path)) from None
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    try:
        with naming(path, instead_of=temporary):
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != mode:  # of a library that made the file anew
                temporary.chmod(mode)
            if lasting:
                _sync(temporary)
            temporary.replace(path)
        if lasting:
            with contextlib.suppress(OSError):  # not every file system has this for folders
                _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming(path: str | Path, instead_of: Path | None = None) -> Iterator[None]:
    """An OSError in it that names no file, as a write's on a full disk, or a temporary one, names `path`.

    Args:
        instead_of: the temporary file, or the folder that it is in.
    """
    try:
        yield
    except OSError as error:
        inside = error.filename is None or (instead_of is not None and names_file_in(instead_of, error))
        if error.errno is None or not inside:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def names_file_in(folder: Path, error: OSError) -> bool:
    """Whether an exception names a folder, or what is in it."""
    return isinstance(error.filename, str | Path) and Path(error.filename).is_relative_to(folder)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, removed at the end where it was not renamed; so is what a killed process left of it.

    Renamed to `path`, it has the usual permissions. What fails in it because of a full disk raises an OSError that
    names `path`: libraries speak of that in words of their own.
    """
    with _folder_for(path) as folder, naming(path, instead_of=folder), _words_of_its_own(folder):
        yield folder


@contextlib.contextmanager
def _folder_for(given: Path) -> Iterator[Path]:
    path = given.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, handle = _claim(path, _make_folder)
    except OSError as error:  # name the folder that was meant, not the temporary one
        raise type(error)(error.errno, error.strerror, str(given)) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def _words_of_its_own(folder: Path) -> Iterator[None]:
    """Where a library fails in a folder that holds no more, raise the OSError that says so."""
    try:
        yield
    except Exception:
        if folder.exists():  # else it was renamed already
            with contextlib.ExitStack() as opened:
                for number in range(AT_ONCE):
                    file = opened.enter_context((folder / f"room{number}").open("wb"))
                file.write(bytes(ROOM))
        raise


def _claim(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new temporary file or folder for `path`, and its handle, which locks it while it is open.

    The lock ends with the process, however that ends: what is there and not locked was left by a killed one.
    """
    numbers = itertools.count()
    while True:
        temporary = path.with_name(f".{path.stem}{_LEFT}{next(numbers)}{path.suffix}")
        _remove_left(temporary)
        try:
            return temporary, make(temporary)
        except FileExistsError:
            continue


def _make_file(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # less what the umask takes
    return _locked(path, handle)


def _make_folder(path: Path) -> int:
    path.mkdir()
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise FileExistsError from None
    return _locked(path, handle)


def _locked(path: Path, handle: int) -> int:
    """The handle, locked. Raises FileExistsError where another process was faster, which took it for left."""
    if _lock(handle) is False or not _is_open(path, handle):
        os.close(handle)
        raise FileExistsError
    return handle


def _remove_left(path: Path) -> None:
    """Remove a temporary file or folder that a killed process left."""
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS locks only what may be written to
    try:
        handle = os.open(path, how | getattr(os, "O_NONBLOCK", 0))  # somebody's pipe would be waited for
    except OSError:  # as a rule: there is none
        return
    try:
        if _lock(handle) and _is_open(path, handle):
            with contextlib.suppress(OSError):  # another user's
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_folder(path: Path, last: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to fill; when that went well it is `path`, which is not there yet or is empty.

    A process that is killed leaves nothing that the next one takes for somebody's. An empty folder stays the one that
    it is, which may be where a disk is mounted: it gets what was written into a folder inside it, part by part.

    Args:
        last: names of parts that lead to the others; they come when those are there.

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
        for part in sorted(folder.iterdir(), key=lambda part: (part.name in last, part.name)):
            part.replace(path / part.name)


def check_empty(path: Path) -> None:
    """Raise InputError where a folder holds something, but for what a killed process left, or `path` is a file."""
    check_folder(path)
    if path.is_dir() and holds_something(path):
        raise InputError("is not empty", path, "name a new folder for --out")


def holds_something(folder: Path) -> bool:
    """Whether a folder holds more than a lock and what a killed process left."""
    names = (one.name for one in folder.iterdir())
    return any(name != _OF_DISKS and not (name.startswith(".") and _LEFT in name) for name in names)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this user alone where the system keeps temporary files, removed at the end.

    So is what a killed process left of its own. A full disk is said of there.
    """
    user = os.getuid() if hasattr(os, "getuid") else ""
    place = Path(tempfile.gettempdir(), f"ofa-pose-{user}")
    with _folder_for(place) as folder:
        folder.chmod(0o700)
        try:
            with _words_of_its_own(folder):
                yield folder
        except OSError as error:
            if not is_used_up(error):
                raise
            with naming(place.parent, instead_of=folder):
                raise


def _lock(handle: int, shared: bool = False) -> bool | None:
    """Whether an open file or folder could be locked, perhaps beside others that share it; None: there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def locked(path: Path, wait_s: float) -> Iterator[bool]:
    """Have a file, made where it is not there, for this process alone; whether that is so.

    It is freed at the end, and when the process ends, however that is. Where a file system has no locks, nobody has it.

    Args:
        wait_s: for another process to free it.
    """
    until = time.monotonic() + wait_s
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks only what may be written to
        try:
            free = _lock(handle) is not False and _is_open(path, handle)
            if not free and time.monotonic() < until:  # opened again, as who had it may have removed it
                time.sleep(0.1)
                continue
            yield free
            break
        finally:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # closing would leave it to a process that was forked meanwhile
                    fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


@contextlib.contextmanager
def locked_beside(path: Path, wait_s: float) -> Iterator[bool]:
    """`locked` for a file that is replaced meanwhile: a hidden one beside it is locked, and removed at the end."""
    with _locked_for(path, path.with_name(f".{path.name}.lock"), wait_s) as free:
        yield free


@contextlib.contextmanager
def locked_in(folder: Path, wait_s: float) -> Iterator[bool]:
    """`locked` for a folder: a hidden file in it is locked, and removed at the end."""
    with _locked_for(folder, folder / LOCK, wait_s) as free:
        yield free


@contextlib.contextmanager
def _locked_for(path: Path, lock: Path, wait_s: float) -> Iterator[bool]:
    with contextlib.ExitStack() as held:
        try:
            free = held.enter_context(locked(lock, wait_s))
        except FileNotFoundError as error:  # the folder is not there; of another user's lock the file itself is named
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
        try:
            yield free
        finally:
            if free:
                with contextlib.suppress(OSError):  # Windows removes nothing that is open
                    lock.unlink(missing_ok=True)


def is_locked(path: Path) -> bool | None:
    """Whether a process has a file that `locked` gives; None where that cannot be seen.

    It looks by a lock that is had for an instant: who waits for the file meanwhile gets it at the next try. Another
    machine's process is seen only where the file system shares its locks.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        free = _lock(handle, shared=True)
        return None if free is None else not free
    finally:
        os.close(handle)


def _is_open(path: Path, handle: int) -> bool:
    """Whether a path still is what was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def check_file(path: Path, hint: str = "name another file") -> None:
    """Raise InputError where `path` is a folder, or a device, which a rename would do away with."""
    if path.exists() and not path.is_file():
        raise InputError("is not a file that can be replaced", path, hint)


def check_folder(path: str | Path) -> None:
    """Raises InputError where `path`, a folder to write into, or one above it is a file."""
    path = Path(path)
    for folder in (path, *path.parents):
        if folder.exists():
            if not folder.is_dir():
                raise InputError("is a file, not a folder", folder, "name another folder to write to")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise InputError("is a folder that cannot be written to", folder, "name another one")
            return


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
