"""A search over a made-up measure by two workers in its own process: `python -m tests.searches.search_process OUT`.

Options after that, as KEY=VALUE: resume, seconds (an evaluation's).
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches import job as module
from ofa_pose.searches.workers import local_workers
from ofa_pose.utils.errors import OfaPoseError
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space

SETTINGS = SearchSettings(population=8, generations=3)


@dataclass(frozen=True)
class Recorded:
    """A measure that can be pickled; in `folder` every process that evaluates has a file with a line for each time."""

    folder: Path
    seconds: float = 0.0

    def __call__(self, genome: Genome) -> dict[str, Any]:
        time.sleep(self.seconds)
        with (self.folder / str(os.getpid())).open("a") as file:
            file.write(f"{time.time()}\n")
        return {"AP": Usefulness(small_space())(genome)}


def search_job(measure: module.Measure) -> module.SearchJob:
    space = small_space()
    feasible = FeasibleSpace(space, JOINTS, half_way(space))
    return module.SearchJob(feasible, measure, Recipe(search=SETTINGS), {"sha256": "ab" * 32})


def main(out: Path, options: dict[str, float]) -> None:
    module.draw_pareto = lambda *_: None  # type: ignore[assignment]
    folder = out.with_name("processes")
    folder.mkdir(exist_ok=True)
    job = search_job(Recorded(folder, options.get("seconds", 0.0)))
    with local_workers(2, "cpu") as workers:
        job.run(out, bool(options.get("resume")), executor=workers)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), {key: float(value) for key, value in (word.split("=") for word in sys.argv[2:])})
    except OfaPoseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
