"""`ofa-pose export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ofa_pose.cli.common import JsonOption, print_result
from ofa_pose.console import warn


def export(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint or run directory.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="yaml, litepose, safetensors, onnx (these by default), openvino, ncnn, torchscript, litepose-weights; "
            "may be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a net's config (YAML, LitePose's JSON), weights (safetensors) and models for runtimes.

    Models take RGB from 0 to 255, any batch (ncnn: one image) and any sides that are multiples of 16, and say in their
    metadata how to read their outputs. Each is compared with torch on two sizes, and timed.
    litepose-weights is a .pth.tar that the LitePose repository's code loads, of a fixed net or of a supernet.

    Example: ofa-pose export runs/finetuned --format onnx --format ncnn --out runs/export
    """
    from ofa_pose.export import export_checkpoint

    summary = export_checkpoint(checkpoint, formats or None, out)
    print_result(summary, as_json, _table(summary, out))
    for wanted, warning in _warnings(summary):
        warn(f"{wanted}: {warning}")


def _table(summary: Mapping[str, Any], out: Path) -> Table:
    """One row a format: its files, their size; of a model also its difference from torch and its time."""
    table = Table("format", f"files in {escape(str(out))}")
    for column in ("size", "max difference", "ms an image"):
        table.add_column(column, justify="right")
    for wanted, path in summary["files"].items():
        report = summary.get(wanted, {})
        difference = f"{report['max_difference']:.1e}" if "max_difference" in report else "–"
        time = f"{report['ms']:.1f}" if "ms" in report else "–"
        names = "\n".join(Path(file).name for file in report.get("files", [path]))
        table.add_row(wanted, escape(names), _size(summary["bytes"][wanted]), difference, time)
    return table


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _warnings(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((wanted, summary[wanted]["warning"]) for wanted in summary["files"] if "warning" in summary.get(wanted, {}))
