"""`ofa_pose.export` and `import_litepose`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.api.decorators import single_process
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.result import Result

if TYPE_CHECKING:
    from ofa_pose.data.keypoint_dataset import Source
    from ofa_pose.exports.formats import ExportResult
    from ofa_pose.skeleton import Skeleton

SHOWN_KEYS = 5
IN_GRAPH = "in-graph"


@dataclass(frozen=True)
class ImportResult(Result):
    """A checkpoint that was taken over, and what became of the file's keys.

    Attributes:
        checkpoint: the file that was written.
        kind: 'net' or 'supernet'.
        net: its shape in words; joints, skeleton, params and macs: of its (largest) net.
        used, ignored, missed: keys of the file; see `ofa_pose.checkpoints.litepose_checkpoint.Imported`.
    """

    checkpoint: Path
    kind: str
    net: str
    joints: int
    skeleton: str
    params: int
    macs: dict[str, int]
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    missed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields; of keys how many there are and the first five."""
        keys = {"used": self.used, "ignored": self.ignored, "missed": self.missed}
        counted = {name: {"count": len(some), "keys": list(some[:SHOWN_KEYS])} for name, some in keys.items()}
        return super().to_dict() | counted


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
    decoder: str | None = None,
    runtime_files: str | Path | None = None,
) -> ExportResult:
    """Write a net's config (YAML, LitePose's JSON), weights (safetensors) and models for runtimes.

    Models take RGB from 0 to 255, any batch (ncnn: one image) and any sides that are multiples of 16, and say in their
    metadata how to read their outputs. Each is compared with torch on two sizes, and timed; coreml, of five sizes, runs
    on Apple's systems alone.
    int8 forms are quantised after training, on images; AP, size and time are shown beside those of single precision.
    With `decoder` in-graph, a model finds joints itself and leaves the grouping to a program: its output is float32
    (images, joints, candidates, 4): x, y in pixels of its input, heat, tag; of heat 0 where there is none.
    litepose-weights is a .pth.tar that the LitePose repository's code loads, of a fixed net or of a supernet.
    web is a folder for any web server: a page that finds poses in a browser, on a camera, photos and videos.

    Example: ofa-pose export runs/finetuned --format onnx --format ncnn --out runs/export

    Args:
        checkpoint: checkpoint or run directory.
        out: folder to write.
        formats: yaml, litepose, safetensors, onnx (these by default), {formats}, onnx-fp16, onnx-int8,
            litert-fp16, litert-int8, coreml, litepose-weights, web; may be repeated.
        calibration_annotations: training images that int8 is calibrated on; default: data.train of its recipe.
        calibration_images: folder of their images; default: where the annotations say, or beside them.
        annotations: ground truth of int8's AP; default: data.test or data.val of its recipe.
        images: folder of its images, with the same default.
        decoder: in-graph: the decoder, but for the grouping, becomes part of the model (onnx, openvino).
        runtime_files: with --format web, folder of onnxruntime-web's files to copy; default: the page loads them from
            its CDN.

    Raises:
        InputError: the checkpoint, a format, its package or the images are at fault; nothing is written then.
        OfaPoseError: a runtime does not compute what torch computes; that format is not written.
    """
    from ofa_pose.exports.formats import INT8_FORMATS, WEB, export_checkpoint, write_list

    calibration = _source("calibration-", calibration_annotations, calibration_images)
    evaluation = _source("", annotations, images)
    if (calibration or evaluation) and not INT8_FORMATS & {*(formats or ())}:
        raise InputError("annotations and images are for int8", hint="add --format onnx-int8, or leave them out")
    if decoder not in (None, IN_GRAPH):
        raise InputError(f"no such decoder: '{decoder}'", hint=nearest(str(decoder), [IN_GRAPH]))
    if runtime_files is not None and WEB not in (formats or ()):
        raise InputError("runtime files are for web", hint=f"add --format {WEB}, or leave them out")
    result = export_checkpoint(
        checkpoint,
        formats or None,
        out,
        calibration=calibration,
        evaluation=evaluation,
        decoder_in_graph=decoder == IN_GRAPH,
        runtime_files=None if runtime_files is None else Path(runtime_files),
    )
    write_list(Path(out), checkpoint, result)
    return result


