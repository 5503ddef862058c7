"""Reading and writing files so that nothing is ever half-written and every fault names its file."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import itertools
import json
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ofa_pose.utils.atomic import replacing, scratch_folder
from ofa_pose.utils.errors import InputError, is_used_up, nearest

DEEPEST = 100  # levels of a JSON or YAML file; what goes through its values does so level by level
LONGEST_YAML = 1 << 20  # characters, which PyYAML takes some ten seconds for
LONGEST_TEXT = 4 << 30  # bytes of a text file; COCO's largest has half a gigabyte
SURROGATE = re.compile("[\ud800-\udfff]")  # in a text: what is not Unicode; of a path, a byte that is not UTF-8
HEAD = 4096  # bytes of a file that are looked at first
STUDIES = "recipes/studies"  # the folder of the shipped studies
LONGEST_INT = 1000  # bits, of which a float has room for 1024
MOST_VALUES = 1_000_000  # lists and mappings of a YAML file, whose aliases can make many of a few lines

_OTHERWISE = ("timestamp", "int", "float")  # not as PyYAML sees them: 2024-01-01 and 1:30 are text, as in YAML 1.2
_INT = re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^([-+]?(([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|"
    r"\.(inf|Inf|INF))|\.(nan|NaN|NAN))$"
)
_TAGGED = (ValueError, OverflowError, LookupError)  # what PyYAML raises where a value is not of the tag it is given

# What the standard library's reader of zip files raises for damaged bytes; and an OSError without a number.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
)
_TOO_DEEP = f"is nested too deeply, more than {DEEPEST} levels"
_NO_TEXT, _NAME_TEXT = "is not a text file", "name a UTF-8 text file"
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_NUMBERS = {int, float}
_PACKAGE = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def in_utf8(*paths: Path) -> Iterator[tuple[str, ...]]:
    """Paths of files to be read or written, as text for libraries that take UTF-8 alone: links where they are none."""
    if not any(SURROGATE.search(str(path)) for path in paths):
        yield tuple(map(str, paths))
        return
    with scratch_folder() as folder:
        suffixes = [path.suffix.encode(errors="ignore").decode() for path in paths]
        links = [folder / f"model{suffix}" for suffix in suffixes]
        for link, path in zip(links, paths, strict=True):
            link.symlink_to(path.absolute())
        yield tuple(map(str, links))


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` at once or not at all; what UTF-8 cannot hold, as Python writes it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: str | Path, content: bytes | memoryview, lasting: bool = True) -> None:
    """Write `content` to `path` at once or not at all; `lasting`: see `replacing`."""
    with replacing(path, lasting) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> None:
    """Write `value` as JSON to `path` at once or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_text(path: str | Path, most: int = LONGEST_TEXT) -> str:
    """The text of `path`. Raises InputError where it is missing, no text, or of more than `most` bytes."""
    with _opened(path, most) as file:
        return io.TextIOWrapper(file, encoding="utf-8-sig").read()  # Windows' tools write a byte order mark


def read_json_lines(path: str | Path) -> list[tuple[str, Any]]:
    """The lines of a file with the JSON value of each: None of one that a loss of power or a kill has damaged.

    Raises InputError where it is missing.
    """
    return [(line, _json_of_line(line)) for line in _read_lines(path)]


def _json_of_line(line: str) -> Any:
    if _REPLACED in line:  # within a string, too
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_lines(path: str | Path) -> list[str]:
    """The lines of a file, bytes that are not UTF-8 replaced; the last one, often empty, is the part without an end."""
    with _opened(path, LONGEST_TEXT, damaged=True) as file:
        return io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace").read().split("\n")


def check_text(path: str | Path, most: int = LONGEST_TEXT, damaged: bool = False) -> None:
    """Raise InputError where `path` is missing, or has more than `most` bytes: unread yet.

    Or where it begins as no text does, unless it may be damaged.
    """
    with _opened(path, most, damaged):
        pass


