"""What `ofa-pose export` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.cli.tables import rows_table
from ofa_pose.utils.console import say, show, warn

if TYPE_CHECKING:
    from ofa_pose.exports import ExportResult


def show_export(result: ExportResult) -> None:
    """One row a format: its files, their size; of a model its difference from torch and its time.

    Below int8 stands what it was made of, in single precision; below the table the APs of both.
    """
    rows = []
    for name, path in result.files.items():
        report = result.reports.get(name, {})
        names = "\n".join(Path(file).name for file in report.get("files", [path]))
        difference = f"{report['max_difference']:.1e}" if "max_difference" in report else "–"
        time = f"{report['ms']:.1f}" if "ms" in report else "–"
        rows.append((name, names, _size(result.bytes[name]), difference, time))
        if "float_ms" in report:
            rows.append(("", "the same in float32", _size(report["float_bytes"]), "–", f"{report['float_ms']:.1f}"))
    folder = next(iter(result.files.values())).parent
    show(rows_table(("format", f"files in {folder}"), ("size", "max difference", "ms, one thread"), rows))
    for name, report in result.reports.items():
        if "AP" in report:
            ap = report["AP"]
            say(f"{name}: AP {ap['int8']:.4f}, in float32 {ap['float']:.4f} ({ap['images']} images, no flip test)")


def warn_of_export(result: ExportResult, _arguments: object) -> None:
    """Warn of what a format loses."""
    for name, report in result.reports.items():
        if "warning" in report:
            warn(f"{name}: {report['warning']}")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
