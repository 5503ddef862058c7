"""The LitePose repository's decoding, to the figure; and its parts on maps made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_pose.pose import litepose_decode
from ofa_pose.pose.litepose_decode import decode_litepose, litepose_frame, litepose_warp
from ofa_pose.skeleton import COCO
from ofa_pose.utils.errors import InputError
from tests.cli.conftest import Call, call  # noqa: F401  (a fixture)

PIPELINE = Path(__file__).parents[3] / "shared" / "fixtures" / "official_pipeline"


@pytest.fixture(scope="module")
def expected() -> Any:
    if not PIPELINE.exists():
        pytest.skip("no ../shared/fixtures/official_pipeline")
    return json.loads((PIPELINE / "expected.json").read_text())


@pytest.mark.parametrize("flip", [True, False])
def test_the_repositorys_own_figures(call: Call, expected: Any, tmp_path: Path, flip: bool) -> None:  # noqa: F811
    net = tmp_path / "net.pt"
    arch = ("--arch", PIPELINE / "arch.json", "--joints", 17)
    assert call("import-litepose", PIPELINE / "checkpoint.pth.tar", *arch, "--out", net).code == 0
    where = ("--annotations", PIPELINE / "annotations.json", "--images", PIPELINE / "images", "--out", tmp_path / "out")
    way = ("--decoding", "reference", "--flip" if flip else "--no-flip")
    scored = call("eval", "--checkpoint", net, *where, *way, "--json")
    assert scored.code == 0, scored.err
    for name, value in expected["flip" if flip else "no_flip"].items():
        assert scored.result["metrics"][name] == pytest.approx(value, abs=5e-4), name
    if flip:
        theirs = json.loads((PIPELINE / "official_results_flip.json").read_text())
        ours = json.loads((tmp_path / "out" / "results.json").read_text())
        assert len(ours) == len(theirs)
        assert same_share(ours, theirs) > 0.99


def same_share(ours: list[Any], theirs: list[Any]) -> float:
    """The share of their poses that are ours, every joint within 0.01 pixels."""
    places: dict[Any, list[np.ndarray]] = {}
    for entry in ours:
        places.setdefault(entry["image_id"], []).append(np.reshape(entry["keypoints"], (-1, 3))[:, :2])
    found = 0
    for entry in theirs:
        wanted = np.reshape(entry["keypoints"], (-1, 3))[:, :2]
        found += any(np.abs(pose - wanted).max() < 0.01 for pose in places.get(entry["image_id"], []))
    return found / len(theirs)


def maps(people: list[tuple[float, float, float]], side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """low and high of people (x, y of the first joint in high cells, tag) whose 17 joints go down by a cell each.

    A person's tag fills the half of the picture that it stands in.
    """
    joints, half = len(COCO.joints), side // 2
    low = np.zeros((1, 2 * joints, half, half), np.float32)
    high = np.zeros((1, joints, side, side), np.float32)
    grid = np.arange(side) + 0.5
    for x, y, tag in people:
        for joint in range(joints):
            blob = np.exp(-((grid[:, None] - y - joint) ** 2 + (grid[None] - x) ** 2) / 4)
            high[0, joint] = np.maximum(high[0, joint], blob)
        own = slice(0, half // 2) if x < side / 2 else slice(half // 2, half)
        low[0, joints:, :, own] = tag
    low[0, :joints] = high[0].reshape(joints, half, 2, half, 2).mean((2, 4))
    return low, high


def test_two_people_are_kept_apart_by_their_tags() -> None:
    low, high = maps([(8.5, 6.5, -3.0), (24.5, 9.5, 3.0)])
    (poses,) = decode_litepose(low, high, COCO.grouping_order)
    assert len(poses) == 2
    for x, y in ((8.5, 6.5), (24.5, 9.5)):
        pose = min(poses.keypoints, key=lambda each: abs(each[0, 0] - 2 * x))
        wanted = np.stack([np.full(17, 2 * x), 2 * (y + np.arange(17))], axis=1)
        assert np.abs(pose[:, :2] - wanted).max() <= 1.0


def test_a_thin_image_is_refused() -> None:
    with pytest.raises(InputError, match="too thin"):
        litepose_frame(3000, 10, 128)


def test_the_order_of_grouping_is_that_repositorys_for_crowdposes_joints_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(litepose_decode, "_decode_image", lambda low, high, order, match: seen.append(tuple(order)))
    for joints in (14, 17, 5):
        decode_litepose(np.zeros((1, 2 * joints, 4, 4)), np.zeros((1, joints, 8, 8)), tuple(reversed(range(joints))))
    assert seen[0] == (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13)
    assert [sorted(order) for order in seen] == [list(range(14)), list(range(17)), list(range(5))]


def test_nobody_where_nothing_is_warm() -> None:
    low, high = np.zeros((2, 34, 16, 16), np.float32), np.zeros((2, 17, 32, 32), np.float32)
    assert [len(poses) for poses in decode_litepose(low, high, COCO.grouping_order)] == [0, 0]


@pytest.mark.parametrize(
    ("size", "resolution", "sides"),
    [((640, 480), 448, (640, 448)), ((480, 640), 448, (448, 640)), ((192, 192), 128, (128, 128))],
)
def test_frames_are_multiples_of_64_with_the_image_in_the_middle(
    size: tuple[int, int], resolution: int, sides: tuple[int, int]
) -> None:
    frame = litepose_frame(*size, resolution)
    assert (frame.width, frame.height) == sides
    assert frame.scale == resolution / min(size)
    middle = frame.to_input(np.array([[size[0] / 2, size[1] / 2]]))
    np.testing.assert_allclose(middle, [[frame.width / 2, frame.height / 2]])
    white = np.full((size[1], size[0], 3), 255, np.uint8)
    inside = litepose_warp(white, frame)
    assert inside.shape == (frame.height, frame.width, 3)
    assert (inside[frame.height // 2, frame.width // 2] == 255).all()
