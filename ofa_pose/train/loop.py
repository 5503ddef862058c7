"""Training: of a fixed net, a supernet, a chosen subnet. One loop for all, which differ in their `Objective`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, is_plain, load_checkpoint, save_checkpoint
from ofa_pose.data.loader import Batch, training_batches, worker_faults
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import TrainSettings
from ofa_pose.train.kept import KeptCheckpoints
from ofa_pose.train.mobilenet import MobileNet
from ofa_pose.train.objectives import Objective
from ofa_pose.train.pretrained import initialise
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.console import progress, say, warn
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.numbers import NUMBER
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import check_basis
from ofa_pose.utils.seeding import key_seed
from ofa_pose.utils.signals import Ending, Interrupted, interruptible

DAMAGED = "restore the file, or choose another --out"
MakeObjective = Callable[[LitePose, TrainingRun], Objective]  # a supernet is a LitePose too
Evaluate = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class TrainingResult(Result):
    """A finished training.

    Attributes:
        AP: of the best checkpoint, on data.val; of a supernet the mean of three subnets'.
        step: after which it was that good; steps: of the whole training.
        checkpoint: the best one's file; out: the run directory.
    """

    AP: float
    step: int
    steps: int
    checkpoint: Path
    out: Path


def fit(
    training: TrainingRun,
    objective: Objective,
    evaluate: Evaluate,
    space: SearchSpace | None = None,
    evaluate_start: bool = False,
) -> TrainingResult:
    """Train, or go on where the run was cut off; the same run gives the same weights.

    Asked to end by a signal, it ends its step and writes a checkpoint of it.

    Args:
        evaluate: the network's metrics as it is, with 'AP' among them.
        space: that the network is of, or a subnet of.
        evaluate_start: before the first step too; the network stays the best if training makes nothing better of it.

    Raises OfaPoseError where the loss or its gradient is no longer finite, InputError where the run to resume trained
    another net or otherwise, or is further than the recipe goes.
    """
    settings = training.settings
    loop = _Loop(training, objective, evaluate, space)
    start = 0 if training.run.fresh else loop.restore()
    training.run.open()
    training.run.forget_after(start, evaluated=not loop.unevaluated)
    if training.run.fresh:
        loop.unevaluated = evaluate_start
        loop.save()
    with interruptible(training.run.go_on) as ending:
        with loop.kept():
            loop.train(ending)
        best = dict(loop.best)
        if training.calibrate and training.run.best.exists():
            best["AP"] = float(training.calibrate_best().get("AP") or 0.0)
    return TrainingResult(**best, steps=settings.steps, checkpoint=training.run.best, out=training.run.path)


def pretrain(
    training: TrainingRun,
    shape: ArchSpec | SearchSpace,
    space: SearchSpace | None,
    init: Checkpoint | MobileNet | None = None,
    make: MakeObjective | None = None,
) -> TrainingResult:
    """Train a net of this shape, or the supernet of this space, from random weights or from a checkpoint's."""
    joints = len(training.train.skeleton.joints)
    weights = torch.Generator().manual_seed(key_seed(training.seed, "weights") >> 1)
    if isinstance(shape, SearchSpace):
        net: LitePose = Supernet(shape, joints, weights)
    else:
        net = LitePose(shape.with_joints(joints), weights)
    for note in initialise(net, init, training.train.skeleton) if init else ():
        say(f"init: {note}")
    objective = make(net, training) if make else training.objective(net)
    return fit(training, objective, training.evaluation(net), space)


def finetune(
    training: TrainingRun, net: LitePose, space: SearchSpace | None, make: MakeObjective | None = None
) -> TrainingResult:
    """Train a subnet on at its own resolution, under the run's teacher where there is one."""
    training = replace(training, settings=training.settings.model_copy(update={"resolutions": None}))
    objective = make(net, training) if make else training.objective(net)
    return fit(training, objective, training.evaluation(net), space, evaluate_start=True)


