"""A network's AP on a dataset: read, run, decode, score, with the seconds of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.ahead import map_ahead
from ofa_pose.backends import Runner
from ofa_pose.data.coco import ImageRecord, KeypointDataset
from ofa_pose.data.numbers import are_numbers
from ofa_pose.errors import Fault, InputError
from ofa_pose.files import read_json
from ofa_pose.pose.decode import DecodeConfig, Poses, decode
from ofa_pose.pose.geometry import InputFrame, input_frame, warp
from ofa_pose.pose.metrics import Detections, KeypointEvaluator
from ofa_pose.skeleton import Skeleton

READERS = 4
BATCH_PIXELS = 1 << 21  # of inputs: the maps of so many take 200 MB with the flip test
Decoder = Callable[[np.ndarray, np.ndarray, Sequence[int]], list[Poses]]


@dataclass(frozen=True)
class Inputs:
    """A batch of network inputs of one size: image ids, frames, RGB uint8 (B, H, W, 3)."""

    ids: tuple[int | str, ...]
    frames: tuple[InputFrame, ...]
    images: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Metrics (AP, AR, …), who was found, and the seconds of each stage.

    'read' is what was waited for; network and decoder run beside each other, so that the stages add up to more than
    'total'."""

    metrics: dict[str, Any]
    results: Detections
    images: int
    seconds: dict[str, float] = field(default_factory=dict)


