"""`ofa_pose.load`, `evaluate` (`ofa-pose eval`) and `predict`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.api.decorators import check_range, checked_call, single_process
from ofa_pose.backends.runtimes import SUFFIXES
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.result import Result

if TYPE_CHECKING:
    import numpy as np

    from ofa_pose.checkpoints.checkpoint import Checkpoint
    from ofa_pose.data.keypoint_dataset import CheckImages, KeypointDataset
    from ofa_pose.inference.evaluate import Evaluation, Evaluator, MakeEvaluator
    from ofa_pose.inference.pose_model import PoseModel
    from ofa_pose.inference.predict import PredictionResult
    from ofa_pose.skeleton import Skeleton

DECODINGS = ("ours", "reference")
WRITING_S = 600.0  # for another evaluation to write its results
DECIMALS = 5  # of the APs that are kept of images drawn again


@dataclass(frozen=True)
class EvaluationResult(Result):
    """How good a network or a results file is.

    Attributes:
        metrics: AP, AR and the metric's other figures; None where the ground truth holds no such people. AP_stderr is
            the AP's standard error, by drawing the images again (bootstrap).
        images: how many were evaluated.
        people: how many on them count: with a labelled joint, crowds aside.
        resolutions: short sides that the network saw them at, in pixels.
        flip: whether heatmaps were averaged with the mirrored images'.
        seconds: of each stage.
        breakdown: AP, AR and people of each joint and size, where it was asked for; of joints that have an opposite
            also how often left and right are confused.
    """

    metrics: dict[str, Any]
    images: int
    people: int
    resolutions: tuple[int, ...] | None
    flip: bool | None
    seconds: dict[str, float]
    breakdown: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """The fields; those that a results file has not, and a breakdown that was not asked for, are left out."""
        return {name: value for name, value in super().to_dict().items() if value is not None}


@checked_call
def load(
    checkpoint: str | Path, device: str | None = None, resolution: int | None = None, flip: bool = False
) -> PoseModel:
    """A model that finds the poses on an image: `model(image)`, see `ofa_pose.inference.pose_model.PoseModel`.

    Args:
        checkpoint: a checkpoint file, a run directory (its best checkpoint), a shipped name, or an exported model
            (such as an .onnx file).
        device: such as 'cpu' or 'cuda:1'; None takes the GPU if there is one. Exported models run on the CPU.
        resolution: what an image's short side is scaled to, in pixels; None takes the network's own.
        flip: average with the mirrored image: better and half as fast.

    Raises:
        InputError: no such checkpoint, one of a supernet, a device for an exported model, or torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        hint = "install it; a device without it runs exported models with ofa_pose.runtime.load"
        raise InputError("torch is not installed", hint=hint)
    return _load(checkpoint, device, resolution, flip)


def _load(
    model: str | Path | Checkpoint, device: str | None, resolution: int | None, flip: bool, latency: bool = True
) -> PoseModel:
    """See `load`; `latency`: one image is to be done soon, rather than many at once; see `FastestRunner`."""
    import torch

    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.checkpoints.checkpoint import Checkpoint, fixed_net, load_checkpoint
    from ofa_pose.inference.fastest import FastestRunner
    from ofa_pose.inference.pose_model import PoseModel, load_exported
    from ofa_pose.pose.geometry import check_resolution

    if not isinstance(model, Checkpoint) and Path(model).suffix in SUFFIXES:
        if device is not None:
            raise InputError("an exported model runs on the CPU", model, "name no device, or a checkpoint")
        threads, streams = (0, 1) if latency else (1, torch.get_num_threads())
        return load_exported(model, threads, resolution, flip, streams)
    source, where = (model, "") if isinstance(model, Checkpoint) else (load_checkpoint(model), model)
    net = fixed_net(source, where)
    if resolution is not None:
        check_resolution(resolution)
    runner, side = FastestRunner(pick_device(device), latency)(net), resolution or source.spec.resolution
    return PoseModel(runner, source.spec, source.skeleton, side, flip, source.decode)


