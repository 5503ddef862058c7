"""`ofa-pose eval` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ofa_pose.cli.common import DeviceOption, JsonOption, key_table, print_result
from ofa_pose.cli.tables import format_value
from ofa_pose.utils.console import progress, show, warn
from ofa_pose.utils.errors import InputError, OfaPoseError, nearest

DECODINGS = ("ours", "reference")
# Options that say how a checkpoint is run, of no use with --results.
OF_A_NETWORK = ("images", "flip", "resolution", "scales", "decoding", "batch", "device")

if TYPE_CHECKING:
    from ofa_pose.data.coco import CheckImages, KeypointDataset
    from ofa_pose.inference.pose_model import PoseModel


def evaluate(
    context: typer.Context,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="Network to evaluate; also an exported .onnx, .xml, .param."),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="COCO-format ground truth; default: data.test of its recipe.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the images.")] = None,
    results: Annotated[Path | None, typer.Option("--results", help="Score this COCO results file instead.")] = None,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = True,
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Short side in pixels; default: the net's.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="coco or crowdpose.")] = "coco",
    scales: Annotated[
        str | None, typer.Option("--scales", help="Also average with these sizes, times the resolution: 0.75,1.5.")
    ] = None,
    decoding: Annotated[
        str, typer.Option("--decoding", help="ours, or reference: input and decoding as in LitePose's own code.")
    ] = "ours",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a batch.")] = 16,
    skeleton: Annotated[Path | None, typer.Option("--skeleton", help="YAML of a custom skeleton.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write metrics.json and, of a checkpoint, results.json here.")
    ] = None,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Also AP and AR of each joint and size.")] = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """OKS average precision of a checkpoint, or of an existing results file.

    Example: ofa-pose eval --checkpoint runs/finetuned --annotations val.json --images val2017 --flip
    """
    from ofa_pose.pose.metrics import METRICS
    from ofa_pose.utils import files

    if metric not in METRICS:
        raise InputError(f"no such metric: '{metric}'", hint=nearest(metric, METRICS))
    if decoding not in DECODINGS:
        raise InputError(f"no such decoding: '{decoding}'", hint=nearest(decoding, DECODINGS))
    if (checkpoint is None) == (results is None):
        raise InputError("eval needs --checkpoint or --results, and not both", hint="name one of them")
    if results is not None:
        _check_plain(context)
    if out:
        files.check_folder(out)
    if results is not None:
        outcome = _score_results(annotations, results, metric, skeleton, breakdown)
    else:
        assert checkpoint is not None
        model, recipe = _model(checkpoint, device, resolution, flip)
        dataset = _ground_truth(recipe, annotations, images, skeleton)
        as_reference = decoding == "reference"
        resolutions = [model.resolution, *_scaled(model.resolution, scales, as_reference)]
        outcome = _evaluate(model, dataset, resolutions, metric, batch, out, breakdown, as_reference)
    if out:
        files.write_json(out / "metrics.json", outcome)
    if as_json:
        print_result(outcome, as_json)
        return
    parts = outcome.pop("breakdown", {})
    shown = {**outcome.pop("metrics"), **outcome, "resolutions": ", ".join(map(str, outcome.get("resolutions", ())))}
    print_result(outcome, as_json, key_table(shown))
    for what, rows in parts.items():
        show(_breakdown_table(what, rows))


def _check_plain(context: typer.Context) -> None:
    """Raises InputError where the call gives options that a results file has no use for."""
    sources = {name: context.get_parameter_source(name) for name in OF_A_NETWORK}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        names = ["--flip/--no-flip" if name == "flip" else f"--{name}" for name in given]
        raise InputError("--results are decoded already", hint=f"leave out {', '.join(names)}")


def _breakdown_table(what: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(what)
    columns = ("AP", "AR", "people")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(escape(name), *(format_value(row[column]) for column in columns))
    return table


def _scaled(resolution: int, scales: str | None, as_reference: bool) -> list[int]:
    """The further resolutions that --scales names, in multiples of 32 and each once."""
    from ofa_pose.arch.space import RESOLUTION_MULTIPLE

    if scales is None:
        return []
    if as_reference:
        raise InputError("--decoding reference knows one scale", hint="leave out --scales")
    try:
        factors = [float(scale) for scale in scales.split(",")]
    except ValueError:
        factors = [0.0]
    if not all(0 < factor < 100 for factor in factors):
        raise InputError(f"--scales '{scales}' are not sizes", hint="give positive numbers, such as 0.75,1.5")
    multiple = RESOLUTION_MULTIPLE
    sides = [max(1, round(resolution * factor / multiple)) * multiple for factor in factors]
    if not set(sides) - {resolution}:
        what = f"--scales '{scales}' round to the resolution itself, {resolution} pixels"
        raise InputError(what, hint=f"choose sizes that differ by {multiple} pixels or more")
    return [side for side in dict.fromkeys(sides) if side != resolution]


def _model(
    checkpoint: str, device: str | None, resolution: int | None, flip: bool
) -> tuple[PoseModel, Mapping[str, Any] | None]:
    """The network to evaluate and the recipe it was trained with; an exported model knows none."""
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.inference.predict import checkpoint_model, exported_model, is_exported

    if is_exported(checkpoint):
        return exported_model(checkpoint, device, resolution, flip, latency=False), None
    source = load_checkpoint(checkpoint, kind="net")
    return checkpoint_model(source, checkpoint, device, resolution, flip, latency=False), source.recipe


def _ground_truth(
    recipe: Mapping[str, Any] | None, annotations: Path | None, images: Path | None, skeleton: Path | None
) -> KeypointDataset:
    """The images to evaluate a network on: the ones named, else data.test of its recipe, if it has one."""
    from ofa_pose.data.splits import DataSettings, load_splits
    from ofa_pose.utils.config import check_config

    if annotations is None and recipe is None:
        raise InputError("eval of an exported model needs ground truth", hint="add --annotations and --images")
    if annotations is None:
        data = check_config(DataSettings, (recipe or {}).get("data") or {}, "the checkpoint's recipe")
        if data.test is None or images is not None:
            what = "eval --checkpoint needs ground truth"
            raise InputError(what, hint="add --annotations and --images, or give its recipe a data.test")
        chosen = {"skeleton": str(skeleton)} if skeleton else {}
        (dataset,) = load_splits(data.model_copy(update=chosen), "test")
        return dataset
    if images is None:
        raise InputError("eval --annotations needs --images", hint="name the folder of the images")
    return _load(annotations, images, skeleton, "exists")


def _load(annotations: Path, images: Path, skeleton: Path | None, check_images: CheckImages) -> KeypointDataset:
    """A dataset and, on stderr, what is odd in it: guessed sigmas, for one, decide the AP."""
    from ofa_pose.data.coco import load_dataset
    from ofa_pose.skeleton import load_skeleton

    dataset = load_dataset(annotations, images, load_skeleton(skeleton) if skeleton else None, check_images)
    for warning in dataset.warnings:
        warn(warning)
    return dataset


def _evaluate(
    model: PoseModel,
    dataset: KeypointDataset,
    resolutions: Sequence[int],
    metric: str,
    batch: int,
    out: Path | None,
    breakdown: bool,
    as_reference: bool,
) -> dict[str, Any]:
    from ofa_pose.checkpoints.checks import check_joints
    from ofa_pose.inference import evaluate as evaluation
    from ofa_pose.pose.geometry import check_resolution, input_frame, warp
    from ofa_pose.pose.litepose_decode import decode_litepose, litepose_frame, litepose_warp, load_matcher
    from ofa_pose.utils import files

    check_joints(model.skeleton, dataset, "the network")
    for resolution in resolutions:
        check_resolution(resolution)
    if as_reference:
        load_matcher()  # refuses before any work where its package is missing
    frame, sample = (litepose_frame, litepose_warp) if as_reference else (input_frame, warp)
    inputs = evaluation.read_inputs(dataset, resolutions[0], batch, frame, sample, more=resolutions[1:])
    evaluator = evaluation.make_evaluator(dataset, metric)
    ways = (model.config, model.flip, decode_litepose if as_reference else None)
    with progress("eval", len(dataset)) as meter:
        done = evaluation.evaluate(model.runner, dataset, inputs, evaluator, *ways, step=meter.step)
    if out:
        files.write_json(out / "results.json", done.results.entries(dataset.category["id"]))
    parts = {"breakdown": evaluation.break_down(evaluator, done.results)} if breakdown else {}
    short_sides = [round(side * frame(side, side, side).scale) for side in resolutions]  # LitePose's code rounds them
    ran = {"resolutions": short_sides, "flip": model.flip}
    return {"metrics": done.metrics, "images": done.images, **ran, "seconds": done.seconds, **parts}


def _score_results(
    annotations: Path | None, results: Path, metric: str, skeleton: Path | None, breakdown: bool
) -> dict[str, Any]:
    from ofa_pose.inference.evaluate import break_down, make_evaluator, read_results

    if annotations is None:
        raise InputError("eval --results needs --annotations", hint="name the ground truth")
    dataset = _load(annotations, annotations.parent, skeleton, "none")
    evaluator, found = make_evaluator(dataset, metric), read_results(results, dataset)
    parts = {"breakdown": break_down(evaluator, found)} if breakdown else {}
    return {"metrics": evaluator.score(found), "images": len(dataset), "seconds": {}, **parts}


def predict(
    source: Annotated[
        str, typer.Argument(help="An image, a video, a camera's number, a folder of images, or a glob in quotes.")
    ],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="Network to run; also an exported .onnx, .xml, .param.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for overlays/ and predictions.json.")],
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = False,
    resolution: Annotated[int | None, typer.Option("--resolution", help="Short side; default: the net's.")] = None,
    threshold: Annotated[
        float,
        typer.Option("--threshold", min=0, max=1, help="Count people, and draw people and joints, above this score."),
    ] = 0.2,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Take so many frames of a video or camera at most.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find people's poses: skeletons drawn on the images or the video, and COCO-format results.

    A camera runs until Ctrl-C or --frames; all that was done is kept. Of a folder its images are taken, not its videos.

    Example: ofa-pose predict photos/ --checkpoint runs/finetuned --out runs/poses
    """
    import ofa_pose
    from ofa_pose.inference.predict import predict_source

    model = ofa_pose.load(checkpoint, device=device, resolution=resolution, flip=flip)
    summary = predict_source(model, source, out, threshold, frames)
    print_result(summary, as_json)
    if summary["failed"]:
        raise OfaPoseError(f"{summary['failed']} of the {summary['unit']} could not be read; the rest is done")
