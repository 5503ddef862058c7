"""Damage valid inputs by their structure, and call what reads them: it works, or a few lines say what is wrong."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.fuzz.attempt import FAULT, OK, REFUSED, SECONDS, Outcome, attempt, begin, build
from tests.fuzz.kinds import KINDS
from tests.fuzz.seeds import make_seeds

SHOWN = 12  # of the faults of a kind
START_S = 60  # in which a process has begun
RENEWED = 2000  # attempts after which another process goes on: libraries keep some memory of each model


class Worker:
    """A process that makes attempts, one at a time; another takes its place where it ends."""

    def __init__(self, seed: int, seeds: Path) -> None:
        self._seed, self._seeds, self._log = seed, seeds, seeds / "last-words.txt"
        self._pool, self._attempts = self._start(), 0

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            context.set_forkserver_preload(["tests.fuzz.attempt"])
        pool = ProcessPoolExecutor(1, context, begin, (self._log,))
        pool.submit(int).result(START_S)
        return pool

    def attempt(self, kind: str, number: int) -> Outcome:
        """See `attempt.attempt`; a process that ends is a fault."""
        start = time.monotonic()
        self._attempts += 1
        if self._attempts % RENEWED == 0:
            self.close()
            self._pool = self._start()
        try:
            return self._pool.submit(attempt, kind, self._seed, number, self._seeds, self._log).result()
        except BrokenProcessPool:
            long, said = time.monotonic() - start > SECONDS, self._log.read_text(errors="replace")
            self._pool.shutdown(wait=False)
            self._pool = self._start()
        why = f"more than {SECONDS} s" if long else "the process ended"
        place = next((line.strip() for line in said.splitlines() if "/ofa_pose/" in line), "")
        return Outcome(kind, number, FAULT, "ended", f"{why}: {place.rpartition('/ofa_pose/')[2]}", said=said)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def fuzz(kinds: list[str], seed: int, seconds: float, most: int, seeds: Path, keep: Path | None) -> list[Outcome]:
    """Make attempts on these kinds for so long, each kind for as long as the others, and on at most so many of each.

    Ctrl-C ends it earlier.
    """
    spent, numbers = dict.fromkeys(kinds, 0.0), {kind: itertools.count() for kind in kinds}
    found: list[Outcome] = []
    worker, end, asked = Worker(seed, seeds), time.monotonic() + seconds, threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    while spent and time.monotonic() < end and not asked.is_set():
        kind = min(spent, key=lambda one: spent[one])
        number, start = next(numbers[kind]), time.monotonic()
        outcome = worker.attempt(kind, number)
        spent[kind] += time.monotonic() - start
        found.append(outcome)
        if outcome.verdict == FAULT and keep:
            keep_case(outcome, seed, seeds, keep)
        if number + 1 >= most:
            del spent[kind]
    signal.signal(signal.SIGINT, before)
    worker.close()
    return found


def keep_case(outcome: Outcome, seed: int, seeds: Path, keep: Path) -> None:
    """Write an input, and what came of it, into a folder."""
    folder = keep / f"{outcome.kind}-{seed}-{outcome.number}"
    folder.mkdir(parents=True, exist_ok=True)
    shown = build(outcome.kind, seed, outcome.number, seeds, folder).shown if outcome.shown else ""
    (folder / "fault.txt").write_text(f"{shown}\n{outcome.why}\n{outcome.said}\n", errors="replace")


def summary(found: list[Outcome]) -> Table:
    """How many of each kind were tried, worked, were refused, and ended as nothing may."""
    table = Table()
    table.add_column("kind")
    for name in ("tried", OK, REFUSED, "faults"):
        table.add_column(name, justify="right")
    counts = Counter((outcome.kind, outcome.verdict) for outcome in found)
    kinds = list(dict.fromkeys(outcome.kind for outcome in found))
    rows = {kind: [counts[kind, verdict] for verdict in (OK, REFUSED, FAULT)] for kind in sorted(kinds)}
    for kind, row in rows.items():
        table.add_row(kind, *map(str, (sum(row), *row)))
    table.add_section()
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    table.add_row("all", *map(str, (sum(sums), *sums)))
    return table


def show_faults(found: list[Outcome], console: Console) -> None:
    """Each fault once, with the numbers of inputs that lead to it."""
    faults: dict[tuple[str, str], list[int]] = {}
    for outcome in found:
        if outcome.verdict == FAULT:
            faults.setdefault((outcome.kind, outcome.why), []).append(outcome.number)
    for (kind, why), numbers in sorted(faults.items()):
        first = ", ".join(map(str, numbers[:3]))
        console.print(
            f"[red]{kind}[/red] {len(numbers)} × {escape(why)} (inputs {first})", soft_wrap=True, highlight=False
        )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bin/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long to go on (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="another seed damages otherwise")
    parser.add_argument("--kind", action="append", choices=KINDS, help="of input; may be repeated (default: all)")
    parser.add_argument("--inputs", type=int, default=10**9, help="at most so many of each kind")
    parser.add_argument("--input", type=int, help="the one of this number alone, with --kind; its fault is shown whole")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write inputs that end in a fault here")
    options = parser.parse_args(arguments)
    if options.input is not None and len(options.kind or ()) != 1:
        parser.error("--input needs one --kind")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, and say what was found; 1 where there is a fault."""
    options, console = parse(arguments), Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as name:
        seeds = Path(name, "seeds")
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            make_seeds(seeds)
        if options.input is not None:
            worker = Worker(options.seed, seeds)
            outcome = worker.attempt(options.kind[0], options.input)
            worker.close()
            console.print(outcome.shown, outcome.said, outcome.why or outcome.verdict, sep="\n", markup=False)
            if options.keep:
                keep_case(outcome, options.seed, seeds, options.keep)
            return int(outcome.verdict == FAULT)
        kinds = options.kind or list(KINDS)
        found = fuzz(kinds, options.seed, 60 * options.minutes, options.inputs, seeds, options.keep)
    show_faults(found, console)
    console.print(summary(found))
    return int(any(outcome.verdict == FAULT for outcome in found))


if __name__ == "__main__":
    sys.exit(main())
