"""Reading network inputs: all images once, in batches of one size, and no longer than someone wants them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from ofa_pose.data.coco import ImageRecord, KeypointDataset
from ofa_pose.evaluate import READERS, read_inputs
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
