"""The search as a job: a supernet, data and a budget in; the best subnet, all evaluations and a picture out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_pose.arch.space import Genome
from ofa_pose.backends import Runner
from ofa_pose.costs.feasible import Budget, FeasibleSpace, describe_feasible
from ofa_pose.data.coco import KeypointDataset
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe.settings import SearchSettings
from ofa_pose.searches.algorithms import ALGORITHMS, expected_evaluations
from ofa_pose.searches.archive import ARCHIVE, Archive, check_archive, find_archive
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.distributed import Team
from ofa_pose.searches.evaluation import SubnetFitness
from ofa_pose.searches.judging import ArchivedJudge, Measure, task_of
from ofa_pose.searches.outputs import History, describe, write_best
from ofa_pose.searches.plots import draw_pareto
from ofa_pose.searches.results import front_table, rivals, write_front
from ofa_pose.utils import files
from ofa_pose.utils.console import progress, say, show, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.run_dir import BASIS_DEFAULTS, RunDir, check_basis

HISTORY, BEST, PICTURE, BASIS, RESULT = "history.csv", "best.yaml", "pareto.png", "search.json", "result.json"
JUDGING = 1  # to be raised whenever the same subnet on the same data may get another AP

# What does not decide which subnets are judged: more generations only go further, the others are part of the basis.
ELSEWHERE = {"generations", "images", "calibration_images", "batch"}


def run_search(
    supernet: Supernet,
    train: KeypointDataset,
    search: KeypointDataset,
    settings: SearchSettings,
    budget: Budget,
    seed: int,
    run: RunDir,
    device: torch.device | str = "cpu",
    source: str | Path | None = None,
    resume: bool = False,
    make_runner: Callable[[LitePose], Runner] | None = None,
    decode: DecodeConfig | None = None,
    archive: str | Path | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """Search a supernet's space for the subnet with the highest AP inside a budget.

    Writes into the run directory: archive.sqlite (every evaluation, as it happens), history.csv and metrics.jsonl as
    it goes, best.yaml after every generation, pareto.png at the end, also of a search that was interrupted, and
    search.json (what it all rests on).

    Args:
        train: images for BatchNorm recalibration.
        search: images on which APs are measured; no weight should have been trained on them.
        source: the supernet's checkpoint, to be named in best.yaml.
        resume: go on with the search in the run directory: it is gone through again, and what the archive holds is
            not measured again.
        make_runner: the runtime that computes a recalibrated subnet; see `SubnetFitness`.
        decode: the decoder's settings.
        archive: another archive than the run directory's, to be shared: a file, or the run directory of a search.
        team: other processes, which are in `assist_search` with the same supernet, data and settings.

    Returns:
        {"best": {"spec", "AP", "macs": {"thop", "exact", "paper"}, "params", "latency_ms"}, "evaluations" (of the
        algorithm), "judged" (measured now, uniform nets beside the winner included; the rest was in the archive),
        "algorithm", "archive", "seconds", "out", and what `write_front` tells}: plain values.

    Raises:
        InputError: no subnet keeps the budget; the data have other joints; the search that is to be resumed had
            another supernet, space or data, or another budget, seed or algorithm; the archive is none.
        OfaPoseError: a subnet could not be judged, a process of the team is gone, the archive cannot be written.
    """
    part = FeasibleSpace(supernet.space, supernet.spec.joints, budget)
    fitness = SubnetFitness(supernet, train, search, settings, device, make_runner, decode)
    origin: dict[str, Any] = {"supernet": None}
    if source is not None:
        origin["supernet"] = {"path": str(source), "sha256": files.sha256(source)}
    sha256 = origin["supernet"] and origin["supernet"]["sha256"]
    basis = fitness_basis(supernet, sha256, train, search, settings, decode)
    return conduct(part, fitness.measure, settings, seed, run, origin, basis, resume, archive, team)


def assist_search(
    supernet: Supernet,
    train: KeypointDataset,
    search: KeypointDataset,
    settings: SearchSettings,
    budget: Budget,
    team: Team,
    device: torch.device | str = "cpu",
    decode: DecodeConfig | None = None,
) -> None:
    """Measure what rank 0, which is in `run_search`, wants to know, until it ends."""
    part = FeasibleSpace(supernet.space, supernet.spec.joints, budget)
    fitness = SubnetFitness(supernet, train, search, settings, device, decode=decode)
    team.follow(task_of(part, fitness.measure))


def fitness_basis(
    supernet: Supernet,
    sha256: str | None,
    train: KeypointDataset,
    search: KeypointDataset,
    settings: SearchSettings,
    decode: DecodeConfig | None = None,
) -> dict[str, Any]:
    """All that a subnet's AP rests on, as JSON values; an archive keeps what rests on another basis apart.

    Args:
        sha256: of the supernet's checkpoint.
    """
    return {
        "sha256": sha256,
        "space": supernet.space.to_dict(),
        "train": [files.sha256(train.annotations_path), len(train), settings.calibration_images],
        "search": [files.sha256(search.annotations_path), len(search), settings.images],
        "decode": asdict(decode or DecodeConfig()),
        "judging": JUDGING,
        **({} if search.metric == BASIS_DEFAULTS["metric"] else {"metric": search.metric}),
    }


def conduct(
    part: FeasibleSpace,
    measure: Measure,
    settings: SearchSettings,
    seed: int,
    run: RunDir,
    origin: Mapping[str, Any],
    basis: Mapping[str, Any],
    resume: bool = False,
    archive: str | Path | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """`run_search` with any measure: plan, check, open, judge, write.

    Args:
        origin: what best.yaml says about where the subnet's weights are.
        basis: what the measure depends on, JSON values; see `fitness_basis`.
    """
    start = time.perf_counter()
    plan = {
        **basis,
        "budget": {**part.budget.to_dict(), "convention": part.budget.convention},
        "algorithm": {"seed": seed, **settings.model_dump(exclude=ELSEWHERE)},
    }
    before = _read_plan(run, plan) if resume else {}
    given = archive or before.get("archive")
    place = find_archive(given) if given else run.path / ARCHIVE
    check_archive(place)
    if resume and not place.exists():
        hint = "put it back or name it with --archive; without it, start anew with another --out"
        raise InputError("the search's archive is missing", place, hint)
    say(describe_feasible(part))
    run.open()
    (run.path / RESULT).unlink(missing_ok=True)  # of the search before it was resumed
    with Archive(place, basis) as kept:
        # Only what was known when the search began may teach a surrogate: else a resumed one would learn more.
        prior_end = before.get("prior", kept.last)
        if given and not resume:
            say(f"archive {place}: {len(kept.until(prior_end))} evaluations of this supernet are known")
        at = str(place.resolve()) if given else None
        files.write_json(run.path / BASIS, {**plan, "archive": at, "prior": prior_end})
        run.forget_after(-1)
        judge = ArchivedJudge(part, measure, kept, seed, team)
        prior = kept.until(prior_end) if settings.surrogate else []
        with team.lead(judge.task) if team else nullcontext():
            history = _search(part, settings, seed, judge, prior, run, origin)
            others = rivals(history, part)
            beside = {genome: ap for genome, (ap, _) in zip(others, judge(others), strict=True) if math.isfinite(ap)}
    front = write_front(run.path, history, part, {**origin, "evaluations": len(history)}, beside)
    show(front_table(front, part))
    best = max(history, key=lambda candidate: candidate.rank)
    if best.fitness <= 0:
        warn("every subnet has AP 0, so the smallest one was taken: train the supernet further, or check data.search")
    result = {
        "best": describe(part.decode(best.genome), max(best.fitness, 0.0), part.budget),
        "evaluations": len(history),
        "judged": judge.judged,
        "algorithm": settings.algorithm,
        "archive": str(place),
        **front,
        "seconds": round(time.perf_counter() - start, 3),
        "out": str(run.path),
    }
    files.write_json(run.path / RESULT, result)
    return result


def _search(
    part: FeasibleSpace,
    settings: SearchSettings,
    seed: int,
    judge: ArchivedJudge,
    prior: Sequence[tuple[Genome, float]],
    run: RunDir,
    origin: Mapping[str, Any],
) -> list[Candidate]:
    """Run the algorithm to its end, and keep the run directory up to date; all candidates in their order."""
    history: list[Candidate] = []
    best: Candidate | None = None
    reports: dict[int, dict[str, Any]] = {}  # by generation
    rows = History(run.path / HISTORY, part)
    total = expected_evaluations(part, settings)
    start = time.perf_counter()

    def note(told: dict[str, Any]) -> None:
        reports[told["generation"]] = told

    found = ALGORITHMS[settings.algorithm](part, settings, seed, judge, prior, note)

    def draw() -> None:
        if best is not None:
            _write_best(run, best, part, origin, len(history))
            draw_pareto(run.path / PICTURE, history, part)

    try:
        with progress("search", total, unit="subnets") as meter:
            for generation, members in groupby(found, lambda candidate: candidate.generation):
                for candidate in members:
                    rows.add(candidate)
                    history.append(candidate)
                    best = max(best or candidate, candidate, key=lambda c: c.rank)
                    meter.step(note=_shown(best, part))
                assert best is not None
                _write_best(run, best, part, origin, len(history))
                record = _record(generation, history, best, time.perf_counter() - start)
                run.log({**record, **reports.get(generation, {})})
                shown = f"{_shown(best, part)}{_surrogate(reports.get(generation, {}))}"
                say(f"generation {generation}: {len(history)} subnets, {shown}")
    except BaseException:
        with suppress(OSError):  # on a full disk; what ended the search is what is told
            draw()
        raise
    draw()
    if len(history) < total:
        say(f"no further subnet was found inside the budget: the search ends after {len(history)} of {total}")
    return history


def _read_plan(run: RunDir, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the search in the run directory rested on; raises InputError where this one rests on something else."""
    if not (run.path / BASIS).exists():
        raise InputError(f"holds no {BASIS} to resume from", run.path, "start without --resume")
    before = files.read_json(run.path / BASIS)
    if "prior" not in before:
        raise InputError("was searched by a version that kept no archive", run.path, "choose another --out")
    check_basis(before, plan, run.path)
    return dict(before)


