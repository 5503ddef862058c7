"""`ofa-pose pretrain`, `train-supernet` and `finetune`."""

from __future__ import annotations

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
    print_result,
    suggest,
)
from ofa_pose.utils.console import warn

if TYPE_CHECKING:
    from ofa_pose.recipe.recipe import Recipe
    from ofa_pose.train.jobs import Setting

InitOption = Annotated[str | None, typer.Option("--init", help="Checkpoint, run directory or shipped weights.")]


def _prepare(
    command: str,
    recipe: Recipe,
    carried: dict[str, Any],
    out: Path,
    resume: bool,
    device: str | None,
    teacher: str | None = None,
) -> Setting:
    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.checkpoints.checkpoint import find_checkpoint
    from ofa_pose.checkpoints.checks import check_joints
    from ofa_pose.data.splits import load_splits
    from ofa_pose.train.jobs import Setting
    from ofa_pose.utils.config import config_text
    from ofa_pose.utils.files import sha256
    from ofa_pose.utils.run_dir import plan_run

    chosen = pick_device(device)
    run = plan_run(out, config_text(recipe), resume)
    train, val = load_splits(recipe.data, "train", "val")
    check_joints(train.skeleton, val, "data.train")
    origin = {"command": command, "teacher": sha256(find_checkpoint(teacher)) if teacher else None}
    parts = (recipe.train, recipe.augment, recipe.loss, recipe.seed)
    return Setting(train, val, *parts, run, chosen, carried, origin, recipe.decode.config())


def _finish(setting: Setting, result: dict[str, Any], as_json: bool) -> None:
    print_result({**result, "checkpoint": str(setting.run.best), "out": str(setting.run.path)}, as_json)


def pretrain(
    out: OutOption,
    recipe: RecipeOption = None,
    net: Annotated[
        str | None, typer.Option("--net", help="Preset or spec file; default: the recipe's space's largest net.")
    ] = None,
    init: InitOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the largest net of a space (a supernet's starting weights), or any fixed net (a teacher).

    Example: ofa-pose pretrain --recipe nano --set data.train.annotations=A.json --set data.train.images=DIR
    --set data.val.annotations=B.json --set data.val.images=DIR2 --out runs/largest
    """
    from ofa_pose.arch.presets import load_spec
    from ofa_pose.arch.space import load_space
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.recipe.recipe import load_recipe
    from ofa_pose.train import jobs

    source = load_checkpoint(init) if init else None
    resolved, carried = load_recipe("pretrain", recipe, overrides or (), source.recipe if source else None, seed)
    space = None if net else load_space(resolved.space)
    spec = load_spec(net) if net else load_space(resolved.space).largest(1)
    setting = _prepare("pretrain", resolved, carried, out, resume, device)
    _finish(setting, jobs.pretrain(setting, spec, space, source, resume), as_json)
    if space:
        suggest("train-supernet", "--init", out, "--out", "…")


def train_supernet(
    out: OutOption,
    recipe: RecipeOption = None,
    init: InitOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a weight-sharing supernet by uniform sampling of subnets and resolutions, from pretrained weights.

    --init takes a checkpoint of the space's largest net; its channels are sorted by importance.

    Example: ofa-pose train-supernet --recipe nano --init litepose-nano-coco --set data.train.annotations=A.json
    --set data.train.images=DIR --set data.val.annotations=B.json --set data.val.images=DIR2 --out runs/supernet
    """
    from ofa_pose.arch.space import load_space
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.recipe.recipe import load_recipe
    from ofa_pose.train import jobs

    source = load_checkpoint(init) if init else None
    resolved, carried = load_recipe("train-supernet", recipe, overrides or (), source.recipe if source else None, seed)
    space = load_space(resolved.space)
    if source is None and not resume:
        warn("without --init the supernet starts from random weights and needs far more steps")
    setting = _prepare("train-supernet", resolved, carried, out, resume, device)
    _finish(setting, jobs.train_supernet(setting, space, source, resume), as_json)
    suggest("search", "--supernet", out, "--macs", "…", "--out", "…")


def finetune(
    subnet: Annotated[str, typer.Option("--subnet", help="The chosen subnet: best.yaml of a search, spec or preset.")],
    supernet: Annotated[str, typer.Option("--supernet", help="Checkpoint or run of the supernet it comes from.")],
    out: OutOption,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Checkpoint that heatmaps are distilled from.")
    ] = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the chosen subnet on, its heatmaps distilled from a teacher; the recipe is the supernet's by default.

    Example: ofa-pose finetune --subnet runs/search/best.yaml --supernet runs/supernet --teacher runs/teacher
    --out runs/finetuned
    """
    from ofa_pose.arch.presets import load_spec
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.checkpoints.checks import check_joints, check_space
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.recipe.recipe import load_recipe
    from ofa_pose.train import jobs

    source = load_checkpoint(supernet, kind="supernet")
    master = load_checkpoint(teacher, kind="net") if teacher else None
    spec = load_spec(subnet, source.spec.joints)
    assert source.space is not None
    source.space.check_subnet(spec)
    resolved, carried = load_recipe("finetune", recipe, overrides or (), source.recipe, seed)
    check_space(source, resolved.space)
    setting = _prepare("finetune", resolved, carried, out, resume, device, teacher)
    check_joints(source.skeleton, setting.train, "the supernet")
    if master:
        check_joints(master.skeleton, setting.train, "the teacher")
    whole = source.build()
    assert isinstance(whole, Supernet)
    net = jobs.inherit(whole, spec, setting.train, setting.device)
    result = jobs.finetune(setting, net, source.space, master.build() if master else None, resume)
    _finish(setting, result, as_json)
    suggest("eval", "--checkpoint", out, "--annotations", "…", "--images", "…")
    suggest("export", out, "--out", "…")
