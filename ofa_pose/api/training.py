"""`ofa_pose.pretrain`, `train_supernet` and `finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import single_process
from ofa_pose.utils.console import warn

if TYPE_CHECKING:
    from ofa_pose.train.loop import TrainingResult
    from ofa_pose.train.trainings import MakeObjective


@single_process
def pretrain(
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    net: str | None = None,
    init: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train the largest net of a space (a supernet's starting weights), or any fixed net (a teacher).

    Example: ofa-pose pretrain --recipe nano --set data.train.annotations=A.json --set data.train.images=DIR
    --set data.val.annotations=B.json --set data.val.images=DIR2 --out runs/largest

    Args:
        out: run directory to write.
        recipe: a YAML file or a shipped recipe's name; default: that of `init`.
        net: preset or spec file; default: the recipe's space's largest net.
        init: checkpoint, run directory or shipped weights.
        overrides: override a recipe key; may be repeated.
        resume: go on where the run in `out` was cut off.
        seed: of everything random (recipe key: seed).
        device: cpu, cuda, cuda:1 …; default: a GPU if any.
        objective: what to minimise: called with the network and the `TrainingRun`, it gives an
            `ofa_pose.train.objectives.Objective` of that network; default: `TrainingRun.objective`.

    Raises:
        InputError: the recipe, the data, the checkpoint or `out` is at fault; nothing is written then.
        OfaPoseError: the loss is no longer a finite number.
    """
    from ofa_pose.arch.presets import load_spec
    from ofa_pose.arch.space import load_space
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.recipe import load_recipe
    from ofa_pose.train import trainings
    from ofa_pose.train.training_run import TrainingRun

    source = load_checkpoint(init) if init else None
    resolved, carried = load_recipe("pretrain", recipe, overrides, source.recipe if source else None, seed)
    space = None if net else load_space(resolved.space)
    spec = load_spec(net) if net else load_space(resolved.space).largest(1)
    trained = source.skeleton if source else None
    training = TrainingRun.prepare("pretrain", resolved, carried, out, resume, device, trained)
    return trainings.pretrain(training, spec, space, source, objective)


@single_process
def train_supernet(
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    init: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train a weight-sharing supernet by uniform sampling of subnets and resolutions, from pretrained weights.

    `init` takes a checkpoint of the space's largest net; its channels are sorted by importance.

    Example: ofa-pose train-supernet --recipe nano --init litepose-nano-coco --set data.train.annotations=A.json
    --set data.train.images=DIR --set data.val.annotations=B.json --set data.val.images=DIR2 --out runs/supernet

    Args:
        out: run directory to write.
        recipe: a YAML file or a shipped recipe's name; default: that of `init`.
        init: checkpoint, run directory or shipped weights.
        overrides: override a recipe key; may be repeated.
        resume: go on where the run in `out` was cut off.
        seed: of everything random (recipe key: seed).
        device: cpu, cuda, cuda:1 …; default: a GPU if any.
        objective: what to minimise, see `ofa_pose.pretrain`; the network is a `Supernet`.

    Raises:
        InputError: the recipe, the data, the checkpoint or `out` is at fault; nothing is written then.
        OfaPoseError: the loss is no longer a finite number.
    """
    from ofa_pose.arch.space import load_space
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.recipe import load_recipe
    from ofa_pose.train import trainings
    from ofa_pose.train.training_run import TrainingRun

    source = load_checkpoint(init) if init else None
    resolved, carried = load_recipe("train-supernet", recipe, overrides, source.recipe if source else None, seed)
    space = load_space(resolved.space)
    if source is None and not resume:
        warn("without --init the supernet starts from random weights and needs far more steps")
    trained = source.skeleton if source else None
    training = TrainingRun.prepare("train-supernet", resolved, carried, out, resume, device, trained)
    return trainings.train_supernet(training, space, source, objective)


@single_process
def finetune(
    subnet: str | Path,
    *,
    supernet: str | Path,
    out: str | Path,
    teacher: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train the chosen subnet on, its heatmaps distilled from a teacher; the recipe is the supernet's by default.

    Example: ofa-pose finetune --subnet runs/search/best.yaml --supernet runs/supernet --teacher runs/teacher
    --out runs/finetuned

    Args:
        subnet: the chosen subnet: best.yaml of a search, spec or preset.
        supernet: checkpoint or run of the supernet it comes from.
        out: run directory to write.
        teacher: checkpoint that heatmaps are distilled from.
        recipe: a YAML file or a shipped recipe's name; default: the supernet's.
        overrides: override a recipe key; may be repeated.
        resume: go on where the run in `out` was cut off.
        seed: of everything random (recipe key: seed).
        device: cpu, cuda, cuda:1 …; default: a GPU if any.
        objective: what to minimise, see `ofa_pose.pretrain`; the teacher is `TrainingRun.teacher`.

    Raises:
        InputError: the recipe, the data, a checkpoint, the subnet or `out` is at fault; nothing is written then.
        OfaPoseError: the loss is no longer a finite number.
    """
    from ofa_pose.arch.presets import load_spec
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.checkpoints.compatibility import check_joints, check_space
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.recipe import load_recipe
    from ofa_pose.train import trainings
    from ofa_pose.train.training_run import TrainingRun

    source = load_checkpoint(supernet, kind="supernet")
    spec = load_spec(subnet, source.spec.joints)
    assert source.space is not None
    source.space.check_subnet(spec)
    resolved, carried = load_recipe("finetune", recipe, overrides, source.recipe, seed)
    check_space(source, resolved.space)
    training = TrainingRun.prepare("finetune", resolved, carried, out, resume, device, source.skeleton, teacher)
    check_joints(source.skeleton, training.train, "the supernet")
    whole = source.build()
    assert isinstance(whole, Supernet)
    net = trainings.inherit(whole, spec, training.train, training.device)
    return trainings.finetune(training, net, source.space, objective)
