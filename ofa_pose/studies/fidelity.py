"""How far cheap judging can be trusted: rank correlations between image counts, and with AP after fine-tuning.

After Sciuto et al., Evaluating the Search Phase of NAS (ICLR 2020), who measure a search by Kendall's tau between the
ranking that it sees and the ranking of trained networks.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.searches.results import first_limit, uniform_genomes
from ofa_pose.studies.scatter import Panel, draw_scatter
from ofa_pose.studies.sheet import Sheet
from ofa_pose.studies.table import Judge
from ofa_pose.utils import files
from ofa_pose.utils.console import progress, say
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.ranking import kendall_interval
from ofa_pose.utils.run_dir import RunDir, check_basis, plan_run
from ofa_pose.utils.seeding import generator

SHEET, BASIS, PICTURE, TUNING = "fidelity.csv", "fidelity.json", "fidelity.png", "finetune"
TUNED = "AP_finetuned"
POOL = 50  # subnets drawn for each one that is taken
LEAST = 3  # subnets that can be ranked with any sense
SURE = 10  # subnets; with fewer even a tau of 1 may be chance
GOOD = 0.9  # a tau at which a ranking may stand for the other


@dataclass(frozen=True)
class Fidelity:
    """What is compared: judging on so many search images, after recalibration on so many training images.

    Attributes:
        images, calibration: the counts, ascending; the largest of each is what the others are held against.
        subnets: how many are judged.
        steps: of fine-tuning each; 0 leaves that out.
    """

    images: tuple[int, ...]
    calibration: tuple[int, ...]
    subnets: int
    steps: int

    @property
    def settings(self) -> list[tuple[int, int]]:
        """Every (images, calibration) that is judged; the reference, the largest of both, is the first."""
        most, best = self.images[-1], self.calibration[-1]
        return list(
            dict.fromkeys([(most, best), *((n, best) for n in self.images), *((most, n) for n in self.calibration)])
        )


def spread_subnets(part: FeasibleSpace, count: int, rng: np.random.Generator) -> list[Genome]:
    """At most so many distinct subnets inside the budget, evenly spread over their costs; ascending genomes.

    They are taken from a random pool, uniformly scaled nets among it: random widths alone seldom come near either end.
    """
    pool = dict.fromkeys([*uniform_genomes(part), *(part.sample(rng) for _ in range(POOL * count))])
    cost = {genome: first_limit(part).cost(part.decode(genome)) for genome in pool}
    left = sorted(pool, key=lambda genome: (cost[genome], genome))
    taken = []
    for aim in np.linspace(cost[left[0]], cost[left[-1]], count):
        if left:
            nearest = min(left, key=lambda genome: abs(cost[genome] - aim))
            left.remove(nearest)
            taken.append(nearest)
    return sorted(taken)


def plan_fidelity(out: Path, recipe: str, resume: bool = False) -> RunDir:
    """The run directory of a study, checked but not yet made.

    Raises:
        InputError: `out` holds a study already and `resume` is not asked for, there is none to resume, or `out` holds
            another run or is not a folder.
    """
    return plan_run(out, recipe, resume, progress=SHEET)


def study_fidelity(
    run: RunDir,
    part: FeasibleSpace,
    study: Fidelity,
    seed: int,
    make_judge: Callable[[int, int], Judge],
    tune: Callable[[Genome], float] | None,
    basis: Mapping[str, Any],
    resume: bool = False,
) -> dict[str, Any]:
    """Judge some subnets in every way and compare the rankings; writes fidelity.csv and fidelity.png.

    The images of a smaller count are among those of a larger one, so that the correlations between counts are a little
    better than between images that have nothing in common. Subnets are spread over all costs: those that a search has
    to tell apart at last lie closer together.

    Args:
        make_judge: from numbers of search and of calibration images, what gives the AP and seconds of genomes.
        tune: the AP of a subnet after a short fine-tuning, on the largest number of images; what it leaves in the run
            directory's folder `TUNING` goes when all are tuned.
        basis: what the figures rest on, JSON values; a study on another basis is not resumed.

    Returns:
        Plain values: "subnets", "images" and "calibration": [{"count", "tau", "low", "high", "seconds" (the median of
        one judgement)}], each against the largest count; "finetuned": {"steps", "tau", "low", "high"} or null;
        "advice": a sentence; "table", "picture": paths (null where there is nothing to draw).

    Raises:
        InputError: fewer than three subnets; what is to be resumed has another basis.
    """
    genomes = spread_subnets(part, study.subnets, generator(seed, "fidelity"))
    if len(genomes) < LEAST:
        what = f"{len(genomes)} subnets cannot be ranked"
        raise InputError(what, hint=f"study at least {LEAST}, with --subnets or a larger budget")
    columns = [f"{name}_{_key(setting)}" for setting in study.settings for name in ("AP", "seconds")]
    sheet = Sheet(run.path / SHEET, part, genomes, [*columns, *([TUNED] if tune else [])])
    if resume:
        check_basis(files.read_json(run.path / BASIS), basis, run.path)
        sheet.read()
    judges = {
        setting: make_judge(*setting) for setting in study.settings
    }  # whatever is wrong with the data is told now
    run.open()
    files.write_json(run.path / BASIS, dict(basis))
    sheet.write()
    _judge_all(sheet, judges)
    if tune is not None:
        _tune_all(sheet, tune)
    shutil.rmtree(run.path / TUNING, ignore_errors=True)
    result = {"subnets": len(genomes), **_compare_all(sheet, study, tune is not None)}
    panels = _panels(sheet, study, tune is not None)
    draw_scatter(run.path / PICTURE, panels)
    paths = {"table": str(run.path / SHEET), "picture": str(run.path / PICTURE) if panels else None}
    return {**result, "advice": advise(result), **paths}


def _judge_all(sheet: Sheet, judges: Mapping[tuple[int, int], Judge]) -> None:
    missing = {
        setting: [genome for genome, values in sheet.values.items() if f"AP_{_key(setting)}" not in values]
        for setting in judges
    }
    total = len(judges) * len(sheet.values)
    # Counted in images: with few of them a subnet takes less.
    work = {setting: sum(setting) for setting in judges}
    done = sum(work[setting] * (len(sheet.values) - len(left)) for setting, left in missing.items())
    with progress("judge", sum(work.values()) * len(sheet.values), "images", done) as meter:
        judged = total - sum(map(len, missing.values()))
        for setting, left in missing.items():
            for genome, (ap, seconds) in zip(left, judges[setting](left), strict=True):
                sheet.put(genome, **{f"AP_{_key(setting)}": ap, f"seconds_{_key(setting)}": round(seconds, 4)})
                judged += 1
                meter.step(work[setting], f"{judged} of {total} judgements")


def _tune_all(sheet: Sheet, tune: Callable[[Genome], float]) -> None:
    for number, (genome, values) in enumerate(sheet.values.items(), start=1):
        if TUNED not in values:
            say(f"fine-tuning subnet {number} of {len(sheet.values)}")
            sheet.put(genome, **{TUNED: tune(genome)})


def _compare_all(sheet: Sheet, study: Fidelity, tuned: bool) -> dict[str, Any]:
    reference = sheet.column(f"AP_{_key(study.settings[0])}")

    def line(count: int, setting: tuple[int, int]) -> dict[str, Any]:
        seconds = statistics.median(sheet.column(f"seconds_{_key(setting)}"))
        found = kendall_interval(sheet.column(f"AP_{_key(setting)}"), reference)
        return {"count": count, **asdict(found), "seconds": seconds}

    most, best = study.settings[0]
    images = [line(count, (count, best)) for count in study.images]
    calibration = [line(count, (most, count)) for count in study.calibration]
    finetuned = {"steps": study.steps, **asdict(kendall_interval(reference, sheet.column(TUNED)))} if tuned else None
    return {"images": images, "calibration": calibration, "finetuned": finetuned}


def advise(result: Mapping[str, Any]) -> str:
    """A sentence on what to set, from the figures of `study_fidelity`."""
    if result["images"][-1]["tau"] is None:
        return "the subnets have equal APs, so that no ranking can be judged: train the supernet further"
    parts = []
    for key, lines in (("search.images", result["images"]), ("search.calibration_images", result["calibration"])):
        *fewer, largest = lines
        enough = next((line for line in fewer if line["tau"] is not None and line["tau"] >= GOOD), None)
        if enough:
            parts.append(f"{key}={enough['count']} ranks subnets as {largest['count']} do (tau {enough['tau']:.2f})")
        elif fewer:
            parts.append(f"keep {key} at {largest['count']} or more (no smaller count reaches tau {GOOD})")
    tuned = result["finetuned"]
    if tuned:
        tau = "unknown" if tuned["tau"] is None else f"{tuned['tau']:.2f}, {tuned['low']:.2f} to {tuned['high']:.2f}"
        sure = tuned["low"] is not None and tuned["low"] > 0
        meaning = "predicts" if sure else "says too little about"
        then = "" if sure and tuned["tau"] >= GOOD else "; fine-tune several members of the front before choosing"
        parts.append(f"inherited AP {meaning} AP after {tuned['steps']} steps of fine-tuning (tau {tau}){then}")
    if not parts:
        return "nothing was compared: name several image counts, or fine-tune"
    few = f"from {result['subnets']} subnets only, so with care: " if result["subnets"] < SURE else ""
    return few + "; ".join(parts)


def fidelity_table(result: Mapping[str, Any]) -> Table:
    """The rank correlations of `study_fidelity`, for people."""
    table = Table(title=f"Rank correlation over {result['subnets']} subnets of all costs", caption=result["advice"])
    table.caption_justify = "left"
    for name in ("judged on", "against", "Kendall's tau", "95 % interval", "s a subnet"):
        table.add_column(name, justify="left" if name in ("judged on", "against") else "right")
    for key, unit in (("images", "images"), ("calibration", "calibration images")):
        *fewer, largest = result[key]
        for line in fewer:
            table.add_row(f"{line['count']} {unit}", f"{largest['count']}", *_shown(line), f"{line['seconds']:.2f}")
    largest, tuned = result["images"][-1], result["finetuned"]
    if tuned:
        label = f"{largest['count']} images, inherited"
        table.add_row(label, f"after {tuned['steps']} steps", *_shown(tuned), f"{largest['seconds']:.2f}")
    return table


def _shown(line: Mapping[str, Any]) -> Iterator[str]:
    yield "–" if line["tau"] is None else f"{line['tau']:.3f}"
    yield "–" if line["tau"] is None else f"{line['low']:.2f} to {line['high']:.2f}"


def _panels(sheet: Sheet, study: Fidelity, tuned: bool) -> list[Panel]:
    """What the picture shows: of each panel the x axis, the y axis, and the points of each legend entry."""
    most, best = study.settings[0]
    reference = sheet.column(f"AP_{_key((most, best))}")

    def points(setting: tuple[int, int]) -> list[tuple[float, float]]:
        return list(zip(reference, sheet.column(f"AP_{_key(setting)}"), strict=True))

    panels = []
    if len(study.images) > 1:
        panels.append((f"AP on {most} images", "AP on fewer", {f"{n}": points((n, best)) for n in study.images[:-1]}))
    if len(study.calibration) > 1:
        series = {f"{n}": points((most, n)) for n in study.calibration[:-1]}
        panels.append((f"AP, {best} calibration images", "AP with fewer", series))
    if tuned:
        after = list(zip(reference, sheet.column(TUNED), strict=True))
        panels.append(("inherited AP", "AP after fine-tuning", {f"{study.steps} steps": after}))
    return panels


def _key(setting: tuple[int, int]) -> str:
    return f"{setting[0]}_{setting[1]}"
