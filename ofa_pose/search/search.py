"""The search as a job: a supernet, data and a budget in; the best subnet, all evaluations and a picture out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_pose import files
from ofa_pose.arch.space import Genome
from ofa_pose.backends import Runner
from ofa_pose.console import progress, say, warn
from ofa_pose.data.coco import KeypointDataset
from ofa_pose.errors import InputError
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.run import RunDir
from ofa_pose.search.budget import Budget, FeasibleSpace
from ofa_pose.search.evolution import Candidate, FitnessFunction, evolve, expected_evaluations
from ofa_pose.search.fitness import SubnetFitness
from ofa_pose.search.outputs import History, describe, read_judged, set_aside, write_best
from ofa_pose.search.picture import draw_pareto
from ofa_pose.search.settings import SearchSettings
from ofa_pose.units import format_count

HISTORY, EARLIER, BEST, PICTURE, BASIS = "history.csv", "history.earlier.csv", "best.yaml", "pareto.png", "search.json"

# What decides which subnets are judged, with the seed and the budget. More generations only go further.
EVOLUTION = ("population", "parents", "crossover", "mutation", "uniform_start")


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
) -> dict[str, Any]:
    """Search a supernet's space for the subnet with the highest AP inside a budget.

    Writes into the run directory: history.csv and metrics.jsonl as it goes, best.yaml after every generation,
    pareto.png at the end, also of a search that was interrupted, and search.json (what the APs rest on).

    Args:
        train: images for BatchNorm recalibration.
        search: images on which APs are measured; no weight should have been trained on them.
        source: the supernet's checkpoint, to be named in best.yaml.
        resume: take over the APs that the run directory's history.csv holds instead of measuring them again; with the
            same settings the search then goes on where it was cut off.
        make_runner: the runtime that computes a recalibrated subnet; see `SubnetFitness`.
        decode: the decoder's settings.

    Returns:
        {"best": {"spec", "AP", "macs": {"thop", "exact", "paper"}, "params", "latency_ms"}, "evaluations",
        "seconds", "out"}: plain values.

    Raises:
        InputError: no subnet keeps the budget; the data have other joints; the history that is to be resumed was
            measured with another supernet, space or data, or under another budget, seed or evolution.
    """
    part = FeasibleSpace(supernet.space, supernet.spec.joints, budget)
    fitness = SubnetFitness(supernet, train, search, settings, device, make_runner, decode)
    origin: dict[str, Any] = {"supernet": None}
    if source is not None:
        origin["supernet"] = {"path": str(source), "sha256": files.sha256(source)}
    basis = {
        "sha256": origin["supernet"] and origin["supernet"]["sha256"],
        "space": supernet.space.to_dict(),
        "train": [files.sha256(train.annotations_path), len(train), settings.calibration_images],
        "search": [files.sha256(search.annotations_path), len(search), settings.images],
        "decode": asdict(decode or DecodeConfig()),
        "budget": {**budget.to_dict(), "convention": budget.convention},
        "evolution": {"seed": seed, **settings.model_dump(include=set(EVOLUTION))},
    }
    return conduct(part, fitness, settings, seed, run, origin, basis, resume)


def conduct(
    part: FeasibleSpace,
    fitness: FitnessFunction,
    settings: SearchSettings,
    seed: int,
    run: RunDir,
    origin: Mapping[str, Any],
    basis: Mapping[str, Any],
    resume: bool = False,
) -> dict[str, Any]:
    """`run_search` with any fitness: evolve, log, and write the outputs.

    Args:
        origin: what best.yaml says about where the subnet's weights are.
        basis: what the fitness depends on, JSON values; a history measured on another basis is not resumed.
    """
    start = time.perf_counter()
    if resume:
        _check_basis(run, part, basis)
    run.open()
    known = _earlier(run, part) if resume else {}
    files.write_json(run.path / BASIS, dict(basis))
    history_file = History(run.path / HISTORY, part)
    history: list[Candidate] = []
    best: Candidate | None = None
    total = expected_evaluations(part, settings)
    try:
        with progress("search", total, unit="subnets") as meter:
            for generation, members in groupby(evolve(part, settings, seed, fitness, known), lambda c: c.generation):
                for candidate in members:
                    history_file.add(candidate)
                    history.append(candidate)
                    best = max(best or candidate, candidate, key=lambda c: c.rank)
                    meter.step(note=_shown(best))
                assert best is not None
                _write_best(run, best, part, origin, len(history))
                run.log(_record(generation, history, best, time.perf_counter() - start))
                say(f"generation {generation}: {len(history)} subnets, {_shown(best)} MACs ({part.budget.convention})")
    finally:
        if best is not None:
            _write_best(run, best, part, origin, len(history))
            draw_pareto(run.path / PICTURE, history, part)
    assert best is not None
    if known.keys() <= {candidate.genome for candidate in history}:  # else this run went less far than an earlier one
        (run.path / EARLIER).unlink(missing_ok=True)
    if len(history) < total:
        say(f"no further subnet was found inside the budget: the search ends after {len(history)} of {total}")
    if best.fitness <= 0:
        warn("every subnet has AP 0, so the smallest one was taken: train the supernet further, or check data.search")
    described = describe(part.decode(best.genome), max(best.fitness, 0.0), part.budget)
    seconds = round(time.perf_counter() - start, 3)
    return {"best": described, "evaluations": len(history), "seconds": seconds, "out": str(run.path)}


def _check_basis(run: RunDir, part: FeasibleSpace, basis: Mapping[str, Any]) -> None:
    histories = [path for path in (run.path / HISTORY, run.path / EARLIER) if path.exists()]
    if not histories:
        raise InputError(f"holds no {HISTORY} to resume from", run.path, "start without --resume")
    for path in histories:
        read_judged(path, part.space)  # raises on a damaged row, before anything is written
    before = files.read_json(run.path / BASIS)
    for key, value in basis.items():
        if before.get(key, value) != value:
            change = "" if key in ("sha256", "space") else f": {before.get(key)}, not {value}"
            what = f"was searched with another {'supernet' if key == 'sha256' else key}{change}"
            raise InputError(what, run.path, "resume with the settings of that search, or choose another --out")


def _earlier(run: RunDir, part: FeasibleSpace) -> dict[Genome, tuple[float, float]]:
    """What earlier runs judged. Their rows are set aside first, so that a run cut off while it resumes loses none."""
    earlier = run.path / EARLIER
    set_aside(run.path / HISTORY, earlier)
    run.forget_after(-1)
    return read_judged(earlier, part.space)


def _write_best(run: RunDir, best: Candidate, part: FeasibleSpace, origin: Mapping[str, Any], evaluations: int) -> None:
    described = describe(part.decode(best.genome), max(best.fitness, 0.0), part.budget)
    write_best(run.path / BEST, described, part.space, part.budget, {**origin, "evaluations": evaluations})


def _record(generation: int, history: list[Candidate], best: Candidate, seconds: float) -> dict[str, Any]:
    values = [c.fitness for c in history if c.generation == generation]
    figures = {"AP": best.fitness, "AP_mean": float(np.mean(values)), "macs": best.macs}
    return {"step": generation, "evaluations": len(history), **figures, "seconds": round(seconds, 3)}


def _shown(best: Candidate) -> str:
    return f"best AP {best.fitness:.3f} at {format_count(best.macs)}"
