from __future__ import annotations

import json

import numpy as np
import pytest

from ofa_pose.pose.metrics import METRICS, Detections, KeypointEvaluator, to_results
from ofa_pose.skeleton import draft
from ofa_pose.utils.errors import InputError

FIVE = draft("five", ["a", "b", "c", "d", "e"])


def make_detections(seed: int = 0, images: int = 4) -> Detections:
    rng = np.random.default_rng(seed)
    counts = [int(count) for count in rng.integers(0, 4, images)]
    parts = [
        (f"photo {n}", rng.normal(300, 100, (c, 5, 3)).astype(np.float32), rng.random(c).astype(np.float32))
        for n, c in enumerate(counts)
    ]
    return Detections.join(parts, 5)


def test_entries_are_those_of_the_single_images_in_order() -> None:
    rng = np.random.default_rng(0)
    parts = [(n, rng.random((n % 3, 5, 3), np.float32) * 999, rng.random(n % 3, np.float32)) for n in range(7)]
    joined = Detections.join(parts, 5)
    assert joined.entries() == [entry for part in parts for entry in to_results(*part)]
    assert len(joined) == 6 and joined.keypoints.dtype == joined.scores.dtype == np.float32
    assert len(Detections.join([], 5)) == 0 and Detections.join([], 5).entries() == []


@pytest.mark.parametrize("metric", METRICS)
def test_figures_are_those_of_the_file_that_is_written(metric: str) -> None:
    found = make_detections(images=8)
    people = [
        {**entry, "id": n, "bbox": [200, 200, 300, 300], "keypoints": [2 * round(x / 2) for x in entry["keypoints"]]}
        for n, entry in enumerate(found.entries())
    ]
    for person in people:
        person["keypoints"][2::3] = [2] * 5
    images = [{"id": f"photo {n}", "crowdIndex": n / 8} for n in range(8)]
    evaluator = KeypointEvaluator(images, people, FIVE, metric)
    again = Detections.read(json.loads(json.dumps(found.entries())), 5)
    assert again.entries() == found.entries()
    np.testing.assert_array_equal(again.places, found.places)
    score = evaluator.score(found)
    assert score == evaluator.score(again) == evaluator.score(found.entries())
    assert evaluator.breakdown(found) == evaluator.breakdown(again)
    assert score["AR"] is not None and score["AR"] > 0.5


def test_what_a_file_gives_is_not_rounded() -> None:
    entry = {"image_id": 1, "keypoints": [0.12345678, 1e-9, 1] * 5, "score": 1 / 3}
    read = Detections.read([entry], 5)
    assert read.places[0, 0].tolist() == [0.12345678, 1e-9] and read.scores[0] == 1 / 3
    with pytest.raises(InputError, match="detection 2: holds 3 keypoint numbers instead of 15"):
        Detections.read([entry, {**entry, "keypoints": [1, 2, 3]}], 5)
