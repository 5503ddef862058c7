"""How far a cheap evaluation can be trusted: rank correlations between image counts, and with AP after fine-tuning.

After Sciuto et al., Evaluating the Search Phase of NAS (ICLR 2020), who measure a search by Kendall's tau between the
ranking that it sees and the ranking of trained networks.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import Genome
from ofa_pose.checkpoints.checkpoint import Checkpoint, check_joints
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.subnet_rows import SubnetTable, genome_text, read_subnets
from ofa_pose.inference.evaluate import count_people
from ofa_pose.models.recalibrate import inherit
from ofa_pose.monitor.opening import show_opening
from ofa_pose.pose.bootstrap import doubts
from ofa_pose.recipe import Recipe, load_recipe
from ofa_pose.searches.candidates import Evaluate
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.searches.results import uniform_genomes
from ofa_pose.studies.exhaustive import timed
from ofa_pose.train.loop import finetune
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils import files
from ofa_pose.utils.config import config_text
from ofa_pose.utils.console import progress, say, warn
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.process import interruptible
from ofa_pose.utils.ranking import Series, draw_comparisons, kendall_interval
from ofa_pose.utils.result import Result, plain
from ofa_pose.utils.run_dir import RunDir, check_basis, has_begun, plan_run, read_basis, read_records
from ofa_pose.utils.seeding import generator

SURE = 10  # subnets; with fewer even a tau of 1 may be chance
GOOD = 0.9  # a tau at which a ranking may stand for the other

Rows = Mapping[Genome, Mapping[str, float]]  # what was measured on each subnet so far


@dataclass(frozen=True)
class CountComparison(Result):
    """A number of images against the largest: Kendall's tau, its interval, and the median seconds of an evaluation."""

    count: int
    tau: float | None
    low: float | None
    high: float | None
    seconds: float


@dataclass(frozen=True)
class TuningComparison(Result):
    """AP with inherited weights against AP after so many steps of fine-tuning: Kendall's tau and its interval."""

    steps: int
    tau: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FidelityResult(Result):
    """The rank correlations over some subnets.

    Attributes:
        subnets: how many.
        images, calibration: of every number of search and of recalibration images, ascending.
        finetuned: None where nothing was fine-tuned.
        table: fidelity.csv, every figure.
        picture: fidelity.png; None where there was nothing to draw.
        seconds: what the study took now.
        out: the run directory.
    """

    subnets: int
    images: list[CountComparison]
    calibration: list[CountComparison]
    finetuned: TuningComparison | None
    table: Path
    picture: Path | None
    seconds: float
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """The fields and the advice as plain values."""
        return {**super().to_dict(), "advice": self.advice}

    @property
    def advice(self) -> str:
        """A sentence on what to set."""
        if self.images[-1].tau is None:
            return "the subnets have equal APs, so that no ranking can be compared: train the supernet further"
        sentences = []
        for key, lines in (("search.images", self.images), ("search.calibration_images", self.calibration)):
            *fewer, largest = lines
            enough = next((line for line in fewer if line.tau is not None and line.tau >= GOOD), None)
            if enough:
                sentences.append(f"{key}={enough.count} ranks subnets as {largest.count} do (tau {enough.tau:.2f})")
            elif fewer:
                sentences.append(f"keep {key} at {largest.count} or more (no smaller count reaches tau {GOOD})")
        tuned = self.finetuned
        if tuned:
            tau = "unknown" if tuned.tau is None else f"{tuned.tau:.2f}, {tuned.low:.2f} to {tuned.high:.2f}"
            sure = tuned.low is not None and tuned.low > 0
            alone = sure and tuned.tau is not None and tuned.tau >= GOOD
            meaning = "predicts" if sure else "says too little about"
            then = "" if alone else "; fine-tune several members of the front before choosing"
            sentences.append(f"inherited AP {meaning} AP after {tuned.steps} steps of fine-tuning (tau {tau}){then}")
        if not sentences:
            return "nothing was compared: name several image counts, or fine-tune"
        few = f"from {self.subnets} subnets only, so with care: " if self.subnets < SURE else ""
        return few + "; ".join(sentences)


TABLE, BASIS, PICTURE, TUNING = "fidelity.csv", "fidelity.json", "fidelity.png", "finetune"
TUNED = "AP_finetuned"
POOL = 50  # subnets drawn for each one that is taken
LEAST = 3  # subnets that can be ranked with any sense

