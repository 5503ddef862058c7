"""A new loss from a notebook, no file of the package touched: heatmaps at 1/2 are trained by their absolute errors.

`objective=` of `pretrain`, `train_supernet` and `finetune` takes a callable. It gets the network and the `TrainingRun`
(data, settings, seed, device, teacher), and gives an `ofa_pose.train.objectives.Objective`: `network`, the input side
of a step, and the named parts of a batch's loss, whose sum is minimised and which metrics.jsonl holds.
`training.objective(network)` is the toolkit's own, to build on.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import ofa_pose
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.geometry import HIGH_STRIDE
from ofa_pose.train.losses import heatmaps
from ofa_pose.train.objectives import Losses, label_losses
from ofa_pose.train.training_run import TrainingRun


class AbsoluteErrors:
    """LitePose's losses, but for the heatmaps at 1/2."""

    def __init__(self, network: LitePose, training: TrainingRun) -> None:
        self.network, self.settings = network, training.loss

    def resolution(self, step: int) -> int:
        return self.network.spec.resolution

    def loss(self, batch: Batch, step: int) -> Losses:
        low, high = self.network(normalise(batch.images))
        losses = label_losses(low, high, batch, self.settings)
        size = (high.shape[2], high.shape[3])
        target = heatmaps(batch.keypoints, size, HIGH_STRIDE, self.settings.sigma)
        errors = (high - target).abs() * (1 + self.settings.foreground * target) * batch.mask[:, None]
        return {**losses, "high": errors.mean()}


with TemporaryDirectory() as folder:
    data = ofa_pose.data_synth(Path(folder) / "data", images=8, size=64, workers=1)
    overrides = ["train.steps=3", "train.batch=2", "train.workers=0", "train.evaluate_images=2"]
    for split in ("train", "val"):
        overrides += [f"data.{split}.annotations={data.annotations}", f"data.{split}.images={data.images}"]
    runs = {
        name: ofa_pose.pretrain(
            Path(folder) / name, recipe="nano", overrides=overrides, device="cpu", objective=objective
        )
        for name, objective in (("own", None), ("absolute", AbsoluteErrors))
    }
    first = {name: json.loads((run.out / "metrics.jsonl").read_text().splitlines()[0]) for name, run in runs.items()}
    assert first["absolute"].keys() == first["own"].keys() >= {"loss", "low", "high", "push", "pull"}
    assert first["absolute"]["high"] != first["own"]["high"], "the loss is another"
    assert ofa_pose.load(runs["absolute"].out, device="cpu").skeleton.name == "coco", "a checkpoint like any other"
print("a net was trained with a loss of its own")
