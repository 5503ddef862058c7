"""The runs of a study: each a run directory of its own, done once, in any executor, after those that it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.data.keypoint_dataset import DataSettings, load_splits
from ofa_pose.families.profile import profile_net
from ofa_pose.models.elastic import Supernet
from ofa_pose.recipe import SearchSettings, load_recipe
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.utils import files
from ofa_pose.utils.console import say
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.numbers import are_numbers
from ofa_pose.utils.run_dir import COMMAND_WORDS, changed_keys, check_basis
from ofa_pose.utils.seeding import generator

DIED = (
    "a worker process died (killed, out of memory, or started by a script without `if __name__ == '__main__'`), or all "
    "are gone; the same command goes on"
)
POOL = 100  # subnets drawn for each one that is evaluated
METRICS = ("AP", "accuracy")
COSTS = ("params", "macs_exact", "macs_thop", "macs_paper")
FIGURES = {"metric", "value", *COSTS, "steps", "seconds"}
THIRDS = 3  # of a space by MACs; as many subnets of each


@dataclass(frozen=True)
class Task:
    """One run of a study with one seed.

    Attributes:
        name: of the run; needs: names of those that it takes something from.
        function, arguments: the command's function, and what it is called with: plain values.
        call: all that its figures rest on by name, JSON values.
        record: a JSON file of call and basis and, once the run is done, its figures.
        steps: of its training; None where it trains nothing.
        evaluate: of an arm that is a network what gives its AP on the test images; None: no figure is taken.
        test: annotations and images of these.
        subnets: of a supernet so many are evaluated.
        threads: of its own; None: as many as there are.
        basis: what the names in the call stand for, by content, JSON values.
    """

    seed: int
    name: str
    needs: tuple[str, ...]
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    call: Mapping[str, Any]
    record: Path
    steps: int | None = None
    evaluate: Callable[..., Any] | None = None
    test: tuple[str, str] | None = None
    subnets: int = 0
    threads: int | None = None
    basis: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.name}"


RunFigures = dict[str, Any]
"""Of a run that is done: metric, value, params, macs_exact, macs_thop, macs_paper, steps, seconds; None: not known."""


def recorded(task: Task) -> RunFigures | None:
    """The figures of a run that is done already, else None.

    Raises:
        InputError: it was begun otherwise, or what it rests on has changed, or its record is damaged.
    """
    if not task.record.exists():
        return None
    kept = files.read_json(task.record)
    call, basis = (kept.get("call"), kept.get("basis", {})) if isinstance(kept, dict) else (None, None)
    if not isinstance(call, dict) or not isinstance(basis, dict):
        raise InputError("does not say how its run was called", task.record, "remove it and the run beside it")
    if call != task.call:
        changed = ", ".join(changed_keys(call, task.call))
        raise InputError(f"was begun otherwise: {changed}", task.record, "choose another --out")
    check_basis(basis, task.basis, task.record)  # records of 0.1 have none
    figures = kept.get("figures")
    if figures is None or _are_figures(figures):
        was_no_arm = figures is not None and figures["metric"] is None and task.evaluate is not None
        return None if was_no_arm else figures  # its figure is still to be taken
    hint = "remove this file and call again: they are taken anew"
    raise InputError("holds figures that no run gives", task.record, hint)


def _are_figures(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() >= FIGURES or not are_numbers([value["seconds"]], 1):
        return False
    steps, costs = value["steps"], [value[name] for name in COSTS]
    if value["seconds"] < 0 or not (steps is None or (are_numbers([steps], 1) and steps >= 0)):
        return False
    if value["metric"] is None:
        return all(one is None for one in (value["value"], *costs))
    known = value["metric"] in METRICS and are_numbers([value["value"], *costs], 1 + len(costs))
    return known and 0 <= value["value"] <= 1 and min(costs) >= 0


def perform(task: Task) -> RunFigures:
    """Do a run, or go on with it, and take its figures; a worker calls it."""
    import torch

    threads = torch.get_num_threads()
    if task.threads:
        torch.set_num_threads(task.threads)
    words = COMMAND_WORDS.set(())  # so that the run's command.txt holds its own
    start = time.perf_counter()
    try:
        arguments = dict(task.arguments)
        if "resume" in arguments:  # a run that was never begun does not say that there is nothing to go on from
            arguments["resume"] = Path(arguments["out"]).exists()
        result = task.function(**arguments)
        seconds = round(time.perf_counter() - start, 1)
        figures = {**_figures_of(task, result), "steps": task.steps, "seconds": seconds}
    finally:
        COMMAND_WORDS.reset(words)
        torch.set_num_threads(threads)
    _record(task, figures)
    return figures


def _record(task: Task, figures: RunFigures | None) -> None:
    files.write_json(task.record, {"call": dict(task.call), "basis": dict(task.basis), "figures": figures})


def outcomes(tasks: list[Task], executor: Executor | None) -> Iterator[tuple[Task, RunFigures | Exception]]:
    """What each run gives, as they end: its figures, or why there are none. What needs a failed run is not done.

    Raises:
        InputError: as `recorded`; nothing is done then.
        OfaPoseError: a worker process died.
    """
    before = [recorded(task) for task in tasks]
    done, failed = set[tuple[int, str]](), set[tuple[int, str]]()
    waiting = []
    for task, figures in zip(tasks, before, strict=True):
        if figures is None:
            _record(task, None)
            waiting.append(task)
        else:
            done.add((task.seed, task.name))
            yield task, figures
    running: dict[Future[RunFigures], Task] = {}
    try:
        while waiting or running:
            for task in list(waiting):
                needs = {(task.seed, name) for name in task.needs}
                if lost := sorted(name for _, name in needs & failed):
                    waiting.remove(task)
                    failed.add((task.seed, task.name))
                    yield task, OfaPoseError(f"not done, as it needs {', '.join(lost)}")
                elif needs <= done and (executor or not running):
                    waiting.remove(task)
                    running[_submit(executor, task)] = task
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                outcome = _outcome(future)
                (failed if isinstance(outcome, Exception) else done).add((task.seed, task.name))
                yield task, outcome
    finally:
        for future in running:
            future.cancel()


def _submit(executor: Executor | None, task: Task) -> Future[RunFigures]:
    if executor:
        try:
            return executor.submit(perform, task)
        except BrokenExecutor as error:
            raise OfaPoseError(DIED) from error
    say(f"{task}: begins")
    future: Future[RunFigures] = Future()
    try:
        future.set_result(perform(task))
    except Exception as error:  # an interruption ends the study
        future.set_exception(error)
    return future


def _outcome(future: Future[RunFigures]) -> RunFigures | Exception:
    try:
        return future.result()
    except (BrokenExecutor, CancelledError) as error:
        raise OfaPoseError(DIED) from error
    except Exception as error:
        return error


def _figures_of(task: Task, result: Any) -> RunFigures:
    if hasattr(result, "accuracy"):
        macs, params = result.macs.to_dict(), result.params
        return _row("accuracy", result.accuracy, macs, params)
    if task.evaluate is None or task.test is None:
        return _row(None, None, {}, None)
    checkpoint = load_checkpoint(task.arguments["out"])
    if checkpoint.kind == "supernet":
        return _of_supernet(checkpoint, task)
    annotations, images = task.test
    device = task.arguments.get("device")
    found = task.evaluate(task.arguments["out"], annotations=annotations, images=images, device=device)
    costs = profile_net(checkpoint.spec)
    return _row("AP", found.metrics.get("AP") or 0.0, costs["macs"], costs["params"])


def _of_supernet(checkpoint: Checkpoint, task: Task) -> RunFigures:
    """The mean AP and the mean costs of subnets that are the same for every supernet of a space."""
    assert checkpoint.space is not None and task.test is not None
    annotations, images = task.test
    recipe, _ = load_recipe("search", None, (), checkpoint.recipe)
    data = DataSettings.model_validate(
        {**recipe.data.model_dump(), "test": {"annotations": annotations, "images": images}}
    )
    train, test = load_splits(data, "train", "test", trained=checkpoint.skeleton)
    supernet = checkpoint.build()
    assert isinstance(supernet, Supernet)
    settings = SearchSettings(images=len(test), calibration_images=recipe.search.calibration_images)
    device = pick_device(task.arguments.get("device"))
    evaluator = SubnetEvaluator(supernet, train, test, settings, device, decode=checkpoint.decode)
    specs = choose_subnets(checkpoint.space, checkpoint.spec.joints, task.subnets)
    aps = [evaluator.evaluate(spec).metrics["AP"] or 0.0 for spec in specs]
    costs = [spec_macs(spec).to_dict() for spec in specs]
    macs = {name: round(float(np.mean([cost[name] for cost in costs]))) for name in costs[0]}
    return _row("AP", float(np.mean(aps)), macs, round(float(np.mean([spec_params(spec) for spec in specs]))))


def choose_subnets(space: SearchSpace, joints: int, count: int) -> list[ArchSpec]:
    """`count` subnets of a space, as many of each third of it by MACs; the same ones always, ascending by MACs."""
    rng = generator(0, "subnets of a study")
    drawn = list(dict.fromkeys(space.decode(space.sample(rng), joints) for _ in range(POOL * count)))
    drawn.sort(key=lambda spec: spec_macs(spec).exact)
    parts = np.array_split(np.arange(len(drawn)), min(THIRDS, count))
    shares = [len(share) for share in np.array_split(np.arange(count), len(parts))]
    chosen = [
        int(place)
        for part, share in zip(parts, shares, strict=True)
        for place in sorted(rng.choice(part, min(share, len(part)), replace=False))
    ]
    return [drawn[place] for place in chosen]


def _row(metric: str | None, value: float | None, macs: Mapping[str, int], params: int | None) -> RunFigures:
    costs = {f"macs_{name}": macs.get(name) for name in ("exact", "thop", "paper")}
    return {"metric": metric, "value": value, "params": params, **costs}