@single_process
def evaluate(
    checkpoint: str | Path | None = None,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    results: str | Path | None = None,
    flip: bool | None = None,
    resolution: int | None = None,
    metric: str | MakeEvaluator | None = None,
    scales: Sequence[float] | None = None,
    decoding: str | None = None,
    batch: int | None = None,
    skeleton: str | Path | None = None,
    out: str | Path | None = None,
    breakdown: bool = False,
    device: str | None = None,
) -> EvaluationResult:
    """OKS average precision of a checkpoint, or of an existing results file.

    The joints' flip pairs, sigmas and limbs are those that the network was trained with, unless `skeleton` is given.

    Example: ofa-pose eval --checkpoint runs/finetuned --annotations val.json --images val2017 --flip

    Args:
        checkpoint: network to evaluate; also an exported {suffixes}.
        annotations: ground truth in COCO format, or another that data convert reads; default: data.test of the
            checkpoint's recipe.
        images: folder of the images; default: where the annotations say, or beside them.
        results: score this COCO results file instead.
        flip: average with the mirrored image, as by default.
        resolution: short side in pixels; default: the net's.
        metric: coco, or crowdpose; default: data.metric of the checkpoint's recipe, else coco. In Python also what
            makes an `ofa_pose.inference.evaluate.Evaluator` of the dataset.
        scales: also average with these sizes, times the resolution, as in 0.75,1.5.
        decoding: ours (the default), or reference: input and decoding as in LitePose's own code.
        batch: images a batch; default: 16.
        out: also write metrics.json and, of a checkpoint, results.json here; `report` finds them inside a run, or
            beside it.
        breakdown: also AP and AR of each joint and size, and how often left and right are confused.

    Raises:
        InputError: options that exclude each other, no ground truth, or files that do not fit.
    """
    from ofa_pose.pose.bootstrap import few_people
    from ofa_pose.pose.metrics import METRICS
    from ofa_pose.utils import atomic, files
    from ofa_pose.utils.console import warn
    from ofa_pose.utils.run_dir import alone_in

    for what, given, known in (("metric", metric, METRICS), ("decoding", decoding, DECODINGS)):
        if isinstance(given, str) and given not in known:
            raise InputError(f"no such {what}: '{given}'", hint=nearest(given, known))
    check_range(1, 2**17, batch=batch)
    if (checkpoint is None) == (results is None):
        raise InputError("eval needs --checkpoint or --results, and not both", hint="name one of them")
    of_a_network = {"images": images, "flip/--no-flip": flip, "resolution": resolution, "scales": scales}
    of_a_network |= {"decoding": decoding, "batch": batch, "device": device}
    if results is not None and any(value is not None for value in of_a_network.values()):
        named = ", ".join(f"--{name}" for name, value in of_a_network.items() if value is not None)
        raise InputError("--results are decoded already", hint=f"leave out {named}")
    if out:
        atomic.check_folder(out)

    from ofa_pose.inference.evaluate import break_down, count_people, make_evaluator, read_results, score

    sides = None
    if checkpoint is not None:
        from ofa_pose.checkpoints.checkpoint import check_joints, load_checkpoint

        source = checkpoint if Path(checkpoint).suffix in SUFFIXES else load_checkpoint(checkpoint, kind="net")
        # As it is read: the file may be another one when the evaluation is done.
        sha256 = files.sha256(source) if isinstance(source, str | Path) else source.sha256
        model = _load(source, device, resolution, flip is not False, latency=False)
        as_reference = decoding == "reference"
        resolutions = [model.resolution, *_scaled(model.resolution, scales or (), as_reference)]
        dataset = _ground_truth(getattr(source, "recipe", None), annotations, images, skeleton, model.skeleton)
        check_joints(model.skeleton, dataset, "the network")
        truth = dataset.fingerprint  # now: the file may be another one when the evaluation is done
        if getattr(source, "info", {}).get("train_sha256") == truth:
            warn(f"{dataset.annotations_path}: the network was trained on these images; its AP on them says little")
        evaluator = make_evaluator(dataset, metric)
        done, sides = _run(model, dataset, evaluator, resolutions, batch or 16, as_reference)
    else:
        assert results is not None
        if annotations is None:
            raise InputError("eval --results needs --annotations", hint="name the ground truth")
        beside = Path(annotations).parent if Path(annotations).suffix.lower() == ".zip" else None  # no image is read
        dataset = _ground_truth({}, annotations, beside, skeleton, check_images="none")
        evaluator, found = make_evaluator(dataset, metric), read_results(results, dataset)
        done = score(evaluator, found, len(dataset))
    parts = break_down(evaluator, done.results) if breakdown else None
    flipped = None if checkpoint is None else flip is not False and dataset.skeleton.mirror
    people = count_people(dataset)
    few = few_people(people, done.metrics.get("AP"), done.metrics.get("AP_stderr"), "the images")
    if few:
        warn(few)
    if not people:
        warn(f"{dataset.annotations_path}: none of the images has a labelled person, crowds aside: no figure exists")
    result = EvaluationResult(done.metrics, done.images, people, sides, flipped, done.seconds, parts)
    if out:
        origin = _origin(model, source, sha256, dataset, done.draws, Path(out)) if checkpoint is not None else {}
        Path(out).mkdir(parents=True, exist_ok=True)
        with alone_in(Path(out), WRITING_S):  # results and figures are of one evaluation
            if checkpoint is not None:
                (Path(out) / "metrics.json").unlink(missing_ok=True)  # of one before, whose results go now
                files.write_json(Path(out) / "results.json", done.results.entries(dataset.category["id"]))
            files.write_json(Path(out) / "metrics.json", {**result.to_dict(), **origin})
    return result


