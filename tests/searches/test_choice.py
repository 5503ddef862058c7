"""What a search takes among subnets that its images cannot tell apart."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches.archive import ARCHIVE
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.choice import choice_notes, choose
from ofa_pose.searches.evaluation import DRAWS
from ofa_pose.searches.job import SearchJob
from ofa_pose.searches.results import costs_of
from ofa_pose.utils.files import read_yaml
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space, tiny_space

SPACE, TINY = small_space(), tiny_space()
SIX = FeasibleSpace(TINY, JOINTS, Budget(macs=10**12))
SETTINGS = SearchSettings(population=8, generations=2)
BASIS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "search": ["a.json", 7, 7]}
Given = Mapping[Genome, Sequence[float]]


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_pose.searches.job.draw_pareto", lambda path, *_: path.touch())


def cheapest_first() -> list[Genome]:
    every = [
        TINY.encode(TINY.decode((r, 0, s, *[0] * 20)[: len(TINY.choices)], JOINTS)) for r in (0, 1) for s in (0, 1, 2)
    ]
    return sorted(every, key=SIX.macs)


def candidates(aps: Sequence[float]) -> list[Candidate]:
    """Of ascending costs."""
    genomes = cheapest_first()[: len(aps)]
    return [
        Candidate(n, 0, "sample", genome, ap, SIX.macs(genome), 0.1)
        for n, (genome, ap) in enumerate(zip(genomes, aps, strict=True), 1)
    ]


def noisy(history: Sequence[Candidate], own: float, common: float = 0.0, seed: int = 0) -> Callable[[Genome], Any]:
    """Draws of each: what all have in common, and what is its own, standard deviations."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, common, 200)
    drawn = {c.genome: c.fitness + shared + rng.normal(0, own, 200) for c in history}
    return drawn.get


def test_the_cheapest_within_one_error_of_the_difference_is_taken() -> None:
    history = candidates([0.30, 0.44, 0.48, 0.50, 0.40])
    # the difference of two has √2 × .02 = .028: .48 is within, .44 is not
    choice = choose(history, SIX, noisy(history, own=0.02), prefer_cheaper=True)
    assert choice.chosen is history[2] and choice.fittest is history[3]
    assert choice.difference == pytest.approx(0.02) and choice.error == pytest.approx(0.028, rel=0.15)
    costs = [SIX.macs(c.genome) for c in history]
    assert choice.saving == pytest.approx(1 - costs[2] / costs[3]) and choice.rank == 2


def test_what_images_have_in_common_does_not_count() -> None:
    history = candidates([0.30, 0.44, 0.48, 0.50])
    wide = noisy(history, own=0.005, common=0.2)
    choice = choose(history, SIX, wide, prefer_cheaper=True)
    assert choice.chosen is choice.fittest is history[3] and choice.error is None


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_that_of_a_plain_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    history = candidates(rng.uniform(0.3, 0.5, 6).tolist())
    draws = noisy(history, own=float(rng.uniform(0.001, 0.05)), seed=seed)
    best = max(history, key=lambda c: c.fitness)
    costs = {c.order: SIX.macs(c.genome) for c in history}
    within = [best]
    for c in history:
        beaten = any(o.fitness >= c.fitness and costs[o.order] < costs[c.order] for o in history)
        error = np.std(draws(best.genome) - draws(c.genome), ddof=1)
        if not beaten and costs[c.order] < costs[best.order] and best.fitness - c.fitness <= error:
            within.append(c)
    assert choose(history, SIX, draws, True).chosen is min(within, key=lambda c: costs[c.order])
    assert choose(history, SIX, draws, False).chosen is best


def test_without_errors_or_an_ap_the_fittest_is_taken() -> None:
    history = candidates([0.49, 0.5])
    assert choose(history, SIX, lambda _: None, True).chosen is history[1]
    draws = noisy(history, own=0.1)
    only_best = {history[1].genome: draws(history[1].genome)}.get
    assert choose(history, SIX, only_best, True).chosen is history[1]
    nothing = candidates([0.0, 0.0])
    taken = choose(nothing, SIX, noisy(nothing, own=0.1), True)
    assert taken.chosen is taken.fittest is nothing[0]


