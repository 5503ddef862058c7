"""The int8 form of an exported ONNX or LiteRT model, calibrated on images; see `backends.onnxruntime_int8`.

LiteRT's operators are integer ones; of them stay float which do in ONNX.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ofa_pose.backends.litert import SIGNATURE, LitertRunner, with_metadata
from ofa_pose.backends.on_device import time_runs
from ofa_pose.backends.onnxruntime import OnnxRunner
from ofa_pose.backends.onnxruntime_int8 import measure_ranges, quantised
from ofa_pose.backends.runners import INPUT, Runner, planes
from ofa_pose.checkpoints.checkpoint import check_joints
from ofa_pose.data.keypoint_dataset import DataSettings, KeypointDataset, Source, load_splits
from ofa_pose.formats.reading import split_name
from ofa_pose.inference.evaluate import evaluate, make_evaluator, read_inputs
from ofa_pose.inference.quantised import BATCH, CALIBRATION_IMAGES, choose_calibration
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils import atomic, files
from ofa_pose.utils.config import check_config
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.seeding import generator

EVALUATION_IMAGES = 500
LITERT_INTEGER = "^(stages|deconv)"  # the operators that compute in integers, by what they write
TOLERATED_AP = 0.02  # a larger loss is reported
TURNS, REPEATS = 5, 4


@dataclass(frozen=True)
class Int8Data:
    """Training images that the ranges of activations come from, and those that its AP is taken of, if any."""

    calibration: KeypointDataset
    evaluation: KeypointDataset | None = None


def int8_data(
    recipe: Mapping[str, Any], skeleton: Skeleton, calibration: Source | None = None, evaluation: Source | None = None
) -> Int8Data:
    """The images named, else those of a checkpoint's recipe: data.train, and data.test or data.val where it is there.

    Raises InputError: nothing to calibrate on, what is named cannot be read, or it is evaluated on other joints.
    """
    data = check_config(DataSettings, recipe.get("data") or {}, "the checkpoint's recipe")
    there = (split for split in (data.test, data.val) if split is not None)
    named = (split for split in there if split_name(split.annotations)[0].exists())
    test = evaluation or next(named, None)
    changed = {"train": calibration, "search": calibration} if calibration else {}  # nothing of it is held out
    data = data.model_copy(update={**changed, "test": test})
    if data.train is None:
        hint = "add --calibration-annotations FILE --calibration-images DIR, training images"
        raise InputError("int8 needs images to calibrate on, and the checkpoint's recipe names none", hint=hint)
    (train,) = load_splits(data, "train", trained=skeleton)
    if test is None:
        return Int8Data(train)
    (evaluated,) = load_splits(data, "test", trained=skeleton)
    check_joints(skeleton, evaluated, "the network")
    return Int8Data(train, evaluated)


def export_int8(
    source: str | Path,
    target: str | Path,
    data: Int8Data,
    resolution: int,
    config: DecodeConfig | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    threads: int = 0,
    form: str = "onnx",
) -> dict[str, Any]:
    """Write the int8 form of a model of ours, and say what it gains and loses.

    Args:
        source: a model that was exported as `form`; its metadata go along, with 'quantisation' added.
        resolution: the short side of its inputs, in pixels.
        config: the decoder's settings, for the AP.
        calibration_images: so many of the calibration images at most; a fixed choice. At most 500 are evaluated.
        threads: that an image is computed in; 0: the runtime chooses.
        form: onnx or litert.

    Returns:
        {'calibration', 'calibration_images', 'ms', 'float_ms', 'bytes', 'float_bytes'}: the annotation file of the
        images calibrated on and their number, the median times of one image and the files' sizes; where there are
        evaluation images 'AP': {'float', 'int8', 'lost', 'images'}, without flip test, and 'warning' where more than
        0.02 is lost, or where nobody is there to take an AP of.

    Raises:
        InputError: a calibration image is unreadable; nothing is written.
    """
    calibration = choose_calibration(data.calibration, calibration_images)
    inputs = (batch.images for batch in read_inputs(calibration, resolution, BATCH))
    quantiser = QUANTISERS[form]
    quantiser.quantise(source, target, inputs, len(calibration))
    runners = [quantiser.open(path, threads) for path in (source, target)]
    float_ms, int8_ms = _times(runners, resolution)
    summary: dict[str, Any] = {"calibration": str(calibration.annotations_path)}
    summary |= {"calibration_images": len(calibration), "ms": int8_ms, "float_ms": float_ms}
    summary |= {"bytes": Path(target).stat().st_size, "float_bytes": Path(source).stat().st_size}
    if data.evaluation is None:
        return summary
    images = data.evaluation.choose_people(EVALUATION_IMAGES, "int8", "evaluation")
    if not any(record.counted for record in images.images):
        nobody = f"none of the {len(images)} images of {images.annotations_path} has a labelled person, crowds aside"
        return {**summary, "warning": f"not compared with float32, because {nobody}"}
    evaluator = make_evaluator(images)
    before, after = (
        evaluate(runner, images, read_inputs(images, resolution, BATCH), evaluator, config, resample=False).metrics[
            "AP"
        ]
        for runner in runners
    )
    lost = before - after
    summary["AP"] = {"float": before, "int8": after, "lost": lost, "images": len(images)}
    if lost > TOLERATED_AP:
        summary["warning"] = f"int8 loses {lost:.3f} AP, more than {TOLERATED_AP}; calibrate on images like those"
    return summary


def quantise_onnx(source: str | Path, target: str | Path, inputs: Iterable[np.ndarray], images: int) -> None:
    """Write the int8 form of an ONNX model of ours. Raises InputError where `source` cannot be read.

    Args:
        inputs: the network's inputs to calibrate with, `images` in all: RGB uint8 (B, H, W, 3) of any sizes.
    """
    import onnx

    with files.reading(source):
        try:
            model = onnx.load(str(source))
        except (OSError, MemoryError):
            raise
        except Exception:  # protobuf's errors share no base class but Exception
            raise InputError("is not an ONNX model", source, "export it again") from None
    result = quantised(model, measure_ranges(model, map(planes, inputs)))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    how = _how(images, activations="uint8", format="QDQ")
    onnx.helper.set_model_props(result, {**metadata, "quantisation": how})
    with atomic.replacing(target) as temporary:
        onnx.save(result, str(temporary))


def quantise_litert(source: str | Path, target: str | Path, inputs: Iterable[np.ndarray], images: int) -> None:
    """`quantise_onnx` of a LiteRT model."""
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    metadata = LitertRunner(source).metadata | {"quantisation": _how(images, activations="int8")}
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(LITERT_INTEGER, TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    maker = quantizer.Quantizer(str(source), recipe.get_quantization_recipe())
    batches = [{INPUT: image[None].astype(np.float32)} for some in inputs for image in some]
    shown = io.StringIO()  # its progress
    with warnings.catch_warnings(), redirect_stdout(shown), redirect_stderr(shown):
        warnings.simplefilter("ignore")  # keeping all tensors, which calibration is about, is "for debugging"
        content = bytes(maker.quantize(maker.calibrate({SIGNATURE: batches}, num_threads=1)).quantized_model)
    files.write_bytes(target, with_metadata(content, metadata))


def _how(images: int, **more: str) -> str:
    """What a quantised model says of its making, as JSON."""
    return json.dumps({"weights": "int8", **more, "calibration_images": images})


@dataclass(frozen=True)
class Quantiser:
    """How models of a runtime are opened, (path, threads), and quantised, as `quantise_onnx` does."""

    open: Callable[[str | Path, int], Runner]
    quantise: Callable[[str | Path, str | Path, Iterable[np.ndarray], int], None]
    packages: tuple[str, ...] = ()  # that it needs besides the runtime's


QUANTISERS = MappingProxyType(
    {
        "onnx": Quantiser(OnnxRunner, quantise_onnx),
        "litert": Quantiser(LitertRunner, quantise_litert, ("ai_edge_quantizer",)),
    }
)


def _times(runners: Sequence[Runner], side: int) -> list[float]:
    """Median milliseconds of one square image; the runners take turns, so that a drift of the machine is on all."""
    image = generator("int8", "time").integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    visits = [[time_runs(partial(run, image), REPEATS, REPEATS, 0.0) for run in runners] for _ in range(TURNS)]
    return [float(np.median(seen)) for seen in zip(*visits, strict=True)]