def _source(prefix: str, annotations: str | Path | None, images: str | Path | None) -> Source | None:
    from ofa_pose.data.keypoint_dataset import Source

    if annotations is None and images is not None:
        raise InputError(f"--{prefix}images says nothing without --{prefix}annotations", hint="give both")
    folder = None if images is None else str(images)
    return None if annotations is None else Source(annotations=str(annotations), images=folder)


@single_process
def import_litepose(
    file: str | Path,
    *,
    out: str | Path,
    arch: str | Path | None = None,
    supernet: bool = False,
    space: str | None = None,
    joints: int | None = None,
    skeleton: str | Path | None = None,
) -> ImportResult:
    """Take over a checkpoint of the LitePose repository, a fixed net or a supernet, with its BatchNorm statistics.

    The result is a checkpoint like any other: a fixed net for eval, predict, export, --teacher or --init, a supernet
    for search or --init. A key that is missing or of another shape is an error.

    Example: ofa-pose import-litepose crowdpose-XS.pth.tar --arch search-XS.json --joints 14 --out xs.pt

    Args:
        file: checkpoint of the LitePose repository (.pth.tar, .pth, .pt).
        out: checkpoint file to write.
        arch: its fixed net: that repository's JSON, a spec file or a preset.
        supernet: the file holds a supernet.
        space: the supernet's search space; default: litepose, that repository's.
        joints: keypoints: 17 are COCO's, 14 CrowdPose's.
        skeleton: YAML of any other skeleton.

    Raises:
        InputError: options that exclude each other, or every key that is missing, left over or of another shape.
    """
    out = Path(out)
    if (arch is None) == (not supernet):
        raise InputError("import-litepose needs --arch or --supernet, and not both", hint="name one of them")
    if space is not None and not supernet:
        raise InputError("--space is a supernet's", hint="leave it out, or say --supernet")
    if out.is_dir():
        raise InputError("is a folder, not a file", out, "name the checkpoint file to write")
    if out.exists() and Path(file).exists() and out.samefile(file):
        raise InputError("is the file to import", out, "name another one for --out")

    from ofa_pose.arch.presets import load_spec
    from ofa_pose.arch.space import load_space
    from ofa_pose.utils import atomic

    atomic.check_folder(out.parent)
    chosen = _skeleton(joints, skeleton)
    named = space or "litepose"
    shape = load_space(named) if arch is None else load_spec(arch, len(chosen.joints))

    from ofa_pose.checkpoints.checkpoint import save_checkpoint
    from ofa_pose.checkpoints.litepose_checkpoint import import_checkpoint
    from ofa_pose.families.profile import profile_net

    recipe = {"space": os.path.abspath(named) if os.path.isfile(named) else named} if supernet else {}
    done = import_checkpoint(file, shape, chosen, recipe)
    save_checkpoint(out, done.checkpoint)
    spec, kind = done.checkpoint.spec, done.checkpoint.kind
    figures = profile_net(spec, out.name)
    net = (kind, str(spec), spec.joints, chosen.name, figures["params"], figures["macs"])
    return ImportResult(out, *net, done.used, done.ignored, done.missed)


def _skeleton(joints: int | None, path: str | Path | None) -> Skeleton:
    from ofa_pose.skeleton import BUILT_IN, load_skeleton

    if path is not None:
        skeleton = load_skeleton(path)
        if joints not in (None, len(skeleton.joints)):
            what = f"--joints {joints}, but the skeleton has {len(skeleton.joints)}"
            raise InputError(what, path, "make them agree")
        return skeleton
    found = [known for known in BUILT_IN.values() if len(known.joints) == joints]
    if found:
        return found[0]
    what = "import-litepose needs --joints" if joints is None else f"no skeleton is known for {joints} joints"
    raise InputError(what, hint="17 are COCO's, 14 CrowdPose's; else name a YAML file with --skeleton")