Counts = tuple[int, int]  # of search and of recalibration images
FineTune = Callable[[Genome, Path], float]
"""The AP of a subnet after a short fine-tuning, which goes on from what a killed one left in the folder given."""


@dataclass(frozen=True)
class FidelitySettings:
    """What is compared: evaluation on so many search images, after recalibration on so many training images.

    Attributes:
        images, calibration: the counts, ascending; the largest of each is what the others are compared with.
        subnets: how many are evaluated.
        steps: of fine-tuning each; 0 leaves that out.
    """

    images: tuple[int, ...]
    calibration: tuple[int, ...]
    subnets: int
    steps: int

    def __post_init__(self) -> None:
        for option, counts in (("--images", self.images), ("--calibration", self.calibration)):
            if not counts or min(counts) < 1:
                what = f"{option} {','.join(map(str, counts))} holds what is not a count"
                raise InputError(what, hint="give whole numbers from 1, as in 50,100,200")
        if self.steps < 0:
            raise InputError(f"--steps {self.steps} is not a number of steps", hint="give 0 for no fine-tuning")
        _check_rankable(self.subnets)

    @property
    def reference(self) -> Counts:
        """The largest of both counts."""
        return self.images[-1], self.calibration[-1]

    @property
    def evaluations(self) -> list[Counts]:
        """Every (images, calibration) that is evaluated; the reference first."""
        most, best = self.reference
        pairs = (self.reference, *((n, best) for n in self.images), *((most, n) for n in self.calibration))
        return list(dict.fromkeys(pairs))


