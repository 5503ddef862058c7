"""Small keypoint datasets on disk for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

JOINTS = ["head", "left_hand", "right_hand", "left_foot", "right_foot"]


def annotation(number: int, image: int, keypoints: list[float] | None = None, **more: Any) -> dict[str, Any]:
    """A valid annotation of a person with all five joints labelled."""
    points = [30, 10, 2, 20, 30, 2, 40, 30, 1, 25, 50, 2, 35, 50, 2] if keypoints is None else keypoints
    record = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "keypoints": points}
    return {**record, "bbox": [18, 8, 24, 44], "area": 600.5, "num_keypoints": 5, **more}


def contents(images: int = 4, width: int = 96, height: int = 64) -> dict[str, Any]:
    """A valid annotation file's value: `images` images of 96 × 64 with image number % 3 people each."""
    people = [image for image in range(images) for _ in range(image % 3)]
    category = {"id": 1, "name": "figure", "keypoints": list(JOINTS), "skeleton": [[1, 2], [1, 3], [1, 4], [1, 99]]}
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": width, "height": height} for i in range(images)],
        "annotations": [annotation(100 + number, image) for number, image in enumerate(people)],
        "categories": [category],
    }


def write(folder: Path, value: Any, files: bool = True) -> tuple[Path, Path]:
    """Write an annotation file and, for each image record that is valid, noise of its size; both paths."""
    annotations, images = folder / "annotations.json", folder / "images"
    annotations.write_text(value if isinstance(value, str) else json.dumps(value))
    images.mkdir(exist_ok=True)
    if files and isinstance(value, dict):
        rng = np.random.default_rng(0)
        for record in value.get("images", []):
            noise = rng.integers(0, 256, (record["height"], record["width"], 3), np.uint8)
            cv2.imwrite(str(images / record["file_name"]), cv2.GaussianBlur(noise, (5, 5), 2))
    return annotations, images