def _origin(
    model: PoseModel,
    source: str | Path | Checkpoint,
    sha256: str | None,
    dataset: KeypointDataset,
    draws: np.ndarray | None,
    out: Path,
) -> dict[str, Any]:
    """What an evaluation was of, for its metrics.json: the network, the ground truth, the date.

    The APs of images drawn again are kept, so that the difference of two networks' APs has a standard error.
    """
    from ofa_pose.backends.on_device import cpu_name, today
    from ofa_pose.checkpoints.provenance import versions
    from ofa_pose.utils.result import plain

    file = Path(source) if isinstance(source, str | Path) else source.path
    place = None if file is None else file.absolute()
    network = {"checkpoint": place, "sha256": sha256, "spec": model.spec}
    truth, metric = dataset.annotations_path.absolute(), dataset.metric
    data = {"annotations": truth, "images": dataset.images_dir.absolute(), "sha256": dataset.fingerprint}
    drawn = None if draws is None else draws.round(DECIMALS).tolist()
    origin = {"network": network, "data": {**data, "metric": metric}, "out": out.absolute(), "draws": drawn}
    found: dict[str, Any] = plain({**origin, "date": today(), "versions": versions(), "processor": cpu_name()})
    return found


def _run(
    model: PoseModel,
    dataset: KeypointDataset,
    evaluator: Evaluator,
    resolutions: Sequence[int],
    batch: int,
    as_reference: bool,
) -> tuple[Evaluation, tuple[int, ...]]:
    """What a network finds, and the sides of its inputs, which LitePose's code rounds."""
    from ofa_pose.inference.evaluate import evaluate, read_inputs
    from ofa_pose.pose.geometry import check_resolution, input_frame, warp
    from ofa_pose.pose.litepose_decode import decode_litepose, litepose_frame, litepose_warp, load_matcher
    from ofa_pose.utils.console import progress

    for resolution in resolutions:
        check_resolution(resolution)
    if as_reference:
        load_matcher()  # refuses before any work where its package is missing
    frame, sample = (litepose_frame, litepose_warp) if as_reference else (input_frame, warp)
    inputs = read_inputs(dataset, resolutions[0], batch, frame, sample, more=resolutions[1:])
    ways = (model.config, model.flip, decode_litepose if as_reference else None)
    with progress("eval", len(dataset)) as meter:
        done = evaluate(model.runner, dataset, inputs, evaluator, *ways, step=meter.step)
    return done, tuple(round(side * frame(side, side, side).scale) for side in resolutions)


