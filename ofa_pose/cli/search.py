"""`ofa-pose search`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_pose.cli.common import (
    DeviceOption,
    JsonOption,
    OutOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    SetOption,
    check_joints,
    check_space,
    print_result,
    read_recipe,
    suggest,
)
from ofa_pose.console import warn
from ofa_pose.errors import InputError, nearest

if TYPE_CHECKING:
    from ofa_pose.checkpoint import Checkpoint
    from ofa_pose.data.splits import DataSettings


def check_held_out(data: DataSettings, supernet: Checkpoint) -> None:
    """Refuse to search on a share of train that the supernet was not kept from.

    What is held out follows from the annotation file's content and the share, wherever the file lies now. An imported
    supernet was trained elsewhere: nothing is known of it, and that is told.

    Args:
        data: the search's data.
        supernet: knows what it was trained with.

    Raises:
        InputError: no data.search is named, and what is held out of train has changed since.
    """
    from ofa_pose.config import check_config
    from ofa_pose.files import sha256

    if data.search is not None or data.train is None:
        return
    if "imported_from" in supernet.info:
        warn("the imported supernet may have seen the images held out of data.train; better name data.search")
        return
    trained = check_config(type(data), supernet.recipe.get("data") or {}, "the supernet's recipe")
    now = (None, data.search_share, sha256(data.train.annotations))
    then = (trained.search, trained.search_share, supernet.info.get("train_sha256", now[2]))
    for key, new, old in zip(("search", "search_share", "train"), now, then, strict=True):
        if new != old:
            what = f"data.{key} is not what the supernet was trained with: it may have seen the search images"
            raise InputError(what, mend="leave it as it was, or name images of their own in data.search")


def search(
    supernet: Annotated[str, typer.Option("--supernet", help="Checkpoint or run directory of a supernet.")],
    out: OutOption,
    macs: Annotated[str | None, typer.Option("--macs", help="At most so many multiply-adds: 1.2G, 442M.")] = None,
    params: Annotated[str | None, typer.Option("--params", help="At most so many parameters: 2M.")] = None,
    convention: Annotated[
        str, typer.Option("--macs-convention", help="thop (the default, as LitePose's tables), exact or paper.")
    ] = "thop",
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evolutionary search of widths and resolution under a budget; the recipe is the supernet's by default.

    Writes best.yaml (the chosen subnet), best.pt (the same with the supernet's weights), history.csv (every
    evaluation) and a picture of AP over MACs.

    Example: ofa-pose search --supernet runs/supernet --macs 1.2G --out runs/search
    """
    from ofa_pose.arch.spec import ArchSpec
    from ofa_pose.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
    from ofa_pose.costs.macs import CONVENTIONS
    from ofa_pose.search.budget import Budget, check_feasible
    from ofa_pose.units import parse_count

    if convention not in CONVENTIONS:
        raise InputError(f"no such MAC convention: '{convention}'", mend=nearest(convention, CONVENTIONS))
    if macs is None and params is None:
        raise InputError("search needs a budget", mend="add --macs 1.2G or --params 2M")
    budget = Budget(parse_count(macs) if macs else None, parse_count(params) if params else None, convention)  # type: ignore[arg-type]
    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    check_feasible(source.space, source.spec.joints, budget)

    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.config import config_text
    from ofa_pose.data.splits import load_splits
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.run import plan_run
    from ofa_pose.search.search import HISTORY, run_search
    from ofa_pose.train.jobs import inherit

    resolved, _ = read_recipe("search", recipe, overrides, seed, source.recipe)
    check_space(source, resolved.space)
    check_held_out(resolved.data, source)
    train, split = load_splits(resolved.data, "train", "search")
    check_joints(source.skeleton, split, "the supernet")
    chosen = pick_device(device)
    run = plan_run(out, config_text(resolved), resume, progress=HISTORY)
    net = source.build(chosen)
    assert isinstance(net, Supernet)
    result = run_search(
        net,
        train,
        split,
        settings=resolved.search,
        budget=budget,
        seed=resolved.seed,
        run=run,
        device=chosen,
        source=find_checkpoint(supernet),
        resume=resume,
        decode=resolved.decode.config(),
    )
    best = ArchSpec.from_dict(result["best"]["spec"])
    inherited = inherit(net, best, train, chosen, resolved.search.calibration_images)
    info = {"AP": result["best"]["AP"], "split": "search"}
    checkpoint = replace(source, kind="net", spec=best, weights=inherited.state_dict(), info=info, training=None)
    save_checkpoint(run.path / "best.pt", checkpoint)
    subnet = {"subnet": str(run.path / "best.yaml"), "checkpoint": str(run.path / "best.pt")}
    print_result({**result, **subnet}, as_json)
    suggest("finetune", "--subnet", run.path / "best.yaml", "--supernet", supernet, "--teacher", "…", "--out", "…")
