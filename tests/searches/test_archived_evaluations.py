"""Nothing is evaluated twice, every evaluation is written before the next begins, and what fails says what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.searches.archive import Archive
from ofa_pose.searches.evaluation import ArchivedEvaluations
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.searches.small_spaces import JOINTS, small_space
from tests.searches.test_archive import BASIS, rows

PART = FeasibleSpace(small_space(), JOINTS, Budget(macs=10**12))
GENOMES: list[Genome] = [(n % 4, n % 2, *[0] * (len(PART.space.choices) - 2)) for n in range(4)]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive.sqlite", BASIS) as opened:
        yield opened


def test_a_subnet_asked_for_twice_at_once_is_measured_once(archive: Archive) -> None:
    evaluations = ArchivedEvaluations(PART, lambda genome: {"AP": genome[0] / 10}, archive, seed=1)
    found = list(evaluations([GENOMES[1], GENOMES[1], GENOMES[2], GENOMES[1]]))
    assert [ap for ap, _ in found] == [0.1, 0.1, 0.2, 0.1] and evaluations.measured == 2


def test_known_subnets_are_looked_up(archive: Archive) -> None:
    asked: list[Genome] = []

    def measure(genome: Genome) -> dict[str, Any]:
        asked.append(genome)
        return {"AP": genome[0] / 10, "AR": 0.5}

    evaluations = ArchivedEvaluations(PART, measure, archive, seed=1)
    first = list(evaluations(GENOMES[1:3]))
    assert [value for value, _ in first] == [0.1, 0.2] and evaluations.measured == 2
    assert list(evaluations(GENOMES))[1:3] == first, "the seconds are those of the evaluation"
    assert asked == [*GENOMES[1:3], GENOMES[0], GENOMES[3]] and evaluations.measured == 4
    other = ArchivedEvaluations(PART, measure, archive, seed=2)
    assert len(list(other(GENOMES))) == 4 and other.measured == 0 and len(asked) == 4


def test_every_outcome_is_on_disk_before_the_next_is_measured(archive: Archive) -> None:
    counts = []

    def measure(genome: Genome) -> dict[str, Any]:
        counts.append(len(rows(archive.path)))
        return {"AP": 0.5}

    coming = ArchivedEvaluations(PART, measure, archive, seed=0)(GENOMES)
    next(coming)
    assert counts == [0]  # and nothing is measured before it is asked for
    list(coming)
    assert counts == [0, 1, 2, 3]


def test_rows_name_the_costs_of_the_subnet(tmp_path: Path) -> None:
    budget = Budget(macs=10**12, predict_ms=lambda spec: spec.resolution / 10)
    feasible = FeasibleSpace(small_space(), JOINTS, budget)
    with Archive(tmp_path / "a.sqlite", BASIS) as archive:
        list(ArchivedEvaluations(feasible, lambda genome: {"AP": 0.5}, archive, seed=9)(GENOMES[3:]))
    (row,) = rows(tmp_path / "a.sqlite")
    spec = feasible.decode(GENOMES[3])
    macs = spec_macs(spec)
    assert [row[f"macs_{key}"] for key in ("thop", "exact", "paper")] == [macs.thop, macs.exact, macs.paper]
    assert (row["params"], row["latency_ms"], row["seed"]) == (spec_params(spec), 16.0, 9)


@pytest.mark.parametrize("ap", [None, float("nan"), float("inf")])
def test_an_ap_that_is_no_number_is_null_ranks_last_and_is_told(
    archive: Archive, capfd: pytest.CaptureFixture[str], ap: float | None
) -> None:
    evaluations = ArchivedEvaluations(PART, lambda genome: {"AP": ap if genome == GENOMES[1] else 0.0}, archive, seed=0)
    values = [value for value, _ in evaluations(GENOMES)]
    assert values == [0.0, -float("inf"), 0.0, 0.0]
    assert [row["AP"] for row in rows(archive.path)] == [0.0, None, 0.0, 0.0]
    told = capfd.readouterr().err
    assert told.count("no AP that is a number") == 1
    assert "subnet 1-1-0" in told and '"resolution":96' in told
    assert [value for value, _ in evaluations(GENOMES)] == values, "it is not evaluated again"


def test_an_evaluation_that_raises_names_the_subnet_and_keeps_the_others(archive: Archive) -> None:
    def measure(genome: Genome) -> dict[str, Any]:
        if genome == GENOMES[2]:
            raise MemoryError("16 GB wanted")
        return {"AP": 0.5}

    evaluations = ArchivedEvaluations(PART, measure, archive, seed=0)
    with pytest.raises(OfaPoseError) as told:
        list(evaluations(GENOMES))
    message = str(told.value)
    assert "subnet 2-0-0" in message and "MemoryError: 16 GB wanted" in message and '"resolution":128' in message
    assert "--resume" in message and told.value.exit_code == 1
    assert len(rows(archive.path)) == 2


def test_a_fault_of_the_data_stays_the_users(archive: Archive) -> None:
    def measure(genome: Genome) -> dict[str, Any]:
        raise InputError("cannot be read", "images/7.jpg", "copy it again")

    with pytest.raises(InputError, match=r"images/7\.jpg: cannot be read; copy it again"):
        list(ArchivedEvaluations(PART, measure, archive, seed=0)(GENOMES))
