"""The training loop learns, resumes to the last bit, keeps the best, and stops where numbers end."""

from __future__ import annotations

import copy
import errno
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.label_pictures import sample_picture
from ofa_pose.data.loader import training_batches
from ofa_pose.data.transforms import Augmentation, Sample
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import LossSettings, TrainSettings
from ofa_pose.skeleton import CROWDPOSE
from ofa_pose.train.distributed import Processes
from ofa_pose.train.loop import fit
from ofa_pose.train.objectives import FixedNet, Objective
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.train.updates import make_optimizer, set_rate, update
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.files import sha256
from ofa_pose.utils.run_dir import RunDir, plan_run
from tests.networks import same_state

SEED = 11
STILL = Augmentation(rotation=0, scale=(1, 1), shift=0, flip=0, brightness=0, contrast=0, saturation=0, hue=0)
SHORT = TrainSettings(steps=8, batch=3, lr=3e-3, workers=0, evaluate_every=3, checkpoint_every=4, warmup=0.2)


@dataclass
class Job:
    """A call of `fit`."""

    training: TrainingRun
    objective: Objective
    evaluate: Callable[[], dict[str, Any]]
    space: SearchSpace | None = None
    evaluate_start: bool = False

    @property
    def run(self) -> RunDir:
        return self.training.run

    def fit(self) -> dict[str, Any]:
        done = fit(self.training, self.objective, self.evaluate, self.space, self.evaluate_start)
        assert (done.checkpoint, done.out) == (self.run.best, self.run.path)
        return {"AP": done.AP, "step": done.step, "steps": done.steps}


MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(tiny_dataset: KeypointDataset, tiny_spec: ArchSpec, tiny_space: SearchSpace, tmp_path: Path) -> MakeJob:
    deep = replace(tiny_space, depth=((1,), (1, 2), (1,), (1, 2)))
    spaces = {"supernet": tiny_space, "deep supernet": deep, "sandwich": tiny_space}

    def network_of(kind: str) -> LitePose:
        weights = torch.Generator().manual_seed(1)
        return Supernet(spaces[kind], 14, weights) if kind in spaces else LitePose(tiny_spec, weights)

    def make(out: str, kind: str = "net", settings: TrainSettings = SHORT, resume: bool = False, **change: Any) -> Job:
        network = network_of(kind)
        if kind == "net":
            settings = settings.model_copy(update={"resolutions": (32, 64)})
        if kind == "sandwich":
            settings = settings.model_copy(update={"sampling": "sandwich"})
        teacher = LitePose(replace(tiny_spec, resolution=96, stem=12), torch.Generator().manual_seed(2))

        def evaluate() -> dict[str, Any]:
            return {"AP": float(network.state_dict()["stem.0.conv.weight"].double().std()), "other": None}

        training = TrainingRun(
            tiny_dataset,
            tiny_dataset,
            settings,
            Augmentation(),
            LossSettings(),
            SEED,
            plan_run(tmp_path / out, "seed: 11\n", resume, argv=["pretrain"]),
            torch.device("cpu"),
            teacher if kind == "distilled" else None,
            {"seed": SEED},
        )
        return replace(Job(training, training.objective(network), evaluate, spaces.get(kind)), **change)

    return make


