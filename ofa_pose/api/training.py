"""`ofa_pose.pretrain`, `train_supernet` and `finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import many_processes
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import sleep_while_waiting

if TYPE_CHECKING:
    from ofa_pose.train.loop import MakeObjective, TrainingResult


@many_processes
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
    log: str | None = None,
    objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train the largest net of a space (a supernet's starting weights), or any fixed net (a teacher).

    Under torchrun its processes share each step.

    Example: ofa-pose pretrain --recipe nano --set data.train.annotations=A.json --set data.train.images=DIR
    --set data.val.annotations=B.json --set data.val.images=DIR2 --out runs/largest

    Args:
        recipe: a YAML file or a shipped recipe's name; default: that of `init`.
        net: preset or spec file; default: the recipe's space's largest net.
        objective: what to minimise: called with the network and the `TrainingRun`, it gives an
            `ofa_pose.train.objectives.Objective` of that network; default: `TrainingRun.objective`.

    Raises:
        InputError: the recipe, the data, the checkpoint or `out` is at fault; nothing is written then.
        OfaPoseError: the loss is no longer a finite number.
    """
    from ofa_pose.recipe import check_named

    check_named("pretrain", recipe, overrides, seed)
    sleep_while_waiting()
    from ofa_pose.arch.space import load_space
    from ofa_pose.checkpoints.checkpoint import Checkpoint
    from ofa_pose.families.table import check_trainable, load_net
    from ofa_pose.train import loop
    from ofa_pose.train.kept import going_on
    from ofa_pose.train.pretrained import load_start
    from ofa_pose.train.training_run import TrainingRun

    before = going_on(out, resume)  # which has what `init` gave
    start = load_start(init) if init and not before else None
    source = before or (start if isinstance(start, Checkpoint) else None)
    named = load_net(net) if net else None
    if named:
        check_trainable(named)
    training = TrainingRun.prepare("pretrain", source, out, recipe, overrides, resume, seed, device, log=log)
    space = None if named else load_space(training.space)
    spec = named or load_space(training.space).largest(1)
    return loop.pretrain(training, spec, space, start, objective)


@many_processes
def train_supernet(
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    init: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    log: str | None = None,
    objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train a weight-sharing supernet by sampling subnets and resolutions (train.sampling), from pretrained weights.

    `init` takes a checkpoint, best one of the space's largest net; its channels are sorted by importance. Under
    torchrun its processes share each step.

    Example: ofa-pose train-supernet --recipe nano --init litepose-nano-coco --set data.train.annotations=A.json
    --set data.train.images=DIR --set data.val.annotations=B.json --set data.val.images=DIR2 --out runs/supernet

    Args:
        recipe: a YAML file or a shipped recipe's name; default: that of `init`.
        objective: what to minimise, see `ofa_pose.pretrain`; the network is a `Supernet`.

    Raises:
        InputError, OfaPoseError: as `ofa_pose.pretrain`.
    """
    from ofa_pose.recipe import check_named

    check_named("train-supernet", recipe, overrides, seed)
    sleep_while_waiting()
    from ofa_pose.arch.space import load_space
    from ofa_pose.checkpoints.checkpoint import Checkpoint
    from ofa_pose.train import loop
    from ofa_pose.train.kept import going_on
    from ofa_pose.train.pretrained import load_start
    from ofa_pose.train.training_run import TrainingRun
    from ofa_pose.utils.console import warn

    before = going_on(out, resume)  # which has what `init` gave
    start = load_start(init) if init and not before else None
    source = before or (start if isinstance(start, Checkpoint) else None)
    training = TrainingRun.prepare("train-supernet", source, out, recipe, overrides, resume, seed, device, log=log)
    if start is None and before is None:
        warn("without --init the supernet starts from random weights and needs far more steps")
    space = load_space(training.space)
    return loop.pretrain(training, space, space, start, objective)


@many_processes
def finetune(
    subnet: str | Path,
    *,
    supernet: str | Path,
    out: str | Path,
    teacher: str | Path | None = None,
    int8: bool = False,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    log: str | None = None,
    objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train the chosen subnet on, its heatmaps distilled from a teacher; the recipe is the supernet's by default.

    Under torchrun its processes share each step.

    Example: ofa-pose finetune --subnet runs/search/best.yaml --supernet runs/supernet --teacher runs/teacher
    --out runs/finetuned

    Args:
        subnet: the chosen subnet: best.yaml of a search, spec or preset.
        supernet: checkpoint or run of the supernet it comes from.
        teacher: checkpoint that heatmaps are distilled from.
        int8: round while training as the format onnx-int8 does, and evaluate as it (train.int8).
        recipe: a YAML file or a shipped recipe's name; default: the supernet's.
        objective: what to minimise, see `ofa_pose.pretrain`; the teacher is `TrainingRun.teacher`.

    Raises:
        InputError, OfaPoseError: as `ofa_pose.pretrain`; also where the subnet is not one of the supernet's.
    """
    from ofa_pose.recipe import check_named

    check_named("finetune", recipe, overrides, seed)
    sleep_while_waiting()
    from ofa_pose.arch.spec import ArchSpec
    from ofa_pose.checkpoints.checkpoint import check_joints, check_space, load_checkpoint
    from ofa_pose.families.table import load_net
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.models.litepose import LitePose
    from ofa_pose.models.recalibrate import inherit
    from ofa_pose.monitor.run_state import warn_if_cut_off
    from ofa_pose.train import loop
    from ofa_pose.train.kept import going_on
    from ofa_pose.train.training_run import TrainingRun

    before = going_on(out, resume)  # which has what `supernet` gave
    source = before or load_checkpoint(supernet, kind="supernet")
    if before is None:
        warn_if_cut_off(source.path)
    spec = load_net(subnet, source.spec.joints)
    if not isinstance(spec, ArchSpec):
        raise InputError(f"is a network of the family '{spec.family}', not a subnet", subnet, "name one of a search")
    if source.space:  # else the run is of another command, which is said when it is read
        source.space.check_subnet(spec)
    overrides = (*overrides, "train.int8=true") if int8 else overrides
    training = TrainingRun.prepare("finetune", source, out, recipe, overrides, resume, seed, device, teacher, log)
    check_space(source, training.space)
    check_joints(source.skeleton, training.train, "the run" if before else "the supernet")
    net = LitePose(spec) if before else source.build()
    if isinstance(net, Supernet):
        net = inherit(net, spec, training.train, training.device)
    return loop.finetune(training, net, source.space, objective)