def read_inputs(
    dataset: KeypointDataset,
    resolution: int,
    batch: int = 16,
    make_frame: Callable[[int, int, int], InputFrame] = input_frame,
    sample: Callable[[np.ndarray, InputFrame], np.ndarray] = warp,
) -> Iterator[Inputs]:
    """The dataset's images as network inputs, batched by equal input size, read one batch ahead in threads.

    Args:
        batch: images at most; fewer large ones, so that memory does not grow with the resolution.
        make_frame: from an image's width, height and the resolution, how it lies in the input.
        sample: the input of an image in its frame.
    """

    def read(pair: tuple[ImageRecord, InputFrame]) -> np.ndarray:
        return sample(pair[0].read(), pair[1])

    framed = [(record, make_frame(record.width, record.height, resolution)) for record in dataset.images]
    framed.sort(key=lambda pair: (pair[1].height, pair[1].width, pair[0].id))
    with closing(map_ahead(read, framed, READERS, batch + READERS)) as images:
        for (height, width), group in groupby(framed, key=lambda pair: (pair[1].height, pair[1].width)):
            members = list(group)
            size = max(1, min(batch, BATCH_PIXELS // (height * width)))
            for part in (members[start : start + size] for start in range(0, len(members), size)):
                inputs = np.stack(list(islice(images, len(part))))
                yield Inputs(tuple(r.id for r, _ in part), tuple(f for _, f in part), inputs)


def estimate(
    runner: Runner,
    images: np.ndarray,
    skeleton: Skeleton,
    config: DecodeConfig | None = None,
    flip: bool = False,
    decoder: Decoder | None = None,
) -> tuple[list[Poses], dict[str, float]]:
    """The poses (in input pixels) on RGB uint8 images (B, H, W, 3), and the seconds of 'network' and 'decode'.

    `decoder` takes the place of our own, whose `config` then says nothing.
    """
    start = time.perf_counter()
    low, high = runner(images)
    if flip:
        low, high = _with_flipped(low, high, *runner(images[:, :, ::-1]), skeleton.flip_index)
    middle = time.perf_counter()
    order = skeleton.grouping_order
    poses = decoder(low, high, order) if decoder else decode(low, high, order, config)
    return poses, {"network": middle - start, "decode": time.perf_counter() - middle}


def _with_flipped(
    low: np.ndarray, high: np.ndarray, mirrored_low: np.ndarray, mirrored_high: np.ndarray, index: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps averaged with the mirrored images' and the tags of both: low (B, 3J, h, w), high (B, J, H, W)."""
    joints = len(index)
    both = np.empty((len(low), 3 * joints, *low.shape[2:]), np.float32)
    both[:, joints : 2 * joints] = low[:, joints:]
    mean = np.empty_like(high)
    for joint, other in enumerate(index):  # joint by joint: a copy of all mirrored maps would leave the cache
        np.add(low[:, joint], mirrored_low[:, other, :, ::-1], out=both[:, joint])
        np.add(high[:, joint], mirrored_high[:, other, :, ::-1], out=mean[:, joint])
        both[:, 2 * joints + joint] = mirrored_low[:, joints + other, :, ::-1]
    both[:, :joints] *= 0.5
    mean *= 0.5
    return both, mean


def evaluate(
    runner: Runner,
    dataset: KeypointDataset,
    inputs: Iterable[Inputs],
    evaluator: KeypointEvaluator | None = None,
    config: DecodeConfig | None = None,
    flip: bool = False,
    decoder: Decoder | None = None,
) -> Evaluation:
    """AP of a network on `dataset`, whose images come as `inputs` (see `read_inputs`; a list may be used again).

    As many batches are worked on at once as the runner's `streams`; never more than one more is held in memory.
    `evaluator` may be given where the same ground truth is scored many times.
    """
    start = time.perf_counter()
    seconds = {"read": 0.0, "network": 0.0, "decode": 0.0, "score": 0.0}
    parts: list[tuple[int | str, np.ndarray, np.ndarray]] = []

    def work(batch: Inputs) -> tuple[Inputs, list[Poses], dict[str, float]]:
        return batch, *estimate(runner, batch.images, dataset.skeleton, config, flip, decoder)

    def timed() -> Iterator[Inputs]:
        iterator = iter(inputs)
        while True:
            before = time.perf_counter()
            batch = next(iterator, None)
            seconds["read"] += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    with closing(map_ahead(work, timed(), runner.streams, runner.streams + 1)) as done:
        for batch, poses, spent in done:
            for image_id, frame, found in zip(batch.ids, batch.frames, poses, strict=True):
                parts.append((image_id, frame.poses_to_image(found.keypoints), found.scores))
            for stage, value in spent.items():
                seconds[stage] += value / runner.streams
    before = time.perf_counter()
    results = Detections.join(parts, len(dataset.skeleton.joints))
    metrics = (evaluator or make_evaluator(dataset)).score(results)
    end = time.perf_counter()
    return Evaluation(metrics, results, len(parts), {**seconds, "score": end - before, "total": end - start})


def read_results(path: str | Path, dataset: KeypointDataset) -> Detections:
    """Who is in a COCO-format keypoint results file, checked against the dataset. Raises InputError."""
    value = read_json(path)
    if not isinstance(value, list):
        raise InputError("is no COCO results file", path, "write a list of {image_id, keypoints, score}")
    known, width = {record.id for record in dataset.images}, 3 * len(dataset.skeleton.joints)
    faults = []
    for number, entry in enumerate(value):
        problem = _result_problem(entry, known, width)
        if problem:
            faults.append(Fault(problem, f"{path}: result {number}", "mend or remove this entry"))
    if faults:
        raise InputError.of(faults)
    return Detections.read(value, len(dataset.skeleton.joints))


def _result_problem(entry: Any, known: Set[Any], width: int) -> str:
    if not isinstance(entry, dict) or not {"image_id", "keypoints", "score"} <= entry.keys():
        return "has no image_id, keypoints and score"
    if not isinstance(entry["image_id"], int | str) or entry["image_id"] not in known:
        return f"image_id {entry['image_id']!r} is not in the annotations"
    numbers = entry["keypoints"] if isinstance(entry["keypoints"], list) else []
    if len(numbers) != width:
        return f"holds {len(numbers)} keypoint numbers, the annotations {width}"
    if not are_numbers([*numbers, entry["score"]], width + 1):
        return "holds a keypoint or score that is no finite number"
    return ""


def make_evaluator(dataset: KeypointDataset, metric: str = "coco") -> KeypointEvaluator:
    """The scorer of this dataset's ground truth."""
    truth = dataset.ground_truth
    return KeypointEvaluator(truth["images"], truth["annotations"], dataset.skeleton, metric)
