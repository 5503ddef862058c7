"""A new metric from a notebook, no file of the package touched: the share of joints that are found (PCK).

`metric=` of `evaluate` takes a callable. It gets the dataset, and gives an `ofa_pose.inference.evaluate.Evaluator`:
`score(detections)` returns figures by name, among them 'AP', the one that networks are compared by.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import ofa_pose
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.pose.metrics import Detections


class JointsFound:
    """How many labelled joints have one of a detected person within a fifth of their person's size."""

    def __init__(self, dataset: KeypointDataset) -> None:
        self.images = dataset.images

    def score(self, detections: Detections) -> dict[str, Any]:
        people = defaultdict(list)
        for image, keypoints, score in zip(detections.image_ids, detections.keypoints, detections.scores, strict=True):
            if score > 0.2:
                people[image].append(keypoints[:, :2])
        found = [
            min(np.linalg.norm(one[joint] - place) for one in people[image.id]) < 0.2 * np.sqrt(area)
            for image in self.images
            for person, area in zip(image.keypoints, image.areas, strict=True)
            for joint, (*place, seen) in enumerate(person)
            if seen and people[image.id]
        ]
        labelled = sum(int((image.keypoints[..., 2] > 0).sum()) for image in self.images)
        share = float(np.sum(found)) / labelled
        return {"AP": share, "PCK": share}


with TemporaryDirectory() as folder:
    data = ofa_pose.data_synth(Path(folder) / "data", images=8, size=192, workers=1)
    where = {"annotations": data.annotations, "images": data.images, "device": "cpu"}
    done = ofa_pose.evaluate("litepose-nano-coco", metric=JointsFound, **where)
    assert 0.5 < done.metrics["PCK"] < 1 and done.images == 8
    assert done.to_dict()["metrics"] == {"AP": done.metrics["PCK"], "PCK": done.metrics["PCK"]}
    assert "AP_medium" in ofa_pose.evaluate("litepose-nano-coco", **where).metrics, "the default is still COCO's"
print(f"PCK {done.metrics['PCK']:.3f}")
