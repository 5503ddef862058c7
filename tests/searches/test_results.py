"""The Pareto front's files and its comparison with uniformly scaled nets, against plain counting."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget, uniform_candidates
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.results import front_notes, front_table, pareto_front, uniform_genomes, write_front
from ofa_pose.utils.files import read_yaml
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space

SPACE = small_space()
ORIGIN = {"supernet": {"path": "runs/supernet/checkpoints/best.pt", "sha256": "ab" * 32}, "evaluations": 40}
PARAMS = Budget(params=spec_params(SPACE.largest(JOINTS)) * 2 // 3)


def predict_ms(spec: Any) -> float:
    return 3.0 + spec_macs(spec).exact / 1e6


@pytest.fixture(scope="module")
def feasible() -> FeasibleSpace:
    return FeasibleSpace(SPACE, JOINTS, half_way(SPACE))


def evaluated(feasible: FeasibleSpace, genomes: Iterable[Genome], failing: int = 0) -> list[Candidate]:
    """Candidates by `Usefulness`, the last few of them failed."""
    fitness, genomes = Usefulness(feasible.space), list(dict.fromkeys(genomes))
    return [
        Candidate(
            order,
            order // 20,
            "sample",
            genome,
            -math.inf if order > len(genomes) - failing else fitness(genome),
            feasible.macs(genome),
            0.1,
        )
        for order, genome in enumerate(genomes, start=1)
    ]


def samples(feasible: FeasibleSpace, count: int, seed: int = 0) -> list[Genome]:
    rng = np.random.default_rng(seed)
    return [feasible.draw(1, rng)[0] for _ in range(count)]


def widest(feasible: FeasibleSpace) -> list[Genome]:
    return [
        feasible.space.encode(spec) for spec in uniform_candidates(feasible.space, feasible.joints, feasible.budget)
    ]


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.parametrize("budget", [half_way(SPACE), PARAMS], ids=str)
def test_the_front_is_what_no_other_beats(tmp_path: Path, budget: Budget) -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, budget)
    candidates = evaluated(feasible, samples(feasible, 60), failing=5)
    result = write_front(tmp_path, candidates, feasible, ORIGIN)
    json.dumps(result, allow_nan=False)

    def cost(candidate: Candidate) -> float:
        return budget.limits[0].cost(feasible.decode(candidate.genome))

    def beats(one: Candidate, other: Candidate) -> bool:
        one_is, other_is = (cost(one), -one.fitness), (cost(other), -other.fitness)
        return one_is != other_is and all(a <= b for a, b in zip(one_is, other_is, strict=True))

    valid = candidates[:-5]
    expected = [c for c in valid if not any(beats(other, c) for other in valid)]
    expected.sort(key=lambda c: -c.fitness)
    assert len(expected) > 3
    assert [tuple(entry["genome"]) for entry in result["front"]] == [c.genome for c in expected]
    assert [entry["cost"] for entry in result["front"]] == [cost(c) for c in expected]
    assert result["chosen"] == list(expected[0].genome)

    table = rows(tmp_path / "pareto.csv")
    costs = ["macs_thop", "macs_exact", "macs_paper", "params", "AP"]
    assert list(table[0]) == ["rank", "genome", *SPACE.labels, *costs]
    for rank, (row, entry, candidate) in enumerate(zip(table, result["front"], expected, strict=True), start=1):
        spec = feasible.decode(candidate.genome)
        assert int(row["rank"]) == entry["rank"] == rank
        assert row["genome"] == "-".join(map(str, candidate.genome))
        assert int(row["resolution"]) == entry["resolution"] == spec.resolution
        assert int(row["stage3"]) == spec.stages[2]
        assert int(row["params"]) == entry["params"] == spec_params(spec)
        assert int(row["macs_paper"]) == entry["macs"]["paper"] == spec_macs(spec).paper
        assert float(row["AP"]) == entry["AP"] == candidate.fitness  # to the last bit
        assert entry["subnet"] == str(tmp_path / "front" / f"{rank:03}.yaml")
        assert load_spec(entry["subnet"]) == spec
        kept = read_yaml(entry["subnet"])
        assert kept["rank"] == rank and kept["supernet"] == ORIGIN["supernet"] and kept["AP"] == candidate.fitness


def test_a_predicted_latency_has_its_column(tmp_path: Path) -> None:
    budget = Budget(latency_ms=predict_ms(SPACE.largest(JOINTS)) / 2, predict_ms=predict_ms)
    feasible = FeasibleSpace(SPACE, JOINTS, budget)
    result = write_front(tmp_path, evaluated(feasible, samples(feasible, 20)), feasible, ORIGIN)
    table = rows(tmp_path / "pareto.csv")
    assert [float(row["latency_ms"]) for row in table] == [entry["cost"] for entry in result["front"]]
    assert [entry["latency_ms"] for entry in result["front"]] == [entry["cost"] for entry in result["front"]]


def test_the_table_shows_every_cost_that_is_limited(tmp_path: Path) -> None:
    largest = SPACE.largest(JOINTS)
    budget = Budget(macs=spec_macs(largest).thop, latency_ms=predict_ms(largest) / 2, predict_ms=predict_ms)
    feasible = FeasibleSpace(SPACE, JOINTS, budget)
    result = write_front(tmp_path, evaluated(feasible, samples(feasible, 20)), feasible, ORIGIN)
    table = front_table(result, feasible)
    assert [str(column.header) for column in table.columns][2:4] == ["MACs (thop)", "latency"]
    shown = list(table.columns[3].cells)
    assert shown[0] == budget.limits[1].show(result["front"][0]["latency_ms"])
    assert shown[-1] == budget.limits[1].show(result["uniform"][-1]["latency_ms"])


def test_a_shorter_front_leaves_no_file_of_a_longer_one(tmp_path: Path, feasible: FeasibleSpace) -> None:
    candidates = evaluated(feasible, samples(feasible, 60))
    longer = write_front(tmp_path, candidates, feasible, ORIGIN)
    (tmp_path / "front" / "mine.yaml").write_text("of a person's")
    cheapest = min(candidates, key=lambda c: c.macs)
    shorter = write_front(tmp_path, [cheapest], feasible, ORIGIN)
    assert len(longer["front"]) > 3 and len(shorter["front"]) == 1
    assert sorted(path.name for path in (tmp_path / "front").iterdir()) == ["001.yaml", "mine.yaml"]
    assert len(rows(tmp_path / "pareto.csv")) == 1
    assert load_spec(tmp_path / "front" / "001.yaml") == feasible.decode(cheapest.genome)


def test_a_search_that_failed_throughout_has_an_empty_front(tmp_path: Path, feasible: FeasibleSpace) -> None:
    candidates = evaluated(feasible, samples(feasible, 3), failing=3)
    result = write_front(tmp_path, candidates, feasible, ORIGIN)
    assert result["chosen"] is None and result["front"] == [] and result["saving"] is None
    assert rows(tmp_path / "pareto.csv") == []
    assert front_table(result, feasible).row_count == len(result["uniform"])


def test_uniform_nets_are_compared_at_the_same_cost(tmp_path: Path, feasible: FeasibleSpace) -> None:
    everything = list(uniform_genomes(feasible))
    assert len(everything) > len(widest(feasible)) > 1
    candidates = evaluated(feasible, [*everything, *samples(feasible, 60)])
    result = write_front(tmp_path, candidates, feasible, ORIGIN)
    by_genome = {c.genome: c for c in candidates}
    nets = [by_genome[genome] for genome in everything]
    assert {tuple(net["genome"]): net["AP"] for net in result["uniform"]} == {c.genome: c.fitness for c in nets}
    for entry in result["front"]:
        cheaper = [c.fitness for c in nets if c.macs <= entry["cost"]]
        assert entry["uniform"] == {"AP": max(cheaper, default=None), "complete": True}
    best = max(nets, key=lambda c: c.fitness)
    as_good = min(entry["cost"] for entry in result["front"] if entry["AP"] >= best.fitness)
    assert result["saving"] == pytest.approx(1 - as_good / best.macs) and 0 <= result["saving"] < 1
    notes = front_notes({**result, "saving": 0.314}, "MACs (thop)", 12)
    assert any("comes at 31% less MACs (thop)" in note for note in notes)


def test_uniform_nets_that_were_not_evaluated_are_told(tmp_path: Path, feasible: FeasibleSpace) -> None:
    cheap = evaluated(feasible, samples(feasible, 60))
    cheap = [c for c in cheap if c.genome not in uniform_genomes(feasible)]
    none = write_front(tmp_path, cheap, feasible, ORIGIN)
    assert [(tuple(net["genome"]), net["AP"]) for net in none["uniform"]] == [
        (genome, None) for genome in widest(feasible)
    ]
    assert none["saving"] is None
    smallest = min(feasible.macs(genome) for genome in uniform_genomes(feasible))
    for entry in none["front"]:
        assert entry["uniform"] == {"AP": None, "complete": entry["cost"] < smallest}

    some = write_front(tmp_path, evaluated(feasible, [*widest(feasible), *(c.genome for c in cheap)]), feasible, ORIGIN)
    assert all(net["AP"] is not None for net in some["uniform"])
    for entry in some["front"]:  # narrower nets that cost less were not evaluated
        enough = {g for g in uniform_genomes(feasible) if feasible.macs(g) <= entry["cost"]}
        by_side = {g[0]: max((o for o in enough if o[0] == g[0]), key=feasible.macs) for g in enough}
        assert entry["uniform"]["complete"] == (set(by_side.values()) <= set(widest(feasible)))
    assert {entry["uniform"]["complete"] for entry in some["front"]} == {True, False}


def test_the_table_for_people(tmp_path: Path, feasible: FeasibleSpace) -> None:
    candidates = evaluated(feasible, [*widest(feasible), *samples(feasible, 300)])
    result = write_front(tmp_path, candidates, feasible, ORIGIN)
    front = result["front"]
    assert len(front) > 12
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(front_table(result, feasible))
    text = console.export_text()
    assert re.search(rf"front/001 \* +{front[0]['resolution']} ", text) and "…" not in text
    assert f"front/{len(front):03}" in text and text.count("front/") == 12
    assert len(re.findall("^uniform ", text, flags=re.MULTILINE)) == len(result["uniform"])
    assert f"{len(front) - 12} more front members are in pareto.csv" in front_notes(result, "MACs (thop)", 12)
    assert f"{front[0]['AP'] - front[0]['uniform']['AP']:+.3f}" in text
    assert "≥ " in text and "≤ " in text


def test_ties_go_to_the_cheaper_and_the_earlier() -> None:
    assert pareto_front([(2, 0.5), (1, 0.5), (1, 0.5), (3, 0.7), (3, 0.6), (0.5, 0.1)]) == [5, 1, 3]
    assert pareto_front([]) == []


def test_what_finds_nobody_is_on_no_front_but_where_nothing_finds_anybody() -> None:
    assert pareto_front([(1, 0.0), (2, 0.4), (3, 0.5)]) == [1, 2]
    assert pareto_front([(2, 0.0), (1, 0.0)]) == [1]


def test_nothing_is_saved_where_uniform_nets_find_nobody(tmp_path: Path, feasible: FeasibleSpace) -> None:
    candidates = evaluated(feasible, [*widest(feasible), *samples(feasible, 60)])
    nobody = [replace(c, fitness=0.0) if c.genome in uniform_genomes(feasible) else c for c in candidates]
    assert write_front(tmp_path, candidates, feasible, ORIGIN)["saving"] is not None
    assert write_front(tmp_path, nobody, feasible, ORIGIN)["saving"] is None
