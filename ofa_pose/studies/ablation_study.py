"""A study as a job: its YAML, a folder and an executor in; the table of its runs, means, spreads and a picture out."""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import load_space
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.data.keypoint_dataset import SPLITS
from ofa_pose.formats.reading import fingerprint
from ofa_pose.monitor.opening import show_opening
from ofa_pose.recipe import COMMANDS, load_recipe
from ofa_pose.studies.ablation import (
    CLASSIFY,
    NETS,
    Ablation,
    Commands,
    StudyData,
    StudyRun,
    net_file,
    option_basis,
    own_data,
    resolved_option,
)
from ofa_pose.studies.running import RunFigures, Task, outcomes, recorded
from ofa_pose.studies.summary import (
    CSV,
    PICTURE,
    TABLE,
    StudyResult,
    draw_summary,
    figure_text,
    summarise,
    write_rows,
    write_summary,
)
from ofa_pose.synthetic.crops import write_crops
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils import atomic, files
from ofa_pose.utils.config import apply_overrides, config_text
from ofa_pose.utils.console import say, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import counted
from ofa_pose.utils.process import Interrupted, interruptible
from ofa_pose.utils.result import plain
from ofa_pose.utils.run_dir import COMMAND_WORDS, PROGRESS, alone_in, has_begun

STUDY = "study.yaml"
FIRST_SEED = 9100  # of drawn images, a seed for each split; the shipped weights never saw these


