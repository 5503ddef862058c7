"""A network's AP on a dataset: read, run, decode, score, with the seconds of each."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ofa_pose.backends.runners import Runner
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.records import ImageRecord
from ofa_pose.inference.pose_model import Decoder, Inputs, estimate
from ofa_pose.pose.decode import DecodeConfig, Poses
from ofa_pose.pose.geometry import InputFrame, input_frame, warp
from ofa_pose.pose.metrics import Detections, KeypointEvaluator
from ofa_pose.utils.errors import Fault, InputError
from ofa_pose.utils.files import read_json
from ofa_pose.utils.numbers import are_numbers, as_id, find_id, id_order
from ofa_pose.utils.process import map_ahead

READERS = 4
Part = tuple[int | str, np.ndarray, np.ndarray]
"""An image's id, its poses' keypoints (P, J, 3) in image pixels, and their scores (P,)."""
BATCH_PIXELS = 1 << 20  # of inputs: the maps of so many take 100 MB with the flip test


class Evaluator(Protocol):
    """Scores detections against one ground truth, any number of times, such as `KeypointEvaluator`.

    What a metric of one's own is made of: a callable takes the dataset and gives an evaluator.
    """

    def score(self, detections: Detections) -> dict[str, Any]:
        """Figures by name, JSON values; 'AP', the higher the better, is what networks are compared by."""


MakeEvaluator = Callable[[KeypointDataset], Evaluator]


@dataclass(frozen=True)
class Evaluation:
    """Metrics (AP, AR, …), who was found, and the seconds of each stage.

    'read' is what was waited for; network and decoder of several batches run beside each other, their seconds are
    divided by how many. `draws` are the APs of images drawn with replacement, from which the metric AP_stderr comes;
    None of a metric that has none.
    """

    metrics: dict[str, Any]
    results: Detections
    images: int
    seconds: dict[str, float] = field(default_factory=dict)
    draws: np.ndarray | None = None


def read_inputs(
    dataset: KeypointDataset,
    resolution: int,
    batch: int = 16,
    make_frame: Callable[[int, int, int], InputFrame] = input_frame,
    sample: Callable[[np.ndarray, InputFrame], np.ndarray] = warp,
    more: Sequence[int] = (),
    part: int = 0,
    parts: int = 1,
) -> Iterator[Inputs]:
    """The dataset's images as network inputs, batched by equal input size, read one batch ahead in threads.

    Args:
        batch: images at most; fewer large ones, so that memory does not grow with the resolution.
        make_frame: from an image's width, height and the resolution, how it lies in the input.
        sample: the input of an image in its frame.
        more: further resolutions to give each image at, for a multi-scale test.
        part, parts: of all batches, numbered from 0, every `parts`th from number `part` on.
    """

    def read(pair: tuple[ImageRecord, list[InputFrame]]) -> list[np.ndarray]:
        image = pair[0].read()
        return [sample(image, frame) for frame in pair[1]]

    def sizes(pair: tuple[ImageRecord, list[InputFrame]]) -> list[tuple[int, int]]:
        return [(frame.height, frame.width) for frame in pair[1]]

    framed: list[tuple[ImageRecord, list[InputFrame]]] = []
    for record in dataset.images:
        try:
            framed.append((record, [make_frame(record.width, record.height, side) for side in (resolution, *more)]))
        except InputError as error:
            raise InputError(error.faults[0].what, record.path, error.faults[0].hint) from None
    framed.sort(key=lambda pair: (sizes(pair), id_order(pair[0].id)))
    largest = max((sum(height * width for height, width in sizes(pair)) for pair in framed), default=1)
    ahead = min(batch, 1 + BATCH_PIXELS // largest) + READERS
    batches: list[list[tuple[ImageRecord, list[InputFrame]]]] = []
    for shapes, group in groupby(framed, key=sizes):
        size = max(1, min(batch, BATCH_PIXELS // sum(height * width for height, width in shapes)))
        while chosen := list(islice(group, size)):
            batches.append(chosen)
    own = batches[part::parts]
    with closing(map_ahead(read, chain.from_iterable(own), READERS, ahead)) as images:
        for chosen in own:
            ids = tuple(record.id for record, _ in chosen)
            stacks = [np.stack(inputs) for inputs in zip(*islice(images, len(chosen)), strict=True)]
            frames = zip(*(frames for _, frames in chosen), strict=True)
            first, *others = (Inputs(ids, *pair) for pair in zip(frames, stacks, strict=True))
            yield replace(first, resized=tuple(others))


def evaluate(
    runner: Runner,
    dataset: KeypointDataset,
    inputs: Iterable[Inputs],
    evaluator: Evaluator | None = None,
    config: DecodeConfig | None = None,
    flip: bool = False,
    decoder: Decoder | None = None,
    step: Callable[[int], None] | None = None,
    resample: bool = True,
    gather: Callable[[list[list[Part]]], list[list[Part]]] | None = None,
) -> Evaluation:
    """AP of a network on `dataset`, whose images come as `inputs` (see `read_inputs`; a list may be used again).

    As many batches are worked on at once as the runner's `streams`; never more than one more is held in memory.
    `evaluator` may be given where the same ground truth is scored many times; `step` gets the number of images done.
    Without `resample` the AP has no standard error. Where several processes have a part of the batches each, `gather`
    makes what was found on all batches, in their order, of what was found on these.
    """
    start = time.perf_counter()
    seconds = {"read": 0.0, "network": 0.0, "decode": 0.0, "score": 0.0}
    parts: list[list[Part]] = []  # of a batch each

    def work(batch: Inputs) -> tuple[Inputs, list[Poses], dict[str, float]]:
        return batch, *estimate(runner, batch, dataset.skeleton, config, flip, decoder)

    def timed() -> Iterator[Inputs]:
        before = time.perf_counter()
        for batch in inputs:
            seconds["read"] += time.perf_counter() - before
            yield batch
            before = time.perf_counter()

    with closing(map_ahead(work, timed(), runner.streams, runner.streams + 1)) as done:
        for batch, poses, spent in done:
            placed = zip(batch.ids, batch.frames, poses, strict=True)
            parts.append([(name, frame.poses_to_image(found.keypoints), found.scores) for name, frame, found in placed])
            for stage, value in spent.items():
                seconds[stage] += value / runner.streams
            if step:
                step(len(poses))
    before = time.perf_counter()
    images = [image for batch in (gather(parts) if gather else parts) for image in batch]
    results = Detections.join(images, len(dataset.skeleton.joints))
    scored = score(evaluator or make_evaluator(dataset), results, len(images), resample)
    end = time.perf_counter()
    return replace(scored, seconds={**seconds, "score": end - before, "total": end - start})


def score(evaluator: Evaluator, results: Detections, images: int, resample: bool = True) -> Evaluation:
    """The metrics of what was found on so many images, with the AP's standard error where the evaluator gives it."""
    if resample and isinstance(evaluator, KeypointEvaluator):
        metrics, draws = evaluator.score_resampled(results)
        return Evaluation(metrics, results, images, draws=draws)
    return Evaluation(evaluator.score(results), results, images)


