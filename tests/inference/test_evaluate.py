"""Reading network inputs: all images once, in batches of one size, and no longer than someone wants them."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest

from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.records import ImageRecord
from ofa_pose.inference.evaluate import READERS, evaluate, read_inputs
from ofa_pose.pose.geometry import input_frame, warp


def test_every_image_comes_once_and_as_it_is(tiny_dataset: KeypointDataset) -> None:
    records = {record.id: record for record in tiny_dataset.images}
    seen = []
    for inputs in read_inputs(tiny_dataset, 64, batch=3):
        assert len(inputs.ids) == len(inputs.frames) == len(inputs.images) <= 3
        for image_id, frame, image in zip(inputs.ids, inputs.frames, inputs.images, strict=True):
            record = records[image_id]
            assert frame == input_frame(record.width, record.height, 64)
            np.testing.assert_array_equal(image, warp(record.read(), frame))
        seen += inputs.ids
    assert sorted(seen) == sorted(records)


def test_no_image_is_read_that_nobody_wants(tiny_dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, lock, reads = ImageRecord.read, threading.Lock(), []

    def read(record: ImageRecord) -> Any:
        with lock:
            reads.append(record.id)
        return whole(record)

    monkeypatch.setattr(ImageRecord, "read", read)
    inputs = read_inputs(tiny_dataset, 64, batch=1)
    next(inputs)
    inputs.close()  # type: ignore[attr-defined]
    assert 1 <= len(reads) <= 1 + READERS
    assert threading.active_count() <= 1 + READERS


class Forgetful:
    """Makes maps of nobody, and counts how many of its maps anyone still holds."""

    def __init__(self, streams: int, joints: int) -> None:
        self.streams, self._joints, self._lock = streams, joints, threading.Lock()
        self.alive = self.most = self.calls = 0

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch, height, width, _ = images.shape
        low = np.zeros((batch, 2 * self._joints, height // 4, width // 4), np.float32)
        high = np.zeros((batch, self._joints, height // 2, width // 2), np.float32)
        with self._lock:
            self.calls += 1
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(high, self._gone)
        return low, high

    def _gone(self) -> None:
        with self._lock:
            self.alive -= 1


@pytest.mark.parametrize("streams", [1, 3])
def test_maps_are_held_only_while_they_are_decoded(tiny_dataset: KeypointDataset, streams: int) -> None:
    runner = Forgetful(streams, len(tiny_dataset.skeleton.joints))
    inputs = list(read_inputs(tiny_dataset, 64, batch=1)) * 20
    done = evaluate(runner, tiny_dataset, iter(inputs))
    assert runner.calls == done.images == len(inputs)
    assert 1 <= runner.most <= streams
    assert done.metrics["AP"] == 0 and len(done.results) == 0
    assert set(done.seconds) == {"read", "network", "decode", "score", "total"}


def test_large_inputs_come_in_smaller_batches(tiny_dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [len(inputs.ids) for inputs in read_inputs(tiny_dataset, 64, batch=3)]
    assert max(sizes) == 3
    monkeypatch.setattr("ofa_pose.inference.evaluate.BATCH_PIXELS", 2 * 64 * 64)
    assert max(len(inputs.ids) for inputs in read_inputs(tiny_dataset, 64, batch=3)) <= 2


class Blobs:
    """Sees joints wherever an image is bright, so that there is someone to find in each."""

    streams = 2

    def __init__(self, joints: int) -> None:
        self._joints = joints

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bright = images.max(axis=-1).astype(np.float32)[:, None] / 255
        low, high = (np.repeat(bright[:, :, ::stride, ::stride], self._joints, axis=1) for stride in (4, 2))
        return np.concatenate([low, np.zeros_like(low)], axis=1), high


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_parts_of_an_evaluation_make_the_whole(tiny_dataset: KeypointDataset, parts: int) -> None:
    runner = Blobs(len(tiny_dataset.skeleton.joints))
    whole = evaluate(runner, tiny_dataset, read_inputs(tiny_dataset, 64, 3))
    found: list[Any] = []
    for part in range(parts):
        inputs = read_inputs(tiny_dataset, 64, 3, part=part, parts=parts)
        evaluate(runner, tiny_dataset, inputs, gather=lambda own: found.append(own) or [])  # type: ignore[func-returns-value]
    batches = [own[n] for n in range(len(found[0])) for own in found if n < len(own)]
    again = evaluate(runner, tiny_dataset, iter([]), gather=lambda own: batches)
    assert again.images == whole.images == len(tiny_dataset) and len(whole.results) > 0
    assert again.results.image_ids == whole.results.image_ids
    np.testing.assert_array_equal(again.results.keypoints, whole.results.keypoints)
    assert again.metrics == whole.metrics


def test_further_resolutions_show_the_same_images(tiny_dataset: KeypointDataset) -> None:
    records = {record.id: record for record in tiny_dataset.images}
    for inputs in read_inputs(tiny_dataset, 64, batch=3, more=(96, 32)):
        assert [other.ids for other in inputs.resized] == [inputs.ids] * 2
        for side, other in zip((96, 32), inputs.resized, strict=True):
            for image_id, frame, image in zip(other.ids, other.frames, other.images, strict=True):
                record = records[image_id]
                assert frame == input_frame(record.width, record.height, side)
                np.testing.assert_array_equal(image, warp(record.read(), frame))
