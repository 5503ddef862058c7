"""`ofa_pose.export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import naming, single_process
from ofa_pose.backends.runtimes import FORMATS
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    from ofa_pose.exports import ExportResult


@naming(others=", ".join(name for name in FORMATS if name != "onnx"))
@single_process
def export(
    checkpoint: str | Path,
    *,
    out: str | Path,
    formats: Sequence[str] | None = None,
    calibration_annotations: str | Path | None = None,
    calibration_images: str | Path | None = None,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
) -> ExportResult:
    """Write a net's config (YAML, LitePose's JSON), weights (safetensors) and models for runtimes.

    Models take RGB from 0 to 255, any batch (ncnn: one image) and any sides that are multiples of 16, and say in their
    metadata how to read their outputs. Each is compared with torch on two sizes, and timed.
    onnx-int8 is quantised after training, on images; its AP, size and time are shown beside those of single precision.
    litepose-weights is a .pth.tar that the LitePose repository's code loads, of a fixed net or of a supernet.

    Example: ofa-pose export runs/finetuned --format onnx --format ncnn --out runs/export

    Args:
        checkpoint: checkpoint or run directory.
        out: folder to write.
        formats: yaml, litepose, safetensors, onnx (these by default), onnx-int8, {others}, litepose-weights; may be
            repeated.
        calibration_annotations: training images that onnx-int8 is calibrated on; default: data.train of its recipe.
        calibration_images: folder of their images.
        annotations: ground truth of onnx-int8's AP; default: data.test or data.val of its recipe.
        images: folder of its images.

    Raises:
        InputError: no such checkpoint or format, a network that a format cannot hold, a missing package, or images that
            do not go together; nothing is written then.
        OfaPoseError: a runtime does not compute what torch computes; that format is not written.
    """
    from ofa_pose.exports import INT8, export_checkpoint

    calibration = _pair("calibration-", calibration_annotations, calibration_images)
    evaluation = _pair("", annotations, images)
    if (calibration or evaluation) and INT8 not in (formats or ()):
        raise InputError("annotations and images are for onnx-int8", hint=f"add --format {INT8}, or leave them out")
    return export_checkpoint(checkpoint, formats or None, out, calibration=calibration, evaluation=evaluation)


def _pair(prefix: str, annotations: str | Path | None, images: str | Path | None) -> tuple[Path, Path] | None:
    if annotations is None or images is None:
        if annotations is not images:
            raise InputError(f"--{prefix}annotations and --{prefix}images go together", hint="give both")
        return None
    return Path(annotations), Path(images)
