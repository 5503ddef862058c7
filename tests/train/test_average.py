"""The moving average of weights: what it is, that it is what is evaluated and kept, that a resumed run has the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ofa_pose.models.litepose import LitePose
from ofa_pose.train.average import WeightAverage
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import Interrupted
from tests.networks import randomised
from tests.train.test_loop import SHORT, Killed, MakeJob, make_job, records, same  # noqa: F401

AVERAGED = SHORT.model_copy(update={"ema": 0.6})


def test_it_is_the_exponential_average_whose_decay_rises_to_the_one_given(tiny_spec: ArchSpec) -> None:
    net = randomised(LitePose(tiny_spec, torch.Generator().manual_seed(1)))
    average = WeightAverage(net, 0.3)
    weight = net.get_submodule("stem.0.conv").weight
    expected, counted = weight.detach().clone(), net.get_submodule("stem.0.norm").num_batches_tracked
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (3, 0.3), (4, 0.3)):
        with torch.no_grad():
            weight += step
            counted += 1
        average.update(step)
        expected = decay * expected + (1 - decay) * weight.detach()
        assert torch.allclose(average.values["stem.0.conv.weight"], expected, atol=1e-6)
        assert average.values["stem.0.norm.num_batches_tracked"] == step


def test_a_network_that_holds_the_average_for_a_while_gets_its_weights_back(tiny_spec: ArchSpec) -> None:
    net = randomised(LitePose(tiny_spec, torch.Generator().manual_seed(1)))
    average = WeightAverage(net, 0.5)
    held = {name: value.clone() for name, value in average.values.items()}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(Killed), average.lent():
        assert same(dict(net.state_dict()), held)
        raise Killed
    assert same(dict(net.state_dict()), before) and same(average.values, held)


@pytest.mark.parametrize("kind", ["net", "supernet"])
def test_the_average_is_evaluated_and_kept_and_resumed(make_job: MakeJob, kind: str) -> None:  # noqa: F811
    seen: list[Any] = []

    def watching(out: str, **change: Any) -> Any:
        job = make_job(out, kind, AVERAGED, **change)

        def evaluate() -> dict[str, Any]:
            seen.append({name: value.clone() for name, value in job.objective.network.state_dict().items()})
            return {"AP": float(len(seen))}

        job.evaluate = evaluate
        return job

    whole = watching("whole")
    whole.fit()
    last, best = (load_checkpoint(path) for path in (whole.run.last, whole.run.best))
    assert last.training is not None
    assert same(best.weights, seen[-1]) and same(last.training["average"], seen[-1])
    assert not same(last.weights, best.weights)
    assert same(last.weights, dict(whole.objective.network.state_dict()))

    plain = make_job("plain", kind)
    plain.fit()
    assert same(load_checkpoint(plain.run.last).weights, last.weights), "the average changes nothing of the training"

    begun = watching("killed")
    evaluate, seen[:] = begun.evaluate, []

    def dying() -> dict[str, Any]:
        if len(seen) == 1:
            raise Killed
        return evaluate()

    begun.evaluate = dying
    with pytest.raises(Killed):
        begun.fit()  # at step 6; a checkpoint was written after step 4
    resumed = watching("killed", resume=True)
    resumed.fit()
    assert records(resumed) == [
        {**record, "val": {"AP": float(n)}} if "val" in record else record
        for record, n in zip(records(whole), (0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 3), strict=True)
    ]
    kept = load_checkpoint(resumed.run.last)
    assert same(kept.weights, last.weights) and same(kept.training, last.training)
    assert same(load_checkpoint(resumed.run.best).weights, best.weights)


def test_a_signal_while_the_weights_come_back_mixes_nothing(
    make_job: MakeJob,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = make_job("whole", settings=AVERAGED)
    whole.fit()
    ends: list[int] = []

    class Told(dict[str, Any]):
        def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
            for number, item in enumerate(super().items()):
                if ends and number == 5:
                    raise Interrupted(ends.pop())
                yield item

    make = WeightAverage.__init__

    def told(average: WeightAverage, *args: Any) -> None:
        make(average, *args)
        average._tensors = Told(average._tensors)

    job = make_job("run", settings=AVERAGED)
    evaluate = job.evaluate
    job.evaluate = lambda: (ends.append(signal.SIGINT), evaluate())[1]
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(WeightAverage, "__init__", told)
        job.fit()
    assert (load_checkpoint(job.run.last).training or {})["step"] == AVERAGED.evaluate_every
    again = make_job("run", settings=AVERAGED, resume=True)
    again.fit()
    assert same(load_checkpoint(again.run.last).weights, load_checkpoint(whole.run.last).weights)


def test_a_run_without_an_average_may_get_one_and_a_damaged_one_is_refused(make_job: MakeJob) -> None:  # noqa: F811
    make_job("run", settings=SHORT.model_copy(update={"steps": 2})).fit()
    job = make_job("run", settings=AVERAGED, resume=True)
    job.fit()
    checkpoint = load_checkpoint(job.run.last)
    assert checkpoint.training
    for damaged, words in (([1], "a training state that is damaged"), ({"x": torch.zeros(1)}, "has no weights")):
        checkpoint.training["average"] = damaged
        save_checkpoint(job.run.last, checkpoint)
        with pytest.raises(InputError, match=words):
            make_job("run", settings=AVERAGED, resume=True).fit()
