"""The budget of a search as people write it; one that no subnet keeps is refused before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ofa_pose.api.searching import read_budget
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.costs.limits import Budget
from ofa_pose.models.elastic import Supernet
from ofa_pose.skeleton import load_skeleton
from ofa_pose.utils.errors import InputError
from tests.searches.small_spaces import JOINTS, small_space


def test_counts_are_read() -> None:
    budget = read_budget(small_space(), JOINTS, "1.2G", params=90_000, convention="exact")
    assert (budget.macs, budget.params, budget.convention) == (1_200_000_000, 90_000, "exact")
    assert budget.latency_ms is None and budget.latency_table is None


def test_what_is_no_budget_is_refused() -> None:
    for given, reason in (
        ({}, "needs a budget"),
        ({"macs": "1.2Q"}, "'1.2Q' is not a count"),
        ({"macs": "1G", "convention": "thopp"}, "no such MAC convention: 'thopp'.*thop"),
        ({"latency": "5ms"}, "--latency needs a latency table.*latency build"),
    ):
        with pytest.raises(InputError, match=reason):
            read_budget(small_space(), JOINTS, **given)  # type: ignore[arg-type]


def test_a_count_without_its_unit_is_asked_for_one() -> None:
    for macs, params, said in (("340", None, "--macs 340 .* as in 340M"), (None, " 2", "--params  ?2 .* as in 2M")):
        with pytest.raises(InputError, match=said):
            Budget.parse(macs, params, "thop")
    assert Budget.parse(340, None, "thop").macs == 340 and Budget.parse("0.5K", None, "thop").macs == 500
    assert Budget.parse("90000", None, "thop").macs == 90_000


@pytest.mark.slow
def test_a_budget_that_no_subnet_keeps_is_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    space = small_space()
    weights = Supernet(space, JOINTS).state_dict()
    supernet = Checkpoint("supernet", space.largest(JOINTS), space, load_skeleton("coco"), weights)
    save_checkpoint(tmp_path / "supernet.pt", supernet)
    heavy = ("matplotlib", "scipy", "deap", "cv2", "pydantic", "pycocotools", "onnxruntime")
    code = f"""import sys, ofa_pose
from ofa_pose.utils.errors import InputError
try:
    ofa_pose.search({str(tmp_path / "supernet.pt")!r}, out={str(tmp_path / "out")!r}, macs="1K")
except InputError as error:
    print(error)
print([name for name in {heavy} if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refusal, loaded = done.stdout.splitlines()
    assert refusal.startswith("the smallest subnet of small needs ") and "raise --macs to at least" in refusal
    assert loaded == "[]"
    assert not (tmp_path / "out").exists()
