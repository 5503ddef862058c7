"""A study's YAML: what it may say, what of it is refused, and the calls that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ofa_pose
from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import spec_macs
from ofa_pose.data.keypoint_dataset import DataSettings, Source
from ofa_pose.families.profile import profile_net
from ofa_pose.studies.ablation import Ablation, flattened, inline_net, net_file, own_data, resolved_option
from ofa_pose.studies.classify import classify
from ofa_pose.utils.config import apply_overrides
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import STUDIES, dump_yaml, shipped_folder, write_text
from tests.data.datasets import contents, write

COMMANDS = {
    "pretrain": ofa_pose.pretrain,
    "train-supernet": ofa_pose.train_supernet,
    "search": ofa_pose.search,
    "finetune": ofa_pose.finetune,
    "classify": classify,
}
SHIPPED = sorted(path.stem for path in shipped_folder(STUDIES).glob("*.yaml"))
SMALL: dict[str, Any] = {
    "asks": "Which?",
    "seeds": [0],
    "scenes": {"train": 4, "val": 2, "test": 2},
    "settings": {"space": "litepose-nano"},
    "runs": {
        "one": {"command": "train-supernet", "init": "litepose-nano-coco"},
        "two": {"command": "finetune", "arm": "two", "subnet": "litepose-xs", "supernet": {"run": "one"}},
    },
}


def load(tmp_path: Path, *overrides: str, **changed: Any) -> Ablation:
    write_text(tmp_path / "mine.yaml", dump_yaml({**SMALL, **changed}))
    return Ablation.load(tmp_path / "mine.yaml", COMMANDS, overrides)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("quick", [False, True])
def test_shipped_studies_are_valid(name: str, quick: bool) -> None:
    study = Ablation.load(name, COMMANDS, quick=quick)
    assert study.seeds == ((0,) if quick else (0, 1, 2))
    assert "LitePose (CVPR 2022, section" in study.asks
    for run in study.runs.values():
        assert run.command in COMMANDS


def test_there_is_a_study_of_each_ablation() -> None:
    assert {"kernels", "head", "shrinking", "nas", "distillation", "sampling"} <= set(SHIPPED)


def test_the_searched_net_has_at_most_the_uniform_ones_macs() -> None:
    runs = Ablation.load("nas", COMMANDS).runs
    nets = {name: runs[name].options["subnet"] for name in ("uniform", "wide", "narrow")}
    specs = {name: inline_net(net, "") for name, net in nets.items()}
    macs = {name: spec_macs(spec).exact for name, spec in specs.items() if isinstance(spec, ArchSpec)}
    search = runs["search"].options
    assert search["macs_convention"] == "exact" and search["macs"] == macs["uniform"] == max(macs.values())


def test_the_shrinking_series_has_equal_macs() -> None:
    nets = [inline_net(run.options["net"], "") for run in Ablation.load("shrinking", COMMANDS).runs.values()]
    macs = [profile_net(net)["macs"]["exact"] for net in nets]
    assert len(macs) == 4 and max(macs) < 1.02 * min(macs)


def test_runs_share_settings_and_name_each_other(tmp_path: Path) -> None:
    study = load(tmp_path, "settings.train.steps=7", "seeds=[3, 4]")
    assert study.seeds == (3, 4)
    assert study.runs["two"].needs == ("one",) and study.runs["two"].options["subnet"] == "litepose-xs"
    changed = study.runs["two"].model_copy(update={"settings": {"train": {"steps": 9}}})
    overrides = study.overrides(changed, ["seed=5"])
    assert overrides == ['space="litepose-nano"', "train.steps=7", "train.steps=9", "seed=5"]


def test_settings_become_overrides_and_come_back() -> None:
    value = {"a": {"b": [[1, 2], [3]], "c": None, "d": 1e-5}, "e": "1e-3", "f": True}
    assert apply_overrides({}, list(flattened(value))) == value


def test_options_become_paths_and_nets(tmp_path: Path) -> None:
    runs, net = tmp_path / "runs", tmp_path / "net.yaml"
    assert resolved_option({"run": "one"}, runs, net) == str(runs / "one")
    assert resolved_option({"run": "one", "file": "best.yaml"}, runs, net) == str(runs / "one" / "best.yaml")
    assert resolved_option(5, runs, net) == 5
    changed = {"preset": "litepose-xs", "kernel": 3, "resolution": 64}
    assert resolved_option(changed, runs, net) == str(net) and not net.exists()
    load(tmp_path, **run_of(subnet=changed)).write_nets(tmp_path)
    spec = load_spec(net_file(tmp_path, "two", "subnet"))
    assert (spec.kernel, spec.resolution, spec.stages) == (3, 64, load_spec("litepose-xs").stages)


def run_of(**changed: Any) -> dict[str, Any]:
    return {"runs": {**SMALL["runs"], "two": {**SMALL["runs"]["two"], **changed}}}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 0}, ["unknown key 'seed'", "did you mean 'seeds'?"]),
        ({"seeds": [1, 1]}, ["seeds", "distinct"]),
        ({"scenes": None}, ["names no images", "scenes"]),
        ({"data": {"train": {"annotations": "a", "images": "b"}}}, ["data", "val"]),
        ({"settings": {"train": {"step": 3}}}, ["train.step", "did you mean 'train.steps'?"]),
        (run_of(arm=None), ["no run is an arm"]),
        (run_of(command="finetun"), ["runs.two", "'finetun'", "did you mean 'finetune'?"]),
        (run_of(teachers="x"), ["runs.two", "'teachers'", "did you mean 'teacher'?"]),
        (run_of(supernet={"run": "once"}), ["runs.two", "'once'", "did you mean 'one'?"]),
        (run_of(supernet={"run": "two"}), ["runs.two", "no run 'two' above", "choose one of: one"]),
        (run_of(subnet={"preset": "litepose-x"}), ["runs.two.subnet", "litepose-x", "did you mean"]),
        (run_of(subnet={"preset": ["litepose-x"]}), ["runs.two.subnet", "is not a network"]),
        (run_of(subnet="litepose-xxs"), ["runs.two.subnet", "'litepose-xxs'", "did you mean 'litepose-xs'?"]),
        (run_of(subnet="none.yaml"), ["runs.two.subnet: none.yaml: no such file"]),
        (run_of(subnet={"run": "one", "file": 5}), ["runs.two: subnet", "5 is not a file's name"]),
        ({"settings": {"train": {"lr": float("nan")}}}, ["JSON"]),
        (run_of(subnet=[1, 2]), ["runs.two.subnet: [1, 2] is not a network"]),
        (run_of(subnet={"run": "one", "fil": "best.yaml"}), ["runs.two: subnet", "'fil'", "did you mean 'file'?"]),
        (run_of(subnet={"preset": "litepose-xs", "kernels": 3}), ["runs.two.subnet", "did you mean 'kernel'?"]),
        (run_of(subnet={"preset": "litepose-xs", "kernel": 4}), ["runs.two.subnet", "kernel 4"]),
        (run_of(supernet={"run": "two", "file": "x"}), ["no run 'two' above"]),
        (run_of(settings={"train": {"batch": 0}}), ["train.batch", "greater than or equal to 1"]),
        ({"runs": {"one": {"command": "search", "arm": "one", "macs": "1G"}}}, ["search needs 'supernet'"]),
        (
            {"runs": {**SMALL["runs"], "Two": {**SMALL["runs"]["two"], "arm": "three"}}},
            ["'two' and 'Two' are one folder", "rename one"],
        ),
        ({"runs": {"../one": {"command": "pretrain", "arm": "one"}}}, ["'../one'", "letters"]),
        ({"runs": {"one": {"command": "classify", "arm": "one", "net": "litepose-xs", "steps": 3}}}, ["crops"]),
    ],
)
def test_faults_are_named(tmp_path: Path, changed: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, **changed)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_unknown_studies_are_named() -> None:
    with pytest.raises(InputError, match="no such study: 'kernel'; did you mean 'kernels'"):
        Ablation.load("kernel", COMMANDS)


def test_images_that_are_found_through_annotations_are_named_to_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, contents(3 if split == "train" else 4))
    monkeypatch.chdir(tmp_path)
    data = own_data(DataSettings(train=Source(annotations="train/annotations.json"), test=Source(annotations="test")))
    assert data.test == (str(tmp_path / "test"), str(tmp_path / "test" / "images"))
    assert f'data.train.images="{tmp_path}/train/images"' in data.overrides
