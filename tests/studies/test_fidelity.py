"""A study with made-up evaluations whose noise is known."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.stats import kendalltau

from ofa_pose.arch.space import Genome
from ofa_pose.cli.views import show_fidelity
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.recipe import Recipe
from ofa_pose.searches.candidates import Evaluate
from ofa_pose.studies.fidelity import (
    BASIS,
    PICTURE,
    TABLE,
    TUNING,
    CountComparison,
    FidelityResult,
    FidelitySettings,
    FidelityStudy,
    TuningComparison,
    spread_subnets,
)
from ofa_pose.utils import console
from ofa_pose.utils.errors import InputError
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space, tiny_space

SPACE = small_space()
SETTINGS = FidelitySettings(images=(50, 100, 200), calibration=(16, 64), subnets=8, steps=60)
FACTS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "seed": 0, "study": {"images": [50, 100, 200], "subnets": 8}}


@pytest.fixture(scope="module")
def feasible() -> FeasibleSpace:
    return FeasibleSpace(SPACE, JOINTS, half_way(SPACE))


class Figures:
    """Makes evaluations whose noise falls with the number of images, and a fine-tuning; killed after so many."""

    def __init__(self, killed_after: int = 10**9) -> None:
        self.usefulness, self.killed_after = Usefulness(SPACE), killed_after
        self.figures: list[tuple[Any, Genome]] = []

    def figure(self, what: Any, genome: Genome, noise: float) -> float:
        if len(self.figures) == self.killed_after:
            raise KeyboardInterrupt
        self.figures.append((what, genome))
        rng = np.random.default_rng([*genome, *map(ord, str(what))])
        return min(max(self.usefulness(genome) + float(rng.normal(scale=noise)), 0.0), 1.0)

    def make(self, images: int, calibration: int) -> Evaluate:
        def evaluate(genomes: Sequence[Genome]) -> Iterator[tuple[float, float]]:
            for genome in genomes:
                yield self.figure((images, calibration), genome, 40 / images / calibration), images / 100

        return evaluate

    def tune(self, genome: Genome, folder: Path) -> float:
        return self.figure("tuned", genome, 0.2)


Run = Callable[..., FidelityResult]


@pytest.fixture
def study(feasible: FeasibleSpace, tmp_path: Path) -> Run:
    """Run the study into tmp_path / 'run', or another folder."""

    def running(figures: Figures, resume: bool = False, out: str = "run", facts: Any = FACTS) -> FidelityResult:
        study = FidelityStudy(feasible, SETTINGS, figures.make, figures.tune, facts, Recipe(seed=0))
        return study.run(tmp_path / out, resume)

    return running


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_subnets_are_spread_over_the_costs(feasible: FeasibleSpace) -> None:
    genomes = spread_subnets(feasible, 9, np.random.default_rng(0))
    assert genomes == sorted(set(genomes)) and len(genomes) == 9
    assert genomes == spread_subnets(feasible, 9, np.random.default_rng(0))
    costs = sorted(feasible.macs(genome) for genome in genomes)
    assert costs[-1] <= (feasible.budget.macs or 0)
    gaps = np.diff(costs) / (costs[-1] - costs[0])
    assert gaps.max() < 0.2 and gaps.min() > 0.05
    assert costs[0] == feasible.budget.macs_of(SPACE.smallest(JOINTS))
    few = FeasibleSpace(tiny_space(), JOINTS, Budget(macs=10**12))
    assert len(spread_subnets(few, 20, np.random.default_rng(0))) == 6


def test_the_reference_is_the_largest_of_both_counts() -> None:
    assert SETTINGS.evaluations == [(200, 64), (50, 64), (100, 64), (200, 16)]
    assert FidelitySettings((7,), (3,), 4, 0).evaluations == [(7, 3)]


def test_a_study_compares_every_setting_with_the_largest(
    study: Run,
    feasible: FeasibleSpace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = study(Figures())
    result = found.to_dict()
    json.dumps(result, allow_nan=False)
    paths, figures = {"table", "picture", "out"}, {"subnets", "images", "calibration", "finetuned"}
    assert result.keys() == {*figures, *paths, "advice", "seconds"}
    assert list(result["images"][0]) == ["count", "tau", "low", "high", "seconds"]
    table = rows(tmp_path / "run" / TABLE)
    assert result["subnets"] == len(table) == 8
    measured = ["AP_200_64", "seconds_200_64", "AP_50_64", "seconds_50_64", "AP_100_64", "seconds_100_64"]
    measured += ["AP_200_16", "seconds_200_16", "AP_finetuned"]
    costs = ["macs_thop", "macs_exact", "macs_paper", "params"]
    assert list(table[0]) == ["genome", *SPACE.labels, *costs, *measured]
    for row in table:
        spec = feasible.decode(tuple(map(int, row["genome"].split("-"))))
        assert int(row["resolution"]) == spec.resolution and int(row["params"]) == spec_params(spec)
        assert int(row["macs_exact"]) == spec_macs(spec).exact

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in table]

    reference = column("AP_200_64")
    for key, names in (("images", ("50_64", "100_64", "200_64")), ("calibration", ("200_16", "200_64"))):
        assert [line["count"] for line in result[key]] == list(getattr(SETTINGS, key))
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

    monkeypatch.setattr(console, "_err", console._PlainConsole(stderr=True, width=120))
    show_fidelity(found)
    shown = capsys.readouterr().err
    for words in ("50 images", "100 images", "16 calibration images", "after 60 steps", f"{tuned['tau']:.3f}"):
        assert words in shown


@pytest.mark.parametrize("killed_after", [0, 7, 8, 32, 39])
def test_a_killed_study_goes_on_without_repeating_a_figure(
    study: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    monkeypatch.setattr("ofa_pose.studies.fidelity.draw_comparisons", lambda path, *_: path)
    whole = study(Figures(), out="whole")
    first, second = Figures(killed_after), Figures()
    with pytest.raises(KeyboardInterrupt):
        study(first)
    assert len(first.figures) == killed_after
    left = tmp_path / "run" / TUNING / "half"
    left.mkdir(parents=True)
    result = study(second, resume=True)
    assert sorted(map(str, first.figures + second.figures)) == sorted({str(f) for f in first.figures + second.figures})
    assert len(first.figures) + len(second.figures) == 8 * 5
    assert (tmp_path / "run" / TABLE).read_bytes() == (tmp_path / "whole" / TABLE).read_bytes()
    other = {"table": Path(), "picture": None, "seconds": 0.0, "out": Path()}
    assert replace(result, **other) == replace(whole, **other)
    assert not left.exists()


def test_a_figure_that_was_taken_out_is_taken_again(
    study: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa_pose.studies.fidelity.draw_comparisons", lambda path, *_: path)
    study(Figures())
    whole = (tmp_path / "run" / TABLE).read_text()
    (tmp_path / "run" / TABLE).write_text(whole.replace(",2.0,", ",,", 1))
    again = Figures()
    study(again, resume=True)
    assert len(again.figures) == 1 and (tmp_path / "run" / TABLE).read_text() == whole


def test_what_does_not_belong_to_the_study_is_not_resumed(study: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        study(Figures(5))
    before = (tmp_path / "run" / TABLE).read_text()
    for key, value, words in (
        ("sha256", "cd" * 32, "another supernet"),
        ("study", {"images": [50, 100, 200], "subnets": 9}, r"study.subnets was 8, is 9"),
    ):
        with pytest.raises(InputError, match=words):
            study(Figures(), resume=True, facts={**FACTS, key: value})
    basis = (tmp_path / "run" / BASIS).read_text()
    for damaged in ("null", "[]", "5"):
        (tmp_path / "run" / BASIS).write_text(damaged)
        with pytest.raises(InputError, match=rf"{BASIS}: does not say what its run rests on"):
            study(Figures(), resume=True)
    (tmp_path / "run" / BASIS).write_text(basis)
    for old, new, words in (
        ("genome", "gnome", "is not a table of this study"),
        ("0-0-0-0", "0-0-9-0", f"{TABLE}:2: is not of space 'small'"),
        ("AP_200_64", "AP_100_64", "is not a table of this study"),
        (",2.0,", ",nan,", f"{TABLE}:2: seconds_200_64 is nan"),
    ):
        (tmp_path / "run" / TABLE).write_text(before.replace(old, new, 1))
        with pytest.raises(InputError, match=words):
            study(Figures(), resume=True)
    with pytest.raises(InputError, match=r"holds a run already \(fidelity\.csv\)"):
        study(Figures())


def test_what_cannot_be_studied(tmp_path: Path) -> None:
    smallest = tiny_space().smallest(JOINTS)
    one = FeasibleSpace(tiny_space(), JOINTS, Budget(macs=spec_macs(smallest).thop))
    settings = FidelitySettings((5,), (5,), 3, 0)
    with pytest.raises(InputError, match="1 subnets cannot be ranked; study at least 3, with --subnets or a larger"):
        FidelityStudy(one, settings, Figures().make, None, FACTS).run(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for change, words in (
        ({"subnets": 2}, "2 subnets cannot be ranked"),
        ({"images": ()}, "--images"),
        ({"calibration": (0, 3)}, "--calibration 0,3 holds what is not a count"),
        ({"steps": -1}, "--steps -1"),
    ):
        with pytest.raises(InputError, match=words):
            replace(settings, **change)  # type: ignore[arg-type]


def line(count: int, tau: float | None, low: float = 0.5) -> CountComparison:
    return CountComparison(count, tau, low, 1.0, 1.0)


def test_advice() -> None:
    full, tuned = [line(200, 1.0)], TuningComparison(60, 0.6, 0.1, 0.9)
    found = FidelityResult(10, full, full, None, Path("fidelity.csv"), None, 1.0, Path())
    assert found.advice.startswith("nothing was compared")
    images = [line(50, 0.7), line(100, 0.91), line(150, 0.97), *full]
    assert replace(found, images=images).advice == "search.images=100 ranks subnets as 200 do (tau 0.91)"
    assert replace(found, images=images, subnets=6).advice.startswith("from 6 subnets only, so with care: search")
    images = [line(50, 0.7), line(100, None), *full]
    assert "keep search.images at 200 or more" in replace(found, images=images).advice
    assert "search.calibration_images=16 ranks" in replace(found, calibration=[line(16, 0.9), *full]).advice
    text = replace(found, finetuned=tuned).advice
    assert "predicts AP after 60 steps" in text and "several members of the front" in text
    assert "says too little" in replace(found, finetuned=replace(tuned, low=-0.2)).advice
    assert "several" not in replace(found, finetuned=replace(tuned, tau=0.95)).advice
    assert "unknown" in replace(found, finetuned=replace(tuned, tau=None, low=None, high=None)).advice
    assert "train the supernet further" in replace(found, images=[line(50, None), line(200, None)]).advice
