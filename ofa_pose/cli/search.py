"""`ofa-pose search`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_pose.cli.common import (
    DeviceOption,
    JsonOption,
    OutOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    SetOption,
    key_table,
    print_result,
    suggest,
)
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    import torch

    from ofa_pose.arch.space import SearchSpace
    from ofa_pose.checkpoints.checkpoint import Checkpoint
    from ofa_pose.costs.feasible import Budget
    from ofa_pose.data.coco import KeypointDataset
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.recipe.recipe import Recipe
    from ofa_pose.searches.distributed import Team


DOUBTFUL = 0.15  # error of a latency table on its own networks


def search(
    supernet: Annotated[str, typer.Option("--supernet", help="Checkpoint or run directory of a supernet.")],
    out: OutOption,
    macs: Annotated[str | None, typer.Option("--macs", help="At most so many multiply-adds: 1.2G, 442M.")] = None,
    params: Annotated[str | None, typer.Option("--params", help="At most so many parameters: 2M.")] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", help="At most so long a forward pass on a device: 30ms.")
    ] = None,
    latency_table: Annotated[
        Path | None,
        typer.Option("--latency-table", help="Of that device, from `latency build`; without --latency only recorded."),
    ] = None,
    convention: Annotated[
        str, typer.Option("--macs-convention", help="thop (the default, as LitePose's tables), exact or paper.")
    ] = "thop",
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", help="evolution, nsga2 or random (recipe key: search.algorithm).")
    ] = None,
    surrogate: Annotated[
        bool | None,
        typer.Option("--surrogate/--no-surrogate", help="A model of the AP chooses whom to judge (search.surrogate)."),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", help="Archive of evaluations to share: a file, or another search's run directory."),
    ] = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search of widths and resolution under a budget; the recipe is the supernet's by default.

    Writes best.yaml (the chosen subnet), best.pt (the same with the supernet's weights), history.csv (every
    candidate), archive.sqlite (every evaluation), pareto.csv and front/ (the Pareto front and its subnets), result.json
    (the figures that --json prints) and a picture of AP over cost. Under torchrun all its processes evaluate.

    Example: ofa-pose search --supernet runs/supernet --macs 1.2G --out runs/search
    """
    from ofa_pose.searches.distributed import team_of_ranks

    own = [f"search.algorithm={algorithm}"] if algorithm else []
    own += [f"search.surrogate={str(surrogate).lower()}"] if surrogate is not None else []
    result: dict[str, Any] | None = None
    with team_of_ranks() as team:
        limits = _Limits(macs, params, convention, latency, latency_table)
        job = _plan(supernet, limits, recipe, [*(overrides or []), *own], seed, device, team)
        if team is not None and team.rank:
            job.assist(team)
        else:
            result = job.search(out, resume, archive, team)
    if result is None:  # another rank than 0, which has nothing to say; what failed on it rank 0 has told
        return
    shown = {key: value for key, value in result.items() if key not in ("chosen", "front", "uniform")}
    print_result(result, as_json, key_table(shown))
    suggest("finetune", "--subnet", result["subnet"], "--supernet", supernet, "--teacher", "…", "--out", "…")


@dataclass(frozen=True)
class _Limits:
    """A budget as it stands on the command line."""

    macs: str | None
    params: str | None
    convention: str
    latency: str | None
    table: Path | None

    def budget(self, space: SearchSpace, joints: int) -> Budget:
        """The budget for subnets of a space. Raises InputError."""
        from ofa_pose.costs.feasible import Budget
        from ofa_pose.latency.predict import load_predictor
        from ofa_pose.utils.files import sha256
        from ofa_pose.utils.units import parse_seconds

        if self.latency is not None and self.table is None:
            hint = "measure the device with 'ofa-pose latency build', then add --latency-table TABLE"
            raise InputError("--latency needs a latency table", hint=hint)
        found = None
        if self.table is not None:
            found = load_predictor(self.table)
            interpolated, pieces = found.check_covers(space, joints)
            if found.error > DOUBTFUL:
                warn(f"{self.table}: predicts its own networks {found.error:.0%} wrong on average; build it again")
            if interpolated:
                what = f"{interpolated} of the {pieces} pieces of space '{space.name}' are interpolated, not measured"
                warn(f"{self.table}: {what}; 'ofa-pose latency build' without --share measures all")
        return Budget.parse(
            self.macs,
            self.params,
            self.convention,
            latency_ms=1e3 * parse_seconds(self.latency) if self.latency is not None else None,
            predict_ms=found.predict_ms if found else None,
            predict_many=found.predict_many if found else None,
            latency_table=sha256(self.table) if self.table else None,
        )


