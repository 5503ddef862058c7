"""The exhaustive table: complete, killed and resumed without loss, refused where it rests on something else."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.studies.table import BASIS, TABLE, check_size, every_genome, fill_table, plan_table, read_table
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, read_json
from ofa_pose.utils.run_dir import RunDir
from tests.searches.small_spaces import JOINTS, Usefulness, small_space, tiny_space

SPACE = tiny_space()
FACTS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "search": ["cd" * 32, 7, 7]}


class Judging:
    """Judges by `Usefulness`, killed before the subnet with this number."""

    def __init__(self, killed_at: int | None = None) -> None:
        self._fitness, self._killed_at = Usefulness(SPACE), killed_at
        self.judged: list[Genome] = []

    def __call__(self, genomes: Sequence[Genome]) -> Iterator[tuple[float, float]]:
        for number, genome in enumerate(genomes):
            if number == self._killed_at:
                raise KeyboardInterrupt
            self.judged.append(genome)
            yield self._fitness(genome), 0.25


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
    judging = Judging()
    result = fill_table(RunDir(tmp_path), SPACE, JOINTS, judging, FACTS)
    table = rows(tmp_path / TABLE)
    assert result["subnets"] == result["judged"] == len(table) == SPACE.size == 6
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
    assert result["best"]["AP"] == float(best["AP"]) and result["best"]["params"] == int(best["params"])
    (tmp_path / "best.yaml").write_text(dump_yaml(result["best"]))
    assert load_spec(tmp_path / "best.yaml").resolution == int(best["resolution"])


@pytest.mark.parametrize("killed_at", range(6))
def test_a_killed_table_goes_on_without_judging_anything_twice(tmp_path: Path, killed_at: int) -> None:
    (tmp_path / "whole").mkdir()
    fill_table(RunDir(tmp_path / "whole"), SPACE, JOINTS, Judging(), FACTS)
    out = tmp_path / "killed"
    first, second = Judging(killed_at), Judging()
    with pytest.raises(KeyboardInterrupt):
        fill_table(RunDir(out), SPACE, JOINTS, first, FACTS)
    assert len(rows(out / TABLE)) == killed_at
    with (out / TABLE).open("a") as file:
        file.write("0-0-0-2-0,64,8,24")  # the row in work
    result = fill_table(RunDir(out, fresh=False), SPACE, JOINTS, second, FACTS, resume=True)
    assert result["judged"] == 6 - killed_at and not set(first.judged) & set(second.judged)
    assert (out / TABLE).read_bytes() == (tmp_path / "whole" / TABLE).read_bytes()


def test_rows_in_any_order_are_sorted_at_the_end(tmp_path: Path) -> None:
    fill_table(RunDir(tmp_path), SPACE, JOINTS, Judging(), FACTS)
    whole = (tmp_path / TABLE).read_text()
    header, *lines = whole.splitlines(keepends=True)
    (tmp_path / TABLE).write_text("".join([header, *lines[4:], *lines[:3]]))  # two halves put together, one missing
    result = fill_table(RunDir(tmp_path), SPACE, JOINTS, Judging(), FACTS, resume=True)
    assert result["judged"] == 1 and (tmp_path / TABLE).read_text() == whole


def test_a_table_that_rests_on_something_else_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_table(RunDir(tmp_path), SPACE, JOINTS, Judging(3), FACTS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for key, value, words in (
        ("sha256", "00" * 32, "another supernet"),
        ("space", small_space().to_dict(), "another space"),
        ("search", ["cd" * 32, 7, 5], "another search"),
    ):
        with pytest.raises(InputError, match=words):
            fill_table(RunDir(tmp_path), SPACE, JOINTS, Judging(), {**FACTS, key: value}, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_json(tmp_path / BASIS) == FACTS


def test_a_damaged_table_is_refused_and_kept(tmp_path: Path) -> None:
    fill_table(RunDir(tmp_path), SPACE, JOINTS, Judging(), FACTS)
    whole = (tmp_path / TABLE).read_text()
    for old, new, words in (
        ("0-0-1-", "0-0-x-", f"{TABLE}:3: is not a row"),
        ("0-0-1-", "0-0-2-", f"{TABLE}:3: is not of space 'tiny'"),
        ("genome", "gnome", "is not a table of space 'tiny'"),
        ("0-0-2-0-0-0-0-0-0-0-0-0-0,", "0-0-2,", f"{TABLE}:4: is not of space 'tiny'"),
    ):
        assert old in whole
        (tmp_path / TABLE).write_text(spoilt := whole.replace(old, new, 1))
        with pytest.raises(InputError, match=words):
            fill_table(RunDir(tmp_path), SPACE, JOINTS, Judging(), FACTS, resume=True)
        assert (tmp_path / TABLE).read_text() == spoilt
    (tmp_path / TABLE).write_text(whole)
    assert list(read_table(tmp_path / TABLE, SPACE)) == list(every_genome(SPACE))


def test_large_spaces_and_full_folders_are_refused(tmp_path: Path) -> None:
    check_size(SPACE, limit=6)
    with pytest.raises(InputError, match=r"6 subnets, a table takes at most 5.*--limit"):
        check_size(SPACE, limit=5)
    plan_table(tmp_path, "seed: 0\n")
    with pytest.raises(InputError, match=f"no {TABLE} to resume"):
        plan_table(tmp_path, "seed: 0\n", resume=True)
    (tmp_path / TABLE).touch()
    with pytest.raises(InputError, match="--resume"):
        plan_table(tmp_path, "seed: 0\n")
    plan_table(tmp_path, "seed: 0\n", resume=True)
