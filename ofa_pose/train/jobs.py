"""The three trainings: a fixed net from nothing, a supernet, a chosen subnet under a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.fastest import FastestRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.data.coco import KeypointDataset
from ofa_pose.data.transforms import Augmentation
from ofa_pose.inference.evaluate import evaluate, make_evaluator, read_inputs
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe.settings import LossSettings, TrainSettings
from ofa_pose.train.loop import Job, fit
from ofa_pose.train.objectives import Distillation, FixedNet, Objective, UniformSampling
from ofa_pose.train.pretrained import initialise
from ofa_pose.utils import files
from ofa_pose.utils.console import say
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import RunDir
from ofa_pose.utils.seeding import key_seed

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class Setting:
    """What every training needs: data, settings, where it writes, the recipe that its checkpoints carry, its origin."""

    train: KeypointDataset
    val: KeypointDataset
    settings: TrainSettings
    augmentation: Augmentation
    loss: LossSettings
    seed: int
    run: RunDir
    device: torch.device
    recipe: dict[str, Any]
    origin: Mapping[str, str | None] = field(default_factory=dict)
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    @property
    def joints(self) -> int:
        """The number of keypoints of the data."""
        return len(self.train.skeleton.joints)


def pretrain(
    setting: Setting, spec: ArchSpec, space: SearchSpace | None, init: Checkpoint | None = None, resume: bool = False
) -> dict[str, Any]:
    """Train a fixed net from random weights, or from a checkpoint of the same net; returns the best AP and its step."""
    net = LitePose(spec.with_joints(setting.joints), _weights_generator(setting.seed))
    for note in initialise(net, init, False, setting.train.skeleton) if init else []:
        say(f"init: {note}")
    resolutions = setting.settings.resolutions or (spec.resolution,)
    objective = FixedNet(net, resolutions, setting.seed, setting.loss)
    return fit(_job(setting, objective, net, space, _judge_net(setting, net)), resume)


def train_supernet(
    setting: Setting, space: SearchSpace, init: Checkpoint | None = None, resume: bool = False
) -> dict[str, Any]:
    """Train a supernet by uniform sampling; its AP is the mean over the judged subnets."""
    supernet = Supernet(space, setting.joints, _weights_generator(setting.seed))
    for note in initialise(supernet, init, True, setting.train.skeleton) if init else []:
        say(f"init: {note}")
    objective = UniformSampling(supernet, setting.seed, setting.loss)
    return fit(_job(setting, objective, supernet, space, _judge_supernet(setting, supernet)), resume)


def finetune(
    setting: Setting,
    net: LitePose,
    space: SearchSpace | None,
    teacher: LitePose | None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a subnet on, its heatmaps distilled from a teacher where there is one.

    Raises:
        InputError: the teacher has other joints.
    """
    if teacher is not None and teacher.spec.joints != net.spec.joints:
        what = f"the teacher has {teacher.spec.joints} joints, the subnet {net.spec.joints}"
        raise InputError(what, hint="choose a teacher of the same skeleton")
    resolutions = (net.spec.resolution,)
    if teacher is None:
        objective: Objective = FixedNet(net, resolutions, setting.seed, setting.loss)
    else:
        teacher = teacher.to(setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective = Distillation(net, resolutions, setting.seed, setting.loss, teacher)
    job = _job(setting, objective, net, space, _judge_net(setting, net))
    return fit(replace(job, judge_start=True), resume)


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


def _job(
    setting: Setting,
    objective: Objective,
    net: LitePose,
    space: SearchSpace | None,
    judge: Callable[[], dict[str, Any]],
) -> Job:
    train_sha256 = files.sha256(setting.train.annotations_path)

    def pack(info: dict[str, Any], training: dict[str, Any] | None) -> Checkpoint:
        info = {**info, "train_sha256": train_sha256}
        kind = "supernet" if isinstance(net, Supernet) else "net"
        weights = {name: value.contiguous() for name, value in net.state_dict().items()}
        return Checkpoint(kind, net.spec, space, setting.train.skeleton, weights, setting.recipe, info, training)  # type: ignore[arg-type]

    shared = (setting.train, setting.settings, setting.augmentation, setting.seed, setting.run, setting.device)
    return Job(objective, *shared, judge, pack, origin=setting.origin)


def _judge_net(setting: Setting, net: LitePose) -> Callable[[], dict[str, Any]]:
    val = setting.val.limit(setting.settings.evaluate_images)
    inputs = list(read_inputs(val, net.spec.resolution, setting.settings.batch))
    evaluator = make_evaluator(val)
    runner = FastestRunner(setting.device)

    def judge() -> dict[str, Any]:
        return evaluate(runner(net), val, inputs, evaluator, setting.decode).metrics

    return judge


def _judge_supernet(setting: Setting, supernet: Supernet) -> Callable[[], dict[str, Any]]:
    val = setting.val.limit(setting.settings.evaluate_images)
    evaluator = make_evaluator(val)
    runner = FastestRunner(setting.device)
    joints, space = setting.joints, supernet.space
    judged = {"largest": space.largest(joints), "middle": _middle(space, joints), "smallest": space.smallest(joints)}

    def judge() -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for name, spec in judged.items():
            subnet = runner(inherit(supernet, spec, setting.train, setting.device))
            inputs = read_inputs(val, spec.resolution, setting.settings.batch)
            metrics[f"AP_{name}"] = evaluate(subnet, val, inputs, evaluator, setting.decode).metrics["AP"] or 0.0
        return {"AP": float(np.mean(list(metrics.values()))), **metrics}

    return judge


def _middle(space: SearchSpace, joints: int) -> ArchSpec:
    return space.decode([(len(choices) - 1) // 2 for choices in space.choices], joints)


def _weights_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(key_seed(seed, "weights") >> 1)
