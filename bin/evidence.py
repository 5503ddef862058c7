"""Put the tables and pictures of finished studies into docs/evidence.md, in the places that are marked for them."""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
from pathlib import Path

from ofa_pose.studies.summary import CSV, PICTURE, TABLE
from ofa_pose.utils.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "evidence.md"
MARK = "<!-- {} is written by bin/evidence -->\n"
END = "<!-- end -->"


def evidence(study: Path) -> str:
    """A finished study's tables, its picture, and what it took, as Markdown."""
    lines = (study / TABLE).read_text(encoding="utf-8").splitlines()
    tables = re.sub(r"\n{3,}", "\n\n", "\n".join(line if line.startswith("|") else "" for line in lines)).strip()
    with (study / CSV).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seeds = len({row["seed"] for row in rows})
    minutes = round(sum(float(row["seconds"]) for row in rows) / 60)
    took = f"{len(rows)} runs, {minutes} minutes one after the other with one thread; {seeds} seeds."
    return f"{tables}\n\n![{study.name}](evidence/{study.name}.png)\n\n{took}\n"


def fill(text: str, study: Path) -> str:
    """The page's text with what a study found in its place."""
    mark = MARK.format(study.name)
    before, found, rest = text.partition(mark)
    if not found:
        sys.exit(f"{PAGE} has no place for {study.name}: write '{mark.strip()}' and '{END}' into it")
    _, end, after = rest.partition(END)
    return f"{before}{mark}{evidence(study)}{end}{after}"


def main() -> None:
    """Fill the page, and copy the pictures beside it."""
    parser = argparse.ArgumentParser(prog="bin/evidence", description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path, help="folders of finished studies, named as they are")
    for study in parser.parse_args().studies:
        write_text(PAGE, fill(PAGE.read_text(encoding="utf-8"), study))
        PAGE.with_suffix("").mkdir(exist_ok=True)
        shutil.copyfile(study / PICTURE, PAGE.with_suffix("") / f"{study.name}.png")


if __name__ == "__main__":
    main()
