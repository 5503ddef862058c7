"""What the demo promises, over three seeds: half an hour on two cores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import spec_macs
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import read_json
from tests.cli.conftest import Call, call  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The summaries of three demos with scenes and subnets of their own."""
    found = []
    for seed in range(3):
        out = tmp_path_factory.mktemp("demo") / str(seed)
        subprocess.run([sys.executable, "-m", "ofa_pose", "demo", "--out", out, "--seed", str(seed)], check=True)
        found.append(read_json(out / "summary.json"))
    return found


def test_the_searched_net_is_accurate(summaries: list[Any]) -> None:
    for summary in summaries:
        searched = summary["searched"]
        assert searched["ap_finetuned"] >= 0.45
        assert searched["ap_finetuned"] >= 0.85 * summary["teacher"]["ap"]
        assert searched["ap_finetuned"] > searched["ap_inherited"]
        assert summary["test"]["count"] >= 300


def test_the_searched_net_is_not_worse_than_uniform_ones(summaries: list[Any]) -> None:
    gains = [summary["searched"]["ap_finetuned"] - summary["uniform"]["ap"] for summary in summaries]
    assert min(gains) >= -0.01
    assert mean(gains) >= 0


def test_figures_are_those_of_the_files(summaries: list[Any]) -> None:
    for summary in summaries:
        searched = summary["searched"]
        macs = spec_macs(load_checkpoint(searched["checkpoint"]).spec)
        assert (macs.thop, macs.exact) == (searched["macs"], searched["macs_exact"])
        assert max(searched["macs"], summary["uniform"]["macs"]) <= 250e6
        assert Path(searched["onnx"]).stat().st_size


def test_fresh_scenes_give_the_same_accuracy(summaries: list[Any], call: Call, tmp_path: Path) -> None:  # noqa: F811
    write_dataset(tmp_path / "fresh", images=300, size=192, joints="coco", seed=987654)
    searched = summaries[0]["searched"]
    where = ("--annotations", tmp_path / "fresh" / "annotations.json", "--images", tmp_path / "fresh" / "images")
    scored = call("eval", "--checkpoint", searched["checkpoint"], *where, "--json").result
    assert scored["metrics"]["AP"] == pytest.approx(searched["ap_finetuned"], abs=0.05)
