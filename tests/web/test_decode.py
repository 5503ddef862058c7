"""decode.js beside `ofa_pose.pose.decode`: the same people from the same maps, in Node."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ofa_pose.pose.decode import DecodeConfig, Poses, decode
from tests.pose.maps import crowd, make_maps
from tests.web.node import run_node

DECODE = """({ low, high, options }, take) => {
  const [one, other] = [low, high].map((dims) => ({ dims, data: take(dims.reduce((a, b) => a * b)) }));
  return module.decode(one, other, options);
}"""

MESSAGE = """(one, take) => {{
  try {{
    ({function})(one, take);
    return null;
  }} catch (error) {{
    return error instanceof RangeError ? error.message : `another: ${{error}}`;
  }}
}}"""


@dataclass(frozen=True)
class Case:
    """The maps (1, C, h, w) of an image, the order of grouping, and the decoder's settings."""

    low: np.ndarray
    high: np.ndarray
    order: tuple[int, ...]
    config: DecodeConfig = field(default_factory=DecodeConfig)


def decode_in_node(cases: list[Case], folder: Path) -> list[Poses]:
    """What decode.js makes of all cases, in one process."""
    values = [
        {"low": case.low.shape, "high": case.high.shape, "options": {"order": case.order, **case.config.to_dict()}}
        for case in cases
    ]
    maps = [part for case in cases for part in (case.low, case.high)]
    found = []
    for case, people in zip(cases, run_node("decode.js", DECODE, values, maps, folder), strict=True):
        keypoints = np.array([one["keypoints"] for one in people], np.float32).reshape(-1, case.high.shape[1], 3)
        poses = Poses(keypoints, np.array([one["score"] for one in people], np.float32))
        boxes = np.array([one["box"] for one in people]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, poses.boxes, atol=1e-3)
        found.append(poses)
    return found


def assert_same(cases: list[Case], folder: Path) -> list[Poses]:
    """Joints within a thousandth of a pixel, scores to single precision; what Node found."""
    found = decode_in_node(cases, folder)
    for case, poses in zip(cases, found, strict=True):
        (expected,) = decode(case.low, case.high, case.order, case.config)
        assert len(poses) == len(expected)
        np.testing.assert_allclose(poses.scores, expected.scores, rtol=1e-5)
        np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)
    return found


