"""The Python API: what the shell does, with losses and metrics of one's own, and the same files."""

from __future__ import annotations

import csv
import json
import pickle
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ofa_pose
from ofa_pose.arch.space import load_space
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.metrics import Detections
from ofa_pose.recipe import load_recipe
from ofa_pose.searches import evaluation
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.config import config_text
from ofa_pose.utils.console import say, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, write_text
from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused

CROWDPOSE = ("--set", "data.metric=crowdpose")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mac": "60M"}, "search() has no argument 'mac'; did you mean 'macs'?"),
        ({"quiet": True}, "search() has no argument 'quiet'; write 'with ofa_pose.quiet():' around the call"),
        ({}, "search(): missing a required argument: 'out'; it takes supernet, out, macs, "),
        ({"supernet": "again"}, "search(): multiple values for argument 'supernet'; it takes supernet, out, macs, "),
    ],
)
def test_a_wrong_call_is_an_input_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        ofa_pose.search("runs/supernet", **given)
    assert str(error.value).startswith(said)
    with pytest.raises(InputError, match=r"^load\(\) has no argument 'flap'; did you mean 'flip'\?$"):
        ofa_pose.load("runs/net", flap=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"joints": "17"}, "latency_bundle(): joints is '17' (str); give a whole number"),
        ({"joints": True}, "latency_bundle(): joints is True (bool); give a whole number"),
        ({"joints": 10**400}, "--joints of more than 308 digits is out of range; give a number from 1 to 1000"),
        ({"share": None}, "latency_bundle(): share is None (NoneType); give a number"),
        ({"share": np.zeros(2)}, "latency_bundle(): share is array([0., 0.]) (ndarray); give a number"),
        ({"out": b"out"}, "latency_bundle(): out is b'out' (bytes); give a text or a path"),
        ({"out": None}, "latency_bundle(): out is None (NoneType); give a text or a path"),
        ({"out": "a" * 300}, "latency_bundle(): out is longer than a file's name can be, 'aaaaa"),
        ({"out": "a\0b"}, "latency_bundle(): out holds a null character, 'a\\x00b' (str); leave that out"),
        ({"out": "\ud800"}, "latency_bundle(): out is '\\ud800' (str), which is not Unicode; correct it"),
    ],
)
def test_an_argument_of_another_kind_is_an_input_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        ofa_pose.latency_bundle("litepose-nano", **{"out": "out", **given})
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    "overrides", ["train.steps=1", None, {"train.steps": 1}, (one for one in "ab"), [1], np.array("a")]
)
def test_overrides_are_a_list_of_texts(overrides: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"overrides is .*; give a list of which each is a text$"):
        ofa_pose.pretrain(out=tmp_path / "out", overrides=overrides)


@pytest.mark.parametrize("macs", ["1.2G", 1_200_000_000, 1.2e9, np.float32(1e9)])
def test_a_budget_is_a_text_or_any_number(macs: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):  # the supernet is what is missing
        ofa_pose.search(tmp_path / "none", macs=macs, out=tmp_path / "out")
    with pytest.raises(InputError, match=r"macs is \[1\] \(list\); give a text or a number"):
        ofa_pose.search(tmp_path / "none", macs=[1], out=tmp_path / "out")  # type: ignore[arg-type]


def test_what_has_a_text_or_is_whole_is_taken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nonexistent.*no such"):
        ofa_pose.report([tmp_path / "nonexistent"])
    with pytest.raises(InputError, match="none"):
        ofa_pose.load(tmp_path / "none", device=torch.device("cpu"), resolution=256.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"resolution is 256.5 \(float\); give a whole number, or leave it out"):
        ofa_pose.load(tmp_path / "none", resolution=256.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"run is 1 \(int\); give a list of which each is a text or a text or a path"):
        ofa_pose.report(1)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError, match="full"):
        ofa_pose.latency_bundle(
            "litepose-nano", out=tmp_path / "full", joints=np.int64(3), share=np.float32(0.5), nets=np.uint8(2)
        )


def test_an_unknown_algorithm_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no such algorithm: 'evolutoin'; did you mean 'evolution'\?$"):
        ofa_pose.search(tmp_path / "none", macs="1G", out=tmp_path / "out", algorithm="evolutoin")


def test_a_call_can_be_silenced_but_for_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with ofa_pose.quiet():
        say("begins")
        warn("odd")
    say("again")
    assert capsys.readouterr().err == "warning: odd\nagain\n"


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class Doubled:
    """The toolkit's own objective with an additional part."""

    def __init__(self, network: LitePose, training: TrainingRun) -> None:
        self.network, self.training, self.own = network, training, training.objective(network)

    def resolution(self, step: int) -> int:
        return self.own.resolution(step)

    def loss(self, batch: Any, step: int) -> dict[str, Any]:
        losses = self.own.loss(batch, step)
        return {**losses, "again": sum(losses.values())}


