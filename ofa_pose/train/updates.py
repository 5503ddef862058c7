"""One step of an optimiser: its rate, its update, the figures it leaves, and the state that a resumed run needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from ofa_pose.checkpoints.checkpoint import is_plain
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.recipe import TrainSettings
from ofa_pose.train.objectives import Losses
from ofa_pose.utils.errors import InputError, OfaPoseError

DAMAGED = "restore the file, or choose another --out"
LATE = 20  # steps whose figures a GPU may keep until they are read


def make_optimizer(network: PoseNet, settings: TrainSettings) -> AdamW:
    """AdamW; weight decay on convolution weights only."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return AdamW(groups, lr=settings.lr, fused=True)  # one pass over the weights; torch's default on CPUs takes ten


def skips_by_itself(optimizer: Optimizer) -> bool:
    """Whether the optimiser leaves out a step on the device, as a tensor `found_inf` says, as GradScaler does it."""
    return bool(optimizer.defaults.get("fused")) and optimizer.param_groups[0]["params"][0].device.type == "cuda"


def load_optimizer(optimizer: Optimizer, state: Any, where: object) -> None:
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


def set_rate(optimizer: Optimizer, settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then a cosine to zero; a function of the step alone. Returns the rate."""
    warmup = max(1, round(settings.warmup * settings.steps))
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))
    rate = settings.lr * ((step + 1) / warmup if step < warmup else cosine)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def backpropagate(losses: Losses | Iterable[Losses], share: float = 1.0) -> Losses:
    """Add `share` of the gradients of what an objective's `loss` gives to the parameters'; the sum of each named part.

    Each pass of several is backpropagated before the next is asked for.
    """
    total: Losses = {}
    for parts in [losses] if isinstance(losses, dict) else losses:
        (share * torch.stack(list(parts.values())).sum()).backward()
        for name, value in parts.items():
            total[name] = total[name] + value.detach() if name in total else value.detach()
    return total


def update(network: PoseNet, optimizer: Optimizer, losses: Losses, clip: float) -> Figures:
    """One optimiser step by the gradients that the weights have; a step that is not finite leaves the weights alone.

    Raises OfaPoseError then, or, where asking would wait for the device, the figures do when they are read.
    """
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    parts = torch.stack(list(losses.values()))
    figures = Figures(("loss", *losses, "grad_norm"), torch.cat([torch.stack([parts.sum()]), parts, norm[None]]))
    if skips_by_itself(optimizer):
        optimizer.found_inf = (~figures.values.isfinite().all()).float()  # type: ignore[attr-defined]
    else:
        figures.read()
    optimizer.step()
    return figures


@dataclass(frozen=True)
class Figures:
    """What a step gave: its loss, the loss's parts and the norm of the gradient, still on the device.

    Attributes:
        names: of the figures; values: (N,).
    """

    names: tuple[str, ...]
    values: Tensor

    def read(self) -> dict[str, float]:
        """Wait for the device. Raises OfaPoseError where a figure is not finite."""
        found = dict(zip(self.names, self.values.tolist(), strict=True))
        if not math.isfinite(found["loss"]) or not math.isfinite(found["grad_norm"]):
            parts = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            message = f"the loss is not finite ({parts}); lower train.lr and --resume from the last checkpoint"
            raise OfaPoseError(message)
        return found


class StepRecords:
    """The records of steps, written in their order once `late` of them wait: reading one waits for the device."""

    def __init__(self, write: Callable[[dict[str, Any]], None], late: int) -> None:
        self._write, self._late = write, late
        self._waiting: list[tuple[int, Figures, dict[str, Any]]] = []
        self.loss = math.nan

    def add(self, step: int, figures: Figures, more: dict[str, Any]) -> None:
        """Take a step's record; see `read` for what it raises."""
        self._waiting.append((step, figures, more))
        if len(self._waiting) > self._late:
            self.read()

    def read(self) -> None:
        """Write all that wait. Raises OfaPoseError where a loss was not finite, before its record."""
        waiting, self._waiting = self._waiting, []
        for step, figures, more in waiting:
            found = figures.read()
            self._write({"step": step, **found, **more})
            self.loss = found["loss"]