def test_where_the_ap_of_all_is_0_the_budgets_quantity_says_what_is_cheapest() -> None:
    by_params, nothing = FeasibleSpace(TINY, JOINTS, Budget(params=10**12)), candidates([0.0] * 6)
    params = costs_of(by_params, nothing)
    few = [candidate for candidate, count in zip(nothing, params, strict=True) if count > min(params)]
    few += [candidate for candidate, count in zip(nothing, params, strict=True) if count == min(params)][-1:]
    assert choose(few, by_params, lambda _: None, True).chosen is few[-1] is not min(few, key=lambda c: c.macs)


def test_a_failed_evaluation_is_not_taken() -> None:
    failed = candidates([-np.inf, 0.5])
    assert choose(failed, SIX, lambda _: np.full(200, 0.5), True).chosen is failed[1]


def test_the_words() -> None:
    history = candidates([0.30, 0.31, 0.32, 0.44, 0.48, 0.50])
    draws = noisy(history, own=0.02)
    choice = choose(history, SIX, draws, True)
    (said,) = choice_notes(choice, history, SIX, draws, 400)
    assert said.startswith("front/002 is within noise of the best, front/001, and costs ")
    assert "% less MACs (thop), so it is chosen: AP 0.480 and 0.500, which differ by 0.020 ± 0.0" in said
    _, few = choice_notes(choice, history, SIX, draws, 30)
    assert few.startswith("the search images show only 30 people, so AP 0.500 ± 0.0")
    plain = choose(history, SIX, draws, False)
    assert choice_notes(plain, history, SIX, draws, 400) == []
    alike = candidates([0.49, 0.5, 0.495, 0.497])
    wide = noisy(alike, own=0.05)
    (said,) = choice_notes(choose(alike, SIX, wide, False), alike, SIX, wide, 30)
    assert said.startswith("the search images cannot tell these subnets apart: 30 people; AP 0.500 ± 0.0")
    assert "; 4 of 4 are within one standard error of the best" in said
    assert choice_notes(plain, history, SIX, lambda _: None, 30) == []


def uncertain(own: float, calls: list[Genome] | None = None) -> Callable[[Genome], dict[str, Any]]:
    """A made-up measure with draws; the same subnet always has the same."""
    fitness = Usefulness(SPACE)

    def measure(genome: Genome) -> dict[str, Any]:
        if calls is not None:
            calls.append(genome)
        ap = fitness(genome) / 10
        drawn = ap + np.random.default_rng(genome).normal(0, own, 200)
        return {"AP": ap, "AP_stderr": float(drawn.std(ddof=1)), DRAWS: drawn.round(5).tolist()}

    return measure


def run(out: Path, own: float = 0.05, prefer: bool = True, calls: list[Genome] | None = None, **given: Any) -> Any:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    recipe = Recipe(search=SETTINGS.model_copy(update={"prefer_cheaper": prefer}))
    job = SearchJob(feasible, uncertain(own, calls), recipe, BASIS, people=40, gives_draws=True)
    return job.run(out, **given)