@dataclass(frozen=True)
class FidelityStudy:
    """Some subnets, to be evaluated in every way.

    Attributes:
        feasible: the subnets to take some of.
        make_evaluate: AP and seconds of subnets, for numbers of search and of recalibration images.
        fine_tune: None where `settings.steps` is 0.
        basis: what the figures rest on, JSON values; a study on another basis is not resumed.
        recipe: kept in the run directory; its seed draws the subnets.
        error_of: the standard error of a subnet's AP on the most images, for which it is evaluated again; asked for the
            best one.
        people: how many the APs on the most images are taken of.
        about: what is said of the evaluations before the first one.
    """

    feasible: FeasibleSpace
    settings: FidelitySettings
    make_evaluate: Callable[[int, int], Evaluate]
    fine_tune: FineTune | None
    basis: Mapping[str, Any]
    recipe: Recipe = field(default_factory=Recipe)
    error_of: Callable[[Genome], float | None] = lambda _: None
    people: int | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        feasible: FeasibleSpace,
        settings: FidelitySettings,
        teacher: Checkpoint | None = None,
        recipe: str | Path | None = None,
        overrides: Sequence[str] = (),
        seed: int | None = None,
        device: str | None = None,
    ) -> FidelityStudy:
        """Of a supernet; the recipe is its own by default.

        Args:
            teacher: what fine-tuning distils heatmaps from.

        Raises:
            InputError: data, recipe, supernet and teacher do not fit.
        """
        resolved, _ = load_recipe("search", recipe, overrides, checkpoint.recipe, seed)
        tuning, _ = load_recipe("finetune", recipe, overrides, checkpoint.recipe, seed)
        base = SubnetEvaluator.from_checkpoint(checkpoint, resolved, device)
        if teacher:
            check_joints(teacher.skeleton, base.train, "the teacher")
        images = _within(settings.images, len(base.search), "search")
        calibration = _within(settings.calibration, len(base.train), "training")
        settings = replace(settings, images=images, calibration=calibration)

        def evaluator(images: int, calibration: int) -> SubnetEvaluator:
            changed = resolved.search.model_copy(update={"images": images, "calibration_images": calibration})
            return SubnetEvaluator(base.supernet, base.train, base.search, changed, base.device, decode=base.decode)

        sha256, taught = checkpoint.sha256, teacher.sha256 if teacher else None
        adopted = {key: getattr(tuning, key).model_dump(mode="json") for key in ("train", "augment", "loss")}
        reference = evaluator(*settings.reference)
        training = TrainingRun(
            base.train,
            reference.images,  # so that both APs of the comparison are of the same images
            tuning.train.model_copy(update={"steps": settings.steps, "evaluate_every": settings.steps}),
            tuning.augment,
            tuning.loss,
            resolved.seed,
            RunDir(Path(TUNING)),  # of each subnet another
            base.device,
            teacher.build() if teacher else None,
            origin={"command": "fidelity", "teacher": taught},
            decode=base.decode,
        )

        def fine_tune(genome: Genome, folder: Path) -> float:
            run = replace(training, run=RunDir(folder, fresh=not has_begun(folder)))
            spec = feasible.decode(genome)
            net = inherit(base.supernet, spec, base.train, base.device, settings.calibration[-1])
            finetune(run, net, feasible.space)
            return _last_ap(run.run.metrics, settings.steps)

        return cls(
            feasible,
            settings,
            lambda images, calibration: timed(evaluator(images, calibration)),
            fine_tune if settings.steps else None,
            {
                **base.basis(sha256),
                "study": plain(asdict(settings)),
                "budget": {**feasible.budget.to_dict(), "convention": feasible.budget.convention},
                "seed": resolved.seed,
                "fine-tuning": adopted,
                "teacher": taught,
            },
            resolved,
            reference.error,
            count_people(reference.images),
            {"supernet": str(checkpoint.path or ""), **reference.facts()},
        )

    def run(self, out: str | Path, resume: bool = False) -> FidelityResult:
        """Evaluate the subnets in every way and compare the rankings; writes fidelity.csv and fidelity.png.

        The images of a smaller count are among those of a larger one, so that the correlations are a little better than
        between images apart. Subnets are spread over all costs: those that a search has to tell apart lie closer.

        Raises:
            InputError: fewer than three subnets; `out` holds another run, or a study and `resume` is not asked for; the
                study to be resumed has another basis.
        """
        run = plan_run(out, config_text(self.recipe), resume, progress=TABLE)
        with run.held():
            return self._run(run)

    def _run(self, run: RunDir) -> FidelityResult:
        start, settings, space, table = time.perf_counter(), self.settings, self.feasible.space, run.path / TABLE
        genomes = spread_subnets(self.feasible, settings.subnets, generator(self.recipe.seed, "fidelity"))
        _check_rankable(len(genomes))
        columns = [_column(name, counts) for counts in settings.evaluations for name in ("AP", "seconds")]
        columns += [TUNED] if self.fine_tune else []
        rows: dict[Genome, dict[str, float]] = {genome: {} for genome in genomes}
        if not run.fresh:
            check_basis(read_basis(run.path / BASIS), self.basis, run.path)
            before = read_subnets(table, columns, space, empty=columns, what="a table of this study")
            if not before.keys() <= rows.keys():
                raise InputError("holds subnets of another study", table, "choose another --out")
            for genome, cells in before.items():
                rows[genome] = {name: cells[name] for name in columns if cells[name] is not None}
        evaluates = {counts: self.make_evaluate(*counts) for counts in settings.evaluations}  # may find data at fault
        tuned = f", then {settings.steps:,} steps of fine-tuning each" if self.fine_tune else ""
        subnets = f"{len(genomes):,} subnets in {len(settings.evaluations)} ways{tuned}"
        show_opening("fidelity", {"evaluates": subnets, **self.about}, run.path)
        run.open()
        files.write_json(run.path / BASIS, dict(self.basis))
        file = SubnetTable(table, space, self.feasible.joints, columns)
        file.write(rows)
        with interruptible(run.go_on):
            for genome, measured in chain(_evaluated(evaluates, rows), self._tuned(rows, run.path / TUNING)):
                rows[genome] |= measured
                file.write(rows)  # whole on disk after each figure
        shutil.rmtree(run.path / TUNING, ignore_errors=True)
        figures = {name: [row[name] for row in rows.values()] for name in columns}
        aps = figures[_column("AP", settings.reference)]
        if doubt := doubts(self.people, self.error_of([*rows][int(np.argmax(aps))]), aps):
            warn(doubt)
        found = self._compare(figures, run.path / PICTURE)
        seconds = round(time.perf_counter() - start, 3)
        return FidelityResult(subnets=len(rows), table=table, seconds=seconds, out=run.path, **found)

    def _tuned(self, rows: Rows, folder: Path) -> Iterator[tuple[Genome, dict[str, float]]]:
        """The AP after fine-tuning of every subnet that has none yet, as it comes."""
        for number, (genome, row) in enumerate(rows.items(), start=1):
            if self.fine_tune and TUNED not in row:
                say(f"fine-tuning subnet {number} of {len(rows)}")
                yield genome, {TUNED: self.fine_tune(genome, folder / genome_text(genome))}

    def _compare(self, figures: Mapping[str, list[float]], picture: Path) -> dict[str, Any]:
        """Of a result what compares columns of the table: every count with the largest, and that with fine-tuning."""
        settings, (most, best) = self.settings, self.settings.reference
        reference = figures[_column("AP", settings.reference)]

        def compare(evaluations: Mapping[int, Counts]) -> tuple[list[CountComparison], Series]:
            lines, series = [], {}
            for count, counts in evaluations.items():
                aps, seconds = figures[_column("AP", counts)], statistics.median(figures[_column("seconds", counts)])
                lines.append(CountComparison(count, *kendall_interval(aps, reference), seconds))
                if counts != settings.reference:
                    series[str(count)] = aps
            return lines, series

        images, on_fewer = compare({count: (count, best) for count in settings.images})
        calibration, with_fewer = compare({count: (most, count) for count in settings.calibration})
        panels = [
            (f"AP on {most} images", "AP on fewer", on_fewer),
            (f"AP, {best} calibration images", "AP with fewer", with_fewer),
        ]
        finetuned = None
        if self.fine_tune:
            finetuned = TuningComparison(settings.steps, *kendall_interval(reference, figures[TUNED]))
            panels.append(("inherited AP", "AP after fine-tuning", {f"{settings.steps} steps": figures[TUNED]}))
        panels = [panel for panel in panels if panel[2]]
        drawn = draw_comparisons(picture, reference, panels) if panels else None
        return {"images": images, "calibration": calibration, "finetuned": finetuned, "picture": drawn}


