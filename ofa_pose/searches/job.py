"""The search as a job: a supernet, data and a budget in; the best subnet, all evaluations and a picture out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.checkpoints.provenance import note_end, note_start
from ofa_pose.costs.feasible import FeasibleSpace, describe_feasible, format_subnets
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.inference.evaluate import count_people
from ofa_pose.inference.quantised import choose_calibration
from ofa_pose.models.recalibrate import inherit
from ofa_pose.monitor import NO_FLIP
from ofa_pose.monitor.event_files import check_log, event_files
from ofa_pose.monitor.opening import show_opening
from ofa_pose.pose.bootstrap import show_ap
from ofa_pose.recipe import Recipe, load_recipe
from ofa_pose.searches.algorithms import ALGORITHMS, expected_evaluations
from ofa_pose.searches.archive import ARCHIVE, Archive, check_archive, find_archive
from ofa_pose.searches.candidates import Algorithm, Candidate, check_algorithm, check_candidates
from ofa_pose.searches.choice import choice_notes, choose
from ofa_pose.searches.evaluation import ArchivedEvaluations, Measure, SubnetEvaluator
from ofa_pose.searches.results import (
    SHOWN,
    History,
    SearchResult,
    describe,
    draw_pareto,
    front_notes,
    front_table,
    rivals,
    write_best,
    write_front,
)
from ofa_pose.utils import files
from ofa_pose.utils.config import config_text
from ofa_pose.utils.console import progress, say, show, warn
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.numbers import positive
from ofa_pose.utils.process import interruptible
from ofa_pose.utils.run_dir import RunDir, check_basis, plan_run, read_basis

HISTORY, BEST, PICTURE, BASIS, RESULT = "history.csv", "best.yaml", "pareto.png", "search.json", "result.json"
CHECKPOINT = "best.pt"

# What does not decide which subnets are evaluated: more generations only go further, the others are part of the basis.
ELSEWHERE = {"generations", "images", "calibration_images", "batch", "prefer_cheaper", "int8"}


@dataclass(frozen=True)
class SearchJob:
    """A search whose parts have been found and checked.

    Attributes:
        feasible: the subnets to choose from.
        measure: the metrics of a subnet.
        recipe: the settings of the search, its seed; kept in the run directory.
        basis: what the measure depends on, JSON values; see `SubnetEvaluator.basis`.
        origin: what best.yaml says about where the subnets' weights are.
        algorithm: None takes the recipe's.
        save_subnet: writes a checkpoint, given its file, a subnet and its AP; None: no best.pt is written.
        people: how many on the search images the APs are taken of.
        gives_draws: `measure` gives the APs on draws of the images (`evaluation.DRAWS`), by which the final choice is
            made; what an archive of an earlier version lacks of them is measured again.
        int8: of a search whose APs are int8's, what the ranges of maps are taken from; see `SearchResult`.
        about: what its opening says besides the space, the budget and the algorithm.
        log: what its records go into besides metrics.jsonl, see `monitor.event_files`.
        data: the splits that it uses, by name; device: that measures.
    """

    feasible: FeasibleSpace
    measure: Measure
    recipe: Recipe
    basis: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=lambda: {"supernet": None})
    algorithm: Algorithm | None = None
    save_subnet: Callable[[Path, ArchSpec, float], None] | None = None
    people: int | None = None
    gives_draws: bool = False
    int8: Mapping[str, Any] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    log: str | None = None
    data: Mapping[str, KeypointDataset] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        """Raises InputError where the algorithm cannot be called as one."""
        if self.algorithm is not None:
            check_algorithm(self.algorithm)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        feasible: FeasibleSpace,
        recipe: str | Path | None = None,
        overrides: tuple[str, ...] = (),
        seed: int | None = None,
        device: str | None = None,
        algorithm: Algorithm | None = None,
        log: str | None = None,
    ) -> SearchJob:
        """The search of a supernet; see `SearchJob`, `load_recipe`, `pick_device` and `check_log`.

        Raises:
            InputError: the recipe, the data and the supernet do not fit, or the supernet may have seen the search's
                images.
        """
        check_log(log)
        resolved, _ = load_recipe("search", recipe, overrides, checkpoint.recipe, seed)
        evaluator = SubnetEvaluator.from_checkpoint(checkpoint, resolved, device)
        sha256 = checkpoint.sha256

        int8 = None
        if resolved.search.int8:
            chosen = choose_calibration(evaluator.train)
            source = {"annotations": str(chosen.annotations_path), "images": str(chosen.images_dir)}
            int8 = {"calibration_images": len(chosen), **source}
        precision = {"precision": "int8"} if int8 else {}

        def save_subnet(path: Path, spec: ArchSpec, ap: float) -> None:
            images = resolved.search.calibration_images
            net = inherit(evaluator.supernet, spec, evaluator.train, evaluator.device, images)
            info = {"AP": ap, "split": "search", **precision}
            recipe = dict(checkpoint.recipe)
            if int8:  # an export takes the same images
                recipe["data"] = resolved.data.model_dump(mode="json", exclude_none=True)
            found = replace(checkpoint, kind="net", spec=spec, weights=net.state_dict(), recipe=recipe, training=None)
            save_checkpoint(path, replace(found, info=info))

        return cls(
            feasible,
            evaluator.measure,
            resolved,
            evaluator.basis(sha256),
            {"supernet": {"path": str(checkpoint.path), "sha256": sha256} if sha256 else None, **precision},
            algorithm,
            save_subnet,
            count_people(evaluator.images),
            gives_draws=True,
            int8=int8,
            about={"supernet": str(checkpoint.path or ""), **evaluator.facts()},
            log=log,
            data={"train": evaluator.train, "search": evaluator.images},
            device=evaluator.device,
        )

    @property
    def algorithm_name(self) -> str:
        """The algorithm's, as search.json and the result name it."""
        if self.algorithm is None:
            return self.recipe.search.algorithm
        qualified = getattr(self.algorithm, "__qualname__", type(self.algorithm).__qualname__)
        return f"{self.algorithm.__module__}.{qualified}"

    def run(
        self,
        out: str | Path,
        resume: bool = False,
        archive: str | Path | None = None,
        executor: Executor | None = None,
    ) -> SearchResult:
        """Search for the subnet with the highest AP, or the cheapest within noise of it; see `choice.choose`.

        Writes into the run directory: archive.sqlite (every evaluation, as it happens), history.csv and metrics.jsonl
        as it goes, best.yaml after every generation, pareto.png at the end, also of a search that was interrupted,
        search.json (what it all rests on); at the end pareto.csv and front/ (see `write_front`), best.pt and
        result.json.

        Args:
            out: the run directory.
            resume: go on with the search there: it is gone through again, and what the archive holds is not measured
                again. Where none was begun, one begins.
            archive: another archive than the run directory's, to be shared: a file, or the run directory of a search.
            executor: evaluates; one of other processes needs a `measure` that can be pickled. None: this process does.

        Raises:
            InputError: `out` holds another run; the search that is to be resumed had another supernet, space or data,
                or another budget, seed or algorithm; `archive` is not one; the algorithm gives no candidates.
            OfaPoseError: a subnet could not be evaluated, a worker died, the archive cannot be written.
        """
        run = plan_run(out, config_text(self.recipe), resume, progress=HISTORY)
        with run.held():
            return self._run(run, archive, executor)

    def _run(self, run: RunDir, archive: str | Path | None, executor: Executor | None) -> SearchResult:
        start, feasible = time.perf_counter(), self.feasible
        plan = self._plan()
        before = {} if run.fresh else _read_plan(run, plan)
        given = archive or before.get("archive")
        place = find_archive(given) if given else run.path / ARCHIVE
        check_archive(place)
        if not run.fresh and not place.exists():
            hint = "put it back or name it with --archive; without it, start anew with another --out"
            raise InputError("the search's archive is missing", place, hint)
        show_opening("search", self._facts(), run.path)
        earlier = _read_result(run)
        run.open()
        note_start(run, self.device, self.data)
        logged = event_files(self.log, run, None if run.fresh else -1)
        with interruptible(run.go_on), logged, Archive(place, self.basis) as kept:
            # Only what was known when the search began may teach a surrogate: else a resumed one would learn more.
            prior_end = before.get("prior", kept.last)
            if not 0 <= prior_end <= kept.last:
                what = f"says that its archive held {prior_end:,} evaluations, {place} holds {kept.last:,}"
                raise InputError(what, run.path / BASIS, "name its archive with --archive, or choose another --out")
            (run.path / RESULT).unlink(missing_ok=True)  # of the search before it was resumed
            known = kept.until(prior_end, feasible.space)
            if given and run.fresh:
                say(f"archive {place}: {len(known)} evaluations of this supernet are known")
            at = str(files.real(place)) if given else None
            files.write_json(run.path / BASIS, {**plan, "archive": at, "prior": prior_end})
            run.forget_after(-1)
            evaluations = ArchivedEvaluations(feasible, self.measure, kept, self.recipe.seed, executor)
            prior = known if self.recipe.search.surrogate else []
            course = self._search(run, evaluations, prior)
            history, settings = course.history, self.recipe.search
            draws = evaluations.draws_again if self.gives_draws else evaluations.draws
            choice = choose(history, feasible, draws, settings.prefer_cheaper)
            course.take(choice.chosen)
            notes = choice_notes(choice, history, feasible, evaluations.draws, self.people)
            others = rivals(history, feasible, choice.chosen)
            outcomes = zip(others, evaluations(others), strict=True)
            beside = {genome: ap for genome, (ap, _) in outcomes if math.isfinite(ap)}
            origin = {**self.origin, "evaluations": len(history)}
            front = write_front(run.path, history, feasible, origin, beside, choice.chosen, evaluations.error)
            best, error = choice.chosen, evaluations.error(choice.chosen.genome)
            measured = kept.count_after(prior_end, evaluations.asked)
        say(f"Pareto front of {feasible.space.name} within {feasible.budget}; AP on the search images, {NO_FLIP}")
        show(front_table(front, feasible))
        say("*: the chosen subnet")
        for note in front_notes(front, feasible.budget.limits[0].quantity.removeprefix("of "), SHOWN):
            say(note)
        for note in notes:
            say(note)
        if best.fitness <= 0:
            none = "the AP of every evaluated subnet is 0" if best.is_valid else "no subnet gave an AP that is a number"
            why = f"{none}, so of these the cheapest was taken, by cost alone"
            warn(f"{why}: train the supernet further, or check data.search, then search anew")
        figures = describe(feasible, best.genome, best.fitness, error)
        seconds = round(time.perf_counter() - start, 3)
        if not evaluations.measured and earlier.get("evaluations") == len(history):  # it had ended already
            seconds = earlier.get("seconds", seconds)
        if self.save_subnet:
            self.save_subnet(run.path / CHECKPOINT, figures.spec, figures.AP)
        result = SearchResult(
            best=figures,
            evaluations=len(history),
            judged=measured,
            algorithm=self.algorithm_name,
            archive=place,
            **front,
            int8=dict(self.int8) if self.int8 else None,
            people=self.people,
            notes=notes,
            seconds=seconds,
            out=run.path,
            subnet=run.path / BEST,
            checkpoint=run.path / CHECKPOINT if self.save_subnet else None,
        )
        files.write_json(run.path / RESULT, result.to_dict())
        note_end(run, time.perf_counter() - start)
        return result

    def _facts(self) -> dict[str, str]:
        """What the opening says."""
        space, settings = self.feasible.space, self.recipe.search
        count = None if self.algorithm else expected_evaluations(self.feasible, settings)
        evaluated = f", at most {count:,} evaluations" if count else ""
        surrogate = ", a surrogate chooses" if settings.surrogate else ""
        return {
            "space": f"{space.name}: {format_subnets(space.size)} subnets",
            "budget": describe_feasible(self.feasible),
            "algorithm": f"{self.algorithm_name}{surrogate}{evaluated}",
            **self.about,
        }

    def _plan(self) -> dict[str, Any]:
        """All that decides which subnets are evaluated, and how; a resumed search must have the same."""
        budget, settings = self.feasible.budget, self.recipe.search.model_dump(exclude=ELSEWHERE)
        return {
            **self.basis,
            "budget": {**budget.to_dict(), "convention": budget.convention},
            "algorithm": {"seed": self.recipe.seed, **settings, "algorithm": self.algorithm_name},
        }

    def _search(self, run: RunDir, evaluations: ArchivedEvaluations, prior: list[tuple[Genome, float]]) -> _Course:
        """Run the algorithm to its end, and keep the run directory up to date."""
        settings, feasible = self.recipe.search, self.feasible
        course = _Course(run, feasible, self.origin, evaluations.error)
        algorithm = self.algorithm or ALGORITHMS[settings.algorithm]
        given = algorithm(feasible, settings, self.recipe.seed, evaluations, prior, course.note)
        found = check_candidates(given, self.algorithm_name)
        total = None if self.algorithm else expected_evaluations(feasible, settings)
        try:
            with progress("search", total, unit="subnets") as meter:
                for generation, members in groupby(found, lambda candidate: candidate.generation):
                    for candidate in members:
                        course.add(candidate, evaluations.measured)
                        meter.step(note=course.shown)
                    course.end_generation(generation)
        except BaseException:
            with suppress(OSError):  # on a full disk; what ended the search is what is reported
                course.draw()
            raise
        number = len(course.history)
        if not number:
            raise OfaPoseError(f"the algorithm {self.algorithm_name} chose no subnet")
        if total is not None and number < total:
            say(f"no further subnet was found inside the budget: the search ends after {number} of {total}")
        return course