def test_a_search_takes_the_cheaper_one_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path / "on")
    said = capfd.readouterr().err
    fittest = run(tmp_path / "off", prefer=False)
    assert "is within noise of the best, front/001, and costs " in said
    assert "is within noise" not in capfd.readouterr().err
    assert result.best.macs["thop"] < fittest.best.macs["thop"] and result.best.AP < fittest.best.AP
    assert result.best.AP_stderr == pytest.approx(0.05, rel=0.2)
    kept = read_yaml(tmp_path / "on" / "best.yaml")
    assert load_spec(tmp_path / "on" / "best.yaml") == result.best.spec and kept["AP"] == result.best.AP
    found = json.loads((tmp_path / "on" / "result.json").read_text())
    assert (
        found["people"] == 40 and found["notes"] == result.notes and f"AP {result.best.AP:.3f} and" in found["notes"][0]
    )
    (place,) = [entry for entry in found["front"] if entry["genome"] == found["chosen"]]
    assert place["rank"] > 1 and found["notes"][0].startswith(f"front/{place['rank']:03} is within noise")
    assert [entry["genome"] for entry in found["front"]] == [entry["genome"] for entry in fittest.front]
    assert all(entry["AP_stderr"] == pytest.approx(0.05, rel=0.2) for entry in found["front"])
    rows = [(tmp_path / name / "history.csv").read_text().splitlines() for name in ("on", "off")]
    assert [row.split(",")[:-1] for row in rows[0]] == [row.split(",")[:-1] for row in rows[1]]


def test_switched_off_it_is_the_search_without_errors(tmp_path: Path) -> None:
    feasible = FeasibleSpace(SPACE, JOINTS, half_way(SPACE))
    plain = SearchJob(feasible, lambda g: {"AP": Usefulness(SPACE)(g) / 10}, Recipe(search=SETTINGS), BASIS)
    expected, found = plain.run(tmp_path / "plain").to_dict(), run(tmp_path / "off", prefer=False).to_dict()
    for key in ("evaluations", "judged", "chosen", "saving"):
        assert found[key] == expected[key]
    assert {**found["best"], "AP_stderr": None} == expected["best"] and expected["notes"] == []
    assert expected["people"] is None


def test_resumed_or_from_an_archive_the_choice_is_the_same(tmp_path: Path) -> None:
    expected, calls = run(tmp_path / "one"), []
    again = run(tmp_path / "one", calls=calls, resume=True)
    shared = run(tmp_path / "two", calls=calls, archive=tmp_path / "one")
    with ThreadPoolExecutor(2) as pool:
        side = run(tmp_path / "three", executor=pool)
    assert calls == [] and expected.chosen == again.chosen == shared.chosen == side.chosen
    assert expected.notes == again.notes == shared.notes == side.notes
    off = run(tmp_path / "one", prefer=False, resume=True)  # it is no part of what a search rests on
    assert off.chosen == off.front[0]["genome"] != expected.chosen


def test_what_an_old_archive_lacks_of_the_front_is_measured_again(tmp_path: Path) -> None:
    expected = run(tmp_path / "new")
    run(tmp_path / "old", prefer=False)
    with closing(sqlite3.connect(tmp_path / "old" / ARCHIVE)) as archive, archive:
        archive.execute("""UPDATE evaluations SET metrics = '{"AP": ' || AP || '}'""")
    before = (tmp_path / "old" / ARCHIVE).read_bytes()
    calls: list[Genome] = []
    found = run(tmp_path / "old", calls=calls, resume=True)
    assert found.chosen == expected.chosen and found.notes[0] == expected.notes[0] and found.best.AP_stderr is None
    front, uniform = ({tuple(net["genome"]) for net in nets} for nets in (found.front, found.uniform))
    assert len(calls) == len(set(calls)) and len(front & set(calls)) >= 2 and set(calls) <= front | uniform
    assert len(before) == len((tmp_path / "old" / ARCHIVE).read_bytes())


@pytest.mark.parametrize(
    "metrics", ["[1]", "{", "null", '{"AP_draws": [[1], 2]}', '{"AP_draws": "x", "AP_stderr": "y"}']
)
def test_metrics_at_fault_in_an_archive_are_no_metrics(tmp_path: Path, metrics: str) -> None:
    run(tmp_path, prefer=False)
    with closing(sqlite3.connect(tmp_path / ARCHIVE)) as archive, archive:
        archive.execute("UPDATE evaluations SET metrics = ?", (metrics,))
    found = run(tmp_path, prefer=False, resume=True)
    assert found.best.AP_stderr is None and found.notes == []