def people_case(rng: np.random.Generator, config: DecodeConfig) -> Case:
    """People whose tags are about 2 apart, under noise."""
    joints = int(rng.integers(1, 18))
    width, height = (32 * int(side) for side in rng.integers(3, 10, 2))
    count = int(rng.integers(0, 1 + width * height // 8000))  # so few have room
    people = crowd(rng, count, joints, width, height) if count else np.empty((0, joints, 3))
    low, high = make_maps(people, 2.0 * np.arange(count), width, height)
    low, high = (maps + rng.normal(0, 0.05, maps.shape).astype(np.float32) for maps in (low, high))
    return Case(low[None], high[None], tuple(rng.permutation(joints).tolist()), config)


def noise_case(rng: np.random.Generator, config: DecodeConfig, steps: int = 0) -> Case:
    """Uniform noise, which is full of peaks; of some steps alone, so that many heats and tags are equal."""
    joints, height, width = int(rng.integers(1, 6)), int(rng.integers(2, 20)), int(rng.integers(2, 20))
    low, high = rng.uniform(0, 1, (1, 2 * joints, height, width)), rng.uniform(0, 1, (1, joints, 2 * height, 2 * width))
    low[:, joints:] *= 4
    if steps:
        low, high = np.round(low * steps) / steps, np.round(high * steps) / steps
    return Case(low.astype(np.float32), high.astype(np.float32), tuple(rng.permutation(joints).tolist()), config)


def some_config(rng: np.random.Generator) -> DecodeConfig:
    return DecodeConfig(
        max_people=int(rng.integers(0, 31)),
        candidates=int(rng.integers(0, 31)),
        threshold=float(rng.uniform(0.05, 0.8)),
        tag_threshold=float(rng.uniform(0.3, 3)),
        recover=bool(rng.integers(2)),
        recover_floor=float(rng.uniform(0, 0.5)),
        reach=float(rng.uniform(0.2, 3)) if rng.integers(2) else None,
    )


def test_people_under_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [people_case(rng, some_config(rng) if n % 2 else DecodeConfig()) for n in range(40)]
    found = assert_same(cases, tmp_path)
    assert sum(map(len, found)) > 40 and any(not len(poses) for poses in found)


def test_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cases = [noise_case(rng, some_config(rng)) for _ in range(50)]
    assert sum(map(len, assert_same(cases, tmp_path))) > 250


def test_equal_heats_and_tags(tmp_path: Path) -> None:
    """Steps that single precision holds exactly: ties break alike, plateaus are one peak."""
    rng = np.random.default_rng(2)
    cases = [noise_case(rng, DecodeConfig(threshold=0.3), steps=int(2 ** rng.integers(1, 5))) for _ in range(50)]
    assert sum(map(len, assert_same(cases, tmp_path))) > 250


def test_maps_of_one_value(tmp_path: Path) -> None:
    values = (0.0, -1.0, 0.5, np.nan, np.inf, -np.inf)
    maps = [[np.full(shape, value, np.float32) for shape in ((1, 4, 4, 6), (1, 2, 8, 12))] for value in values]
    found = assert_same([Case(low, high, (1, 0)) for low, high in maps], tmp_path)
    assert [len(poses) for poses in found] == [0, 0, 1, 0, 0, 0]


def test_broken_values(tmp_path: Path) -> None:
    rng, cases = np.random.default_rng(3), []
    for _ in range(20):
        case = people_case(rng, DecodeConfig())
        for maps in (case.low, case.high):
            for value in (np.nan, np.inf, -np.inf, 100.0):
                maps[rng.random(maps.shape) < 0.003] = value
        cases.append(case)
    found = assert_same(cases, tmp_path)
    assert all(np.isfinite(poses.keypoints).all() for poses in found)


def test_more_warm_cells_than_are_looked_at(tmp_path: Path) -> None:
    """A joint that is warm everywhere, of a person that misses it."""
    rng = np.random.default_rng(4)
    people = crowd(rng, 2, 3, 320, 256)
    people[1, 2, 2] = 0
    low, high = make_maps(people, np.array([0.0, 3.0]), 320, 256)
    low[2] += 0.12
    high[2] += rng.uniform(0.1, 0.15, high[2].shape)
    assert (high[2] > 0.1).sum() > 4096
    assert len(assert_same([Case(low[None], high[None], (0, 1, 2))], tmp_path)[0]) == 2


def test_maps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    low, high = (1, 4, 4, 4), (1, 2, 8, 8)
    cases = [
        (low, (1, 2, 6, 8), (0, 1)),
        (low, high, (0, 0)),
        (low, high, (0,)),
        ((1, 6, 4, 4), high, (0, 1)),
        ((2, *low[1:]), (2, *high[1:]), (0, 1)),
    ]
    values = [{"low": low, "high": high, "options": {"order": order}} for low, high, order in cases]
    maps = [np.zeros(shape) for low, high, _ in cases for shape in (low, high)]
    assert run_node("decode.js", MESSAGE.format(function=DECODE), values, maps, tmp_path) == [
        "maps do not fit each other: low [1,4,4,4], high [1,2,6,8]",
        "[0,0] is not an order of 2 joints",
        "[0] is not an order of 2 joints",
        "not the heatmaps and tags of one image: low [1,6,4,4], high [1,2,8,8]",
        "not the heatmaps and tags of one image: low [2,4,4,4], high [2,2,8,8]",
    ]


def test_joints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    call = MESSAGE.format(function="(count) => module.group(new Float32Array(count), [1, 0])")
    (message, none) = run_node("grouping.js", call, [4 * 3, 4 * 4], [], tmp_path)
    assert (message, none) == ("12 numbers are not those of 2 joints", None)
