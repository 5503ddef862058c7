"""A short fine-tuning of many subnets, each in a run directory of its own, so that a killed study goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ofa_pose.arch.space import Genome
from ofa_pose.costs.subnet_rows import genome_text
from ofa_pose.models.elastic import Supernet
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.train.trainings import finetune, inherit
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.run_dir import RunDir


def short_finetuning(supernet: Supernet, training: TrainingRun, calibration_images: int) -> Callable[[Genome], float]:
    """What gives the AP of a subnet on `training.val` after fine-tuning it for `training.settings.steps` steps.

    It is the AP after the last step, not the best on the way: that would be chosen on the images it is measured on.
    Each subnet's run lies in a folder of `training.run` named after its genome; one that was cut off
    there goes on from its last checkpoint.
    """
    steps = training.settings.steps
    settings = training.settings.model_copy(update={"evaluate_every": steps})

    def tune(genome: Genome) -> float:
        folder = training.run.path / genome_text(genome)
        begun = (folder / "checkpoints" / "last.pt").exists()
        run = RunDir(folder, fresh=not begun)
        spec = supernet.space.decode(genome, supernet.spec.joints)
        net = inherit(supernet, spec, training.train, training.device, calibration_images)
        finetune(replace(training, run=run, settings=settings), net, supernet.space)
        return _last_ap(run.metrics, steps)

    return tune


def _last_ap(metrics: Path, steps: int) -> float:
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    found = [record["val"]["AP"] for record in records if record["step"] == steps and "val" in record]
    if not found:
        raise OfaPoseError(f"{metrics}: holds no AP of step {steps}; remove {metrics.parent} and --resume")
    return float(found[-1] or 0.0)
