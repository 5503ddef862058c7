"""A study with made-up judges whose noise is known."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kendalltau

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import Budget, FeasibleSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.studies.fidelity import (
    PICTURE,
    SHEET,
    TUNING,
    Fidelity,
    advise,
    fidelity_table,
    plan_fidelity,
    spread_subnets,
    study_fidelity,
)
from ofa_pose.studies.table import Judge
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import RunDir
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space, tiny_space

SPACE = small_space()
STUDY = Fidelity(images=(50, 100, 200), calibration=(16, 64), subnets=8, steps=60)
FACTS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "seed": 0, "study": {"images": [50, 100, 200], "subnets": 8}}


@pytest.fixture(scope="module")
def part() -> FeasibleSpace:
    return FeasibleSpace(SPACE, JOINTS, half_way(SPACE))


class Judging:
    """Makes judges whose noise falls with the number of images, and a fine-tuning; killed after so many figures."""

    def __init__(self, killed_after: int = 10**9) -> None:
        self.usefulness, self.killed_after = Usefulness(SPACE), killed_after
        self.figures: list[tuple[Any, Genome]] = []

    def figure(self, what: Any, genome: Genome, noise: float) -> float:
        if len(self.figures) == self.killed_after:
            raise KeyboardInterrupt
        self.figures.append((what, genome))
        rng = np.random.default_rng([*genome, *map(ord, str(what))])
        return self.usefulness(genome) + float(rng.normal(scale=noise))

    def make(self, images: int, calibration: int) -> Judge:
        def judge(genomes: Sequence[Genome]) -> Iterator[tuple[float, float]]:
            for genome in genomes:
                yield self.figure((images, calibration), genome, 40 / images / calibration), images / 100

        return judge

    def tune(self, genome: Genome) -> float:
        return self.figure("tuned", genome, 0.2)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def study(part: FeasibleSpace, tmp_path: Path) -> Run:
    """Run the study into tmp_path / 'run', or another folder."""

    def running(judging: Judging, resume: bool = False, out: str = "run", facts: Any = FACTS) -> dict[str, Any]:
        run = RunDir(tmp_path / out)
        return study_fidelity(run, part, STUDY, 0, judging.make, judging.tune, facts, resume)

    return running


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_subnets_are_spread_over_the_costs(part: FeasibleSpace) -> None:
    genomes = spread_subnets(part, 9, np.random.default_rng(0))
    assert genomes == sorted(set(genomes)) and len(genomes) == 9
    assert genomes == spread_subnets(part, 9, np.random.default_rng(0))
    costs = sorted(part.macs(genome) for genome in genomes)
    assert costs[-1] <= (part.budget.macs or 0)
    gaps = np.diff(costs) / (costs[-1] - costs[0])
    assert gaps.max() < 0.2 and gaps.min() > 0.05
    assert costs[0] == part.budget.macs_of(SPACE.smallest(JOINTS))
    few = FeasibleSpace(tiny_space(), JOINTS, Budget(macs=10**12))
    assert len(spread_subnets(few, 20, np.random.default_rng(0))) == 6


def test_the_reference_is_the_largest_of_both_counts() -> None:
    assert STUDY.settings == [(200, 64), (50, 64), (100, 64), (200, 16)]
    assert Fidelity((7,), (3,), 4, 0).settings == [(7, 3)]


def test_a_study_compares_every_setting_with_the_largest(study: Run, part: FeasibleSpace, tmp_path: Path) -> None:
    result = study(Judging())
    json.dumps(result, allow_nan=False)
    table = rows(tmp_path / "run" / SHEET)
    assert result["subnets"] == len(table) == 8
    figures = ["AP_200_64", "seconds_200_64", "AP_50_64", "seconds_50_64", "AP_100_64", "seconds_100_64"]
    figures += ["AP_200_16", "seconds_200_16", "AP_finetuned"]
    costs = ["macs_thop", "macs_exact", "macs_paper", "params"]
    assert list(table[0]) == ["genome", *SPACE.labels, *costs, *figures]
    for row in table:
        spec = part.decode(tuple(map(int, row["genome"].split("-"))))
        assert int(row["resolution"]) == spec.resolution and int(row["params"]) == spec_params(spec)
        assert int(row["macs_exact"]) == spec_macs(spec).exact

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in table]

    reference = column("AP_200_64")
    for key, names in (("images", ("50_64", "100_64", "200_64")), ("calibration", ("200_16", "200_64"))):
        assert [line["count"] for line in result[key]] == list(getattr(STUDY, key))
        for line, name in zip(result[key], names, strict=True):
            assert line["tau"] == pytest.approx(kendalltau(column(f"AP_{name}"), reference).statistic)
            assert line["seconds"] == float(name.split("_")[0]) / 100
            assert line["low"] <= line["tau"] <= line["high"]
    tuned = result["finetuned"]
    assert tuned["steps"] == 60 and tuned["tau"] == pytest.approx(
        kendalltau(reference, column("AP_finetuned")).statistic
    )
    assert result["images"][-1]["tau"] == pytest.approx(1)
    image = cv2.imread(str(tmp_path / "run" / PICTURE))
    assert image is not None and image.std() > 5

    console = Console(record=True, width=120, file=io.StringIO())
    console.print(fidelity_table(result))
    text = console.export_text()
    for words in ("50 images", "100 images", "16 calibration images", "after 60 steps", f"{tuned['tau']:.3f}"):
        assert words in text


@pytest.mark.parametrize("killed_after", [0, 7, 8, 32, 39])
def test_a_killed_study_goes_on_without_repeating_a_figure(
    study: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    monkeypatch.setattr("ofa_pose.studies.fidelity.draw_scatter", lambda path, panels: path.touch())
    whole = study(Judging(), out="whole")
    first, second = Judging(killed_after), Judging()
    with pytest.raises(KeyboardInterrupt):
        study(first)
    assert len(first.figures) == killed_after
    left = tmp_path / "run" / TUNING / "half"
    left.mkdir(parents=True)
    result = study(second, resume=True)
    assert sorted(map(str, first.figures + second.figures)) == sorted({str(f) for f in first.figures + second.figures})
    assert len(first.figures) + len(second.figures) == 8 * 5
    assert (tmp_path / "run" / SHEET).read_bytes() == (tmp_path / "whole" / SHEET).read_bytes()
    paths = {"table": "", "picture": ""}
    assert {**result, **paths} == {**whole, **paths}
    assert not left.exists()


def test_what_does_not_belong_to_the_study_is_not_resumed(study: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        study(Judging(5))
    before = (tmp_path / "run" / SHEET).read_text()
    for key, value, words in (
        ("sha256", "cd" * 32, "another supernet"),
        ("study", {"images": [50, 100, 200], "subnets": 9}, r"study.subnets was 8, is 9"),
    ):
        with pytest.raises(InputError, match=words):
            study(Judging(), resume=True, facts={**FACTS, key: value})
    for old, new, words in (
        ("genome", "gnome", "is not a table of this study"),
        ("0-0-0-0", "0-0-9-0", f"{SHEET}:2: is not of space 'small'"),
        ("AP_200_64", "AP_100_64", "is not a table of this study"),
    ):
        (tmp_path / "run" / SHEET).write_text(before.replace(old, new, 1))
        with pytest.raises(InputError, match=words):
            study(Judging(), resume=True)
    with pytest.raises(InputError, match=r"holds a run already \(fidelity\.csv\)"):
        plan_fidelity(tmp_path / "run", "seed: 0\n")
    with pytest.raises(InputError, match="2 subnets cannot be ranked"):
        few = FeasibleSpace(tiny_space(), JOINTS, Budget(macs=10**12))
        judging = Judging()
        study_fidelity(RunDir(tmp_path / "new"), few, Fidelity((5,), (5,), 2, 0), 0, judging.make, None, FACTS)
    assert not (tmp_path / "new").exists()


def line(count: int, tau: float | None, low: float = 0.5) -> dict[str, Any]:
    return {"count": count, "tau": tau, "low": low, "high": 1.0, "seconds": 1.0}


def test_advice() -> None:
    full, tuned = [line(200, 1.0)], {"steps": 60, "tau": 0.6, "low": 0.1, "high": 0.9}
    result: dict[str, Any] = {"subnets": 10, "images": full, "calibration": full, "finetuned": None}
    assert advise(result).startswith("nothing was compared")
    images = [line(50, 0.7), line(100, 0.91), line(150, 0.97), *full]
    assert advise({**result, "images": images}) == "search.images=100 ranks subnets as 200 do (tau 0.91)"
    assert advise({**result, "images": images, "subnets": 6}).startswith("from 6 subnets only, so with care: search")
    images = [line(50, 0.7), line(100, None), *full]
    assert "keep search.images at 200 or more" in advise({**result, "images": images})
    assert "search.calibration_images=16 ranks" in advise({**result, "calibration": [line(16, 0.9), *full]})
    text = advise({**result, "finetuned": tuned})
    assert "predicts AP after 60 steps" in text and "several members of the front" in text
    assert "says too little" in advise({**result, "finetuned": {**tuned, "low": -0.2}})
    assert "several" not in advise({**result, "finetuned": {**tuned, "tau": 0.95}})
    assert "unknown" in advise({**result, "finetuned": {**tuned, "tau": None, "low": None, "high": None}})
    assert "train the supernet further" in advise({**result, "images": [line(50, None), line(200, None)]})
