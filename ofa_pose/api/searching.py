"""`ofa_pose.search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import recorded

if TYPE_CHECKING:
    from ofa_pose.searches.candidates import Algorithm
    from ofa_pose.searches.results import SearchResult


@recorded
def search(
    supernet: str | Path,
    *,
    out: str | Path,
    macs: str | int | None = None,
    params: str | int | None = None,
    latency: str | None = None,
    latency_table: str | Path | None = None,
    macs_convention: str = "thop",
    algorithm: str | Algorithm | None = None,
    surrogate: bool | None = None,
    archive: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
) -> SearchResult | None:
    """Search of widths and resolution under a budget; the recipe is the supernet's by default.

    Writes best.yaml (the chosen subnet), best.pt (the same with the supernet's weights), history.csv (every
    candidate), archive.sqlite (every evaluation), pareto.csv and front/ (the Pareto front and its subnets), result.json
    (the figures that --json prints) and a picture of AP over cost. Under torchrun all its processes evaluate.

    Example: ofa-pose search --supernet runs/supernet --macs 1.2G --out runs/search

    Args:
        macs: at most so many multiply-adds: 1.2G, 442M.
        params: at most so many parameters: 2M.
        latency: at most so long a forward pass on a device: 30ms.
        latency_table: of that device, from 'latency build'; without `latency` only recorded.
        algorithm: evolution, nsga2 or random (recipe key: search.algorithm). In Python also a callable, an
            `ofa_pose.searches.candidates.Algorithm`.
        surrogate: a model of the AP chooses what to evaluate (search.surrogate).
        archive: archive of evaluations to share: a file, or another search's run directory.

    Returns:
        What was found; None on another rank of torchrun than 0.

    Raises:
        InputError: no subnet keeps the budget (the least that would do is named), an input does not fit another, `out`
            holds another run, or the search to resume was another.
        OfaPoseError: a subnet could not be evaluated, or a process of the team is gone.
    """
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.costs.feasible import FeasibleSpace
    from ofa_pose.searches.budget import read_budget
    from ofa_pose.searches.distributed import team_of_ranks

    own = [f"search.algorithm={algorithm}"] if isinstance(algorithm, str) else []
    own += [f"search.surrogate={str(surrogate).lower()}"] if surrogate is not None else []
    with team_of_ranks() as team:
        source = load_checkpoint(supernet, kind="supernet")
        assert source.space is not None
        space, joints = source.space, source.spec.joints
        budget = read_budget(space, joints, macs, params, macs_convention, latency, latency_table)
        feasible = FeasibleSpace(space, joints, budget)

        from ofa_pose.searches.job import SearchJob  # heavy: not before the budget can be kept

        function = None if isinstance(algorithm, str) else algorithm
        job = SearchJob.from_checkpoint(source, feasible, recipe, (*overrides, *own), seed, device, function, team)
        if team is None or not team.rank:
            return job.run(out, resume, archive, team)
        job.assist(team)
    return None  # what failed on another rank than 0 is reported there
