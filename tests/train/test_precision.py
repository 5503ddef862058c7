"""Precision, kernels, compiled nets, figures that are read late: how a training is computed on a device."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

import ofa_pose
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.data.loader import Batch
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.sync_norm import synchronise
from ofa_pose.recipe import LossSettings
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.train import loop, updates
from ofa_pose.train.average import WeightAverage
from ofa_pose.train.distributed import Processes
from ofa_pose.train.loop import fit
from ofa_pose.train.losses import heatmaps
from ofa_pose.train.objectives import Distillation, FixedNet, UniformSampling
from ofa_pose.train.precision import compile_net, describe, kernels, pick_precision
from ofa_pose.train.updates import update
from ofa_pose.utils.errors import OfaPoseError
from tests.networks import same_state
from tests.train.processes import plain_sgd
from tests.train.test_loop import SHORT, MakeJob, make_job, records  # noqa: F401

CPU = torch.device("cpu")


def blank(device: str, side: int = 64) -> Batch:
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8, device=device)
    keypoints = torch.ones(2, 3, 14, 3, device=device)
    return Batch(images, keypoints, torch.ones(2, side // 2, side // 2, dtype=torch.uint8, device=device), side)


def test_the_precision_is_the_devices_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for supported, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported, **_: supported)
        assert pick_precision(None, gpu) == expected
        assert pick_precision("float32", gpu) == "float32" and pick_precision(None, CPU) == "float32"
    assert pick_precision("bfloat16", CPU) == "bfloat16"


def test_the_opening_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe(CPU, "float32", Processes()) == "cpu, float32, 1 process of 2 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    gpu = torch.device("cuda", 3)
    assert describe(gpu, "bfloat16", Processes(3, 8, 3)) == "cuda:3, bfloat16, 8 processes of 1 thread"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kernels_are_set_for_a_while(precision: Any) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    with pytest.raises(ZeroDivisionError), kernels(precision, fixed_shapes=not before[2]):
        rounded = precision == "bfloat16"
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (rounded, rounded, not before[2])
        raise ZeroDivisionError
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == before


@pytest.mark.parametrize("kind", ["net", "supernet", "distilled"])
def test_bfloat16_rounds_the_forward_pass_alone(make_job: MakeJob, kind: str) -> None:  # noqa: F811
    seen: list[torch.dtype] = []
    jobs = {}
    for precision in ("float32", "bfloat16"):
        job = jobs[precision] = make_job(precision, kind, SHORT.model_copy(update={"precision": precision}))
        network = job.objective.network
        network.register_forward_hook(lambda _net, _inputs, outputs: seen.extend(one.dtype for one in outputs))
        job.fit()
        assert set(seen) == {getattr(torch, precision)}
        assert all(value.dtype != torch.bfloat16 for value in network.state_dict().values())
        seen.clear()
    pairs = list(zip(*(records(job) for job in jobs.values()), strict=True))
    for exact, rounded in pairs:
        if "loss" in exact:
            assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.05)
    assert any(exact["loss"] != rounded["loss"] for exact, rounded in pairs if "loss" in exact)


@pytest.mark.parametrize("kind", ["net", "supernet", "distilled"])
def test_a_step_is_computed_without_asking_what_the_device_holds(
    kind: str, tiny_spec: ArchSpec, tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "skips_by_itself", lambda optimizer: True)
    settings = LossSettings()
    with torch.device("meta"):  # tensors without values: who asked for one would fail
        net, teacher = LitePose(tiny_spec), LitePose(replace(tiny_spec, resolution=96))
        objective: Any = FixedNet(net, (64,), 1, settings)
        if kind == "supernet":
            objective = UniformSampling(Supernet(tiny_space, 14), 1, settings)
        elif kind == "distilled":
            objective = Distillation(net, (64,), 1, settings, teacher)
        losses = objective.loss(blank("meta", objective.resolution(3)), 3)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
    assert total.shape == () and total.dtype == torch.float32
    optimizer = torch.optim.SGD(objective.network.parameters(), lr=0.1)
    monkeypatch.setattr(optimizer, "step", lambda: None)  # fused ones, which read `found_inf`, need a real device
    average = WeightAverage(objective.network, 0.5)
    figures = update(objective.network, optimizer, losses, clip=1.0)
    average.update(1)
    assert figures.values.is_meta and len(figures.values) == len(losses) + 2
    assert all(weight.grad is not None for weight in objective.network.parameters() if kind != "supernet")


def test_targets_are_the_same_whether_or_not_the_unlabelled_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    places = torch.rand(3, 4, 5, 2, generator=torch.Generator().manual_seed(1)) * 80 - 8
    keypoints = torch.cat([places, (torch.arange(60) % 3).view(3, 4, 5, 1).float()], -1)

    class Elsewhere(torch.Tensor):
        device = torch.device("meta")  # says so, and computes here

    expected = heatmaps(keypoints, (16, 20), 4)
    real = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *size, device: real(*size))
    found = heatmaps(keypoints.as_subclass(Elsewhere), (16, 20), 4)
    assert torch.equal(found.as_subclass(torch.Tensor), expected) and expected.max() > 0.5


class Slow:
    """A network's losses with one that is no number at some step, on a device whose figures are read late."""

    def __init__(self, objective: Any, broken: int) -> None:
        self.network, self.resolution = objective.network, objective.resolution
        self._objective, self._broken = objective, broken

    def loss(self, batch: Batch, step: int) -> Any:
        losses = self._objective.loss(batch, step)
        return {name: value * (float("nan") if step == self._broken else 1) for name, value in losses.items()}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as on a GPU: one kernel updates all weights, figures are read some steps late."""

    def fused(network: Any, settings: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), lr=settings.lr, fused=True)

    monkeypatch.setattr(loop, "make_optimizer", fused)
    for module in (loop, updates):
        monkeypatch.setattr(module, "skips_by_itself", lambda optimizer: True)


@pytest.mark.usefixtures("late")
def test_records_that_are_read_late_are_all_written_in_order(make_job: MakeJob) -> None:  # noqa: F811
    job = make_job("run")
    job.fit()
    steps = [(record["step"], "val" in record) for record in records(job)]
    assert steps == sorted(steps) and [step for step, val in steps if not val] == list(range(1, 9))


@pytest.mark.usefixtures("late")
def test_a_step_without_a_finite_loss_that_is_seen_late_is_skipped_and_ends_the_run(make_job: MakeJob) -> None:  # noqa: F811
    job = make_job("run", settings=SHORT.model_copy(update={"evaluate_every": 4}))
    job.objective = Slow(job.objective, 4)  # the fifth step; it is read before the evaluation after the eighth
    with pytest.raises(OfaPoseError, match=r"the loss is not finite \(loss nan.*lower train.lr"):
        job.fit()
    assert [record["step"] for record in records(job) if "loss" in record] == [1, 2, 3, 4]
    assert all(value.isfinite().all() for name, value in job.objective.network.named_parameters())
    assert load_checkpoint(job.run.last).training["step"] == 4  # type: ignore[index]


@pytest.mark.usefixtures("late")
def test_a_fused_optimiser_leaves_out_a_step_that_is_not_finite(tiny_spec: ArchSpec) -> None:
    net = LitePose(tiny_spec)
    optimizer = loop.make_optimizer(net, SHORT)
    net.get_submodule("stem.0.conv").weight.sum().backward()
    update(net, optimizer, {"low": torch.tensor(1.0)}, clip=1.0).read()
    before = copy.deepcopy(net), copy.deepcopy(optimizer.state_dict()["state"])
    figures = update(net, optimizer, {"low": torch.tensor(float("inf"))}, clip=1.0)
    assert same_state(net, before[0])
    state = optimizer.state_dict()["state"]
    assert all(torch.equal(state[n][key], value) for n, kept in before[1].items() for key, value in kept.items())
    with pytest.raises(OfaPoseError, match="not finite"):
        figures.read()


@pytest.mark.parametrize("kind", ["net", "supernet"])
def test_accumulated_parts_make_the_gradient_of_the_whole(make_job: MakeJob, kind: str) -> None:  # noqa: F811
    """BatchNorm keeps its statistics here: in training each part would be normalised by its own."""
    weights, losses = [], []
    for accumulate in (1, 2, 3):
        job = make_job(str(accumulate), kind, SHORT.model_copy(update={"batch": 6, "accumulate": accumulate}))
        network = job.objective.network.double()
        network.register_forward_pre_hook(lambda net, _inputs: net.eval() and None)
        fit(job.training, job.objective, job.evaluate, job.space, optimizer=plain_sgd)
        weights.append(dict(network.state_dict()))
        losses.append([record["loss"] for record in records(job) if "loss" in record])
    for other, lost in zip(weights[1:], losses[1:], strict=True):
        assert lost == pytest.approx(losses[0], rel=1e-12)
        assert all(torch.allclose(value, weights[0][name], rtol=0, atol=1e-12) for name, value in other.items())


def test_what_cannot_be_compiled_is_left_as_it_is(
    tiny_spec: ArchSpec, tiny_space: SearchSpace, capfd: pytest.CaptureFixture[str]
) -> None:
    compile_net(supernet := Supernet(tiny_space, 14))
    assert "train.compile is left out" in capfd.readouterr().err
    synchronise(net := LitePose(tiny_spec))
    compile_net(net)
    assert "a compiled net exchanges no statistics" in capfd.readouterr().err
    assert supernet._compiled_call_impl is None and net._compiled_call_impl is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bfloat16_trains_to_the_ap_of_float32(seed: int, tmp_path: Path) -> None:
    """A net of the shipped weights learns drawn scenes of a size that it has not seen."""
    data = []
    for split, images, seed in (("train", 80, 1), ("val", 60, 2)):
        write_dataset(tmp_path / split, images=images, size=128, joints="coco", seed=seed, workers=1)
        data += [f"data.{split}.annotations={tmp_path / split}/annotations.json"]
        data += [f"data.{split}.images={tmp_path / split}/images"]
    settings = ["steps=60", "batch=8", "lr=5e-4", "resolutions=[128]", "evaluate_every=20", "evaluate_images=60"]
    options = [*data, *(f"train.{setting}" for setting in settings), "decode.calibrate=false"]
    found = {}
    for precision in ("float32", "bfloat16"):
        overrides = [*options, f"train.precision={precision}"]
        start = {"recipe": "nano", "init": "litepose-nano-coco", "device": "cpu"}
        found[precision] = ofa_pose.pretrain(tmp_path / precision, **start, overrides=overrides, seed=seed).AP
    assert found["float32"] > 0.2
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.02)


@pytest.mark.slow
def test_a_net_that_cannot_be_compiled_is_one_line(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fail(*_: Any) -> Any:
        raise RuntimeError("No working C++ compiler\n\nSet TORCH_LOGS")

    monkeypatch.setattr(LitePose, "compile", partialmethod(torch.nn.Module.compile, backend=fail))
    reason = r"could not be compiled \(.*No working C\+\+ compiler\); go on with --resume --set train.compile=false"
    with pytest.raises(OfaPoseError, match=reason):
        make_job("run", settings=SHORT.model_copy(update={"compile": True})).fit()
    make_job("run", resume=True).fit()


@pytest.mark.slow
def test_a_compiled_net_trains_as_before(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from torch._dynamo.utils import counters

    traced = partialmethod(torch.nn.Module.compile, backend="aot_eager")  # its code is not what is tested
    monkeypatch.setattr(LitePose, "compile", traced)
    counters.clear()
    compiled = make_job("compiled", settings=SHORT.model_copy(update={"compile": True}))
    compiled.fit()
    assert counters["stats"]["unique_graphs"] == 2, "one for each of the two resolutions"
    plain = make_job("plain")
    plain.fit()
    for one, other in zip(records(compiled), records(plain), strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
