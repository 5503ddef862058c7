"""Training that is aware of int8: what learns, what is evaluated, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.transforms import Augmentation
from ofa_pose.inference.evaluate import evaluate, read_inputs
from ofa_pose.models.fake_quantise import QuantisedLitePose
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.recipe import LossSettings, TrainSettings
from ofa_pose.train.loop import finetune, pretrain
from ofa_pose.train.objectives import Objective
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import plan_run
from tests.networks import randomised

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from ofa_pose.inference.quantised import calibration_inputs, int8_runner

SETTINGS = TrainSettings(steps=2, batch=3, workers=0, evaluate_every=2, lr=1e-4, int8=True)


def training(data: KeypointDataset, out: Path, settings: TrainSettings = SETTINGS) -> TrainingRun:
    run = plan_run(out, "seed: 1\n", argv=["finetune"])
    return TrainingRun(data, data, settings, Augmentation(), LossSettings(), 1, run, torch.device("cpu"))


def network(spec: ArchSpec) -> LitePose:
    """With outputs large enough to find (wrong) people everywhere."""
    return randomised(LitePose(spec, torch.Generator().manual_seed(0)))


def test_it_learns_rounded_and_is_kept_plain(
    tiny_dataset: KeypointDataset, tiny_spec: ArchSpec, tmp_path: Path
) -> None:
    learning: list[PoseNet] = []

    def objective(net: PoseNet, run: TrainingRun) -> Objective:
        learning.append(net)
        return run.objective(net)

    run = training(tiny_dataset, tmp_path / "run")
    finetune(run, network(tiny_spec), None, objective)
    assert [type(net) for net in learning] == [QuantisedLitePose]
    kept = load_checkpoint(run.run.last)
    net = kept.build()
    assert type(net) is LitePose and net.spec == tiny_spec
    plain = training(tiny_dataset, tmp_path / "plain", SETTINGS.model_copy(update={"int8": False}))
    finetune(plain, network(tiny_spec), None, objective)
    other = load_checkpoint(plain.run.last)
    assert type(learning[1]) is LitePose and kept.weights.keys() == other.weights.keys()
    assert not torch.equal(kept.weights["stem.0.conv.weight"], other.weights["stem.0.conv.weight"])


def test_its_aps_are_int8_s(tiny_dataset: KeypointDataset, tiny_spec: ArchSpec, tmp_path: Path) -> None:
    run, net = training(tiny_dataset, tmp_path / "run"), network(tiny_spec).eval()
    inputs = list(read_inputs(tiny_dataset, tiny_spec.resolution, 3))
    runner = int8_runner(net, calibration_inputs(tiny_dataset, tiny_spec.resolution))
    expected = evaluate(runner, tiny_dataset, inputs, config=run.decode, resample=False)
    assert run.evaluation(net)() == expected.metrics
    images = inputs[0].images
    for found, wanted in zip(run.runners(net)(net)(images), runner(images), strict=True):
        assert (found == wanted).all()


def test_what_cannot_learn_so(tiny_dataset: KeypointDataset, tiny_space: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.int8 is of a fixed LitePose"):
        pretrain(training(tiny_dataset, tmp_path / "run"), replace(tiny_space), tiny_space)
    assert not (tmp_path / "run").exists()
