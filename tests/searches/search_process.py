"""A search over a made-up measure in its own process: `python -m tests.searches.search_process OUT [KEY=VALUE …]`.

Options: resume, seconds (an evaluation's), fail_rank and fail_after (the evaluation that raises there), lost_s.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches import distributed
from ofa_pose.searches import job as module
from ofa_pose.utils.errors import OfaPoseError
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space

SETTINGS = SearchSettings(population=8, generations=3)


def main(out: Path, options: dict[str, float]) -> None:
    space = small_space()
    feasible = FeasibleSpace(space, JOINTS, half_way(space))
    fitness, rank = Usefulness(space), int(os.environ.get("RANK", "0"))

    def measure(genome: Genome) -> dict[str, Any]:
        time.sleep(options.get("seconds", 0.0))
        value = fitness(genome)
        if rank == options.get("fail_rank") and len(fitness.calls) > options.get("fail_after", 0):
            raise RuntimeError("made to fail")
        with (out.parent / f"{out.name}.{rank}").open("a") as file:
            file.write(f"{time.time()}\n")
        return {"AP": value}

    module.draw_pareto = lambda *_: None  # type: ignore[assignment]
    distributed.LOST_S = options.get("lost_s", distributed.LOST_S)
    distributed.BEAT_S = min(distributed.BEAT_S, distributed.LOST_S / 5)
    job = module.SearchJob(feasible, measure, Recipe(search=SETTINGS), {"sha256": "ab" * 32})
    with distributed.team_of_ranks() as team:
        if rank and team is not None:
            print("silence is kept")
            job.assist(team)
        else:
            job.run(out, bool(options.get("resume")), team=team)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), {key: float(value) for key, value in (word.split("=") for word in sys.argv[2:])})
    except OfaPoseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
