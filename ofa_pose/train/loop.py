"""Training: of a fixed net, a supernet, a chosen subnet. One loop for all, which differ in their `Objective`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.backends.on_device import keep_memory
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.checkpoints.provenance import note_end, note_start
from ofa_pose.data.label_pictures import SAMPLES, write_samples
from ofa_pose.data.loader import Batch, epoch_order, training_batches, worker_context, worker_faults
from ofa_pose.data.transforms import training_sample
from ofa_pose.families.table import build_pose_net
from ofa_pose.inference.evaluate import count_people
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.fake_quantise import QuantisedLitePose
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.models.sync_norm import synchronise
from ofa_pose.monitor import NO_FLIP
from ofa_pose.monitor.event_files import event_files
from ofa_pose.monitor.opening import show_opening
from ofa_pose.recipe import TrainSettings
from ofa_pose.train.average import WeightAverage
from ofa_pose.train.kept import KeptCheckpoints
from ofa_pose.train.mobilenet import MobileNet
from ofa_pose.train.objectives import Losses, Objective
from ofa_pose.train.precision import (
    Precision,
    autocast,
    compile_faults,
    compile_net,
    describe,
    kernels,
    pick_precision,
)
from ofa_pose.train.pretrained import initialise
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.train.updates import (
    DAMAGED,
    LATE,
    StepRecords,
    backpropagate,
    load_optimizer,
    make_optimizer,
    set_rate,
    skips_by_itself,
    update,
)
from ofa_pose.utils.console import progress, say, warn
from ofa_pose.utils.errors import InputError, OfaPoseError, is_memory
from ofa_pose.utils.numbers import NUMBER, format_time
from ofa_pose.utils.process import Ending, Interrupted, interruptible
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import check_basis
from ofa_pose.utils.seeding import key_seed

MakeObjective = Callable[[PoseNet, TrainingRun], Objective]  # or with a supernet
Evaluate = Callable[[], dict[str, Any]]
SHOWN_SAMPLES = 6
MakeOptimizer = Callable[[PoseNet, TrainSettings], Optimizer]


@dataclass(frozen=True)
class TrainingResult(Result):
    """A finished training.

    Attributes:
        AP: of the best checkpoint, on data.val; of a supernet the mean of three subnets'.
        step: after which it was that good; steps: of the whole training.
        checkpoint: the best one's file; out: the run directory.
        images: of data.val, that the AP is taken on, without the flip test; people: how many on them count.
        seconds: what the training took, of one that was resumed since then.
        poses: the picture of what the net finds on some of these images; None where there is none.
    """

    AP: float
    step: int
    steps: int
    checkpoint: Path
    out: Path
    images: int
    people: int
    seconds: float
    poses: Path | None


def fit(
    training: TrainingRun,
    objective: Objective,
    evaluate: Evaluate,
    space: SearchSpace | None = None,
    evaluate_start: bool = False,
    optimizer: MakeOptimizer | None = None,
) -> TrainingResult:
    """Train, or go on where the run was cut off; the same run gives the same weights.

    Asked to end by a signal, it ends its step and writes a checkpoint of it. Every process of the training calls it,
    each with the network as it is at the start; where one is asked to end, all end after the same step.

    Args:
        evaluate: the network's metrics as it is, with 'AP' among them.
        space: that the network is of, or a subnet of.
        evaluate_start: before the first step too; the network stays the best if training makes nothing better of it.
        optimizer: makes one of the network's parameters; its learning rate is set at each step. Default: AdamW, the
            only one of which a resumed run takes the state.

    Raises OfaPoseError where the loss or its gradient is no longer finite, a GPU's memory is too little, the net cannot
    be compiled or another process has ended, InputError where the run to resume trained another net or otherwise, or is
    further than the recipe goes.
    """
    settings = training.settings
    keep_memory()
    worker_context(settings.workers)  # refuses before anything is written
    precision = pick_precision(settings.precision, training.device)
    fixed = not isinstance(objective.network, Supernet)
    held = training.run.held() if training.processes.leads else nullcontext()
    with held, kernels(precision, fixed), _memory_faults(training.run.go_on), compile_faults():
        loop = _Loop(training, objective, evaluate, space, optimizer or make_optimizer, precision)
        if not training.run.fresh:
            loop.restore()
        if not training.processes.agree(-1 if training.run.fresh else loop.step):  # and before that nothing is written
            what = "is not the same for all processes: they would go on from different steps"
            raise InputError(what, training.run.path, "name a folder that all machines share")
        loop.open(evaluate_start)
        log = training.log if training.processes.leads else None
        with (
            interruptible(training.run.go_on, patient=training.processes.world > 1) as ending,
            event_files(log, training.run, None if training.run.fresh else loop.step),
            loop.kept(),
        ):
            loop.train(ending)
            return loop.finish()


@contextmanager
def _memory_faults(go_on: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's OutOfMemoryError, of a GPU, too
        gpu = isinstance(error, torch.OutOfMemoryError)
        if not gpu and not is_memory(error):
            raise
        said = str(error).split(". ")[0] or type(error).__name__
        what = f"a GPU's memory is too little ({said})" if gpu else f"there is not enough memory ({said})"
        hint = f"lower train.batch or raise train.accumulate, then {go_on or 'go on with --resume'}"
        raise OfaPoseError(f"{what}; {hint}") from None


def pretrain(
    training: TrainingRun,
    shape: NetSpec | SearchSpace,
    space: SearchSpace | None,
    init: Checkpoint | MobileNet | None = None,
    make: MakeObjective | None = None,
) -> TrainingResult:
    """Train a net of this shape, or the supernet of this space, from random weights or from a checkpoint's."""
    joints = len(training.train.skeleton.joints)
    if training.settings.int8 and not isinstance(shape, ArchSpec):
        what = "train.int8 is of a fixed LitePose, neither of a supernet nor of another family's net"
        raise InputError(what, hint="fine-tune a subnet with it")
    weights = torch.Generator().manual_seed(key_seed(training.seed, "weights") >> 1)
    if isinstance(shape, SearchSpace):
        net: PoseNet = Supernet(shape, joints, weights)
    else:
        net = build_pose_net(shape.with_joints(joints), weights)
    notes = initialise(net, init, training.train.skeleton) if init else ()
    training = replace(training, notes=tuple(f"init: {note}" for note in notes))
    net = _aware(net, training)
    objective = make(net, training) if make else training.objective(net)
    return fit(training, objective, training.evaluation(net), space)


