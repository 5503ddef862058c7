"""Files as SLEAP writes them, and videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ofa_pose.formats.annotated import Given
from tests.formats.scenes import JOINTS, LIMBS, Scene

FRAME = [
    ("frame_id", "u8"),
    ("video", "u4"),
    ("frame_idx", "u8"),
    ("instance_id_start", "u8"),
    ("instance_id_end", "u8"),
]
INSTANCE = [("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4")]
INSTANCE += [("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8")]
INSTANCE += [("tracking_score", "f4")]
POINT = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
NODES = ["unused", *JOINTS]  # the list of nodes is that of all skeletons


def skeleton() -> dict[str, Any]:
    """The skeleton as SLEAP writes it: kinds of links are defined once, then referred to."""
    new: dict[int, int] = {}

    def kind(number: int) -> dict[str, Any]:
        if number in new:
            return {"py/id": new[number]}
        new[number] = len(new) + 1
        return {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [number]}]}

    ends = [(2, NODES.index("left_hand"), NODES.index("right_hand"))]
    ends += [(2, NODES.index("right_hand"), NODES.index("left_hand"))]
    ends += [(1, NODES.index(a), NODES.index(b)) for a, b in LIMBS]
    links = [{"key": 0, "source": a, "target": b, "type": kind(number)} for number, a, b in ends]
    nodes = [{"id": NODES.index(name)} for name in JOINTS]
    return {"directed": True, "graph": {"name": "fish", "num_edges_inserted": 3}, "links": links, "nodes": nodes}


def write(
    path: Path, scenes: list[Scene], videos: list[dict[str, Any]], frames: list[tuple[int, int]], version: float = 1.2
) -> Given:
    """A .slp file: scene i is frame frames[i] = (video, number)."""
    h5py = pytest.importorskip("h5py")
    frame_rows, instances, points = [], [], []
    for number, (scene, (video, index)) in enumerate(zip(scenes, frames, strict=True)):
        start = len(instances)
        for track, person in enumerate(scene.people):
            first = len(points)
            shift = 0.5 if version < 1.1 else 0
            for name in JOINTS:
                x, y, flag = person.get(name, (np.nan, np.nan, 0))
                points.append((x + shift, y + shift, flag == 2, True))
            instances.append((len(instances), 0, number, 0, track, -1, np.nan, first, len(points), 0.0))
        instances.append((len(instances), 1, number, 0, -1, -1, 0.5, 0, len(JOINTS), 0.0))
        frame_rows.append((number, video, index, start, len(instances)))
    with h5py.File(path, "w") as file:
        group = file.create_group("metadata")
        group.attrs["format_id"] = version
        head = {"version": "2.0.0", "skeletons": [skeleton()], "nodes": [{"name": n, "weight": 1.0} for n in NODES]}
        group.attrs["json"] = np.bytes_(json.dumps(head))
        file["videos_json"] = np.array([np.bytes_(json.dumps(one)) for one in videos])
        file["tracks_json"] = np.array([b'[0, "a"]'])
        file["frames"] = np.array(frame_rows, FRAME)
        file["instances"] = np.array(instances, INSTANCE)
        file["points"] = np.array(points, POINT)
    return Given(path)


def image_list(scenes: list[Scene]) -> dict[str, Any]:
    """A 'video' that is a list of images."""
    names = [f"/home/someone/{scene.name}" for scene in scenes]
    return {"backend": {"type": "ImageVideo", "filename": names[0], "filenames": names}}


SCENES = [Scene("a.png", 64, 48, ({"head": (1.0, 2.0, 2)},)), Scene("b.png", 64, 48, ({"tail": (9.0, 9.0, 1)},))]


def write_video(path: Path, frames: int) -> None:
    """A video whose frames are grey of 20 × their number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()


def keep_images(path: Path, frames: list[int], code: np.ndarray[Any, Any]) -> None:
    """Put an encoded image for each frame into a .slp file."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "a") as file:
        kept = file.create_dataset("video0/video", (len(frames),), h5py.vlen_dtype(np.int8))
        for row in range(len(frames)):
            kept[row] = code.view(np.int8)
        kept.attrs["format"] = "png"
        file["video0/frame_numbers"] = np.array(frames)