@contextlib.contextmanager
def _opened(path: str | Path, most: int, damaged: bool = False) -> Iterator[BinaryIO]:
    with reading(path), Path(path).open("rb") as file:
        head = file.read(HEAD)
        if head and not damaged and not head.strip(b"\0"):  # what a loss of power leaves ends in such
            raise InputError(_NO_TEXT, path, _NAME_TEXT)
        if os.fstat(file.fileno()).st_size > most:
            raise InputError(f"is text of more than {most >> 20:,} MB", path, "name another file, or a part of it")
        file.seek(0)
        yield file


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """The system's errors in it as InputError of the file `path`, but for what the machine has no more of."""
    check_regular(path)
    try:
        yield
    except FileNotFoundError:
        raise InputError("no such file", path, "check the path") from None
    except IsADirectoryError:
        raise InputError("is a folder, not a file", path, "name the file") from None
    except UnicodeDecodeError:
        raise InputError(_NO_TEXT, path, _NAME_TEXT) from None
    except OSError as error:
        if is_used_up(error):
            raise
        raise InputError(f"cannot be read ({error.strerror})", path, "check its permissions") from None


def check_regular(path: str | Path) -> None:
    """Raise InputError where `path` is a pipe, a device or a socket, which may give nothing or never end."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError:  # what opens it says it
        return
    except ValueError:
        raise InputError("holds a NUL, which no path does", str(path), "check the path") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError("is a pipe or a device, not a file", path, "name a file on a disk")


def read_json(path: str | Path) -> Any:
    """The value in the JSON file `path`. Raises InputError naming file, line and column."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise InputError(f"is not valid JSON ({error.msg})", where, "write the file again") from None
    except RecursionError:
        raise InputError(_TOO_DEEP, path, "write the file again") from None
    except ValueError:  # an integer of more digits than Python takes
        raise InputError("holds a number too long to be read", path, "write the file again") from None
    check_depth(value, path)
    return value


def read_csv(path: str | Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """The columns and the rows of a CSV file, without a last line that is still being written. Raises InputError.

    Bytes that are not UTF-8 are replaced: where they are shows which rows are damaged.
    """
    reader = csv.DictReader(_read_lines(path)[:-1])
    try:
        return reader.fieldnames or (), [*reader]
    except csv.Error as error:
        raise InputError(f"is not a table that can be read ({error})", path, "restore it, or write it again") from None


def check_depth(value: Any, where: object, most: int | None = None) -> None:
    """Raises InputError where a value has more than `DEEPEST` levels of dicts and lists, or more than `most` of these.

    Those in a list of numbers by its ends are not counted: some files hold millions of such lists.
    """
    level, count = [value], 0
    for _ in range(DEEPEST):
        inner = (one for holder in level for one in _contents(holder) if isinstance(one, list | dict))
        level = list(inner if most is None else itertools.islice(inner, most))
        count += len(level)
        if most is not None and count >= most:
            raise InputError("stands for far too many values", where, "write its aliases (&, *) out")
        if not level:
            return
    raise InputError(_TOO_DEEP, where, "write it with fewer levels")


def _contents(holder: Any) -> Iterable[Any]:
    if isinstance(holder, dict):
        return holder.values()
    numbers = not isinstance(holder, list) or (holder and {type(holder[0]), type(holder[-1])} <= _NUMBERS)
    return () if numbers else holder


def parse_yaml(text: str, where: object) -> Any:
    """The value of a YAML text. Raises InputError naming `where` and the line."""
    import yaml  # here: a device that only runs a model has no PyYAML

    if len(text) > LONGEST_YAML:
        raise InputError("is YAML of more than 1 MB", where, "name another file")
    try:
        value = yaml.load(text, Loader=_yaml_side("SafeLoader"))  # noqa: S506  (a subclass of SafeLoader)
    except RecursionError:
        raise InputError(_TOO_DEEP, str(where), "write it again") from None
    except (yaml.YAMLError, *_TAGGED) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else str(where)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"is not valid YAML ({problem})", place, "correct that line") from None
    check_depth(value, where, MOST_VALUES)
    return value