def test_a_machine_without_shared_memory_is_told_of_before_anything_is_written(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    job = make_job("run", settings=SHORT.model_copy(update={"workers": 1}))
    with pytest.raises(InputError, match=r"need shared memory.*\(Function not implemented\).* set train\.workers=0"):
        job.fit()
    assert not job.run.path.exists()


class Killed(Exception):
    pass


def test_nothing_is_written_where_processes_would_go_on_from_different_steps(make_job: MakeJob) -> None:
    class Two(Processes):
        """The other one has a run that is at step 7."""

        def highest(self, number: int) -> int:
            return max(number, 7 if number < 0 else -7)

    job = make_job("run")
    with pytest.raises(InputError, match="not the same for all processes"):
        replace(job, training=replace(job.training, processes=Two())).fit()
    assert not job.run.path.exists()


def test_too_little_memory_of_a_gpu_is_said_in_a_line(make_job: MakeJob) -> None:
    class Large(FixedNet):
        def loss(self, batch: Any, step: int) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has 79 GiB.")

    job = make_job("run")
    words = (
        r"too little \(CUDA out of memory\); lower train.batch .*train.accumulate, then go on with: ofa-pose pretrain"
    )
    with pytest.raises(OfaPoseError, match=words):
        replace(job, objective=Large(job.objective.network, (64,), SEED, LossSettings())).fit()


def records(job: Job) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what a clock measured."""
    lines = [json.loads(line) for line in job.run.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "data_wait")} for line in lines]


def tensors(value: Any) -> list[Any]:
    """The leaves of a nested state, in order."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in tensors(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for inner in value for leaf in tensors(inner)]
    return [value]


def same(one: Any, other: Any) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("kind", ["net", "supernet", "deep supernet", "sandwich", "distilled"])
@pytest.mark.parametrize("killed_by", ["evaluate", "save"])
def test_a_killed_run_resumes_to_the_last_bit(
    make_job: MakeJob, kind: str, killed_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_job("whole", kind)
    result = whole.fit()
    begun = make_job("killed", kind)
    left = {"evaluate": 1, "save": 2}[killed_by]  # evaluated at 3, 6, 8; saved at 3 (best), 4, ...

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return work(*arguments)

        return call

    with monkeypatch.context() as patched:
        if killed_by == "save":
            patched.setattr("ofa_pose.train.loop.save_checkpoint", dying(save_checkpoint))
        else:
            begun.evaluate = dying(begun.evaluate)
        with pytest.raises(Killed):
            begun.fit()
    assert load_checkpoint(begun.run.last).training["step"] == 4  # type: ignore[index]
    assert max(record["step"] for record in records(begun)) > 4, "steps after the checkpoint were logged"
    resumed = make_job("killed", kind, resume=True)
    torch.manual_seed(99)
    assert resumed.fit() == result
    assert records(resumed) == records(whole)
    assert same_state(resumed.objective.network, whole.objective.network)
    for name in ("last", "best"):
        one, other = (load_checkpoint(getattr(job.run, name)) for job in (resumed, whole))
        assert one.spec == other.spec and one.info == other.info
        assert same(one.weights, other.weights) and same(one.training, other.training), name


def test_the_same_job_gives_the_same_weights_and_workers_change_nothing(make_job: MakeJob) -> None:
    settings = SHORT.model_copy(update={"steps": 3})
    one = make_job("one", settings=settings)
    other = make_job("other", settings=settings.model_copy(update={"workers": 2}))
    one.fit()
    other.fit()
    assert same_state(one.objective.network, other.objective.network)
    assert records(one) == records(other)


def test_the_wait_for_data_is_measured_and_shown(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def slow(*arguments: Any, **options: Any) -> Iterator[Any]:
        for batch in training_batches(*arguments, **options):
            time.sleep(0.3)
            yield batch

    monkeypatch.setattr("ofa_pose.train.loop.training_batches", slow)
    job = make_job("run")
    job.fit()
    lines = [json.loads(line) for line in job.run.metrics.read_text().splitlines()]
    waits = [line["data_wait"] for line in lines if "loss" in line]
    assert len(waits) == 8 and all(0.3 <= wait < line["seconds"] for wait in waits for line in lines[-1:])
    assert re.search(r"train: 8/8 steps.* loss [\d.]+, waiting for data \d+%", capfd.readouterr().err)


def test_metrics_checkpoints_and_the_result_fit_together(make_job: MakeJob) -> None:
    scores = iter([0.2, 0.5, None])
    job = make_job("run")
    result = replace(job, evaluate=lambda: {"AP": next(scores)}).fit()
    assert result == {"AP": 0.5, "step": 6, "steps": 8}
    train_sha256 = sha256(job.training.train.annotations_path)
    best = load_checkpoint(job.run.best)
    assert best.info == {"step": 6, "metrics": {"AP": 0.5}, "train_sha256": train_sha256}
    assert best.skeleton == CROWDPOSE and best.kind == "net"
    assert load_checkpoint(job.run.best).training is None
    last = load_checkpoint(job.run.last)
    assert last.training is not None and last.training["step"] == 8 and last.recipe == {"seed": SEED}
    assert same(last.weights, dict(job.objective.network.state_dict()))
    steps = [record for record in records(job) if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, 9))
    for record in steps:
        parts = sum(record[name] for name in ("low", "high", "push", "pull"))
        assert record["loss"] == pytest.approx(parts, rel=1e-5) and record["grad_norm"] > 0
        assert record["side"] == job.objective.resolution(record["step"] - 1)
    evaluated = [(record["step"], record["val"]["AP"]) for record in records(job) if "val" in record]
    assert evaluated == [(3, 0.2), (6, 0.5), (8, None)]


def test_a_run_keeps_what_it_was_computed_with_and_its_first_samples(
    make_job: MakeJob, tiny_dataset: KeypointDataset
) -> None:
    job = make_job("run")
    job.fit()
    start, end = [json.loads(line) for line in (job.run.path / "provenance.jsonl").read_text().splitlines()]
    assert start["data"]["train"]["sha256"] == tiny_dataset.fingerprint and end["seconds"] > 0
    paths = [job.run.path / "samples" / f"{number}.jpg" for number in range(1, 7)]
    assert sorted((job.run.path / "samples").iterdir()) == paths
    batch = next(training_batches(tiny_dataset, 6, SEED, job.objective.resolution, 0, 1, Augmentation()))
    for path, image, keypoints, mask in zip(paths, batch.images, batch.keypoints, batch.mask, strict=True):
        people = keypoints[(keypoints[..., 2] > 0).any(1)].numpy()
        seen = sample_picture(Sample(image.permute(1, 2, 0).numpy(), people, mask.numpy()), tiny_dataset.skeleton, 240)
        kept = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        assert abs(kept.astype(int) - seen.astype(int)).mean() < 8


def test_the_start_is_best_where_training_makes_nothing_better_of_it(make_job: MakeJob) -> None:
    scores = iter([0.4, 0.2, 0.3, 0.1])
    job = make_job("run", evaluate=lambda: {"AP": next(scores)}, evaluate_start=True)
    before = {name: value.clone() for name, value in job.objective.network.state_dict().items()}
    assert job.fit() == {"AP": 0.4, "step": 0, "steps": 8}
    assert same(load_checkpoint(job.run.best).weights, before)


def test_a_finished_run_resumes_to_nothing_more(make_job: MakeJob) -> None:
    job = make_job("run")
    result = job.fit()
    lines = records(job)
    again = make_job("run", resume=True)
    assert again.fit() == result
    assert records(again) == lines and same_state(again.objective.network, job.objective.network)


def test_a_run_of_another_net_is_not_resumed(make_job: MakeJob, tiny_spec: ArchSpec) -> None:
    make_job("run", settings=SHORT.model_copy(update={"steps": 1})).fit()
    other = FixedNet(LitePose(replace(tiny_spec, stem=5)), (64,), SEED, LossSettings())
    with pytest.raises(InputError, match="holds a run of another net"):
        make_job("run", resume=True, objective=other).fit()


def test_the_loss_falls_on_a_few_images(make_job: MakeJob, tiny_dataset: KeypointDataset) -> None:
    settings = SHORT.model_copy(update={"steps": 40, "batch": 4, "lr": 1e-2, "evaluate_every": 40})
    few = tiny_dataset.limit(4)
    job = make_job("run", settings=settings)
    job.training = replace(job.training, train=few, augmentation=STILL)
    replace(job, objective=FixedNet(job.objective.network, (64,), SEED, LossSettings())).fit()
    losses = [record["loss"] for record in records(job) if "loss" in record]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(make_job: MakeJob) -> None:
    job = make_job("run")
    objective = job.objective

    class Broken:
        network = objective.network
        resolution = staticmethod(objective.resolution)

        @staticmethod
        def loss(batch: Any, step: int) -> dict[str, torch.Tensor]:
            losses = objective.loss(batch, step)
            return {name: value * (float("nan") if step == 5 else 1) for name, value in losses.items()}

    with pytest.raises(OfaPoseError, match=r"the loss is not finite \(loss nan.*lower train.lr") as error:
        replace(job, objective=Broken()).fit()
    assert error.value.exit_code == 1
    assert load_checkpoint(job.run.last).training["step"] == 4  # type: ignore[index]
    assert [record["step"] for record in records(job) if "loss" in record] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_neither_an_endless_loss_nor_an_endless_gradient_reaches_the_weights(tiny_spec: ArchSpec, bad: str) -> None:
    net = LitePose(tiny_spec)
    before = copy.deepcopy(net)
    weight = net.get_submodule("stem.0.conv").weight
    loss = weight.sum() * float("inf") if bad == "loss" else (weight.sum() * 0).abs().sqrt()
    loss.backward()
    with pytest.raises(OfaPoseError, match="not finite"):
        update(net, make_optimizer(net, SHORT), {"low": loss.detach()}, clip=1.0)
    assert same_state(net, before)


def test_gradients_are_clipped(tiny_spec: ArchSpec) -> None:
    net = LitePose(tiny_spec)
    loss = sum((parameter * 100).sum() for parameter in net.parameters())
    loss.backward()
    record = update(net, make_optimizer(net, SHORT), {"low": loss.detach()}, clip=0.5).read()
    clipped = torch.stack(
        [parameter.grad.norm() for parameter in net.parameters() if parameter.grad is not None]
    ).norm()
    assert clipped.item() == pytest.approx(0.5, rel=1e-3) and record["grad_norm"] > 1000


def rate_at(optimizer: torch.optim.Optimizer, settings: TrainSettings, step: int) -> float:
    set_rate(optimizer, settings, step)  # type: ignore[arg-type]
    rates = {group["lr"] for group in optimizer.param_groups}
    assert len(rates) == 1
    return rates.pop()


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_the_learning_rate_is_a_function_of_the_step_alone(tiny_spec: ArchSpec, warmup: float) -> None:
    settings = SHORT.model_copy(update={"steps": 50, "warmup": warmup, "lr": 0.1})
    optimizer = make_optimizer(LitePose(tiny_spec), settings)
    rates = [rate_at(optimizer, settings, step) for step in range(50)]
    assert [rate_at(optimizer, settings, step) for step in reversed(range(50))] == rates[::-1]
    rise = max(1, round(50 * warmup))
    assert rates[:rise] == pytest.approx([0.1 * (step + 1) / rise for step in range(rise)])
    assert max(rates) == pytest.approx(0.1) and min(rates) > 0
    assert rates[rise:] == sorted(rates[rise:], reverse=True)
    assert rates[-1] < 0.05 * 0.1 or warmup == 0.9
    single = settings.model_copy(update={"steps": 1})
    assert rate_at(optimizer, single, 0) == pytest.approx(0.1)


def test_weight_decay_is_on_convolutions_alone(tiny_spec: ArchSpec) -> None:
    net = LitePose(tiny_spec)
    decay = {
        id(parameter): group["weight_decay"]
        for group in make_optimizer(net, SHORT).param_groups
        for parameter in group["params"]
    }
    for name, parameter in net.named_parameters():
        assert decay.pop(id(parameter)) == (SHORT.weight_decay if ".conv." in name else 0.0), name
    assert not decay


def _set(*place: Any) -> Callable[[dict[str, Any]], None]:
    """What sets the value at a place, its last word, in a training state."""
    *above, last, value = place

    def change(state: dict[str, Any]) -> None:
        for key in above:
            state = state[key]
        state[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("step", "4"), "a training state that is damaged"),
        (_set("step", -1), "a training state that is damaged"),
        (_set("origin", [1]), "a training state that is damaged"),
        (_set("best", None), "a training state that is damaged"),
        (_set("best", {"AP": 0.5, "step": 4, "more": 1}), "a training state that is damaged"),
        (_set("best", "AP", "high"), "a damaged best AP"),
        (_set("best", "AP", float("nan")), "a damaged best AP"),
        (_set("optimizer", []), "an optimiser state"),
        (_set("optimizer", "state", 3, 1), "an optimiser state"),
        (_set("optimizer", "state", 0, "exp_avg", torch.zeros(1)), "an optimiser state"),
        (_set("optimizer", "state", 0, "exp_avg_sq", [0.5]), "an optimiser state"),
        (_set("optimizer", "state", 0, "step", torch.tensor(float("inf"))), "an optimiser state"),
    ],
)
def test_a_damaged_training_state_is_refused(make_job: MakeJob, change: Any, words: str) -> None:
    job = make_job("run", settings=SHORT.model_copy(update={"steps": 4}))
    job.fit()
    checkpoint = load_checkpoint(job.run.last)
    assert checkpoint.training
    change(checkpoint.training)
    save_checkpoint(job.run.last, checkpoint)
    before = job.run.metrics.read_text()
    with pytest.raises(InputError, match=rf"last\.pt: holds {words}"):
        make_job("run", resume=True).fit()
    assert job.run.metrics.read_text() == before