class _Loop:
    """A training under way. Steps are numbered from 1; an objective, like the batches, counts them from 0.

    Attributes:
        step: the last one that was taken.
        unevaluated: the network is to be evaluated after that step, and was not yet.
    """

    def __init__(
        self, training: TrainingRun, objective: Objective, evaluate: Evaluate, space: SearchSpace | None
    ) -> None:
        self._training, self._objective, self._evaluate, self._space = training, objective, evaluate, space
        self._network = objective.network.to(training.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = make_optimizer(self._network, training.settings)
        self.kept_checkpoints = KeptCheckpoints(training.run, training.settings)
        self.began = 0.0
        self.step, self.unevaluated = 0, False
        self.best: dict[str, Any] = {"AP": -1.0, "step": 0}

    def restore(self) -> int:
        """Go back to the run's last checkpoint; returns its step. Raises InputError where it is of another run."""
        training, network = self._training, self._network
        checkpoint = self.kept_checkpoints.read()
        state = checkpoint.training
        hint = "resume with the recipe of that run, or choose another --out"
        if checkpoint.spec != network.spec or state is None:
            what = f"holds a run of another net ({checkpoint.spec}), this one is ({network.spec})"
            raise InputError(what, training.run.last, hint)
        if isinstance(network, Supernet) and checkpoint.space != network.space:
            raise InputError("holds a supernet of another space", training.run.last, hint)
        _check_state(state, training.run.last)
        check_basis(state.get("origin", training.origin), training.origin, training.run.last)
        if state["step"] > training.settings.steps:
            what = f"has gone {state['step']} steps already, the recipe goes {training.settings.steps}"
            raise InputError(what, training.run.last, "raise train.steps, or choose another --out")
        network.load_state_dict(checkpoint.weights_for(network))
        load_optimizer(self._optimizer, state["optimizer"], training.run.last)
        self.best = dict(state["best"])
        self.step, self.unevaluated = state["step"], state.get("unevaluated") is True
        if self.best["AP"] >= 0:
            self._check_best()
        return self.step

    def _check_best(self) -> None:
        """Where the best checkpoint is damaged or gone, the next evaluation's is the best, and there is one."""
        try:
            load_checkpoint(self._training.run.best)
        except InputError as error:
            warn(f"{error.faults[0].where}: {error.faults[0].what}; the best is sought anew from step {self.step} on")
            self.best = {"AP": -1.0, "step": 0}
            self.unevaluated = self.unevaluated or self.step == self._training.settings.steps

    def train(self, ending: Ending) -> None:
        """Go through the steps that are left."""
        training, settings, first = self._training, self._training.settings, self.step
        order = (settings.batch, training.seed, self._objective.resolution, first, settings.steps)
        batches = training_batches(
            training.train, *order, training.augmentation, settings.workers, background=training.background
        )
        self.began = time.monotonic()
        if self.unevaluated:
            self.evaluate()
        with (
            worker_faults(training.run.go_on),
            closing(batches),
            progress("train", settings.steps, "steps", first) as meter,
        ):
            for step, batch in enumerate(batches, start=first + 1):
                with ending.held():
                    loss = self.learn(batch, step)
                meter.step(note=f"loss {loss:.4f}")
                if self.unevaluated:
                    self.evaluate()
                if self.kept_checkpoints.are_due(step) or step == settings.steps:
                    self.save()

    def learn(self, batch: Batch, step: int) -> float:
        """One optimiser step, and its line in metrics.jsonl; returns the loss."""
        training = self._training
        self._network.train()
        rate = set_rate(self._optimizer, training.settings, step - 1)
        losses = self._objective.loss(batch.to(training.device), step - 1)
        record = update(self._network, self._optimizer, losses, training.settings.clip)
        training.run.log({"step": step, **record, "lr": rate, "side": batch.resolution})
        self.step, settings = step, training.settings
        self.unevaluated = step % settings.evaluate_every == 0 or step == settings.steps
        return record["loss"]

    def evaluate(self) -> None:
        """Evaluate the network; if its AP is the best so far, save it as the best checkpoint."""
        step = self.step
        seconds = time.monotonic() - self.began if step else 0.0
        metrics = self._evaluate()
        ap = float(metrics.get("AP") or 0.0)
        self._training.run.log({"step": step, "val": metrics, "seconds": round(seconds, 1)})
        say(f"step {step}: AP {ap:.4f} on val ({seconds:.0f} s)")
        if ap > self.best["AP"]:
            info = {"step": step, "metrics": metrics}
            save_checkpoint(self._training.run.best, self._training.checkpoint(self._network, self._space, info))
            self.best = {"AP": ap, "step": step}
        self.unevaluated = False

    def save(self) -> None:
        """Write the checkpoint that the run is resumed from."""
        training, step = self._training, self.step
        state = {"step": step, "best": self.best, "optimizer": self._optimizer.state_dict()}
        state["origin"] = dict(training.origin)
        if self.unevaluated:
            state["unevaluated"] = True
        self.kept_checkpoints.write(step, training.checkpoint(self._network, self._space, {"step": step}, state))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is ended by a signal in it leaves a checkpoint of its last step."""
        try:
            yield
        except Interrupted as error:
            self.save()
            if go_on := self._training.run.go_on:
                go_on = f"step {self.step} of {self._training.settings.steps} is kept; {go_on}"
            raise Interrupted(error.number, go_on) from None


def make_optimizer(network: LitePose, settings: TrainSettings) -> AdamW:
    """AdamW; weight decay on convolution weights only."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return AdamW(groups, lr=settings.lr)


def load_optimizer(optimizer: AdamW, state: Any, where: object) -> None:
    """Put a kept state into an optimiser, but for the weight decays: the recipe may have changed them since.

    Raises InputError where the state is not one of these parameters: torch takes any, and fails at the next step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = state.get("state") if isinstance(state, dict) else None
    if not isinstance(kept, dict) or not all(_fits(kept.get(i, {}), p) for i, p in enumerate(parameters)):
        raise InputError("holds an optimiser state that is damaged, or another net's", where, DAMAGED)
    own = {number: kept[number] for number in range(len(parameters)) if number in kept}
    groups = optimizer.state_dict()["param_groups"]  # ours: rates are set at each step, the rest is the same in all
    optimizer.load_state_dict({"state": own, "param_groups": groups})


def _fits(kept: Any, parameter: Tensor) -> bool:
    """Whether what Adam keeps of a parameter is of its shape, and finite; there is nothing before its first step."""
    if not isinstance(kept, dict) or kept.keys() not in (set(), {"step", "exp_avg", "exp_avg_sq"}):
        return False
    wanted = {"step": torch.Size(()), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    return all(
        is_plain(kept[name], shape) and bool(kept[name].isfinite().all()) for name, shape in wanted.items() if kept
    )


def _check_state(state: Any, where: object) -> None:
    """Raise InputError where what a run kept of its progress is not what `_Loop.save` writes."""
    step, best = (state.get(key) if isinstance(state, dict) else None for key in ("step", "best"))
    whole = type(step) is int and step >= 0 and isinstance(state.get("origin", {}), dict)
    if not whole or not isinstance(best, dict) or best.keys() != {"AP", "step"}:
        raise InputError("holds a training state that is damaged", where, DAMAGED)
    if type(best["AP"]) not in NUMBER or not math.isfinite(best["AP"]) or type(best["step"]) is not int:
        raise InputError(f"holds a damaged best AP ({best!r:.80})", where, DAMAGED)


def set_rate(optimizer: AdamW, settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then a cosine to zero; a function of the step alone. Returns the rate."""
    warmup = max(1, round(settings.warmup * settings.steps))
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))
    rate = settings.lr * ((step + 1) / warmup if step < warmup else cosine)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def update(network: LitePose, optimizer: AdamW, losses: dict[str, Tensor], clip: float) -> dict[str, float]:
    """One optimiser step; returns losses and gradient norm. Raises OfaPoseError, weights untouched, if not finite."""
    loss = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    record = {"loss": loss, **losses, "grad_norm": norm}
    values = dict(zip(record, torch.stack(list(record.values())).tolist(), strict=True))  # one wait for the device
    if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
        parts = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        raise OfaPoseError(f"the loss is not finite ({parts}); lower train.lr and --resume from the last checkpoint")
    optimizer.step()
    return values
