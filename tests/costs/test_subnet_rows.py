"""Tables of subnets: written whole and row by row they are the same, and what was written is read again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.space import Genome
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.subnet_rows import SubnetTable, genome_text, read_genome, read_subnets
from ofa_pose.utils.errors import InputError
from tests.searches.small_spaces import JOINTS, small_space, tiny_space

SPACE = small_space()


def genome(*genes: int) -> Genome:
    return SPACE.canonical([*genes, *(0,) * (len(SPACE.choices) - len(genes))])


ROWS: dict[Genome, dict[str, Any]] = {
    genome(1): {"AP": 0.1 + 0.2, "number": 1},
    genome(): {"AP": "", "number": 2},
    genome(0, 0, 1): {"AP": 1e-7},
}


def test_genomes_survive_as_text() -> None:
    assert read_genome(genome_text((0, 12, 3))) == (0, 12, 3)


@pytest.mark.parametrize("latency", [False, True])
def test_a_table_is_the_same_however_it_is_written(tmp_path: Path, latency: bool) -> None:
    predict_ms = (lambda spec: spec_macs(spec).exact / 7e5) if latency else None
    whole, slow = (
        SubnetTable(tmp_path / name, SPACE, JOINTS, ("AP",), ("number",), predict_ms) for name in ("whole", "slow")
    )
    whole.write(ROWS)
    slow.write({})
    for key, cells in ROWS.items():
        slow.append(key, cells)
    assert whole.path.read_bytes() == slow.path.read_bytes() and b"\r" not in whole.path.read_bytes()
    with whole.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    costs = ["macs_thop", "macs_exact", "macs_paper", "params", *(["latency_ms"] if latency else [])]
    assert list(rows[0]) == ["number", "genome", *SPACE.labels, *costs, "AP"]
    for (key, cells), row in zip(ROWS.items(), rows, strict=True):
        spec = SPACE.decode(key, JOINTS)
        assert row["genome"] == genome_text(key) and int(row["resolution"]) == spec.resolution
        assert {name: int(row[f"macs_{name}"]) for name in ("thop", "exact", "paper")} == spec_macs(spec).to_dict()
        assert int(row["params"]) == spec_params(spec)
        assert (row["AP"], row["number"]) == (str(cells["AP"]), str(cells.get("number", "")))
        assert not latency or float(row["latency_ms"]) == spec_macs(spec).exact / 7e5


def test_what_was_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    table = SubnetTable(tmp_path / "t.csv", SPACE, JOINTS, ("AP",), ("number",))
    table.write(ROWS)
    with table.path.open("a") as file:
        file.write(f"3,{genome_text(genome(1, 1))},64")  # the row in work
    found = read_subnets(table.path, ("AP",), SPACE, empty=("AP",), extra=("params", "latency_ms"))
    assert [(key, cells["AP"]) for key, cells in found.items()] == [
        (key, None if cells["AP"] == "" else cells["AP"]) for key, cells in ROWS.items()
    ]
    for key, cells in found.items():
        spec = SPACE.decode(key, JOINTS)
        assert cells["params"] == spec_params(spec) and cells["resolution"] == spec.resolution
        assert set(cells) == {*SPACE.labels, "AP", "params"}


@pytest.mark.parametrize("name", ["seconds", "AP_50_64", "latency_ms"])
@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "-1"])
def test_figures_that_no_measuring_gives_are_refused(tmp_path: Path, name: str, cell: str) -> None:
    table = SubnetTable(tmp_path / "t.csv", SPACE, JOINTS, (name,))
    table.write({genome(): {name: 1}})
    assert read_subnets(table.path, (), SPACE, extra=(name,))[genome()][name] == 1
    table.write({genome(): {name: cell}})
    with pytest.raises(InputError, match=rf"t\.csv:2: {name} is {cell}, which"):
        read_subnets(table.path, (), SPACE, extra=(name,))


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    table = SubnetTable(tmp_path / "t.csv", SPACE, JOINTS, ("AP",))
    table.write(ROWS)
    text = table.path.read_text()
    other = f"is not of space '{SPACE.name}'"
    for old, new, words in (
        ("genome,", "gnome,", r"t\.csv: is not a table of subnets"),
        (",AP", ",PA", r"t\.csv: is not a table of subnets"),
        ("1e-07", "1" * 200_000, r"t\.csv: is not a table that can be read \(field larger than"),
        ("1e-07", "1e", r"t\.csv:4: is not a row of a table of subnets"),
        ("1e-07", "1e-07\n0", r"t\.csv:5: is not a row"),
        ("1e-07", "nan", r"t\.csv:4: AP is nan, which a table of subnets does not hold; remove that line"),
        ("1e-07", "inf", r"t\.csv:4: AP is inf"),
        ("1e-07", "7.3", r"t\.csv:4: AP is 7\.3"),
        ("1e-07", "-1e-07", r"t\.csv:4: AP is -1e-07"),
        (genome_text(genome(1)), "1-x", r"t\.csv:2: is not a row"),
        (genome_text(genome(1)), "1-1", rf"t\.csv:2: {other}"),
        (genome_text(genome(1)), genome_text(genome(99)), rf"t\.csv:2: {other}"),
        (genome_text(genome(1)), genome_text(genome()), rf"t\.csv:2: {other}"),  # the values under the labels differ
    ):
        assert old in text
        table.path.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=words):
            read_subnets(table.path, ("AP",), SPACE, empty=("AP",))
    *_, last = text.splitlines(keepends=True)
    table.path.write_text(text + last)
    assert read_subnets(table.path, ("AP",), SPACE, empty=("AP",)).keys() == ROWS.keys()
    table.path.write_text(text + last.replace("1e-07", "0.5"))
    with pytest.raises(InputError, match=r"t\.csv:5: subnet 0-0-1-0.* has other figures there than above; remove one"):
        read_subnets(table.path, ("AP",), SPACE, empty=("AP",))
    table.path.write_text(text)
    with pytest.raises(InputError, match=r"t\.csv:3: is not a row"):
        read_subnets(table.path, ("AP",), SPACE)
    with pytest.raises(InputError, match=r"t\.csv: is not|of space"):
        read_subnets(table.path, ("AP",), tiny_space())
