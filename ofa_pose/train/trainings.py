"""The three trainings: a fixed net from nothing, a supernet, a chosen subnet of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.fastest import FastestRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.inference.evaluate import evaluate, make_evaluator, read_inputs
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from ofa_pose.train.loop import TrainingResult, fit
from ofa_pose.train.objectives import Objective
from ofa_pose.train.pretrained import initialise
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.console import say
from ofa_pose.utils.seeding import key_seed

CALIBRATION_IMAGES = 64
MakeObjective = Callable[[LitePose, TrainingRun], Objective]  # a supernet is a LitePose too


def pretrain(
    training: TrainingRun,
    spec: ArchSpec,
    space: SearchSpace | None = None,
    init: Checkpoint | None = None,
    make_objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train a fixed net from random weights, or from a checkpoint of the same net."""
    net = LitePose(spec.with_joints(len(training.train.skeleton.joints)), _weights_generator(training.seed))
    _initialise(net, init, training)
    objective = _objective(net, training, make_objective)
    return fit(training, objective, net_evaluation(training, net), space)


def train_supernet(
    training: TrainingRun,
    space: SearchSpace,
    init: Checkpoint | None = None,
    make_objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train a supernet by uniform sampling; its AP is the mean over the evaluated subnets."""
    supernet = Supernet(space, len(training.train.skeleton.joints), _weights_generator(training.seed))
    _initialise(supernet, init, training)
    objective = _objective(supernet, training, make_objective)
    return fit(training, objective, supernet_evaluation(training, supernet), space)


def finetune(
    training: TrainingRun,
    net: LitePose,
    space: SearchSpace | None = None,
    make_objective: MakeObjective | None = None,
) -> TrainingResult:
    """Train a subnet on at its own resolution, under the run's teacher where there is one."""
    training = replace(training, settings=training.settings.model_copy(update={"resolutions": None}))
    objective = _objective(net, training, make_objective)
    return fit(training, objective, net_evaluation(training, net), space, evaluate_start=True)


def _objective(net: LitePose, training: TrainingRun, make: MakeObjective | None) -> Objective:
    """What a training minimises: what the caller makes, else the run's own."""
    return make(net, training) if make else training.objective(net)


def inherit(
    supernet: Supernet,
    spec: ArchSpec,
    train: KeypointDataset,
    device: torch.device,
    images: int = CALIBRATION_IMAGES,
) -> LitePose:
    """The subnet `spec` of a supernet with BatchNorm statistics of its own, in eval mode on `device`.

    Args:
        images: how many training images the statistics are averaged over.
    """
    net = extract(supernet.to(device), spec)
    recalibrate(net, calibration_batches(train, spec.resolution, images, device))
    return net


def net_evaluation(training: TrainingRun, net: LitePose) -> Callable[[], dict[str, Any]]:
    """What gives the metrics of a net as it is, on the run's validation images, which are read once."""
    val = training.val
    inputs = list(read_inputs(val, net.spec.resolution, training.settings.batch))
    evaluator = make_evaluator(val)
    runner = FastestRunner(training.device)
    return lambda: evaluate(runner(net), val, inputs, evaluator, training.decode).metrics


def supernet_evaluation(training: TrainingRun, supernet: Supernet) -> Callable[[], dict[str, Any]]:
    """What gives the APs of a supernet's largest, middle and smallest subnet as they are, and as 'AP' their mean."""
    val, space, joints = training.val, supernet.space, supernet.spec.joints
    evaluator = make_evaluator(val)
    runner = FastestRunner(training.device)
    middle = space.decode([(len(choices) - 1) // 2 for choices in space.choices], joints)
    evaluated = {"largest": space.largest(joints), "middle": middle, "smallest": space.smallest(joints)}

    def evaluation() -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for name, spec in evaluated.items():
            subnet = runner(inherit(supernet, spec, training.train, training.device))
            inputs = read_inputs(val, spec.resolution, training.settings.batch)
            metrics[f"AP_{name}"] = evaluate(subnet, val, inputs, evaluator, training.decode).metrics["AP"] or 0.0
        return {"AP": float(np.mean(list(metrics.values()))), **metrics}

    return evaluation


def _initialise(net: LitePose, init: Checkpoint | None, training: TrainingRun) -> None:
    """Start from a checkpoint's weights; a supernet's channels are sorted by importance."""
    for note in initialise(net, init, isinstance(net, Supernet), training.train.skeleton) if init else ():
        say(f"init: {note}")


def _weights_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(key_seed(seed, "weights") >> 1)
