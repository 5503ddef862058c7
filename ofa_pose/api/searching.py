"""`ofa_pose.search`; `table` and `fidelity`, with which searches and their settings are compared; `report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import check_workers, single_process
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.result import Result

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ofa_pose.arch.space import SearchSpace
    from ofa_pose.costs.limits import Budget
    from ofa_pose.searches.candidates import Algorithm
    from ofa_pose.searches.results import SearchResult
    from ofa_pose.studies.exhaustive import ExhaustiveTable
    from ofa_pose.studies.fidelity import FidelityResult

DOUBTFUL = 0.15  # error of a latency table on its own networks


@single_process
def search(
    supernet: str | Path,
    *,
    out: str | Path,
    macs: str | int | None = None,
    params: str | int | None = None,
    latency: str | None = None,
    latency_table: str | Path | None = None,
    macs_convention: str = "thop",
    algorithm: str | Algorithm | None = None,
    surrogate: bool | None = None,
    int8: bool = False,
    archive: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    log: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    executor: Executor | None = None,
) -> SearchResult:
    """Search of widths and resolution under a budget; the recipe is the supernet's by default.

    Writes best.yaml (the chosen subnet), best.pt (the same with the supernet's weights), history.csv (every
    candidate), archive.sqlite (every evaluation), pareto.csv and front/ (the Pareto front and its subnets), result.json
    (the figures that --json prints) and a picture of AP over cost. However many processes evaluate, the
    result is the same.

    Example: ofa-pose search --supernet runs/supernet --macs 1.2G --out runs/search

    Args:
        macs: at most so many multiply-adds: 1.2G, 442M.
        params: at most so many parameters: 2M.
        latency: at most so long a forward pass on a device: 30ms.
        latency_table: of that device, from 'latency build'; without `latency` only recorded.
        algorithm: evolution, nsga2 or random (recipe key: search.algorithm). In Python also a callable, an
            `ofa_pose.searches.candidates.Algorithm`.
        surrogate: a model of the AP chooses what to evaluate (search.surrogate).
        int8: evaluate each subnet as the format onnx-int8 would run it (search.int8): the APs are int8's.
        archive: archive of evaluations to share: a file, or another search's run directory.
        workers: processes that evaluate; more than one share the cores, and the GPUs. In Python a script that
            asks for more needs `if __name__ == "__main__":`.
        scheduler: evaluate on a Dask cluster instead: its scheduler's address, tcp://HOST:8786.
        executor: evaluates instead, a `concurrent.futures.Executor`; only in Python.

    Raises:
        InputError: no subnet keeps the budget (the least that would do is named), or an input does not fit another.
        OfaPoseError: a subnet could not be evaluated, or a worker process died.
    """
    from ofa_pose.costs.limits import Budget
    from ofa_pose.recipe import ALGORITHM_NAMES, check_named

    check_workers(workers, scheduler, executor)
    if isinstance(algorithm, str) and algorithm not in ALGORITHM_NAMES:
        raise InputError(f"no such algorithm: '{algorithm}'", hint=nearest(algorithm, ALGORITHM_NAMES))
    own = [f"search.algorithm={algorithm}"] if isinstance(algorithm, str) else []
    own += [f"search.surrogate={str(surrogate).lower()}"] if surrogate is not None else []
    own += ["search.int8=true"] if int8 else []
    check_named("search", recipe, (*overrides, *own), seed)
    if latency is None:
        Budget.parse(macs, params, macs_convention)

    from ofa_pose.checkpoints.checkpoint import load_checkpoint  # takes seconds
    from ofa_pose.costs.feasible import FeasibleSpace
    from ofa_pose.monitor.run_state import warn_if_cut_off

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    warn_if_cut_off(source.path)
    space, joints = source.space, source.spec.joints
    budget = read_budget(space, joints, macs, params, macs_convention, latency, latency_table)
    feasible = FeasibleSpace(space, joints, budget)

    from ofa_pose.searches.job import SearchJob  # heavy: not before the budget can be kept
    from ofa_pose.searches.workers import chosen_workers

    function = None if isinstance(algorithm, str) else algorithm
    job = SearchJob.from_checkpoint(source, feasible, recipe, (*overrides, *own), seed, device, function, log)
    with chosen_workers(workers, scheduler, executor, device) as evaluating:
        return job.run(out, resume, archive, evaluating)


def read_budget(
    space: SearchSpace,
    joints: int,
    macs: str | int | None = None,
    params: str | int | None = None,
    convention: str = "thop",
    latency: str | None = None,
    latency_table: str | Path | None = None,
) -> Budget:
    """The budget for subnets of a space: at most '1.2G' MACs, '2M' parameters, '30ms' on the device of a table.

    Raises:
        InputError: no limit, or what is not one; a latency without a table, or one that cannot predict every subnet.
    """
    from ofa_pose.costs.limits import Budget
    from ofa_pose.latency.predictor import load_predictor
    from ofa_pose.utils.console import warn
    from ofa_pose.utils.files import sha256
    from ofa_pose.utils.numbers import parse_seconds

    latency_ms = 1e3 * parse_seconds(latency) if latency is not None else None
    if latency_table is None:
        if latency is not None:
            hint = "measure the device with 'ofa-pose latency build', then add --latency-table TABLE"
            raise InputError("--latency needs a latency table", hint=hint)
        return Budget.parse(macs, params, convention)
    table = load_predictor(latency_table)
    interpolated, pieces = table.check_covers(space, joints)
    if table.error > DOUBTFUL:
        warn(f"{latency_table}: predicts its own networks {table.error:.0%} wrong on average; build it again")
    if interpolated:
        what = f"{interpolated} of the {pieces} pieces of space '{space.name}' are interpolated, not measured"
        again = "latency bundle --format web" if table.in_browser else "latency build"
        warn(f"{latency_table}: {what}; 'ofa-pose {again}' without --share measures all")
    return Budget.parse(
        macs,
        params,
        convention,
        latency_ms=latency_ms,
        predict_ms=table.predict_ms,
        predict_many=table.predict_many,
        latency_table=sha256(latency_table),
    )


@single_process
def table(
    supernet: str | Path,
    *,
    out: str | Path,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    limit: int = 20_000,
    device: str | None = None,
) -> ExhaustiveTable:
    """Evaluate every subnet of a small space once, into table.csv; the recipe is the supernet's by default.

    With such a table, search algorithms and their settings are compared in seconds.

    Example: ofa-pose table --supernet runs/supernet --out runs/table

    Args:
        limit: refuse a space of more subnets than this.

    Raises:
        InputError: the space is too large, or an input or the table to resume does not fit another.
    """
    from ofa_pose.recipe import check_named

    check_named("search", recipe, overrides)

    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.monitor.run_state import warn_if_cut_off

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    warn_if_cut_off(source.path)

    from ofa_pose.studies.exhaustive import TableStudy, check_size

    check_size(source.space, limit)
    return TableStudy.from_checkpoint(source, recipe, overrides, device).run(out, resume)


@single_process
def fidelity(
    supernet: str | Path,
    *,
    out: str | Path,
    macs: str | int | None = None,
    params: str | int | None = None,
    macs_convention: str = "thop",
    subnets: int = 12,
    images: Sequence[int] = (50, 100, 200),
    calibration: Sequence[int] = (16, 64),
    steps: int = 60,
    teacher: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
) -> FidelityResult:
    """How far a cheap evaluation can be trusted: rank correlations between image counts, and with AP after fine-tuning.

    Ends with advice on search.images and search.calibration_images. Writes fidelity.csv (a row for each subnet) and a
    picture. The recipe is the supernet's by default.

    Example: ofa-pose fidelity --supernet runs/supernet --macs 1.2G --out runs/fidelity

    Args:
        macs: only subnets of at most so many multiply-adds.
        params: only subnets of at most so many parameters.
        subnets: how many are evaluated, spread over the costs.
        images: numbers of search images to compare.
        calibration: numbers of recalibration images to compare.
        steps: of fine-tuning each subnet; 0: none.
        teacher: checkpoint that fine-tuning distils heatmaps from.

    Raises:
        InputError: fewer than three subnets keep the budget, or an input or the study to resume does not fit another.
    """
    from ofa_pose.costs.limits import Budget
    from ofa_pose.recipe import check_named

    check_named("search", recipe, overrides, seed)
    if macs is not None or params is not None:
        Budget.parse(macs, params, macs_convention)

    from ofa_pose.checkpoints.checkpoint import load_checkpoint  # takes seconds
    from ofa_pose.costs.feasible import FeasibleSpace
    from ofa_pose.monitor.run_state import warn_if_cut_off

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    warn_if_cut_off(source.path)
    master = load_checkpoint(teacher, kind="net") if teacher else None
    if macs is None and params is None:  # what every subnet keeps
        macs = Budget.parse(1, None, macs_convention).macs_of(source.space.largest(source.spec.joints))
    budget = Budget.parse(macs, params, macs_convention)
    feasible = FeasibleSpace(source.space, source.spec.joints, budget)

    from ofa_pose.studies.fidelity import FidelitySettings, FidelityStudy

    settings = FidelitySettings(tuple(sorted({*images})), tuple(sorted({*calibration})), subnets, steps)
    study = FidelityStudy.from_checkpoint(source, feasible, settings, master, recipe, overrides, seed, device)
    return study.run(out, resume)


@dataclass(frozen=True)
class ReportResult(Result):
    """A report: its file and its size in bytes."""

    out: Path
    bytes: int


@single_process
def report(run: Sequence[str] | str | Path, out: str | Path | None = None, open_page: bool = False) -> ReportResult:
    """Write one HTML page that explains a run: the network, the search behind it, the training, where it comes from.

    Runs that it started from (supernet, search, teacher, starting weights) are on it too, where they can be found, and
    what eval, export and latency build wrote of its network beside it. Of several runs the page compares them. A file
    of theirs that is damaged is named at the top of the page, and the rest is shown.

    Example: ofa-pose report runs/final --out report.html

    Args:
        run: run directory of a training or a search; of several, a page that compares them.
        out: file to write; default: report.html in the run, of several comparison.html beside the first.
        open_page: show it in the browser.

    Raises:
        InputError: there is no run; or `out` cannot be written.
    """
    from ofa_pose.reports.page import write_report

    runs = [run] if isinstance(run, str | Path) else list(run)
    if not runs:
        raise InputError("no run to report on", hint="name a run directory")
    path = write_report(runs, out)
    if open_page:
        import webbrowser

        from ofa_pose.utils.files import real

        webbrowser.open(real(path).as_uri())
    return ReportResult(path, path.stat().st_size)