def _ground_truth(
    recipe: Mapping[str, Any] | None,
    annotations: str | Path | None,
    images: str | Path | None,
    skeleton: str | Path | None,
    trained: Skeleton | None = None,
    check_images: CheckImages = "exists",
) -> KeypointDataset:
    """The images to evaluate on: the ones named, else data.test of a checkpoint's recipe, if it has one."""
    from ofa_pose.data.keypoint_dataset import DataSettings, Source, load_splits
    from ofa_pose.utils.config import check_config

    recipe_data = (recipe or {}).get("data") or {}
    if annotations is not None:
        named = Source(annotations=str(annotations), images=None if images is None else str(images))
        data = DataSettings(test=named, metric=recipe_data.get("metric", "coco"))
    elif recipe is None:
        raise InputError("eval of an exported model needs ground truth", hint="add --annotations FILE")
    else:
        data = check_config(DataSettings, recipe_data, "the checkpoint's recipe")
        if data.test is None or images is not None:
            what = "eval --checkpoint needs ground truth"
            raise InputError(what, hint="add --annotations FILE, or give its recipe a data.test")
    chosen = {"skeleton": str(skeleton)} if skeleton else {}
    (dataset,) = load_splits(data.model_copy(update=chosen), "test", trained=trained, check_images=check_images)
    return dataset


def _scaled(resolution: int, scales: Sequence[float], as_reference: bool) -> list[int]:
    """The further resolutions that --scales names, in multiples of 32 and each once."""
    from ofa_pose.arch.space import RESOLUTION_MULTIPLE as MULTIPLE

    if scales and as_reference:
        raise InputError("--decoding reference knows one scale", hint="leave out --scales")
    named = f"--scales {','.join(map(str, scales))}"
    if not all(0 < scale < 100 for scale in scales):
        raise InputError(f"{named} are not sizes", hint="give positive numbers, such as 0.75,1.5")
    sides = dict.fromkeys(max(1, round(resolution * scale / MULTIPLE)) * MULTIPLE for scale in scales)
    further = [side for side in sides if side != resolution]
    if scales and not further:
        what = f"{named} round to the resolution itself, {resolution} pixels"
        raise InputError(what, hint=f"choose sizes that differ by {MULTIPLE} pixels or more")
    return further


@single_process
def predict(
    source: str | Path | int,
    *,
    checkpoint: str | Path,
    out: str | Path,
    flip: bool = False,
    resolution: int | None = None,
    threshold: float = 0.2,
    frames: int | None = None,
    track: bool = False,
    smooth: bool = False,
    device: str | None = None,
) -> PredictionResult:
    """Find people's poses: skeletons drawn on the images or the video, and COCO-format results.

    A camera or stream runs until Ctrl-C or `frames`; all that was done is kept. Of a folder its images are taken, not
    its videos.

    Example: ofa-pose predict photos/ --checkpoint runs/finetuned --out runs/poses

    Args:
        source: an image, a video, a camera's number, a stream's address (rtsp://…), a folder of images, or a glob in
            quotes.
        checkpoint: network to run; also an exported {suffixes}.
        out: folder for overlays/ and predictions.json.
        flip: average with the mirrored image.
        resolution: short side; default: the net's.
        threshold: count people, and draw people and joints, above this score.
        frames: take so many frames of a video, camera or stream at most.
        track: number people over the film; somebody who is lost for a second at most comes back with their number.
        smooth: take the jitter off the joints of people who are followed.

    Raises:
        InputError: there is nothing to read, no such checkpoint, or the overlays would replace the source.
        OfaPoseError: the video cannot be written.
    """
    from ofa_pose.inference.predict import predict_source
    from ofa_pose.utils.console import warn

    check_range(0, 1, threshold=threshold)
    check_range(1, frames=frames)
    model = _load(checkpoint, device, resolution, flip)
    if flip and not model.skeleton.mirror:
        warn("the network's skeleton does not know left from right: without the mirrored image")
    return predict_source(model, source, out, threshold, frames, track, smooth)
