"""The exhaustive table: complete, killed and resumed without loss, refused where it rests on something else."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.searches.candidates import Evaluate
from ofa_pose.studies.exhaustive import (
    BASIS,
    TABLE,
    ExhaustiveTable,
    TableStudy,
    check_size,
    every_genome,
    read_table,
    timed,
)
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, read_json
from ofa_pose.utils.run_dir import plan_run
from tests.searches.small_spaces import JOINTS, Usefulness, small_space, tiny_space

SPACE = tiny_space()
FACTS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "search": ["cd" * 32, 7, 7]}


class Evaluations:
    """Evaluates by `Usefulness`, killed before the subnet with this number."""

    def __init__(self, killed_at: int | None = None) -> None:
        self._fitness, self._killed_at = Usefulness(SPACE), killed_at
        self.evaluated: list[Genome] = []

    def __call__(self, genomes: Sequence[Genome]) -> Iterator[tuple[float, float]]:
        for number, genome in enumerate(genomes):
            if number == self._killed_at:
                raise KeyboardInterrupt
            self.evaluated.append(genome)
            yield self._fitness(genome), 0.25


def fill(out: Path, evaluate: Evaluate, basis: Mapping[str, Any], resume: bool = False) -> ExhaustiveTable:
    return TableStudy(SPACE, JOINTS, evaluate, basis).run(out, resume)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        small_space(),
        SearchSpace(
            "deep", (64,), (8,), ((8,), (8,), (8, 16), (8,)), ((8,), (8,), (8,)), (1, 2, 3), (1, 2, 2, 1), 3,
            depth=((1,), (1, 2), (2,), (1,)),
        ),
    ],
    ids=lambda space: space.name,
)  # fmt: skip
def test_every_subnet_comes_once_in_order(space: SearchSpace) -> None:
    genomes = list(every_genome(space))
    every = itertools.product(*(range(len(choices)) for choices in space.choices))
    assert genomes == sorted({space.canonical(genome) for genome in every})
    assert len(genomes) == space.size


def test_a_table_holds_every_subnet_and_its_costs(tmp_path: Path) -> None:
    evaluations = Evaluations()
    result = fill(tmp_path, evaluations, FACTS)
    table = rows(tmp_path / TABLE)
    assert result.subnets == result.judged == len(table) == SPACE.size == 6
    costs = ["macs_thop", "macs_exact", "macs_paper", "params", "AP", "seconds"]
    assert list(table[0]) == ["genome", *SPACE.labels, *costs]
    for row, genome in zip(table, every_genome(SPACE), strict=True):
        spec = SPACE.decode(genome, JOINTS)
        assert row["genome"] == "-".join(map(str, genome))
        assert int(row["resolution"]) == spec.resolution and int(row["stage1"]) == spec.stages[0]
        assert [int(row[f"macs_{key}"]) for key in ("thop", "exact", "paper")] == [*spec_macs(spec).to_dict().values()]
        assert int(row["params"]) == spec_params(spec)
        assert float(row["AP"]) == Usefulness(SPACE)(genome)  # to the last bit
    best = max(table, key=lambda row: float(row["AP"]))
    assert result.best["AP"] == float(best["AP"]) and result.best["params"] == int(best["params"])
    (tmp_path / "best.yaml").write_text(dump_yaml(result.best))
    assert load_spec(tmp_path / "best.yaml").resolution == int(best["resolution"])


@pytest.mark.parametrize("killed_at", range(6))
def test_a_killed_table_goes_on_without_evaluating_anything_twice(tmp_path: Path, killed_at: int) -> None:
    fill(tmp_path / "whole", Evaluations(), FACTS)
    out = tmp_path / "killed"
    first, second = Evaluations(killed_at), Evaluations()
    with pytest.raises(KeyboardInterrupt):
        fill(out, first, FACTS)
    assert len(rows(out / TABLE)) == killed_at
    with (out / TABLE).open("a") as file:
        file.write("0-0-0-2-0,64,8,24")  # the row in work
    result = fill(out, second, FACTS, resume=True)
    assert result.judged == 6 - killed_at and not set(first.evaluated) & set(second.evaluated)
    assert (out / TABLE).read_bytes() == (tmp_path / "whole" / TABLE).read_bytes()


def test_rows_in_any_order_are_sorted_at_the_end(tmp_path: Path) -> None:
    fill(tmp_path, Evaluations(), FACTS)
    whole = (tmp_path / TABLE).read_text()
    header, *lines = whole.splitlines(keepends=True)
    (tmp_path / TABLE).write_text("".join([header, *lines[4:], *lines[:3]]))  # two halves put together, one missing
    result = fill(tmp_path, Evaluations(), FACTS, resume=True)
    assert result.judged == 1 and (tmp_path / TABLE).read_text() == whole


def test_a_table_that_rests_on_something_else_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, Evaluations(3), FACTS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for key, value, words in (
        ("sha256", "00" * 32, "another supernet"),
        ("space", small_space().to_dict(), "another space"),
        ("search", ["cd" * 32, 7, 5], "another search"),
    ):
        with pytest.raises(InputError, match=words):
            fill(tmp_path, Evaluations(), {**FACTS, key: value}, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_json(tmp_path / BASIS) == FACTS
    for damaged in ("null", "[]", "5", '"sha256"'):
        (tmp_path / BASIS).write_text(damaged)
        with pytest.raises(InputError, match=rf"{BASIS}: does not say what its run rests on; restore it"):
            fill(tmp_path, Evaluations(), FACTS, resume=True)


def test_a_damaged_table_is_refused_and_kept(tmp_path: Path) -> None:
    fill(tmp_path, Evaluations(), FACTS)
    whole = (tmp_path / TABLE).read_text()
    for old, new, words in (
        ("0-0-1-", "0-0-x-", f"{TABLE}:3: is not a row"),
        ("0-0-1-", "0-0-2-", f"{TABLE}:3: is not of space 'tiny'"),
        (",0.25\n", ",-1\n", f"{TABLE}:2: seconds is -1"),
        ("genome", "gnome", "is not a table of space 'tiny'"),
        ("0-0-2-0-0-0-0-0-0-0-0-0-0,", "0-0-2,", f"{TABLE}:4: is not of space 'tiny'"),
    ):
        assert old in whole
        (tmp_path / TABLE).write_text(spoilt := whole.replace(old, new, 1))
        with pytest.raises(InputError, match=words):
            fill(tmp_path, Evaluations(), FACTS, resume=True)
        assert (tmp_path / TABLE).read_text() == spoilt
    (tmp_path / TABLE).write_text(whole)
    assert list(read_table(tmp_path / TABLE, SPACE)) == list(every_genome(SPACE))


def test_large_spaces_and_full_folders_are_refused(tmp_path: Path) -> None:
    check_size(SPACE, limit=6)
    with pytest.raises(InputError, match=r"6 subnets, a table takes at most 5.*--limit"):
        check_size(SPACE, limit=5)
    plan_run(tmp_path, "seed: 0\n", progress=TABLE)
    assert plan_run(tmp_path, "seed: 0\n", resume=True, progress=TABLE).fresh
    (tmp_path / TABLE).touch()
    with pytest.raises(InputError, match="--resume"):
        plan_run(tmp_path, "seed: 0\n", progress=TABLE)
    plan_run(tmp_path, "seed: 0\n", resume=True, progress=TABLE)


def test_a_table_is_not_written_into_another_run(tmp_path: Path) -> None:
    fill(tmp_path, Evaluations(), FACTS)
    assert (tmp_path / "recipe.yaml").exists() and (tmp_path / "command.txt").exists()
    with pytest.raises(InputError, match=r"holds a run already \(table\.csv\); add --resume"):
        fill(tmp_path, Evaluations(), FACTS)
    assert fill(tmp_path, Evaluations(0), FACTS, resume=True).judged == 0
    (tmp_path / "history.csv").touch()
    (tmp_path / TABLE).unlink()
    with pytest.raises(InputError, match=r"holds a run already \(history\.csv\)"):
        fill(tmp_path, Evaluations(), FACTS)


def test_evaluations_are_timed_one_by_one() -> None:
    asked: list[Genome] = []

    def ap_of(genome: Genome) -> float:
        asked.append(genome)
        return len(asked) / 10

    found = timed(ap_of)([(0, 1), (1, 0)])
    ap, seconds = next(found)
    assert (ap, asked) == (0.1, [(0, 1)]) and seconds >= 0
    assert [ap for ap, _ in found] == [0.2]


def test_the_best_has_a_standard_error_and_noise_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    useful, asked = Usefulness(SPACE), []

    def error_of(genome: Genome) -> float:
        asked.append(genome)
        return 0.5

    def run(scale: float, people: int) -> dict[str, Any]:
        evaluate = timed(lambda genome: 1 + scale * useful(genome))
        out = tmp_path / f"{scale} {people}"
        return TableStudy(SPACE, JOINTS, evaluate, FACTS, error_of=error_of, people=people).run(out).to_dict()

    assert run(100, 400)["best"]["AP_stderr"] == 0.5 and len(asked) == 1
    assert "warning" not in capfd.readouterr().err
    run(100, 30)
    assert "the search images show only 30 people" in capfd.readouterr().err
    run(0.001, 400)
    said = capfd.readouterr().err
    assert "the search images cannot tell these subnets apart: 400 people; AP 1.0" in said
    assert "; 6 of 6 are within one standard error of the best: raise search.images" in said