def test_a_function_does_what_its_command_does(call: Call, recipe: Path, tmp_path: Path) -> None:
    words = ("--recipe", recipe, "--set", "train.steps=2", "--seed", 3, "--device", "cpu")
    shell = call("pretrain", *words, "--out", tmp_path / "shell", "--json").result
    given = {"recipe": recipe, "overrides": ["train.steps=2"], "seed": 3, "device": "cpu"}
    done = ofa_pose.pretrain(tmp_path / "python", **given)
    own = {name: done.to_dict()[name] for name in ("checkpoint", "out", "poses", "seconds")}
    assert done.to_dict() == {**shell, **own} and own["poses"] == str(tmp_path / "python" / "poses.jpg")
    for name in ("recipe.yaml", "checkpoints/best.pt", "checkpoints/last.pt"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "shell" / name).read_bytes(), name
    command = (tmp_path / "python" / "command.txt").read_text()
    assert command.startswith(f"ofa-pose pretrain --out {tmp_path / 'python'} --recipe {recipe} --set train.steps=2 ")
    assert command.endswith(" --seed 3 --device cpu\n")
    with pytest.raises(InputError, match="holds a run already"):
        ofa_pose.pretrain(tmp_path / "python", **given)
    ofa_pose.pretrain(tmp_path / "python", resume=True, **given)
    assert (tmp_path / "python" / "command.txt").read_text().splitlines()[1].endswith("--device cpu")
    page = ofa_pose.report(tmp_path / "python").out.read_text()
    assert "ofa-pose pretrain" in page


def test_every_training_takes_an_objective(recipe: Path, supernet: Path, net: Path, tmp_path: Path) -> None:
    made: list[Doubled] = []

    def objective(network: LitePose, training: TrainingRun) -> Doubled:
        made.append(Doubled(network, training))
        return made[-1]

    space = load_checkpoint(supernet).space
    assert space is not None
    write_text(tmp_path / "subnet.yaml", dump_yaml({"spec": space.smallest(17).to_dict()}))
    given = {"overrides": ["train.steps=1"], "device": "cpu", "objective": objective}
    runs = [
        ofa_pose.pretrain(tmp_path / "net", recipe=recipe, **given),
        ofa_pose.train_supernet(tmp_path / "supernet", recipe=recipe, **given),
        ofa_pose.finetune(tmp_path / "subnet.yaml", supernet=supernet, teacher=net, out=tmp_path / "tuned", **given),
    ]
    assert [isinstance(one.network, Supernet) for one in made] == [False, True, False]
    assert [one.training.teacher is not None for one in made] == [False, False, True]
    assert made[0].network.spec == load_space(str(recipe.parent / "tiny.yaml")).largest(17)
    for run, one in zip(runs, made, strict=True):
        (step,) = (record for record in records(run.out) if "loss" in record)
        assert step["loss"] == pytest.approx(2 * step["again"], rel=1e-5)
        assert one.training.run.path == run.out and "objective" in (run.out / "command.txt").read_text()
    assert "teacher_low" in records(tmp_path / "tuned")[1]


def test_the_metric_is_the_datas(call: Call, recipe: Path, data: Path, tmp_path: Path) -> None:
    words = ("--recipe", recipe, "--set", "train.steps=2", "--device", "cpu", "--out", tmp_path / "run")
    done = call("pretrain", *words, *CROWDPOSE, "--json")
    assert done.code == 0, done.err
    (evaluated,) = (record["val"] for record in records(tmp_path / "run") if "val" in record)
    assert "AP_hard" in evaluated and "AP_medium" in evaluated and "AP_large" not in evaluated
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    scored = call("eval", "--checkpoint", tmp_path / "run", *where, "--device", "cpu", "--json").result
    assert "AP_hard" in scored["metrics"], "eval's default is the metric of the checkpoint's recipe"
    chosen = call("eval", "--checkpoint", tmp_path / "run", *where, "--metric", "coco", "--device", "cpu", "--json")
    assert "AP_large" in chosen.result["metrics"]
    other = call("pretrain", *words, "--resume")
    refused(other, "another metric", "crowdpose", "coco")
    assert call("pretrain", *words, *CROWDPOSE, "--resume").code == 0
    refused(call("pretrain", *words, "--set", "data.metric=pck"), "data.metric", "pck")


