"""Let faults of the machine happen to small runs, exports and datasets, and see what the same call makes of it."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from ofa_pose.utils.files import write_text
from tests.faults.calls import Calls, Fault
from tests.faults.kinds import KINDS, SAME, TOLD, WRONG, Hangs, Trial, can_mount, clean, full_disk
from tests.faults.works import Work, make_works

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
MARK, END = "<!-- this table is written by bin/faults -->\n", "<!-- end -->"
LONGEST = 400  # characters of what was said that are shown
Counts = dict[str, Counter[str]]


def measured(calls: Calls, work: Work, folder: Path) -> Trial:
    """A work done once without a fault."""
    began = time.monotonic()
    trial = Trial(calls, work, folder, None, 0.0, 0, Random())
    assert trial.go(Fault(folder)) == 0, calls.said
    lasts, operations = time.monotonic() - began, calls.operations
    return replace(trial, expected=work.left(folder), lasts=lasts, operations=operations)


def try_faults(tries: int, seed: int, chosen: str, folder: Path, chosen_work: str = "") -> Counts:
    """Try each kind so many times on each work whose names hold a text; what became of it, by the kind's name."""
    calls, works = Calls(folder), make_works(folder)
    more = [*works["training"].words, "--set", "train.workers=1"]
    works["training with a process"] = replace(works["training"], words=more)
    works["search with processes"] = replace(works["search"], words=[*works["search"].words, "--workers", "2"])

    @functools.cache
    def whole(name: str) -> Trial:
        return measured(calls, works[name], folder / f"whole {name}")

    found: Counts = {}
    for kind, (bring, names) in KINDS.items():
        if chosen not in kind or (bring is full_disk and not can_mount(folder)):
            continue
        names = tuple(name for name in names if chosen_work in name)
        if not names:
            continue
        counts = found[kind] = Counter()
        for name in names:
            for number in range(tries):
                out = folder / "out"
                with clean(out):
                    trial = replace(whole(name), out=out, rng=Random(f"{seed} {kind} {name} {number}"))
                    try:
                        said = bring(trial, number, tries)
                        verdict, why = (WRONG, said) if said else trial.again()
                    except Hangs:
                        verdict, why = WRONG, "it hangs"
                counts[verdict] += 1
                if verdict == WRONG:
                    print(f"{kind}, {name}, {number}: {' '.join(why.split())[-LONGEST:]}", flush=True)
        print(f"{kind}: {counts.total()} tried, {dict(counts)}", flush=True)
    return found


def table(found: Counts, minutes: float, seed: int) -> str:
    """What was found as Markdown."""
    lines = ["| fault | tried | the same call ends as if nothing had happened | or a line says why not | neither |"]
    lines.append("| --- | --: | --: | --: | --: |")
    for kind, counts in found.items():
        lines.append(f"| {kind} | {counts.total()} | {counts[SAME]} | {counts[TOLD]} | {counts[WRONG]} |")
    total = sum(found.values(), Counter[str]())
    lines.append(f"| all | {total.total()} | {total[SAME]} | {total[TOLD]} | {total[WRONG]} |")
    return "\n".join(lines) + f"\n\nSeed {seed}; {minutes:.0f} minutes.\n"


def fill(text: str, shown: str) -> str:
    """The page's text with a table in its place."""
    before, found, rest = text.partition(MARK)
    _, end, after = rest.partition(END)
    if not (found and end):
        sys.exit(f"{PAGE} has no place for the table: write '{MARK.strip()}' and '{END}' into it")
    return f"{before}{MARK}{shown}{end}{after}"


def main() -> int:
    """Try, print the table, and put it into docs/reliability.md where that is asked for."""
    parser = argparse.ArgumentParser(prog="bin/faults", description=__doc__)
    parser.add_argument("--tries", type=int, default=20, help="of each kind on each work (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when (default: 0)")
    parser.add_argument("--kind", default="", help="only kinds whose name holds this text")
    parser.add_argument("--work", default="", help="only on works whose name holds this text")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = try_faults(given.tries, given.seed, given.kind, Path(folder), given.work)
    shown = table(found, (time.monotonic() - began) / 60, given.seed)
    print(shown)
    if given.write:
        write_text(PAGE, fill(PAGE.read_text(encoding="utf-8"), shown))
    return 1 if any(counts[WRONG] for counts in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
