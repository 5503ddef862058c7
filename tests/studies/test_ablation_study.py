"""A study as a job: what it says before it begins."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ofa_pose
from ofa_pose.studies.ablation import Ablation, own_data
from ofa_pose.studies.ablation_study import AblationStudy
from ofa_pose.utils.files import dump_yaml, find_yaml, read_yaml, write_text
from tests.data.datasets import contents, write
from tests.studies.test_ablation import COMMANDS

NET = {"resolution": 32, "stem": 4, "stages": [4, 4, 8, 8], "expansions": [[1], [1], [1], [1]], "deconv": [4, 4, 4]}
NET |= {"kernel": 3, "joints": 17}


@pytest.mark.parametrize(
    ("name", "quick", "facts"),
    [
        ("head", False, {"runs": "plain, fusion; each with the seeds 0, 1, 2: 6 trainings", "space": ""}),
        ("head", True, {"runs": "plain, fusion; with the seed 0: 2 trainings"}),
        (
            "nas",  # a search is no training
            True,
            {"runs": "supernet, search, uniform, wide, narrow, searched; with the seed 0: 5 trainings"}
            | {"space": "litepose-nano", "recipe": "nano"},
        ),
    ],
)
def test_its_opening_says_what_it_will_do(name: str, quick: bool, facts: dict[str, str]) -> None:
    study = AblationStudy(name, Ablation.load(name, COMMANDS, quick=quick), COMMANDS, ofa_pose.evaluate)
    assert facts.items() <= study.facts().items()


def test_its_opening_says_where_it_runs() -> None:
    study = AblationStudy("head", Ablation.load("head", COMMANDS), COMMANDS, ofa_pose.evaluate, "cpu")
    assert study.facts()["device"] == "cpu"
    assert study.facts(workers=2)["device"] == "cpu; 2 runs at once, of one thread each"
    with ThreadPoolExecutor(1) as executor:
        elsewhere = AblationStudy("head", study.ablation, COMMANDS, ofa_pose.evaluate)
        assert elsewhere.facts(executor)["device"] == "a GPU where a worker has one"


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, AblationStudy]:
    """A study all of whose parts are files, and its folder."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, contents(3 if split == "train" else 4))
    for name in ("space", "recipe", "net"):
        kind = {"space": "search_spaces", "recipe": "recipes"}.get(name)
        value = read_yaml(find_yaml(kind, "litepose-nano" if name == "space" else "nano")) if kind else NET
        write_text(tmp_path / f"{name}.yaml", dump_yaml(value))
    (tmp_path / "start.pt").write_bytes(b"weights")
    runs = {
        "largest": {"command": "pretrain", "init": str(tmp_path / "start.pt")},
        "given": {"command": "pretrain", "arm": "given", "net": str(tmp_path / "net.yaml")},
        "inline": {"command": "pretrain", "arm": "inline", "net": {"preset": str(tmp_path / "net.yaml"), "kernel": 5}},
        "last": {"command": "finetune", "subnet": "litepose-xs", "supernet": {"run": "largest"}},
    }
    data = {name: {"annotations": str(tmp_path / name)} for name in ("train", "test")}
    study = {"asks": "?", "seeds": [0, 1], "runs": runs, "recipe": str(tmp_path / "recipe.yaml")}
    study |= {"settings": {"space": str(tmp_path / "space.yaml")}, "data": {**data, "val": data["test"]}}
    write_text(tmp_path / "study.yaml", dump_yaml(study))
    return tmp_path, AblationStudy("own", Ablation.load(tmp_path / "study.yaml", COMMANDS), COMMANDS, ofa_pose.evaluate)


def bases(folder: Path, study: AblationStudy) -> dict[str, dict[str, Any]]:
    assert study.ablation.data is not None
    tasks = study.tasks(folder / "out", own_data(study.ablation.data))
    found = {task.name: dict(task.basis) for task in tasks if task.seed == 0}
    assert found == {task.name: task.basis for task in tasks if task.seed == 1}
    assert json.loads(json.dumps(found)) == found  # as a record gives it back
    return found


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("recipe.yaml", "sigma: 1.5", "sigma: 2.5", {"recipe": {"largest", "given", "inline", "last"}}),
        ("recipe.yaml", "train:", "# a comment\ntrain:", {}),
        ("space.yaml", "stem: [", "stem: [4, ", {"space": {"largest", "last"}}),
        ("net.yaml", "kernel: 3", "kernel: 7", {"net": {"given"}}),
        ("net.yaml", "stem: 4", "stem: 8", {"net": {"given", "inline"}}),
        ("start.pt", "weights", "others", {"init": {"largest"}}),
        ("train/annotations.json", "600.5", "610.5", {"data": {"largest", "given", "inline", "last"}}),
    ],
)
def test_what_its_runs_rest_on_is_told_by_content(
    own: tuple[Path, AblationStudy], file: str, old: str, new: str, changed: dict[str, set[str]]
) -> None:
    folder, _ = own
    before = bases(*own)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    after = bases(*own)
    told = {
        key: {name for name in before if before[name].get(key) != after[name].get(key)}
        for key in {key for basis in (*before.values(), *after.values()) for key in basis}
    }
    assert {key: names for key, names in told.items() if names} == changed