def test_a_search_takes_the_metric_and_its_archive_keeps_them_apart(call: Call, supernet: Path, tmp_path: Path) -> None:
    words = ("search", "--supernet", supernet, "--params", "1G", "--device", "cpu", "--json")
    archive = ("--archive", tmp_path / "archive.sqlite")
    usual = call(*words, *archive, "--out", tmp_path / "usual").result
    assert call(*words, *archive, "--out", tmp_path / "again").result["judged"] == 0
    other = call(*words, *archive, *CROWDPOSE, "--out", tmp_path / "other")
    assert other.code == 0, other.err
    assert other.result["judged"] == usual["judged"] >= usual["evaluations"]
    changed = (*words, "--set", "data.metric=coco", "--out", tmp_path / "other", "--resume")
    refused(call(*changed), "another metric", "crowdpose")
    refused(call(*words, *CROWDPOSE, "--out", tmp_path / "usual", "--resume"), "another metric", "crowdpose")
    assert "metric" not in json.loads((tmp_path / "usual" / "search.json").read_text()), "as earlier versions wrote it"


def test_the_usual_metric_leaves_no_trace(tiny_dataset: KeypointDataset, recipe: Path) -> None:
    resolved, _ = load_recipe("search", recipe)
    assert "metric" not in config_text(resolved)
    supernet = Supernet(load_space(resolved.space), 14)
    evaluators = (
        SubnetEvaluator(supernet, tiny_dataset, replace(tiny_dataset, metric=metric), resolved.search)
        for metric in ("coco", "crowdpose")
    )
    usual, other = (evaluator.basis(None) for evaluator in evaluators)
    assert "metric" not in usual and other == {**usual, "metric": "crowdpose"}


class Posted(Executor):
    """Everything goes through pickle, as between processes."""

    def __init__(self) -> None:
        self.genomes: list[Any] = []

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        task, args = pickle.loads(pickle.dumps((task, args)))
        self.genomes += args
        future.set_result(pickle.loads(pickle.dumps(task(*args))))
        return future


@pytest.mark.slow
def test_an_executor_of_ones_own_evaluates(supernet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(out: Path) -> list[dict[str, str]]:
        with (out / "history.csv").open(newline="") as file:
            return [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]

    evaluation._read_anew.cache_clear()
    alone = ofa_pose.search(supernet, out=tmp_path / "alone", params="1G", device="cpu")
    executor = Posted()
    found = ofa_pose.search(supernet, out=tmp_path / "posted", params="1G", device="cpu", executor=executor)
    assert found.best == alone.best and found.judged == alone.judged == len(executor.genomes)
    assert rows(tmp_path / "posted") == rows(tmp_path / "alone")
    assert evaluation._read_anew.cache_info().misses == 1, "the supernet is read once by each process"
    monkeypatch.setattr(evaluation, "EVALUATION_VERSION", 99)
    resolved, _ = load_recipe("search", None, (), load_checkpoint(supernet).recipe)
    sent = pickle.dumps(SubnetEvaluator.from_checkpoint(load_checkpoint(supernet), resolved, "cpu"))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"another supernet, other data or another version.*same files"):
        pickle.loads(sent).measure((0,) * 15)


class Found:
    """How many people were found for each that is there."""

    def __init__(self, dataset: KeypointDataset) -> None:
        self.people = dataset.people

    def score(self, detections: Detections) -> dict[str, Any]:
        return {"AP": len(detections) / self.people, "people": self.people}


def test_eval_takes_a_metric_of_ones_own(data: Path, tmp_path: Path) -> None:
    where: dict[str, Any] = {"annotations": data / "val" / "annotations.json", "images": data / "val" / "images"}
    given = {**where, "device": "cpu", "metric": Found}
    done = ofa_pose.evaluate("litepose-nano-coco", out=tmp_path, **given)
    found = json.loads((tmp_path / "results.json").read_text())
    assert done.metrics["people"] > 0 and done.metrics["AP"] == len(found) / done.metrics["people"]
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"] == done.metrics
    again = ofa_pose.evaluate(results=tmp_path / "results.json", annotations=where["annotations"], metric=Found)
    assert again.metrics == done.metrics and again.resolutions is None and again.flip is None
    assert set(again.to_dict()) == {"metrics", "images", "people", "seconds"}
    with pytest.raises(InputError, match="this metric has no breakdown"):
        ofa_pose.evaluate("litepose-nano-coco", breakdown=True, **given)


def test_an_option_that_was_not_given_is_known(data: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "results.json", "[]")
    given: dict[str, Any] = {
        "results": tmp_path / "results.json",
        "annotations": data / "val" / "annotations.json",
    }
    assert ofa_pose.evaluate(**given).metrics["AP"] == 0
    for option, value in {"flip": True, "batch": 16, "decoding": "ours", "scales": (2.0,), "device": "cpu"}.items():
        with pytest.raises(InputError, match="--results are decoded already"):
            ofa_pose.evaluate(**given, **{option: value})
