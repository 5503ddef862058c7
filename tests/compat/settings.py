"""What the calls start from: the files that a user writes, and files at fault."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

TINY = {
    "name": "tiny",
    "resolution": [32, 64],
    "stem": [4, 8],
    "stages": [[4, 8], [4, 8], [8, 12], [8, 16]],
    "deconv": [[4, 8], [4, 8], [4, 8]],
    "expansion": [1, 2],
    "blocks": [1, 1, 1, 1],
    "kernel": 3,
}
# Eight networks; LitePose's own code can build the largest.
FEW = {
    **TINY,
    "name": "few",
    "stem": [8],
    "stages": [[4, 8], [8], [8], [12, 16]],
    "deconv": [[8], [8], [8]],
    "expansion": [2],
}


def write_settings(folder: Path) -> None:
    """Two search spaces and a recipe whose paths are in `folder`. JSON is YAML, too."""
    for space in (TINY, FEW):
        (folder / f"{space['name']}.yaml").write_text(json.dumps(space, indent=1))
    splits = {
        split: {"annotations": f"{folder}/{split}/annotations.json", "images": f"{folder}/{split}/images"}
        for split in ("train", "val")
    }
    every = {"evaluate_every": 2, "evaluate_images": 4, "checkpoint_every": 2}
    recipe = {
        "space": f"{folder}/tiny.yaml",
        "data": {**splits, "test": splits["val"], "search_share": 0.25},
        "train": {"steps": 4, "batch": 2, "workers": 0, **every},
        "search": {"population": 4, "generations": 1, "images": 4, "calibration_images": 4, "batch": 4},
        "commands": {"finetune": {"train": {"steps": 2}}},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe, indent=1))


def write_video(folder: Path) -> None:
    """A video of three dark frames."""
    import cv2
    import numpy as np

    video = cv2.VideoWriter(str(folder / "dance.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 64))
    for level in (20, 40, 60):
        video.write(np.full((64, 64, 3), level, np.uint8))
    video.release()


def cut_search(folder: Path) -> None:
    """Make of the search one that was killed half-way, 'cut'."""
    cut = folder / "cut"
    shutil.copytree(folder / "search", cut)
    (cut / "result.json").unlink()
    with closing(sqlite3.connect(cut / "archive.sqlite")) as archive, archive:
        archive.execute("DELETE FROM evaluations WHERE id > 2")
    lines = (cut / "history.csv").read_text().splitlines(keepends=True)
    (cut / "history.csv").write_text("".join(lines[:3]))


def write_faults(folder: Path) -> None:
    """Files at fault, made of those in `folder`, in its folder 'faults'."""
    import torch

    faults = folder / "faults"
    faults.mkdir()
    (faults / "noise.pt").write_bytes(b"not a checkpoint at all")
    whole = (folder / "net" / "checkpoints" / "best.pt").read_bytes()
    (faults / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weights": {}}, faults / "foreign.pt")
    (faults / "photo.jpg").write_bytes(b"no image")
    (faults / "empty.json").write_text("{}")
    (faults / "list.yaml").write_text("[1, 2]\n")
    (faults / "commands.yaml").write_text("commands: {serch: {seed: 1}}\n")
    (faults / "results.json").write_text('[{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}]')
    text = (folder / "val" / "annotations.json").read_text()
    (faults / "half.json").write_text(text[: len(text) // 2])
    for name, spoil in SPOILT.items():
        value = json.loads(text)
        spoil(value)
        (faults / f"{name}.json").write_text(json.dumps(value))


def _short(value: Any) -> None:
    value["annotations"][2]["keypoints"] = value["annotations"][2]["keypoints"][:-3]


def _nan(value: Any) -> None:
    value["annotations"][1]["keypoints"][4] = float("nan")


def _unlisted(value: Any) -> None:
    value["annotations"][0]["image_id"] = 4711


def _nothing(value: Any) -> None:
    value.update(images=[], annotations=[])


SPOILT: dict[str, Callable[[Any], None]] = {"short": _short, "nan": _nan, "unlisted": _unlisted, "nothing": _nothing}