def read_yaml(path: str | Path) -> Any:
    """The value in the YAML file `path`. Raises InputError naming the file and line."""
    return parse_yaml(read_text(path, 4 * LONGEST_YAML), path)  # a character has four bytes at most


def dump_yaml(value: Any) -> str:
    """`value` as YAML text, keys in the order given, short lists on one line."""
    import yaml

    dumper = _yaml_side("SafeDumper")
    return yaml.dump(value, Dumper=dumper, sort_keys=False, default_flow_style=None, width=100)


def _refused_tag(_: Any, node: Any) -> None:
    import yaml

    raise yaml.constructor.ConstructorError(None, None, f"!!{node.tag.rpartition(':')[2]} is not read", node.start_mark)


def _number(construct: Callable[[Any, Any], Any], loader: Any, node: Any) -> Any:
    import yaml

    is_long = isinstance(node.value, str) and len(node.value) > LONGEST_INT
    value = None if is_long else construct(loader, node)
    if is_long or (isinstance(value, int) and value.bit_length() > LONGEST_INT):
        raise yaml.constructor.ConstructorError(None, None, "a number is too large", node.start_mark)
    return value


@functools.cache
def _yaml_side(name: str) -> Any:
    """PyYAML's safe loader or dumper, to which `1e-3` is a number, as YAML 1.2 has it, and no string."""
    import yaml

    side: Any = type(name, (getattr(yaml, name),), {})
    if name == "SafeLoader":
        side.yaml_implicit_resolvers = {
            first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in _OTHERWISE]
            for first, pairs in side.yaml_implicit_resolvers.items()
        }
        side.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
        for kind in ("timestamp", "set", "binary", "omap", "pairs"):
            side.add_constructor(f"tag:yaml.org,2002:{kind}", _refused_tag)
        for kind in ("int", "float"):
            construct = functools.partial(_number, getattr(yaml.SafeLoader, f"construct_yaml_{kind}"))
            side.add_constructor(f"tag:yaml.org,2002:{kind}", construct)
        side.flatten_mapping = _flatten
    side.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return side


def _flatten(loader: Any, node: Any) -> None:
    """Put what a mapping merges (`<<`) into it: the merges of merges can make millions of values of a few lines."""
    import yaml

    yaml.SafeLoader.flatten_mapping(loader, node)
    loader.merged = getattr(loader, "merged", 0) + len(node.value)
    if loader.merged > MOST_VALUES:
        raise yaml.constructor.ConstructorError(None, None, "stands for far too many values", node.start_mark)


def folded(path: Path) -> str:
    """What a file system that knows no case takes a path for."""
    return str(path).lower()


def real(path: str | Path) -> Path:
    """The file or folder that a path leads to, absolute; of links in a circle, which Path.resolve fails of, one."""
    return Path(os.path.realpath(path))


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes. Raises InputError where it cannot be read."""
    with reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_folder(kind: str) -> Path:
    """The folder of shipped `kind` ('recipes', `STUDIES`, 'search_spaces'): in an installed package, else beside it."""
    for folder in (_PACKAGE / kind, _PACKAGE.parent / kind):
        if any(folder.glob("*.yaml")):
            return folder
    raise InputError(f"the shipped {kind} are missing", _PACKAGE, "install ofa-pose again")


def shipped_weights() -> dict[str, Path]:
    """The checkpoints that ship with the package, by name."""
    return {path.stem: path for path in sorted((_PACKAGE / "weights").glob("*.pt"))}


def find_yaml(kind: str, name: str | Path) -> Path:
    """The path of a YAML file given as a path or as the name of a shipped one, with or without '.yaml'."""
    path = Path(name)
    if path.is_file():
        return path
    folder = shipped_folder(kind)
    shipped = folder / (path.name if path.suffix == ".yaml" else f"{path.name}.yaml")
    if shipped.is_file() and path.parent == Path("."):
        return shipped
    names = [file.stem for file in folder.glob("*.yaml")]
    label = "study" if kind == STUDIES else kind.removesuffix("s").replace("_", " ")
    raise InputError(f"no such {label}: '{name}'", hint=nearest(path.stem, names))
