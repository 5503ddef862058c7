"""`ofa-pose report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofa_pose.cli.common import JsonOption, print_result


def report(
    run: Annotated[Path, typer.Argument(help="Run directory of a training or a search.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: report.html in the run.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page that explains a run: the network, the search behind it, the training, where it comes from.

    Runs that it started from (supernet, search, teacher, starting weights) are on it too, where they can be found.

    Example: ofa-pose report runs/final --out report.html
    """
    from ofa_pose.reports import write_report

    path = write_report(run, out)
    print_result({"out": str(path), "bytes": path.stat().st_size}, as_json)