def _evaluated(evaluates: Mapping[Counts, Evaluate], rows: Rows) -> Iterator[tuple[Genome, dict[str, float]]]:
    """The AP and the seconds of every subnet under every evaluation that are not there yet, as they come."""
    wanted = {counts: {_column("AP", counts), _column("seconds", counts)} for counts in evaluates}
    missing = {c: [genome for genome, row in rows.items() if not names <= row.keys()] for c, names in wanted.items()}
    total, left = len(evaluates) * len(rows), sum(map(len, missing.values()))
    # Counted in images: with few of them a subnet takes less.
    work = sum(map(sum, evaluates)) * len(rows)
    to_do = sum(sum(counts) * len(genomes) for counts, genomes in missing.items())
    with progress("evaluate", work, "images", work - to_do) as meter:
        for counts, genomes in missing.items():
            for genome, (ap, seconds) in zip(genomes, evaluates[counts](genomes), strict=True):
                yield genome, {_column("AP", counts): ap, _column("seconds", counts): round(seconds, 4)}
                left -= 1
                meter.step(sum(counts), f"{total - left} of {total} evaluations")


def spread_subnets(feasible: FeasibleSpace, count: int, rng: np.random.Generator) -> list[Genome]:
    """At most so many distinct subnets inside the budget, evenly spread over their costs; ascending genomes.

    They are taken from a random pool, uniformly scaled nets among it: random widths alone seldom come near either end.
    """
    pool = dict.fromkeys([*uniform_genomes(feasible), *feasible.draw(POOL * count, rng)])
    cost = {genome: feasible.budget.limits[0].cost(feasible.decode(genome)) for genome in pool}
    left = sorted(pool, key=lambda genome: (cost[genome], genome))
    taken = []
    for aim in np.linspace(cost[left[0]], cost[left[-1]], count):
        if left:
            nearest = min(left, key=lambda genome: abs(cost[genome] - aim))
            left.remove(nearest)
            taken.append(nearest)
    return sorted(taken)


def _last_ap(metrics: Path, steps: int) -> float:
    """The AP after the last step, not the best on the way: that is chosen on the images it is measured on."""
    records = (record for _, record in read_records(metrics) if record.get("step") == steps)
    found = [record["val"]["AP"] for record in records if "val" in record]
    if not found:
        raise OfaPoseError(f"{metrics}: holds no AP of step {steps}; remove {metrics.parent} and --resume")
    return float(found[-1] or 0.0)


def _within(counts: tuple[int, ...], available: int, what: str) -> tuple[int, ...]:
    if counts[-1] > available:
        warn(f"there are only {available} {what} images: larger counts mean all of them")
    return tuple(sorted({min(count, available) for count in counts}))


def _check_rankable(subnets: int) -> None:
    if subnets < LEAST:
        hint = f"study at least {LEAST}, with --subnets or a larger budget"
        raise InputError(f"{subnets} subnets cannot be ranked", hint=hint)


def _column(name: str, counts: Counts) -> str:
    return f"{name}_{counts[0]}_{counts[1]}"
