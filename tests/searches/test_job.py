from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches.candidates import Algorithm, Candidate, Evaluate, evaluated
from ofa_pose.searches.job import SearchJob
from ofa_pose.searches.results import pareto_front
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.files import read_yaml
from tests.searches.small_spaces import JOINTS, Usefulness, half_way, small_space, tiny_space

SPACE = small_space()
SETTINGS = SearchSettings(population=8, generations=3)
ORIGIN = {"supernet": {"path": "runs/supernet/checkpoints/best.pt", "sha256": "ab" * 32}}
BASIS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "search": ["a.json", 7, 7]}


@pytest.fixture(autouse=True)
def quick_picture(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A picture takes longer than these searches: only the tests about it draw it."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("ofa_pose.searches.job.draw_pareto", lambda path, *_: path.touch())


@pytest.fixture(scope="module")
def feasible() -> FeasibleSpace:
    return FeasibleSpace(SPACE, JOINTS, half_way(SPACE))


def search(
    out: Path,
    feasible: FeasibleSpace,
    fitness: Callable[[Genome], float | None] | None = None,
    settings: SearchSettings = SETTINGS,
    basis: dict[str, Any] = BASIS,
    resume: bool = False,
    seed: int = 0,
    archive: Path | None = None,
    algorithm: Algorithm | None = None,
) -> dict[str, Any]:
    """What a job with a made-up fitness finds, as --json prints it."""
    chosen = fitness or Usefulness(feasible.space)
    recipe = Recipe(search=settings, seed=seed)
    job = SearchJob(feasible, lambda genome: {"AP": chosen(genome)}, recipe, basis, ORIGIN, algorithm)
    return job.run(out, resume, archive).to_dict()


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_history_is_complete_and_parsable(tmp_path: Path, feasible: FeasibleSpace) -> None:
    fitness = Usefulness(SPACE)
    result = search(tmp_path, feasible, fitness)
    table = rows(tmp_path)
    assert len(table) == result["evaluations"] == len(fitness.calls) == 32
    costs = ["macs_thop", "macs_exact", "macs_paper", "params", "AP", "seconds"]
    assert list(table[0]) == ["order", "generation", "origin", "genome", *SPACE.labels, *costs]
    assert [int(row["order"]) for row in table] == list(range(1, 33))
    for row, genome in zip(table, fitness.calls, strict=True):
        assert tuple(map(int, row["genome"].split("-"))) == genome
        spec = feasible.decode(genome)
        assert int(row["resolution"]) == spec.resolution and int(row["stage2"]) == spec.stages[1]
        macs = spec_macs(spec)
        assert [int(row[f"macs_{key}"]) for key in ("thop", "exact", "paper")] == [macs.thop, macs.exact, macs.paper]
        assert int(row["params"]) == spec_params(spec)
        assert float(row["AP"]) == Usefulness(SPACE)(genome)  # to the last bit
        assert float(row["seconds"]) >= 0
        assert row["origin"] in ("uniform", "sample", "crossover", "mutation")


def test_best_round_trips_and_is_the_best_row(tmp_path: Path, feasible: FeasibleSpace) -> None:
    result = search(tmp_path, feasible)
    value = read_yaml(tmp_path / "best.yaml")
    spec = load_spec(tmp_path / "best.yaml")
    top = max(rows(tmp_path), key=lambda row: float(row["AP"]))
    assert spec == feasible.decode(tuple(map(int, top["genome"].split("-")))) and feasible.budget.admits(spec)
    assert spec.to_dict() == value["spec"] == result["best"]["spec"]
    assert value["AP"] == result["best"]["AP"] == float(top["AP"])
    assert value["macs"] == result["best"]["macs"] == spec_macs(spec).to_dict()
    assert value["params"] == spec_params(spec) and value["latency_ms"] is None
    assert value["convention"] == "thop" and value["budget"]["macs"] == feasible.budget.macs
    assert value["space"] == "small" and value["supernet"] == ORIGIN["supernet"] and value["evaluations"] == 32
    assert result["out"] == str(tmp_path) and result["seconds"] > 0
    json.dumps(result, allow_nan=False)


def test_each_generation_is_logged_and_the_best_never_falls(tmp_path: Path, feasible: FeasibleSpace) -> None:
    result = search(tmp_path, feasible)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [0, 1, 2, 3] and [r["evaluations"] for r in records] == [8, 16, 24, 32]
    best = [r["AP"] for r in records]
    assert best == sorted(best) and best[-1] == result["best"]["AP"]
    values = [float(row["AP"]) for row in rows(tmp_path)]
    assert records[1]["AP_mean"] == pytest.approx(np.mean(values[8:16])) and best[1] == max(values[:16])


def test_a_killed_search_leaves_rows_best_and_the_picture(tmp_path: Path, feasible: FeasibleSpace) -> None:
    seen: list[int] = []

    def fitness(genome: Genome) -> float:
        if (tmp_path / "history.csv").exists():
            seen.append(len(rows(tmp_path)))
        if len(seen) == 21:
            raise KeyboardInterrupt
        return Usefulness(SPACE)(genome)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, feasible, fitness)
    assert seen == list(range(21))  # every row is on disk before the next subnet is evaluated
    table = rows(tmp_path)
    assert len(table) == 20
    assert read_yaml(tmp_path / "best.yaml")["AP"] == max(float(row["AP"]) for row in table)
    assert cv2.imread(str(tmp_path / "pareto.png")) is not None