def read_results(path: str | Path, dataset: KeypointDataset) -> Detections:
    """Who is in a COCO-format keypoint results file, checked against the dataset. Raises InputError.

    An image is named by its id, or, as `predict` does, by its file. Entries of the annotation file's further categories
    are left out; one without category_id is a person.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise InputError("is not a COCO results file", path, "write a list of {image_id, keypoints, score}")
    known, named = {record.id for record in dataset.images}, cache(lambda: _ids_by_file(dataset))
    faults, people, width = [], [], 3 * len(dataset.skeleton.joints)
    for number, entry in enumerate(value):
        category = as_id(entry.get("category_id")) if isinstance(entry, dict) else None
        if category != dataset.category["id"] and find_id(category, dataset.other_categories) is not None:
            continue
        image = entry.get("image_id") if isinstance(entry, dict) else None
        found = find_id(image, known)
        if found is None and isinstance(image, str):
            found = named().get(image)
        problem = _result_problem(entry, found is not None, width)
        if problem:
            faults.append(Fault(problem, f"{path}: result {number}", "correct or remove this entry"))
        else:
            people.append({**entry, "image_id": found})
    if faults:
        raise InputError.of(faults)
    return Detections.read(people, len(dataset.skeleton.joints))


def _ids_by_file(dataset: KeypointDataset) -> dict[str, int | str]:
    """The ids of images by their file names, with folders and, where only one is called so, without."""
    alone: dict[str, list[int | str]] = defaultdict(list)
    for record in dataset.images:
        alone[record.path.name].append(record.id)
    paths = {
        os.path.relpath(record.path, dataset.images_dir).replace(os.sep, "/"): record.id for record in dataset.images
    }
    return {**{name: ids[0] for name, ids in alone.items() if len(ids) == 1}, **paths}


def _result_problem(entry: Any, is_known: bool, width: int) -> str:
    if not isinstance(entry, dict) or not {"image_id", "keypoints", "score"} <= entry.keys():
        return "has no image_id, keypoints and score"
    if not is_known:
        return f"image_id {entry['image_id']!r:.60} is not in the annotations"
    numbers = entry["keypoints"] if isinstance(entry["keypoints"], list) else []
    if len(numbers) != width:
        return f"holds {len(numbers)} keypoint numbers, the annotations {width}"
    if not are_numbers([*numbers, entry["score"]], width + 1):
        return "holds a keypoint or score that is not a finite number"
    return ""


def make_evaluator(dataset: KeypointDataset, metric: str | MakeEvaluator | None = None) -> Evaluator:
    """What scores detections on this dataset's ground truth; by default with the dataset's own metric."""
    if callable(metric):
        return metric(dataset)
    truth = dataset.ground_truth
    return KeypointEvaluator(truth["images"], truth["annotations"], dataset.skeleton, metric or dataset.metric)


def break_down(evaluator: Evaluator, detections: Detections) -> dict[str, Any]:
    """`KeypointEvaluator.breakdown`. Raises InputError for an evaluator of another kind."""
    if not isinstance(evaluator, KeypointEvaluator):
        raise InputError("this metric has no breakdown", hint="ask for none, or for the metric coco or crowdpose")
    return evaluator.breakdown(detections)


def count_people(dataset: KeypointDataset) -> int:
    """How many people an AP is taken of: those with a labelled joint, crowds aside."""
    return sum(record.counted for record in dataset.images)


def check_evaluable(dataset: KeypointDataset, hint: str) -> None:
    """Raise InputError where no AP can be taken on a dataset: nobody in it has a labelled joint and is not a crowd."""
    if not dataset.people or not count_people(dataset):
        what = f"none of the {len(dataset)} images to evaluate has a labelled person, crowds aside"
        if dataset.people:
            what += f"; of {dataset.people} with labelled joints num_keypoints says 0"
            hint = f"correct or remove num_keypoints, or {hint}"
        raise InputError(what, dataset.annotations_path, hint)
