"""The archive: every evaluation in one SQLite file, written as a search takes it in and shared on the same basis.

Any SQLite tool reads it. Each row is a transaction of its own under a rollback journal, which also works on network
disks and leaves a readable file whenever the process is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.subnet_rows import genome_text, read_genome
from ofa_pose.searches.candidates import FitnessOutcome
from ofa_pose.utils.atomic import naming
from ofa_pose.utils.errors import InputError, OfaPoseError, is_used_up
from ofa_pose.utils.files import check_regular
from ofa_pose.utils.result import plain

ARCHIVE = "archive.sqlite"
APPLICATION = 0x6F667061  # 'ofpa', in the file's header
FORMAT = 1
HINT = "restore it, or choose another --archive"
ROUNDED = 1e-9  # share by which a number may be off that went through another program
HANDLES = 3  # the file, its journal and their folder
LOCKED_S = 30.0  # how long another process may hold the file

_SCHEMA = (
    "CREATE TABLE bases (hash TEXT PRIMARY KEY, basis TEXT NOT NULL)",
    "CREATE TABLE evaluations (id INTEGER PRIMARY KEY AUTOINCREMENT, basis TEXT NOT NULL, supernet TEXT,"
    " genome TEXT NOT NULL, spec TEXT NOT NULL, macs_thop INTEGER, macs_exact INTEGER, macs_paper INTEGER,"
    " params INTEGER, latency_ms REAL, metrics TEXT NOT NULL, AP REAL, seconds REAL NOT NULL, seed INTEGER,"
    " time TEXT NOT NULL, UNIQUE (basis, genome))",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)


class Archive:
    """The evaluations on one basis in an archive, open for reading and writing; a context manager."""

    def __init__(self, path: Path, basis: Mapping[str, Any], locked_s: float = LOCKED_S) -> None:
        """Open the file `path`, or make it.

        Args:
            basis: all that an AP rests on, JSON values: the supernet's 'sha256', the data, how it is evaluated.
            locked_s: how long to wait while another process writes.

        Raises:
            InputError: the file is not an archive, damaged, of another format, or cannot be written.
            OfaPoseError: it stays locked, or the disk is full.
        """
        check_archive(path)
        self.path = path
        text = json.dumps(basis, sort_keys=True)
        self._basis, self._supernet = hashlib.sha256(text.encode()).hexdigest(), basis.get("sha256")
        self._locked_s = locked_s
        with self._named_errors(opening=True), contextlib.ExitStack() as failing:
            self._file = sqlite3.connect(path, timeout=locked_s, isolation_level=None)
            failing.callback(self._file.close)
            damage = self._file.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
            with self._transaction():
                if not self._file.execute("PRAGMA application_id").fetchone()[0]:
                    for statement in _SCHEMA:
                        self._file.execute(statement)
                self._file.execute("INSERT OR IGNORE INTO bases VALUES (?, ?)", (self._basis, text))
            failing.pop_all()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def outcomes(self, genomes: Iterable[Genome]) -> dict[Genome, FitnessOutcome]:
        """Fitness (-inf where the AP is not a number) and seconds of the genomes evaluated on this basis."""
        query = "SELECT id, metrics, AP, seconds FROM evaluations WHERE basis = ? AND genome = ?"
        found = {}
        with self._named_errors():
            for genome in genomes:
                row = self._file.execute(query, (self._basis, genome_text(genome))).fetchone()
                if row is not None:
                    number, metrics, ap, seconds = row
                    with self._readable(number):
                        found[genome] = _outcome(ap, seconds)
                        _check_same(ap, metrics)
        return found

    def put(
        self,
        genome: Genome,
        spec: ArchSpec,
        latency_ms: float | None,
        metrics: Mapping[str, Any],
        seconds: float,
        seed: int,
    ) -> FitnessOutcome:
        """Write one evaluation; it is on the disk when this returns. One that is there already stays as it is.

        Args:
            latency_ms: None where it cannot be predicted.
            metrics: plain values; what is not a number is written as null, the AP too.
            seconds: what evaluating it took.
            seed: of the search that asked.

        Returns:
            What `outcomes` will say.

        Raises:
            OfaPoseError: the file stays locked, or the disk is full; nothing that was there is lost.
        """
        shown = plain(metrics)
        costs = [*spec_macs(spec).to_dict().values(), spec_params(spec), latency_ms]
        texts = [genome_text(genome), json.dumps(spec.to_dict())]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        measured = [json.dumps(shown, allow_nan=False), shown["AP"], seconds, seed, now]
        row = [None, self._basis, self._supernet, *texts, *costs, *measured]
        with self._named_errors(), self._transaction():
            self._file.execute(f"INSERT OR IGNORE INTO evaluations VALUES ({', '.join('?' * len(row))})", row)
        return _outcome(shown["AP"], seconds)

    def metrics(self, genome: Genome) -> dict[str, Any]:
        """All metrics of a genome evaluated on this basis, as they were put; none where they cannot be read."""
        query = "SELECT metrics FROM evaluations WHERE basis = ? AND genome = ?"
        with self._named_errors():
            row = self._file.execute(query, (self._basis, genome_text(genome))).fetchone()
        try:
            found = json.loads(row[0]) if row is not None else {}
        except (TypeError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def last(self) -> int:
        """The id of the newest evaluation of all; 0 where there is none."""
        with self._named_errors():
            return int(self._file.execute("SELECT coalesce(max(id), 0) FROM evaluations").fetchone()[0])

    def count_after(self, last: int, genomes: Iterable[Genome]) -> int:
        """How many of the genomes were evaluated on this basis after the evaluation with the id `last`."""
        query = "SELECT genome FROM evaluations WHERE basis = ? AND id > ?"
        with self._named_errors():
            found = {text for (text,) in self._file.execute(query, (self._basis, last))}
        return sum(genome_text(genome) in found for genome in genomes)

    def until(self, last: int, space: SearchSpace | None = None) -> list[tuple[Genome, float]]:
        """Genome and AP of the evaluations on this basis up to the id `last`, in the order they were written.

        Raises InputError where one cannot be read, or where its genome is not one of `space`.
        """
        columns = "id, genome, AP, metrics"
        query = f"SELECT {columns} FROM evaluations WHERE basis = ? AND id <= ? AND AP IS NOT NULL ORDER BY id"
        found = []
        with self._named_errors():
            for number, text, ap, metrics in self._file.execute(query, (self._basis, last)):
                with self._readable(number):
                    genome = read_genome(text)
                    if space is not None:
                        space.check_genome(genome)
                    found.append((genome, _number(ap, "an AP", 1)))
                    _check_same(ap, metrics)
        return found

    @contextlib.contextmanager
    def _readable(self, number: object) -> Iterator[None]:
        """What the cells of a row raise that are none, as an InputError that names it."""
        try:
            yield
        except (ArithmeticError, AttributeError, TypeError, ValueError, InputError) as error:
            what = f"evaluation {number} is damaged ({error})"
            raise InputError(what, self.path, f"delete that row, or {HINT.removeprefix('restore it, or ')}") from None

    def _check_schema(self) -> None:
        """Raise InputError where the file holds more than tables: a trigger would run with what is written."""
        query = "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        for kind, name in self._file.execute(query):
            raise InputError(f"holds a {kind}, {name!r:.60}, which no archive does", self.path, HINT)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            self._check_schema()
            yield
            self._file.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # after a full disk SQLite has done so by itself
                self._file.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _named_errors(self, opening: bool = False) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:  # a damaged schema's message may be no UTF-8
            text, kept = str(error), "what was evaluated before is kept: correct that, then go on with --resume"
            if "locked" in text:
                what = f"{self.path}: is locked by another process (waited {self._locked_s:g} s); {kept}"
                raise OfaPoseError(what) from error
            if "full" in text:
                raise OfaPoseError(f"{self.path}: the disk is full; {kept}") from error
            if opening and isinstance(error, sqlite3.OperationalError):
                _check_handles(self.path)
                raise InputError(f"cannot be written ({text})", self.path, "choose another --archive") from error
            if opening:
                raise InputError(f"is damaged ({text})", self.path, HINT) from error
            raise OfaPoseError(f"{self.path}: cannot be read or written ({text}); {kept}") from error


def _check_handles(path: Path) -> None:
    """Raise an OSError of `path` where fewer files can be opened than SQLite needs, which does not say so."""
    with naming(path, instead_of=Path(os.devnull)), contextlib.ExitStack() as held:
        for _ in range(HANDLES):
            held.enter_context(open(os.devnull, "rb"))


def _check_same(ap: Any, metrics: Any) -> None:
    """Raise ValueError where the AP of a row is not that among its metrics; metrics that cannot be read say nothing."""
    try:
        stated = json.loads(metrics)["AP"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    numbers = all(isinstance(one, int | float) for one in (stated, ap))
    if stated != ap and not (numbers and math.isclose(stated, ap, rel_tol=ROUNDED)):
        raise ValueError(f"its AP {ap!r:.60} is not that of its metrics")


def _outcome(ap: float | None, seconds: float) -> FitnessOutcome:
    return -math.inf if ap is None else _number(ap, "an AP", 1), _number(seconds, "a time")


def _number(value: Any, what: str, most: float = math.inf) -> float:
    """A cell's number, from 0 on. Raises ValueError: SQLite keeps whatever is written into a column."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.60} is not a number")
    if not 0 <= value <= most:
        raise ValueError(f"{value!r:.60} is not {what}")
    return float(value)


def find_archive(path: str | Path) -> Path:
    """The archive's file, given as a file or as the run directory of a search."""
    path = Path(path)
    return path / ARCHIVE if path.is_dir() else path


def check_archive(path: Path) -> None:
    """Refuse a file that is there and not an archive of this format, from its header alone; nothing is touched.

    Raises:
        InputError: it is another file, or an archive of another version of this program.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        if is_used_up(error):
            raise
        raise InputError(f"cannot be read ({error.strerror})", path, "choose another --archive") from None
    if not header:  # killed before its first transaction
        return
    application, version = (int.from_bytes(header[at : at + 4], "big") for at in (68, 60))
    if not header.startswith(b"SQLite format 3\0") or application != APPLICATION:
        raise InputError("is not an archive of a search, or damaged", path, HINT)
    if version != FORMAT:
        what = f"is an archive of format {version}, this version of ofa-pose reads {FORMAT}"
        raise InputError(what, path, "use the version that wrote it, or choose another --archive")