def finetune(
    training: TrainingRun, net: PoseNet, space: SearchSpace | None, make: MakeObjective | None = None
) -> TrainingResult:
    """Train a subnet on at its own resolution, under the run's teacher where there is one."""
    training = replace(training, settings=training.settings.model_copy(update={"resolutions": None}))
    net = _aware(net, training)
    objective = make(net, training) if make else training.objective(net)
    return fit(training, objective, training.evaluation(net), space, evaluate_start=True)


def _aware(net: PoseNet, training: TrainingRun) -> PoseNet:
    """The network, where the recipe asks for it one that rounds as int8 does."""
    return QuantisedLitePose.of(net) if training.settings.int8 and isinstance(net, LitePose) else net


class _Loop:
    """A training under way. Steps are numbered from 1; an objective, like the batches, counts them from 0.

    Attributes:
        step: the last one that was taken.
        unevaluated: the network is to be evaluated after that step, and was not yet.
    """

    def __init__(
        self,
        training: TrainingRun,
        objective: Objective,
        evaluate: Evaluate,
        space: SearchSpace | None,
        optimizer: MakeOptimizer,
        precision: Precision,
    ) -> None:
        self._training, self._objective, self._evaluate, self._space = training, objective, evaluate, space
        settings, device, self._processes = training.settings, training.device, training.processes
        self._images = self._processes.share_of_batch(settings)
        self._network = objective.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._processes.take_first([*self._network.parameters(), *self._network.buffers()])
        if settings.sync_norm and self._processes.world > 1:
            synchronise(self._network)
        self._optimizer = optimizer(self._network, settings)
        self._average = WeightAverage(self._network, settings.ema) if settings.ema else None
        if settings.compile:
            compile_net(self._network)
        self._precision = precision
        self._late = LATE if skips_by_itself(self._optimizer) else 0
        self._records = StepRecords(self._log, self._late)
        self._checkpoints = KeptCheckpoints(training.run, settings)
        self.step, self.unevaluated = 0, False
        self._best: dict[str, Any] = {"AP": -1.0, "step": 0}
        self._made = self._began = time.monotonic()
        self._waited = self._waited_in_all = 0.0

    def restore(self) -> None:
        """Go back to the run's last checkpoint. Raises InputError where it is of another run."""
        training, network = self._training, self._network
        checkpoint = self._checkpoints.read()
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
        if self._average:  # of a run that had none until now it begins here
            kept = replace(checkpoint, weights=state.get("average") or checkpoint.weights)
            self._average.restore(kept.weights_for(network))
        self._best = dict(state["best"])
        self.step, self.unevaluated = state["step"], state.get("unevaluated") is True
        set_rate(self._optimizer, training.settings, max(0, self.step - 1))  # as it was, where no step is left
        if self._best["AP"] >= 0:
            self._check_best()

    def _check_best(self) -> None:
        """Where the best checkpoint is damaged or gone, the next evaluation's is the best, and there is one."""
        try:
            load_checkpoint(self._training.run.best)
        except InputError as error:
            warn(f"{error.faults[0].where}: {error.faults[0].what}; the best is sought anew from step {self.step} on")
            self._best = {"AP": -1.0, "step": 0}
            self.unevaluated = self.unevaluated or self.step == self._training.settings.steps

    def open(self, evaluate_start: bool) -> None:
        """Make the run directory, with the records up to now and a checkpoint, and say how the training is computed."""
        training = self._training
        if self._processes.leads:
            training.run.open()
            splits = {"train": training.train, "val": training.val}
            note_start(training.run, training.device, splits, self._processes.world)
            training.run.forget_after(self.step, evaluated=not self.unevaluated)
            if training.run.fresh:
                self._show_samples()
        if training.command:
            device = {"device": describe(training.device, self._precision, self._processes)}
            show_opening(training.command, {**training.facts(self._network, self.step), **device}, training.run.path)
        for note in training.notes:
            say(note)
        if training.run.fresh:
            self.unevaluated = evaluate_start
            self.save()

    def _show_samples(self) -> None:
        """Keep pictures of the first samples with people that the training sees, as it sees them."""
        training, side = self._training, self._objective.resolution(0)
        with suppress(InputError):  # an image is damaged, which the training says when it comes to it
            order = epoch_order(len(training.train), training.seed, 0)[:SHOWN_SAMPLES].tolist()
            how = (side, training.train.skeleton, training.augmentation)
            samples = (training_sample(training.seed, 0, n, training.train.images[n], *how) for n in order)
            write_samples(training.run.path / SAMPLES, samples, training.train.skeleton)

    def train(self, ending: Ending) -> None:
        """Go through the steps that are left."""
        training, settings, shared = self._training, self._training.settings, self._processes.world > 1
        self._began = time.monotonic()
        with (
            worker_faults(training.run.go_on),
            closing(self._batches()) as batches,
            ending.held() if shared else nullcontext(),
            progress("train", settings.steps, "steps", self.step) as meter,
        ):
            if self.unevaluated:
                self.evaluate()
                if self.step == settings.steps:
                    self.save()
            for batch in batches:
                with nullcontext() if shared else ending.held():
                    self.learn(batch, self.step + 1)
                meter.step(note=self.note())
                if self.unevaluated:
                    self.evaluate()
                if self._checkpoints.are_due(self.step) or self.step == settings.steps:
                    self.save()
                if shared and self.step % (self._late + 1) == 0:
                    self._end_together(ending)

    def _end_together(self, ending: Ending) -> None:
        """Of several processes all end after the same step, which is kept, where one of them was asked to end."""
        if number := self._processes.highest(ending.number or 0):
            self.save()
            self._processes.of_first(None)
            raise Interrupted(number)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is ended by a signal in it leaves a checkpoint of its last step."""
        try:
            yield
        except Interrupted as error:
            if self._average:
                self._average.take_back()
            if self._checkpoints.step != self.step:
                self.save()
            if go_on := self._training.run.go_on:
                kept = f"step {self.step} of {self._training.settings.steps} is kept"
                if self._training.calibrate and self.step == self._training.settings.steps:
                    kept += ", the decoder is still to be calibrated"
                go_on = f"{kept}; {go_on}"
            raise Interrupted(error.number, go_on) from None

    def _batches(self) -> Generator[Batch, None, None]:
        """This process's batches of the steps that are left; takes the time that each was waited for."""
        training, settings, processes = self._training, self._training.settings, self._processes
        order = (self._images, training.seed, self._objective.resolution, self.step, settings.steps)
        batches = training_batches(
            training.train,
            *order,
            training.augmentation,
            settings.workers,
            processes.rank,
            processes.world,
            pin_memory=training.device.type == "cuda",
            background=training.background,
        )
        before = time.monotonic()
        with closing(batches):
            for batch in batches:
                self._waited = time.monotonic() - before
                self._waited_in_all += self._waited
                yield batch
                before = time.monotonic()

    def learn(self, batch: Batch, step: int) -> None:
        """One optimiser step; its line in metrics.jsonl follows as soon as its figures are known."""
        training = self._training
        self._network.train()
        rate = set_rate(self._optimizer, training.settings, step - 1)
        losses = self._gradients(batch.to(training.device), step)
        figures = update(self._network, self._optimizer, losses, training.settings.clip)
        if self._average:
            self._average.update(step)
        seconds = round(time.monotonic() - self._began, 3)
        more = {"lr": rate, "side": batch.resolution, "data_wait": round(self._waited, 4), "seconds": seconds}
        self._records.add(step, figures, more)
        self.step, settings = step, training.settings
        self.unevaluated = step % settings.evaluate_every == 0 or step == settings.steps

    def _gradients(self, batch: Batch, step: int) -> Losses:
        """Leave the gradients of the step's images, those of all processes, with the weights; returns their losses.

        The losses are means over images, so those of equal parts are averaged. Which parameters have gradients follows
        from the step; the others stay without, and the optimiser leaves them alone.
        """
        self._optimizer.zero_grad(set_to_none=True)
        count = self._training.settings.accumulate
        parts = [backpropagate(self._passes(part, step), 1 / count) for part in batch.parts(count)]
        losses = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        gradients = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        self._processes.average([*gradients, *losses.values()])
        return losses

    def _passes(self, part: Batch, step: int) -> Iterator[Losses]:
        """The losses of one forward pass after another; what comes between two is not rounded."""
        with autocast(self._precision, self._training.device):
            losses = self._objective.loss(part, step - 1)
            passes = iter([losses] if isinstance(losses, dict) else losses)
        while True:
            with autocast(self._precision, self._training.device):
                found = next(passes, None)
            if found is None:
                return
            yield found

    def note(self) -> str:
        """The loss that was read last, and the share of the time that was waited for data."""
        share = self._waited_in_all / max(time.monotonic() - self._began, 1e-9)
        loss = "" if math.isnan(self._records.loss) else f"loss {self._records.loss:.4f}, "
        return f"{loss}waiting for data {share:.0%}"

    def evaluate(self) -> None:
        """Evaluate the network, or the average of its weights; if its AP is the best so far, save it as best.pt."""
        self._records.read()
        step = self.step
        seconds = time.monotonic() - self._began if step else 0.0
        with self._average.lent() if self._average else nullcontext():
            self._processes.take_first(list(self._network.buffers()))  # each has BatchNorm statistics of its own
            metrics = self._processes.of_first(self._evaluate())
            ap = float(metrics.get("AP") or 0.0)
            self._log({"step": step, "val": metrics, "seconds": round(seconds, 1)})
            say(f"step {step}: AP {ap:.4f} on val, {NO_FLIP} ({format_time(seconds)})")
            if ap > self._best["AP"]:
                info = {"step": step, "metrics": metrics}
                if self._processes.leads:
                    save_checkpoint(self._training.run.best, self._checkpoint(info))
                self._best = {"AP": ap, "step": step}
        self.unevaluated = False

    def save(self) -> None:
        """Write the checkpoint that the run is resumed from."""
        self._records.read()
        if not self._processes.leads:
            self._checkpoints.note(self.step)
            return
        state = {"step": self.step, "best": self._best, "optimizer": self._optimizer.state_dict()}
        state["origin"] = dict(self._training.origin)
        if self._average:
            state["average"] = self._average.values
        if self.unevaluated:
            state["unevaluated"] = True
        self._checkpoints.write(self.step, self._checkpoint({"step": self.step}, state))

    def finish(self) -> TrainingResult:
        """Calibrate the best checkpoint's decoder where that is asked for. Returns the result, to every process."""
        training, best = self._training, dict(self._best)
        if self._processes.leads and training.calibrate and training.run.best.exists():
            best["AP"] = float(training.calibrate_best().get("AP") or 0.0)
        best["seconds"] = round(time.monotonic() - self._made, 1)
        best["poses"] = training.run.poses if training.run.poses.exists() else None
        if self._processes.leads:
            note_end(training.run, best["seconds"])
        best = self._processes.of_first(best)
        return TrainingResult(
            **best,
            steps=training.settings.steps,
            checkpoint=training.run.best,
            out=training.run.path,
            images=len(training.val),
            people=count_people(training.val),
        )

    def _checkpoint(self, info: dict[str, Any], state: dict[str, Any] | None = None) -> Checkpoint:
        return self._training.checkpoint(self._network, self._space, info, state)

    def _log(self, record: dict[str, Any]) -> None:
        if self._processes.leads:
            self._training.run.log(record)


def _check_state(state: Any, where: object) -> None:
    """Raise InputError where what a run kept of its progress is not what `_Loop.save` writes."""
    step, best = (state.get(key) if isinstance(state, dict) else None for key in ("step", "best"))
    whole = type(step) is int and step >= 0 and isinstance(state.get("origin", {}), dict)
    whole = whole and isinstance(state.get("average", {}), dict)
    if not whole or not isinstance(best, dict) or best.keys() != {"AP", "step"}:
        raise InputError("holds a training state that is damaged", where, DAMAGED)
    if type(best["AP"]) not in NUMBER or not math.isfinite(best["AP"]) or type(best["step"]) is not int:
        raise InputError(f"holds a damaged best AP ({best!r:.80})", where, DAMAGED)
