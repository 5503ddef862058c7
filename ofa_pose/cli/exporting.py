"""`ofa-pose export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ofa_pose.cli.common import JsonOption, print_result
from ofa_pose.cli.tables import format_value
from ofa_pose.utils.console import show, warn
from ofa_pose.utils.errors import InputError


def export(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint or run directory.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="yaml, litepose, safetensors, onnx (these by default), onnx-int8, openvino, ncnn, torchscript, "
            "litepose-weights; may be repeated.",
        ),
    ] = None,
    calibration_annotations: Annotated[
        Path | None,
        typer.Option(
            "--calibration-annotations",
            help="Training images that onnx-int8 is calibrated on; default: data.train of its recipe.",
        ),
    ] = None,
    calibration_images: Annotated[
        Path | None, typer.Option("--calibration-images", help="Folder of their images.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", help="Ground truth of onnx-int8's AP; default: data.test or data.val of its recipe."
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of its images.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a net's config (YAML, LitePose's JSON), weights (safetensors) and models for runtimes.

    Models take RGB from 0 to 255, any batch (ncnn: one image) and any sides that are multiples of 16, and say in their
    metadata how to read their outputs. Each is compared with torch on two sizes, and timed.
    onnx-int8 is quantised after training, on images; its AP, size and time are shown beside those of single precision.
    litepose-weights is a .pth.tar that the LitePose repository's code loads, of a fixed net or of a supernet.

    Example: ofa-pose export runs/finetuned --format onnx --format ncnn --out runs/export
    """
    from ofa_pose.exports import INT8, export_checkpoint

    calibration = _pair("calibration-", calibration_annotations, calibration_images)
    evaluation = _pair("", annotations, images)
    if (calibration or evaluation) and INT8 not in (formats or ()):
        raise InputError("annotations and images are for onnx-int8", hint=f"add --format {INT8}, or leave them out")
    summary = export_checkpoint(checkpoint, formats or None, out, calibration=calibration, evaluation=evaluation)
    print_result(summary, as_json, _table(summary, out))
    if INT8 in summary and not as_json:
        show(_int8_table(summary[INT8]))
    for wanted, warning in _warnings(summary):
        warn(f"{wanted}: {warning}")


def _pair(prefix: str, annotations: Path | None, images: Path | None) -> tuple[Path, Path] | None:
    if annotations is None or images is None:
        if annotations is not images:
            raise InputError(f"--{prefix}annotations and --{prefix}images go together", hint="give both")
        return None
    return annotations, images


def _int8_table(report: Mapping[str, Any]) -> Table:
    """What int8 gains and loses."""
    table = Table("onnx-int8", "float32", "int8")
    accuracy = report.get("AP", {"float": None, "int8": None})
    table.add_row("AP, no flip test", format_value(accuracy["float"]), format_value(accuracy["int8"]))
    table.add_row("size", _size(report["float_bytes"]), _size(report["bytes"]))
    table.add_row("ms, one thread", f"{report['float_ms']:.1f}", f"{report['ms']:.1f}")
    return table


def _table(summary: Mapping[str, Any], out: Path) -> Table:
    """One row a format: its files, their size; of a model also its difference from torch and its time."""
    table = Table("format")
    table.add_column(f"files in {escape(str(out))}", overflow="fold")
    for column in ("size", "max difference", "ms, one thread"):
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
