"""A training run: its data, its settings, where it writes and what its checkpoints carry, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.backends.runners import Runner
from ofa_pose.backends.runtimes import INT8, find_backend
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.checkpoints.checkpoint import (
    Checkpoint,
    check_joints,
    load_checkpoint,
    save_checkpoint,
)
from ofa_pose.costs.space_profile import describe_space
from ofa_pose.data.duplicates import warn_of_shared
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_splits
from ofa_pose.data.transforms import Augmentation
from ofa_pose.inference.calibrate import calibrate, longest_reach
from ofa_pose.inference.evaluate import Inputs, check_evaluable, evaluate, make_evaluator, read_inputs
from ofa_pose.inference.fastest import FastestRunner
from ofa_pose.inference.quantised import calibration_inputs, int8_runner
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.models.recalibrate import inherit
from ofa_pose.monitor import NO_FLIP
from ofa_pose.monitor.event_files import check_log
from ofa_pose.monitor.opening import describe_images, describe_net, describe_steps
from ofa_pose.monitor.pose_sample import draw_sample
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe import LossSettings, TrainSettings, load_recipe, resumed_recipe
from ofa_pose.train.distributed import Processes
from ofa_pose.train.objectives import Distillation, FixedNet, Objective, SandwichSampling, UniformSampling
from ofa_pose.utils.config import config_text
from ofa_pose.utils.console import say
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import RECIPE, RunDir, has_begun, plan_run

CALIBRATION = "calibration"  # of the decoder: in the best checkpoint's info, and in metrics.jsonl


@dataclass(frozen=True)
class TrainingRun:
    """Everything that a training needs but its network.

    Attributes:
        train, val: the images to learn from, and those that the best checkpoint is chosen on.
        settings, augmentation, loss, seed, decode, space: as the recipe has them.
        run: the directory to write.
        teacher: a network that heatmaps are distilled from.
        recipe: what the checkpoints carry for later commands.
        origin: what a resumed run must share with the one that began it, besides the net.
        background: share of the training samples that show nobody.
        calibrate: whether the best checkpoint gets decoder thresholds that suit its network.
        processes: that share the training, and this one among them.
        command: that trains, and says first what it is; '' where other work does.
        whole_val: of which `val` is a choice; held_out: of the training images, for searches.
        log: what its records go into besides metrics.jsonl, see `monitor.event_files`.
        notes: lines to say when it begins.
    """

    train: KeypointDataset
    val: KeypointDataset
    settings: TrainSettings
    augmentation: Augmentation
    loss: LossSettings
    seed: int
    run: RunDir
    device: torch.device
    teacher: PoseNet | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str | None] = field(default_factory=dict)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    space: str = ""
    background: float = 0.0
    calibrate: bool = False
    processes: Processes = field(default_factory=Processes)
    command: str = ""
    whole_val: KeypointDataset | None = None
    held_out: KeypointDataset | None = None
    log: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def prepare(
        cls,
        command: str,
        source: Checkpoint | None,
        out: str | Path,
        recipe_name: str | Path | None,
        overrides: Sequence[str] = (),
        resume: bool = False,
        seed: int | None = None,
        device: str | None = None,
        teacher: str | Path | None = None,
        log: str | None = None,
    ) -> TrainingRun:
        """Read and check all parts of a run; nothing is written yet.

        Args:
            command: that trains; a run is resumed by the command that began it.
            source: what the training starts from, or, see `going_on`, what a resumed one goes on from: its recipe and
                its joints are taken where none are named.
            recipe_name, overrides, seed: see `load_recipe`; a run that goes on has its own recipe where none is named.
            teacher: checkpoint of a network to distil from.
            log: see `check_log`.

        Raises InputError where the device, `out`, the recipe, the data or the teacher are at fault, or the batch cannot
        be shared.
        """
        check_log(log)
        if resume and recipe_name is None and source is None:
            what = "holds no run to go on with, and no recipe says how to begin one"
            raise InputError(what, out, "name a run's folder with --out, or add --recipe NAME")
        if source and resume and recipe_name is None and has_begun(Path(out)) and (Path(out) / RECIPE).exists():
            recipe, carried = resumed_recipe(Path(out) / RECIPE, source.recipe, overrides, seed)
        else:
            recipe, carried = load_recipe(command, recipe_name, overrides, source.recipe if source else None, seed)
        if command != "finetune":  # that has its supernet's own space, wherever the file is now
            load_space(recipe.space)  # a wrong name is reported before all data are read
        master = load_checkpoint(teacher, kind="net") if teacher else None
        if recipe.train.int8:
            find_backend(INT8)
        processes = Processes.here()
        processes.share_of_batch(recipe.train)
        chosen = processes.own_device(pick_device(device))
        run = plan_run(out, config_text(recipe), resume)
        splits = ("train",) if recipe.data.search else ("train", "search")  # the latter is then held out of the former
        train, *held_out = load_splits(recipe.data, *splits, trained=source.skeleton if source else None)
        (whole_val,) = load_splits(recipe.data, "val", trained=train.skeleton)
        val = whole_val
        check_joints(train.skeleton, val, "data.train")
        if master:
            check_joints(master.skeleton, train, "the teacher")
        warn_of_shared(train, val, "val")
        val = val.choose_people(recipe.train.evaluate_images, "val images")
        check_evaluable(val, "name another data.val")
        background = recipe.data.background
        if train.background and background:
            share, count = f"{background:.0%}", len(train.background)
            say(f"{share} of the samples come from the {count} training images without people (data.background)")
        decode = recipe.decode.config()
        if recipe.decode.calibrate:
            decode = replace(decode, reach=longest_reach(train))
            if recipe.decode.reach not in (None, decode.reach):
                given = f"decode.reach={recipe.decode.reach:g}"
                say(f"decoder: these images give another reach than {given}; --set {given} keeps it")
            carried = {**carried, "decode": {**(carried.get("decode") or {}), "reach": decode.reach}}
        if decode.reach:
            say(f"decoder: joints more than {decode.reach:g} of an image's short side apart are never one person's")
        return cls(
            train,
            val,
            recipe.train,
            recipe.augment,
            recipe.loss,
            recipe.seed,
            run,
            chosen,
            teacher=master.build() if master else None,
            recipe=carried,
            origin={"command": command, "teacher": master.sha256 if master else None, "metric": val.metric},
            decode=decode,
            space=recipe.space,
            background=background,
            calibrate=recipe.decode.calibrate,
            processes=processes,
            command=command,
            whole_val=whole_val,
            held_out=held_out[0] if held_out else None,
            log=log,
        )

    def facts(self, network: PoseNet, step: int) -> dict[str, str]:
        """What is trained and on what, for the opening; `step` was done before."""
        taught, whole = self.teacher and describe_net(self.teacher.spec), self.whole_val or self.val
        held_out = f"{describe_images(self.held_out, named=False)}, for searches" if self.held_out else ""
        if isinstance(network, Supernet):
            shape = {"supernet": describe_space(network.space, network.spec.joints)}
        else:
            shape = dict(zip(("network", "costs"), describe_net(network.spec), strict=True))
        return {
            **shape,
            "teacher": f"{taught[0]}: {taught[1]}" if taught else "",
            "training": describe_images(self.train),
            "held out": held_out,
            "validation": f"{describe_images(self.val, len(whole))}; AP {NO_FLIP}",
            "steps": describe_steps(self.settings, len(self.train), step),
        }

    def objective(self, network: PoseNet) -> Objective:
        """What the toolkit trains a network for: a supernet, a net under a teacher, or a net from labels alone."""
        if isinstance(network, Supernet):
            if self.settings.sampling == "sandwich":
                return SandwichSampling(network, self.seed, self.loss, self.settings.sandwich)
            return UniformSampling(network, self.seed, self.loss)
        resolutions = self.settings.resolutions or (network.spec.resolution,)
        if self.teacher is None:
            return FixedNet(network, resolutions, self.seed, self.loss)
        teacher = self.teacher.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Distillation(network, resolutions, self.seed, self.loss, teacher)

    def runners(self, network: PoseNet) -> Callable[[PoseNet], Runner]:
        """What computes networks of this one's resolution where they are evaluated: in int8 where they train for it."""
        if not self.settings.int8:
            return FastestRunner(self.device)
        inputs = list(calibration_inputs(self.train, network.spec.resolution))
        return lambda net: int8_runner(net, inputs, torch.get_num_threads())

    def evaluation(self, network: PoseNet) -> Callable[[], dict[str, Any]]:
        """What gives a network's metrics on the validation images; of a supernet three subnets' APs, and their mean.

        Each of the training's processes computes a part of the batches; all have the same metrics. What was found on
        some images is drawn into the run's poses.jpg, of a supernet by its largest net.
        """
        processes = self.processes
        evaluator, runner, batch = make_evaluator(self.val), self.runners(network), self.settings.batch

        def score(net: PoseNet, inputs: Iterable[Inputs], drawn: bool = True) -> dict[str, Any]:
            data, gather = (self.val, inputs, evaluator, self.decode), processes.interleave
            found = evaluate(runner(net), *data, resample=False, gather=gather)
            if drawn and processes.leads:
                draw_sample(self.run.poses, self.val, found.results)
            return found.metrics

        def read(resolution: int) -> Iterator[Inputs]:
            return read_inputs(self.val, resolution, batch, part=processes.rank, parts=processes.world)

        if not isinstance(network, Supernet):
            inputs = list(read(network.spec.resolution))
            return lambda: score(network, inputs)
        space, joints = network.space, network.spec.joints
        middle = space.decode([(len(choices) - 1) // 2 for choices in space.choices], joints)
        subnets = {"largest": space.largest(joints), "middle": middle, "smallest": space.smallest(joints)}

        def score_subnets() -> dict[str, Any]:
            metrics: dict[str, Any] = {}
            for name, spec in subnets.items():
                net = inherit(network, spec, self.train, self.device)
                metrics[f"AP_{name}"] = score(net, read(spec.resolution), name == "largest")["AP"] or 0.0
            return {"AP": float(np.mean(list(metrics.values()))), **metrics}

        return score_subnets

    def checkpoint(
        self, network: PoseNet, space: SearchSpace | None, info: Mapping[str, Any], state: dict[str, Any] | None = None
    ) -> Checkpoint:
        """The network as it is, with what later commands need to know of this run; `state` resumes the training."""
        kind: Literal["net", "supernet"] = "supernet" if isinstance(network, Supernet) else "net"
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        info = {**info, "train_sha256": self.train.fingerprint}
        return Checkpoint(kind, network.spec, space, self.train.skeleton, weights, dict(self.recipe), info, state)

    def calibrate_best(self) -> dict[str, Any]:
        """Give the best checkpoint the decoder thresholds that suit its network; returns its metrics on data.val.

        They come from training images (a supernet's from its largest net) and go into the recipe that it carries. The
        recipe's stay where no others are surely better there, or where the AP on data.val falls with them. A checkpoint
        that has them already, of a run that had ended, stays as it is.
        """
        best = load_checkpoint(self.run.best)
        metrics = best.info.get("metrics")
        if not isinstance(metrics, dict):
            raise InputError("holds no metrics of its training", self.run.best, "restore it, or choose another --out")
        if isinstance(known := best.info.get(CALIBRATION), dict):
            self.run.log({"step": self.settings.steps, CALIBRATION: {**known, "val": metrics}})
            say("the decoder is calibrated already")
            return metrics
        network = best.build(self.device)
        net = network
        if isinstance(network, Supernet):
            net = inherit(network, network.spec, self.train, self.device)
        found = calibrate(self.runners(net)(net), self.train, best.spec.resolution, self.decode)
        line = str(found)
        if found.config != self.decode:
            before, metrics = metrics, replace(self, decode=found.config, processes=Processes()).evaluation(network)()
            old, new = (float(figures.get("AP") or 0.0) for figures in (before, metrics))
            line += f"; {old:.4f} to {new:.4f} on val"
            if new < old:
                line += ": the recipe's stay"
                found, metrics = replace(found, config=self.decode), before
        say(line if found.AP is None else f"{line} (APs {NO_FLIP})")
        if found.AP is None:
            return metrics
        known = found.to_dict()
        self.run.log({"step": self.settings.steps, CALIBRATION: {**known, "val": metrics}})
        decode = {**(best.recipe.get("decode") or {}), **known["decode"]}
        recipe, info = {**best.recipe, "decode": decode}, {**best.info, "metrics": metrics, CALIBRATION: known}
        save_checkpoint(self.run.best, replace(best, recipe=recipe, info=info))
        return metrics