def test_a_small_space_ends_early_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    space = tiny_space()
    result = search(tmp_path, FeasibleSpace(space, JOINTS, Budget(macs=10**12)), settings=SearchSettings(population=4))
    assert result["evaluations"] == 6
    captured = capfd.readouterr()
    assert "ends after 6 of 52" in captured.err and captured.out == ""


def test_progress_names_the_best_so_far(
    tmp_path: Path, feasible: FeasibleSpace, capfd: pytest.CaptureFixture[str]
) -> None:
    result = search(tmp_path, feasible)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("generation")]
    assert len(lines) == 4 and "32 subnets" in lines[-1] and "(thop)" in lines[-1]
    assert f"AP {result['best']['AP']:.3f}" in lines[-1]


@pytest.mark.parametrize(
    ("ap", "told"),
    [(0.0, "AP of every evaluated subnet is 0, so"), (np.nan, "no subnet gave an AP that is a number, so"), (0.1, "")],
)
def test_a_search_that_found_nobody_warns(
    tmp_path: Path, feasible: FeasibleSpace, capfd: pytest.CaptureFixture[str], ap: float, told: str
) -> None:
    result = search(tmp_path, feasible, lambda genome: ap)
    warned, by = capfd.readouterr().err, "of these the cheapest was taken, by cost alone: train the"
    assert (f"{told} {by}" in warned) == bool(told) == ("by cost alone" in warned)
    assert result["best"]["macs"]["thop"] == min(int(row["macs_thop"]) for row in rows(tmp_path))


def test_a_fitness_without_numbers_still_gives_valid_outputs(tmp_path: Path, feasible: FeasibleSpace) -> None:
    result = search(tmp_path, feasible, lambda genome: float("nan"))
    assert result["best"]["AP"] == 0.0 and read_yaml(tmp_path / "best.yaml")["AP"] == 0.0
    assert {row["AP"] for row in rows(tmp_path)} == {""}
    json.dumps(result, allow_nan=False)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["AP_mean"] is None


def test_predicted_latency_is_recorded(tmp_path: Path) -> None:
    budget = Budget(macs=half_way(SPACE).macs, predict_ms=lambda spec: spec.resolution / 10)
    result = search(tmp_path, FeasibleSpace(SPACE, JOINTS, budget))
    assert {float(row["latency_ms"]) for row in rows(tmp_path)} <= {6.4, 9.6, 12.8, 16.0}
    assert result["best"]["latency_ms"] == result["best"]["spec"]["resolution"] / 10


@pytest.mark.parametrize(
    "budget",
    [
        half_way(SPACE),
        Budget(params=60_000),
        Budget(latency_ms=14.0, predict_ms=lambda spec: spec.resolution / 10),
    ],
)
def test_the_picture_is_drawn_for_every_kind_of_budget(tmp_path: Path, budget: Budget) -> None:
    search(tmp_path, FeasibleSpace(SPACE, JOINTS, budget))
    image = cv2.imread(str(tmp_path / "pareto.png"))
    assert image.shape[0] > 500 and image.shape[1] > 900
    gold = np.all(np.abs(image.astype(int) - (0, 215, 255)) < 10, axis=-1)  # BGR: the chosen one's star
    assert gold.sum() > 50


def one_by_one(
    feasible: FeasibleSpace, settings: SearchSettings, seed: int, evaluate: Evaluate, *_: Any
) -> Iterator[Candidate]:
    """An algorithm from outside the package: random subnets, a generation each."""
    drawn = feasible.sample_many(settings.generations + 1, np.random.default_rng(seed))
    for generation, genome in enumerate(drawn):
        yield from evaluated(feasible, evaluate, [(genome, "sample")], generation, generation)