class _Course:
    """How a search goes: its candidates so far, and the files that show them.

    Attributes:
        history: the candidates in their order.
    """

    def __init__(
        self,
        run: RunDir,
        feasible: FeasibleSpace,
        origin: Mapping[str, Any],
        error_of: Callable[[Genome], float | None],
    ) -> None:
        self.history: list[Candidate] = []
        self._best: Candidate  # of the history, where there is one
        self._run, self._feasible, self._origin, self._error_of = run, feasible, origin, error_of
        self._rows = History(run.path / HISTORY, feasible)
        self._errors: dict[Genome, float | None] = {}
        self._reports: dict[int, dict[str, Any]] = {}  # a surrogate's, by generation
        self._start = time.perf_counter()
        self._measured, self._seconds = 0, 0.0  # at the newest candidate

    def note(self, report: dict[str, Any]) -> None:
        """Keep a surrogate's report until its generation ends."""
        self._reports[report["generation"]] = report

    def add(self, candidate: Candidate, measured: int) -> None:
        """Take in a candidate as it is evaluated.

        Args:
            measured: how many subnets were since the search began, or was resumed; the archive had the others.
        """
        self._measured, self._seconds = measured, round(time.perf_counter() - self._start, 3)
        self._rows.add(candidate)
        self._errors[candidate.genome] = self._error_of(candidate.genome)
        self.history.append(candidate)
        self._best = candidate if len(self.history) == 1 else max(self._best, candidate, key=lambda c: c.rank)

    @property
    def shown(self) -> str:
        """Such as 'best AP 0.482 ± 0.021 at 164M MACs (thop), 1.53ms of latency': its cost under every limit."""
        spec = self._feasible.decode(self._best.genome)
        costs = (f"{limit.show(limit.cost(spec))} {limit.quantity}" for limit in self._feasible.budget.limits)
        return f"best AP {show_ap(self._best.fitness, self._errors[self._best.genome])} at {', '.join(costs)}"

    def end_generation(self, generation: int) -> None:
        """Write best.yaml and a line of metrics.jsonl, say how far it is and how good a surrogate is.

        It is called when the next generation's first candidate is there, so the figures are those at its last one.
        """
        self._write_best()
        report, number = self._reports.get(generation, {}), len(self.history)
        values = [c.fitness for c in self.history if c.generation == generation and c.is_valid]
        mean = float(np.mean(values)) if values else None
        counts = {"evaluations": number, "measured": self._measured}
        figures = {"AP": self._best.fitness, "AP_mean": mean, "macs": self._best.macs}
        self._run.log({"step": generation, **counts, **figures, "seconds": self._seconds, **report})
        quality = ""
        if "surrogate" in report:
            tau = report["surrogate_tau"]
            known = "knows too little yet" if tau is None else f"tau {tau:.2f} on held-out APs"
            quality = f"; surrogate: {known}, {'has chosen' if report['surrogate'] else 'stands aside'}"
        say(f"generation {generation}: {number} subnets, {self.shown}, {NO_FLIP}{quality}")

    def take(self, chosen: Candidate) -> None:
        """Let a candidate be the best, in best.yaml and in the picture."""
        self._best = chosen
        self.draw()

    def draw(self) -> None:
        """Write best.yaml and the picture, where there is something to show."""
        if self.history:
            self._write_best()
            draw_pareto(self._run.path / PICTURE, self.history, self._feasible, self._best)

    def _write_best(self) -> None:
        origin = {**self._origin, "evaluations": len(self.history)}
        error = self._errors[self._best.genome]
        write_best(self._run.path / BEST, self._feasible, self._best, origin, error)


def _read_result(run: RunDir) -> dict[str, Any]:
    """The result that a search left in the run directory; empty where it did not end, or that cannot be read."""
    try:
        found = files.read_json(run.path / RESULT)
    except InputError:
        return {}
    return found if isinstance(found, dict) and positive(found.get("seconds")) else {}


def _read_plan(run: RunDir, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the search in the run directory rested on; raises InputError where this one rests on something else."""
    if not (run.path / BASIS).exists():
        raise InputError(f"holds no {BASIS} to resume from", run.path, "start without --resume")
    before = read_basis(run.path / BASIS)
    if "prior" not in before:
        raise InputError("was searched by a version that kept no archive", run.path, "choose another --out")
    if type(before["prior"]) is not int or not isinstance(before.get("archive"), str | None):
        what = "does not say which evaluations it had"
        raise InputError(what, run.path / BASIS, "restore it, or choose another --out")
    check_basis(before, plan, run.path)
    return before