@dataclass(frozen=True)
class AblationStudy:
    """The trainings that a study declares, to be done and compared.

    Attributes:
        name: of the study.
        commands: the functions of the commands that runs name.
        evaluate: gives the metrics of a network, as `ofa_pose.evaluate`.
        device: of every run; None: a GPU if any.
    """

    name: str
    ablation: Ablation
    commands: Commands
    evaluate: Callable[..., Any]
    device: str | None = None

    def run(self, out: str | Path, executor: Executor | None = None, workers: int = 1) -> StudyResult:
        """Do every run that is not done yet, each with each seed, and write the table and the picture.

        Each run is a run directory, OUT/seed-N/NAME, which goes on where it was cut off; OUT/seed-N/NAME.json holds its
        call and, once it is done, its figures. Of a run that fails there is a line; the others go on.

        Args:
            executor: does the runs; None: this process does, one after the other.
            workers: how many runs go on at once; more than one have one thread each.

        Raises:
            InputError: `out` holds another run, or runs of another study, or another process works there, or the data
                are at fault.
            OfaPoseError: a worker process died.
        """
        start, folder = time.perf_counter(), Path(out).absolute()
        atomic.check_folder(folder)
        if other := next((name for name in PROGRESS if has_begun(folder, name)), None):
            raise InputError(f"holds a run already ({other})", out, "choose another --out")
        words = COMMAND_WORDS.get()
        go_on = f"go on with: {shlex.join(['ofa-pose', *words])}" if words else "the same call goes on"
        rows: list[dict[str, Any]] = []
        failed: dict[str, str] = {}
        try:
            with interruptible(go_on), ExitStack() as stack:
                show_opening(f"study {self.name}", self.facts(executor, workers), folder)
                tasks = self.tasks(folder, self._data(folder, workers), 1 if workers > 1 else None)
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone_in(folder))
                for task in tasks:
                    recorded(task)  # refuses another study's before anything of it is overwritten
                self.ablation.write_nets(folder / NETS)
                files.write_text(folder / STUDY, config_text(self.ablation))
                order = [(task.seed, task.name) for task in tasks]
                for task, outcome in outcomes(tasks, executor):
                    if isinstance(outcome, Exception):
                        failed[str(task)] = " ".join(str(outcome).split()) or type(outcome).__name__
                        warn(f"{task}: {failed[str(task)]}")
                        continue
                    arm = self.ablation.runs[task.name].arm
                    rows.append({"run": task.name, "arm": arm, "seed": task.seed, **outcome})
                    rows.sort(key=lambda row: order.index((row["seed"], row["run"])))
                    write_rows(folder / CSV, rows)
                    say(f"{task}: {_shown(outcome)}; {len(rows)} of {len(tasks)} runs are done")
        except Interrupted as error:
            raise Interrupted(error.number, go_on) from None
        write_rows(folder / CSV, rows)  # also where none is done
        arms = summarise(rows)
        write_summary(folder, self.name, self.ablation.asks, arms, len(self.ablation.seeds))
        picture = draw_summary(folder / PICTURE, arms, self.ablation.picture)
        return StudyResult(
            self.name,
            self.ablation.asks,
            arms,
            tuple(rows),
            failed,
            folder / CSV,
            folder / TABLE,
            picture,
            round(time.perf_counter() - start, 1),
            folder,
        )

    def facts(self, executor: Executor | None = None, workers: int = 1) -> dict[str, str]:
        """What its opening says."""
        study, seeds = self.ablation, self.ablation.seeds
        of_space = [run for run in study.runs.values() if run.command in COMMANDS and "net" not in run.options]
        spaces = {load_recipe(run.command, study.recipe, study.overrides(run))[0].space for run in of_space}
        trainings = len(seeds) * sum(run.command != "search" for run in study.runs.values())
        each = f"with the seed {seeds[0]}" if len(seeds) == 1 else f"each with the seeds {', '.join(map(str, seeds))}"
        at_once = f"; {workers} runs at once, of one thread each" if workers > 1 else ""
        device = self.device or ("a GPU where a worker has one" if executor else str(pick_device(None)))
        return {
            "runs": f"{', '.join(study.runs)}; {each}: {counted(trainings, 'training')}",
            "space": ", ".join(sorted(map(str, spaces))),
            "recipe": study.recipe,
            "device": f"{device}{at_once}",
        }

    def _data(self, out: Path, workers: int) -> StudyData:
        """The images: the user's, or drawn into OUT/data, the same for every seed."""
        study, found = self.ablation, StudyData()
        uses = {run.command for run in study.runs.values()}
        if study.data and uses != {CLASSIFY}:
            found = own_data(study.data)
        elif study.scenes and uses != {CLASSIFY}:
            found = self._scenes(out / "data", workers)
        if study.crops and CLASSIFY in uses:
            path = out / "data" / "crops.npz"
            write_crops(path, study.crops.train, study.crops.test, study.crops.size, FIRST_SEED)
            found = StudyData(found.overrides, found.test, path)
        return found

    def _scenes(self, folder: Path, workers: int) -> StudyData:
        scenes, overrides = self.ablation.scenes, []
        assert scenes is not None
        for number, split in enumerate(SPLITS):
            if count := scenes.count(split):
                where, seed = folder / split, FIRST_SEED + number
                write_dataset(where, count, scenes.size, scenes.joints, seed, workers, True, scenes.people)
                overrides += [f"data.{split}.annotations={where / 'annotations.json'}"]
                overrides += [f"data.{split}.images={where / 'images'}"]
        test = folder / "test"
        return StudyData(tuple(overrides), (str(test / "annotations.json"), str(test / "images")))

    def tasks(self, out: Path, data: StudyData, threads: int | None = None) -> list[Task]:
        """Every run with every seed, each after those that it needs."""
        study, sum_of = self.ablation, cache(fingerprint)
        bases = {name: self._basis(run, data, sum_of) for name, run in study.runs.items()}
        tasks = [
            self._task(name, study.runs[name], seed, out, data, threads) for seed in study.seeds for name in study.runs
        ]
        return [replace(task, basis=bases[task.name]) for task in tasks]

    def _basis(self, run: StudyRun, data: StudyData, sum_of: Callable[[str, str | None], str]) -> dict[str, Any]:
        """By content what a run's recipe, space, images and options are; see `Task`."""
        options = {key: option_basis(key, value) for key, value in run.options.items()}
        found = {key: value for key, value in options.items() if value is not None}
        if run.command not in COMMANDS:
            return found
        recipe, _ = load_recipe(run.command, self.ablation.recipe, self.ablation.overrides(run, data.overrides))
        found["recipe"] = recipe.model_dump(mode="json", exclude_unset=True)  # not what later versions add
        sources = {split: getattr(recipe.data, split) for split in SPLITS}
        with suppress(InputError):  # the run says what is wrong
            if "net" not in run.options:
                found["space"] = plain(load_space(recipe.space).to_dict())
            if recipe.data.skeleton and Path(recipe.data.skeleton).is_file():
                found["skeleton"] = files.sha256(recipe.data.skeleton)
            found["data"] = {split: sum_of(one.annotations, one.images) for split, one in sources.items() if one}
        return found

    def _task(self, name: str, run: StudyRun, seed: int, out: Path, data: StudyData, threads: int | None) -> Task:
        function, folder = self.commands[run.command], out / f"seed-{seed}"
        known = inspect.signature(function).parameters
        overrides = self.ablation.overrides(run, data.overrides)
        given = {"out": str(folder / name), "seed": seed, "resume": True, "device": self.device}
        given |= {"recipe": self.ablation.recipe, "overrides": overrides, "crops": str(data.crops)}
        options = {
            key: resolved_option(value, folder, net_file(out / NETS, name, key)) for key, value in run.options.items()
        }
        arguments = {key: value for key, value in {**given, **options}.items() if key in known}
        steps = options.get("steps")
        if run.command in COMMANDS and run.command != "search":
            steps = load_recipe(run.command, self.ablation.recipe, overrides)[0].train.steps
        evaluate = self.evaluate if run.arm and run.command != CLASSIFY else None
        call = {"command": run.command, **run.options, "recipe": self.ablation.recipe}
        call |= {"settings": apply_overrides({}, overrides), "subnets": self.ablation.subnets}
        if run.command == CLASSIFY:
            assert self.ablation.crops is not None
            call |= {"crops": self.ablation.crops.model_dump()}
        record = folder / f"{name}.json"
        return Task(
            seed,
            name,
            run.needs,
            function,
            arguments,
            call,
            record,
            steps,
            evaluate,
            data.test,
            self.ablation.subnets if evaluate else 0,
            threads,
        )


def _shown(figures: RunFigures) -> str:
    if figures["metric"] is None:
        return f"done in {figures['seconds']:.0f} s"
    return f"{figures['metric']} {figure_text(figures['value'], None)} in {figures['seconds']:.0f} s"
