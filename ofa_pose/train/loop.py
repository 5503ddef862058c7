"""The training loop: one for all objectives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.data.coco import KeypointDataset
from ofa_pose.data.loader import training_batches
from ofa_pose.data.transforms import Augmentation
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe.settings import TrainSettings
from ofa_pose.train.objectives import Objective
from ofa_pose.utils.console import progress, say
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.run_dir import RunDir


@dataclass(frozen=True)
class Job:
    """A training job.

    Attributes:
        judge: metrics of the network as it is, with 'AP' among them; called every `settings.evaluate_every` steps.
        pack: a checkpoint of the network as it is, from its information and the training state.
        judge_start: judge the network before the first step too; if training makes nothing better of it, it is best.
        origin: what a resumed run must share with the one that began it, besides the net: the command, the teacher.
    """

    objective: Objective
    dataset: KeypointDataset
    settings: TrainSettings
    augmentation: Augmentation
    seed: int
    run: RunDir
    device: torch.device
    judge: Callable[[], dict[str, Any]]
    pack: Callable[[dict[str, Any], dict[str, Any] | None], Checkpoint]
    judge_start: bool = False
    origin: Mapping[str, str | None] = field(default_factory=dict)


def fit(job: Job, resume: bool = False) -> dict[str, Any]:
    """Train; returns {'AP': best AP, 'step': its step, 'steps': all}. The same job gives the same weights.

    Raises:
        OfaPoseError: the loss or its gradient is no longer finite.
        InputError: the run to resume trained another net or otherwise, or is further than the recipe goes.
    """
    settings, objective = job.settings, job.objective
    network = objective.network.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, settings)
    start, best = _restore(job, optimizer) if resume else (0, {"AP": -1.0, "step": 0})
    job.run.open()
    job.run.forget_after(start)
    batches = training_batches(
        job.dataset,
        batch=settings.batch,
        seed=job.seed,
        resolution_of_step=objective.resolution,
        first_step=start,
        steps=settings.steps,
        augmentation=job.augmentation,
        workers=settings.workers,
    )
    if job.judge_start and not resume:
        best = keep_best(job, best, 0, 0.0)
    began = time.monotonic()
    with progress("train", settings.steps, "steps", start) as meter:
        for step, batch in enumerate(batches, start=start):
            network.train()
            set_rate(optimizer, settings, step)
            losses = objective.loss(batch.to(job.device), step)
            record = update(network, optimizer, losses, settings.clip)
            done = step + 1
            job.run.log({"step": done, **record, "lr": optimizer.param_groups[0]["lr"], "side": batch.resolution})
            meter.step(note=f"loss {record['loss']:.4f}")
            if done % settings.evaluate_every == 0 or done == settings.steps:
                best = keep_best(job, best, done, time.monotonic() - began)
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                save_checkpoint(job.run.last, job.pack({"step": done}, _state(job, optimizer, done, best)))
    return {**best, "steps": settings.steps}


def make_optimizer(network: LitePose, settings: TrainSettings) -> AdamW:
    """AdamW; weight decay on convolution weights only."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return AdamW(groups, lr=settings.lr)


def set_rate(optimizer: AdamW, settings: TrainSettings, step: int) -> None:
    """Linear warm-up, then a cosine to zero; a function of the step alone."""
    warmup = max(1, round(settings.warmup * settings.steps))
    if step < warmup:
        rate = (step + 1) / warmup
    else:
        rate = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * rate


def update(network: LitePose, optimizer: AdamW, losses: dict[str, Tensor], clip: float) -> dict[str, float]:
    """One optimiser step; returns the losses and the gradient norm.

    Raises:
        OfaPoseError: the loss or its gradient is not finite; the weights are as they were.
    """
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


def keep_best(job: Job, best: dict[str, Any], step: int, seconds: float) -> dict[str, Any]:
    """Judge the network; if its AP is the best so far, save it as the best checkpoint."""
    metrics = job.judge()
    ap = float(metrics["AP"]) if metrics.get("AP") is not None else 0.0
    job.run.log({"step": step, "val": metrics, "seconds": round(seconds, 1)})
    say(f"step {step}: AP {ap:.4f} on val ({seconds:.0f} s)")
    if ap <= best["AP"]:
        return best
    save_checkpoint(job.run.best, job.pack({"step": step, "metrics": metrics}, None))
    return {"AP": ap, "step": step}


def _state(job: Job, optimizer: AdamW, step: int, best: dict[str, Any]) -> dict[str, Any]:
    return {"step": step, "best": best, "optimizer": optimizer.state_dict(), "origin": dict(job.origin)}


def _restore(job: Job, optimizer: AdamW) -> tuple[int, dict[str, Any]]:
    checkpoint = load_checkpoint(job.run.last)
    network, training = job.objective.network, checkpoint.training
    if checkpoint.spec != network.spec or training is None:
        what = f"holds a run of another net ({checkpoint.spec}), this one is ({network.spec})"
        raise InputError(what, job.run.last, "resume with the recipe of that run, or choose another --out")
    if isinstance(network, Supernet) and checkpoint.space != network.space:
        what = "holds a supernet of another space"
        raise InputError(what, job.run.last, "resume with the recipe of that run, or choose another --out")
    begun = training.get("origin", job.origin)
    for key, value in job.origin.items():
        if begun.get(key) != value:
            what = f"was begun with another {key}: {begun.get(key)}, not {value}"
            raise InputError(what, job.run.last, "resume with the command of that run, or choose another --out")
    if training["step"] > job.settings.steps:
        what = f"has gone {training['step']} steps already, the recipe goes {job.settings.steps}"
        raise InputError(what, job.run.last, "raise train.steps, or choose another --out")
    network.load_state_dict(checkpoint.weights)
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    optimizer.load_state_dict(training["optimizer"])
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay  # the recipe's, which may have changed; the state holds the earlier one
    return training["step"], training["best"]