def _write_best(run: RunDir, best: Candidate, part: FeasibleSpace, origin: Mapping[str, Any], evaluations: int) -> None:
    described = describe(part.decode(best.genome), max(best.fitness, 0.0), part.budget)
    write_best(run.path / BEST, described, part.space, part.budget, {**origin, "evaluations": evaluations})


def _record(generation: int, history: list[Candidate], best: Candidate, seconds: float) -> dict[str, Any]:
    values = [c.fitness for c in history if c.generation == generation and c.is_valid]
    figures = {"AP": best.fitness, "AP_mean": float(np.mean(values)) if values else None, "macs": best.macs}
    return {"step": generation, "evaluations": len(history), **figures, "seconds": round(seconds, 3)}


def _surrogate(report: Mapping[str, Any]) -> str:
    """How good a surrogate is, in words; nothing where there is none."""
    if "surrogate" not in report:
        return ""
    tau = report["surrogate_tau"]
    quality = "knows too little yet" if tau is None else f"tau {tau:.2f} on held-out APs"
    return f"; surrogate: {quality}, {'has chosen' if report['surrogate'] else 'stands aside'}"


def _shown(best: Candidate, part: FeasibleSpace) -> str:
    """Such as 'best AP 0.482 at 164M MACs (thop), 1.53ms of latency': its cost under every limit."""
    spec = part.decode(best.genome)
    costs = (f"{limit.show(limit.cost(spec))} {limit.quantity}" for limit in part.budget.limits)
    return f"best AP {best.fitness:.3f} at {', '.join(costs)}"