@dataclass(frozen=True)
class _Job:
    """A search whose parts have been found and checked; the same on every rank."""

    supernet: str
    source: Checkpoint
    budget: Budget
    recipe: Recipe
    train: KeypointDataset
    split: KeypointDataset
    device: torch.device

    def assist(self, team: Team) -> None:
        """Another rank than 0: evaluate."""
        from ofa_pose.searches.job import assist_search

        settings, decode = self.recipe.search, self.recipe.decode.config()
        assist_search(self._build(), self.train, self.split, settings, self.budget, team, self.device, decode)

    def search(self, out: Path, resume: bool, archive: Path | None, team: Team | None) -> dict[str, Any]:
        """Search, write best.pt too; the result."""
        from ofa_pose.arch.spec import ArchSpec
        from ofa_pose.checkpoints.checkpoint import find_checkpoint, save_checkpoint
        from ofa_pose.searches.distributed import restarted
        from ofa_pose.searches.job import HISTORY, run_search
        from ofa_pose.train.trainings import inherit
        from ofa_pose.utils.config import config_text
        from ofa_pose.utils.run_dir import plan_run

        if restarted() and not resume and (out / HISTORY).exists():
            what = "holds the run that torchrun has started again after a process died"
            raise InputError(what, out, "what was judged is kept: start torchrun with --resume, without --max-restarts")
        run = plan_run(out, config_text(self.recipe), resume, progress=HISTORY)
        net = self._build()
        result = run_search(
            net,
            self.train,
            self.split,
            settings=self.recipe.search,
            budget=self.budget,
            seed=self.recipe.seed,
            run=run,
            device=self.device,
            source=find_checkpoint(self.supernet),
            resume=resume,
            decode=self.recipe.decode.config(),
            archive=archive,
            team=team,
        )
        best = ArchSpec.from_dict(result["best"]["spec"])
        inherited = inherit(net, best, self.train, self.device, self.recipe.search.calibration_images)
        info = {"AP": result["best"]["AP"], "split": "search"}
        weights = inherited.state_dict()
        save_checkpoint(
            run.path / "best.pt", replace(self.source, kind="net", spec=best, weights=weights, info=info, training=None)
        )
        return {**result, "subnet": str(run.path / "best.yaml"), "checkpoint": str(run.path / "best.pt")}

    def _build(self) -> Supernet:
        from ofa_pose.models.elastic import Supernet

        net = self.source.build(self.device)
        assert isinstance(net, Supernet)
        return net


def _plan(
    supernet: str,
    limits: _Limits,
    recipe: str | None,
    overrides: list[str],
    seed: int | None,
    device: str | None,
    team: Team | None,
) -> _Job:
    """Find and check all that a search rests on; the budget first, before anything heavy."""
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.costs.feasible import find_feasible_start

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    budget = limits.budget(source.space, source.spec.joints)
    find_feasible_start(source.space, source.spec.joints, budget)

    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.checkpoints.checks import check_held_out, check_joints, check_space
    from ofa_pose.data.splits import load_splits
    from ofa_pose.recipe.recipe import load_recipe

    resolved, _ = load_recipe("search", recipe, overrides, source.recipe, seed)
    check_space(source, resolved.space)
    check_held_out(resolved.data, source)
    train, split = load_splits(resolved.data, "train", "search", trained=source.skeleton)
    check_joints(source.skeleton, split, "the supernet")
    chosen = pick_device(device)
    if team is not None:
        chosen = team.own_device(chosen)
    return _Job(supernet, source, budget, resolved, train, split, chosen)
