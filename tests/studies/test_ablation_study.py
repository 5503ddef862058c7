"""A study as a job: what it says before it begins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import ofa_pose
from ofa_pose.studies.ablation import Ablation
from ofa_pose.studies.ablation_study import AblationStudy
from tests.studies.test_ablation import COMMANDS


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
