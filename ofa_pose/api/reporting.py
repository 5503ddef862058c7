"""`ofa_pose.report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa_pose.api.decorators import single_process
from ofa_pose.utils.result import Result


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
