"""A search that was cut off, wherever, ends as if it had not been; and one with other settings is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.recipe import SearchSettings
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.searches import test_archive
from tests.searches.small_spaces import JOINTS, Usefulness, half_way
from tests.searches.test_job import BASIS, SETTINGS, SPACE, quick_picture, rows, search

__all__ = ["quick_picture"]
FIXED = ("genome", "spec", "macs_thop", "params", "metrics", "AP", "seed", "basis")


@pytest.fixture(scope="module")
def feasible() -> FeasibleSpace:
    return FeasibleSpace(SPACE, JOINTS, half_way(SPACE))


def archived(out: Path) -> list[tuple[Any, ...]]:
    """The archive's rows but for what the clock decides."""
    return sorted(tuple(row[key] for key in FIXED) for row in test_archive.rows(out / "archive.sqlite"))


def listed(out: Path) -> list[dict[str, str]]:
    """The history but for what the clock decides."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(out)]


class Interrupted:
    """A fitness that is interrupted when it is called for the n-th time, for each of some n."""

    def __init__(self, *calls: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.calls: list[Genome] = []
        self._when, self._error = calls, error

    def __call__(self, genome: Genome) -> float:
        self.calls.append(genome)
        if len(self.calls) in self._when:
            raise self._error("interrupted")
        return Usefulness(SPACE)(genome)


def test_a_resumed_search_goes_on_where_it_was_cut_off(tmp_path: Path, feasible: FeasibleSpace) -> None:
    whole = search(tmp_path / "whole", feasible)
    fitness, out = Interrupted(14, 22), tmp_path / "cut"
    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(out, feasible, fitness, resume=attempt > 0)
        with (out / "history.csv").open("a") as file:
            file.write("99,3,mutation,1-0-1")  # a row cut off by the kill
    seconds = {row["genome"]: row["seconds"] for row in test_archive.rows(out / "archive.sqlite")}
    result = search(out, feasible, fitness, resume=True)
    assert result["best"] == whole["best"] and result["evaluations"] == result["judged"] == 32
    assert len(fitness.calls) == 32 + 2 and len(set(fitness.calls)) == 32  # only what was cut off was evaluated again
    assert listed(out) == listed(tmp_path / "whole") and archived(out) == archived(tmp_path / "whole")
    assert seconds == {row["genome"]: float(row["seconds"]) for row in rows(out)[:20]}, "of the evaluation"
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


def test_an_evaluation_that_raises_ends_it_and_it_goes_on(tmp_path: Path, feasible: FeasibleSpace) -> None:
    fitness = Interrupted(14, error=RuntimeError)
    with pytest.raises(OfaPoseError, match=r"could not be evaluated \(RuntimeError: interrupted\)"):
        search(tmp_path, feasible, fitness)
    assert len(rows(tmp_path)) == len(archived(tmp_path)) == 13
    assert search(tmp_path, feasible, fitness, resume=True)["judged"] == 32 and len(fitness.calls) == 33


def test_a_full_disk_does_not_hide_what_ended_a_search(
    tmp_path: Path, feasible: FeasibleSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ofa_pose.searches.job.draw_pareto", full)
    with pytest.raises(OfaPoseError, match="RuntimeError: interrupted"):
        search(tmp_path / "cut", feasible, Interrupted(14, error=RuntimeError))
    with pytest.raises(OSError, match="No space left"):
        search(tmp_path / "whole", feasible)


def test_a_finished_search_can_be_carried_further(tmp_path: Path, feasible: FeasibleSpace) -> None:
    search(tmp_path, feasible)
    fitness = Usefulness(SPACE)
    longer = SearchSettings(population=8, generations=5)
    result = search(tmp_path, feasible, fitness, longer, resume=True)
    assert result["evaluations"] == result["judged"] == 48 and len(fitness.calls) == 16
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["measured"] for record in records] == [0, 0, 0, 0, 8, 16]


def test_a_search_that_goes_less_far_loses_nothing(tmp_path: Path, feasible: FeasibleSpace) -> None:
    whole = search(tmp_path, feasible)
    fitness = Usefulness(SPACE)
    search(tmp_path, feasible, fitness, SearchSettings(population=8, generations=0), resume=True)
    assert search(tmp_path, feasible, fitness, resume=True)["best"] == whole["best"]
    assert not fitness.calls


@pytest.mark.slow
def test_searches_share_an_archive(tmp_path: Path, feasible: FeasibleSpace) -> None:
    whole = search(tmp_path / "first", feasible)
    again = Usefulness(SPACE)
    shared = search(tmp_path / "second", feasible, again, archive=tmp_path / "first")
    assert shared["judged"] == 0 and not again.calls and shared["best"] == whole["best"]
    assert not (tmp_path / "second" / "archive.sqlite").exists()
    assert shared["archive"] == str(tmp_path / "first" / "archive.sqlite")
    other = Usefulness(SPACE)
    result = search(tmp_path / "third", feasible, other, seed=1, archive=tmp_path / "first" / "archive.sqlite")
    assert 0 < result["judged"] == len(other.calls) < 32  # the uniform nets at least were known
    alone = search(tmp_path / "fourth", feasible, seed=1)
    assert alone["best"] == result["best"] and listed(tmp_path / "third") == listed(tmp_path / "fourth")
    resumed = search(tmp_path / "third", feasible, seed=1, resume=True)  # it remembers where its archive is
    assert resumed == result and resumed["archive"].endswith("first/archive.sqlite")


def test_another_basis_is_evaluated_anew_in_the_same_archive(tmp_path: Path, feasible: FeasibleSpace) -> None:
    search(tmp_path / "first", feasible)
    other = {**BASIS, "search": ["b.json", 9, 9]}
    assert search(tmp_path / "second", feasible, basis=other, archive=tmp_path / "first")["judged"] == 32
    assert len(archived(tmp_path / "first")) == 64


def test_a_resumed_search_learns_from_nothing_that_came_later(
    tmp_path: Path, feasible: FeasibleSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a surrogate may learn from is what the archive held when the search began."""
    from ofa_pose.searches import job as module
    from ofa_pose.searches.algorithms import ALGORITHMS

    seen: list[list[Any]] = []

    def watched(feasible: Any, settings: Any, seed: int, evaluate: Any, prior: Any = (), report: Any = None) -> Any:
        seen.append(list(prior))
        for generation in range(4):
            report({"generation": generation, "tau": generation + len(seen) / 10})
        return ALGORITHMS["evolution"](feasible, settings.model_copy(update={"surrogate": False}), seed, evaluate)

    search(tmp_path / "first", feasible)
    monkeypatch.setattr(module, "ALGORITHMS", {"evolution": watched})
    taught = SETTINGS.model_copy(update={"surrogate": True})
    search(tmp_path / "second", feasible, settings=taught, seed=1, archive=tmp_path / "first")
    search(tmp_path / "second", feasible, settings=taught, seed=1, resume=True)
    assert seen[0] == seen[1] and len(seen[0]) == 32
    assert seen[0] == [(g, Usefulness(SPACE)(g)) for g, _ in seen[0]]
    records = [json.loads(line) for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    assert [record["tau"] for record in records] == [0.2, 1.2, 2.2, 3.2]


def test_another_search_is_not_resumed_and_nothing_is_lost_by_asking(tmp_path: Path, feasible: FeasibleSpace) -> None:
    (tmp_path / "history.csv").touch()
    with pytest.raises(InputError, match=r"no search.json to resume"):
        search(tmp_path, feasible, resume=True)
    (tmp_path / "history.csv").unlink()
    search(tmp_path, feasible)
    before = _contents(tmp_path)
    wider = FeasibleSpace(SPACE, JOINTS, Budget(macs=10**12))
    for change, named in (
        ({"basis": {**BASIS, "sha256": "cd" * 32}}, "another supernet"),
        (
            {"basis": {**BASIS, "search": ["b.json", 7, 7]}},
            r"another search: search was \['a.json', 7, 7\], is \['b.json'",
        ),
        ({"feasible": wider}, "another budget"),
        ({"seed": 1}, "another algorithm: algorithm.seed was 0, is 1"),
        ({"settings": SETTINGS.model_copy(update={"mutation": 0.5})}, "another algorithm"),
    ):
        with pytest.raises(InputError, match=named):
            search(**{"out": tmp_path, "feasible": feasible, "resume": True, **change})  # type: ignore[arg-type]
    assert before == _contents(tmp_path)


def test_a_damaged_or_missing_archive_is_refused_before_anything_is_written(
    tmp_path: Path, feasible: FeasibleSpace
) -> None:
    search(tmp_path, feasible)
    archive = tmp_path / "archive.sqlite"
    archive.write_bytes(b"nonsense" * 100)
    before = _contents(tmp_path)
    with pytest.raises(InputError, match=r"archive\.sqlite: is not an archive"):
        search(tmp_path, feasible, resume=True)
    assert before == _contents(tmp_path)
    archive.unlink()
    with pytest.raises(InputError, match="archive is missing"):
        search(tmp_path, feasible, resume=True)
    assert {name: data for name, data in before.items() if name != archive.name} == _contents(tmp_path)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_search_of_an_earlier_version_is_not_resumed(tmp_path: Path, feasible: FeasibleSpace) -> None:
    (tmp_path / "history.csv").touch()
    (tmp_path / "search.json").write_text(json.dumps({**BASIS, "evolution": {"seed": 0}}))
    with pytest.raises(InputError, match="kept no archive"):
        search(tmp_path, feasible, resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "does not say what its run rests on"),
        ([], "does not say what its run rests on"),
        (7, "does not say what its run rests on"),
        ({"prior": "x"}, "does not say which evaluations it had"),
        ({"prior": True}, "does not say which evaluations it had"),
        ({"prior": 0.5}, "does not say which evaluations it had"),
        ({"archive": 5}, "does not say which evaluations it had"),
        ({"prior": -1}, "says that its archive held -1 evaluations, .* holds 8"),
        ({"prior": 9}, "says that its archive held 9 evaluations, .* holds 8; name its archive with --archive"),
        ({"prior": 10**400}, "says that its archive held 1"),
        ({"algorithm": []}, "was begun with another algorithm"),
        ({"space": 3}, "was begun with another space"),
    ],
)
def test_a_damaged_basis_is_refused(tmp_path: Path, feasible: FeasibleSpace, change: Any, words: str) -> None:
    few = SETTINGS.model_copy(update={"generations": 0})
    search(tmp_path, feasible, settings=few)
    basis, result = tmp_path / "search.json", (tmp_path / "result.json").read_bytes()
    before = json.loads(basis.read_text())
    basis.write_text(json.dumps({**before, **change} if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=words):
        search(tmp_path, feasible, settings=few, resume=True)
    assert (tmp_path / "result.json").read_bytes() == result
    basis.write_text(json.dumps(before))
    assert search(tmp_path, feasible, settings=few, resume=True)["judged"] == 8
