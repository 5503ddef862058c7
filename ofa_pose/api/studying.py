"""`ofa_pose.table` and `fidelity`, with which searches and their settings compare, and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import single_process
from ofa_pose.utils.result import Result

if TYPE_CHECKING:
    from ofa_pose.studies.exhaustive import ExhaustiveTable
    from ofa_pose.studies.fidelity import FidelityResult


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
        InputError: the space is too large, an input does not fit another, `out` holds another run, or the table to
            resume rests on something else.
    """
    from ofa_pose.checkpoints.checkpoint import load_checkpoint

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None

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
        InputError: no subnet keeps the budget, fewer than three can be ranked, an input does not fit another, `out`
            holds another run, or the study to resume rests on something else.
    """
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.costs.feasible import FeasibleSpace
    from ofa_pose.costs.limits import Budget

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    master = load_checkpoint(teacher, kind="net") if teacher else None
    if macs is None and params is None:  # what every subnet keeps
        macs = Budget.parse(1, None, macs_convention).macs_of(source.spec)
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
def report(run: str | Path, out: str | Path | None = None) -> ReportResult:
    """Write one HTML page that explains a run: the network, the search behind it, the training, where it comes from.

    Runs that it started from (supernet, search, teacher, starting weights) are on it too, where they can be found.

    Example: ofa-pose report runs/final --out report.html

    Args:
        run: run directory of a training or a search.
        out: file to write; default: report.html in the run.

    Raises:
        InputError: there is no run, or what it wrote cannot be read; or `out` cannot be written.
    """
    from ofa_pose.reports.page import write_report

    path = write_report(run, out)
    return ReportResult(path, path.stat().st_size)