def test_an_algorithm_is_handed_over_and_named(tmp_path: Path, feasible: FeasibleSpace) -> None:
    result = search(tmp_path, feasible, algorithm=one_by_one)
    assert result["saving"] is None, "uniform nets are better than all that it found"
    name = f"{__name__}.one_by_one"
    assert result["algorithm"] == name and result["evaluations"] == 4
    assert json.loads((tmp_path / "search.json").read_text())["algorithm"]["algorithm"] == name
    longer = SETTINGS.model_copy(update={"generations": 5})
    again = search(tmp_path, feasible, settings=longer, resume=True, algorithm=one_by_one)
    assert again["evaluations"] == 6 and again["best"]["AP"] >= result["best"]["AP"]
    with pytest.raises(InputError, match=r"another algorithm: algorithm.algorithm was .*one_by_one, is evolution"):
        search(tmp_path, feasible, resume=True)


@pytest.mark.parametrize(
    ("algorithm", "told"),
    [
        (5, "the algorithm 5 cannot be called"),
        (lambda feasible, seed: iter(()), "takes (feasible, seed), but is given (feasible, settings, seed, evaluate, "),
    ],
)
def test_what_cannot_be_called_as_an_algorithm_is_refused_first(
    tmp_path: Path, feasible: FeasibleSpace, algorithm: Any, told: str
) -> None:
    with pytest.raises(InputError) as error:
        search(tmp_path / "out", feasible, algorithm=algorithm)
    assert told in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [(None, "returned None, no candidates"), ([(0, 1)], r"gave \(0, 1\), which is not a Candidate")],
)
def test_what_an_algorithm_gives_is_checked(tmp_path: Path, feasible: FeasibleSpace, given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        search(tmp_path, feasible, algorithm=lambda *_: given)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda genome: [[*genome]], r"asked for \[.*\], which is not a tuple; a genome is a tuple: write tuple"),
        (lambda genome: [genome[:1]], "asked for a genome of 1 genes for a space of .* from 0 to the gene's entry"),
        (
            lambda genome: [(99, *genome[1:])],
            "asked for a genome .* is outside the space .* to the gene's entry",
        ),
        (lambda genome: [genome, genome], "gave the genome .* twice; let it skip genomes that it has seen"),
    ],
)
def test_what_an_algorithm_asks_for_is_checked(
    tmp_path: Path, feasible: FeasibleSpace, asked: Callable[[Genome], list[Any]], said: str
) -> None:
    def algorithm(_: FeasibleSpace, settings: Any, seed: int, evaluate: Evaluate, *more: Any) -> Iterator[Candidate]:
        genome = feasible.sample_many(1, np.random.default_rng(seed))[0]
        yield from evaluated(feasible, evaluate, [(one, "sample") for one in asked(genome)], 0, 0)

    with pytest.raises(InputError, match=f"^the algorithm .*{said}"):
        search(tmp_path, feasible, algorithm=algorithm)


def test_an_error_in_an_algorithm_is_its_own(tmp_path: Path, feasible: FeasibleSpace) -> None:
    def failing(*_: Any) -> Iterator[Candidate]:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        search(tmp_path, feasible, algorithm=failing)


def test_an_algorithm_that_chooses_nothing_is_named(tmp_path: Path, feasible: FeasibleSpace) -> None:
    def idle(*_: Any) -> Iterator[Candidate]:
        return iter(())

    with pytest.raises(OfaPoseError, match="idle chose no subnet"):
        search(tmp_path, feasible, algorithm=idle)


def test_the_file_holds_what_the_command_prints(tmp_path: Path, feasible: FeasibleSpace) -> None:
    saved: list[tuple[Path, ArchSpec, float]] = []
    job = SearchJob(
        feasible,
        lambda genome: {"AP": Usefulness(SPACE)(genome)},
        Recipe(search=SETTINGS),
        BASIS,
        ORIGIN,
        save_subnet=lambda *given: saved.append(given),
    )
    found = job.run(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == found.to_dict()
    assert (
        saved == [(tmp_path / "best.pt", found.best.spec, found.best.AP)] and found.checkpoint == tmp_path / "best.pt"
    )
    assert found.to_dict()["checkpoint"] == str(tmp_path / "best.pt") and found.subnet == tmp_path / "best.yaml"
    assert list(found.to_dict()["best"]) == ["spec", "AP", "AP_stderr", "macs", "params", "latency_ms"]


def test_pareto_front() -> None:
    points = [(3, 0.5), (1, 0.2), (2, 0.1), (2, 0.4), (4, 0.5), (2, 0.4), (5, 0.9)]
    front = pareto_front(points)
    assert [points[i] for i in front] == [(1, 0.2), (2, 0.4), (3, 0.5), (5, 0.9)]
    rng = np.random.default_rng(0)
    cloud = [(float(a), float(b)) for a, b in rng.integers(1, 12, (60, 2))]
    kept = {cloud[i] for i in pareto_front(cloud)}
    for x, y in cloud:
        dominated = any(a <= x and b >= y and (a, b) != (x, y) for a, b in cloud)
        assert ((x, y) in kept) == (not dominated)
