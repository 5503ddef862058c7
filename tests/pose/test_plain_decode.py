"""The decoder equals a plain one written from its promises, joint by joint and person by person."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from ofa_pose.pose.decode import DecodeConfig, decode
from ofa_pose.skeleton import COCO, CROWDPOSE
from tests.bench.oracle import Faults, make_output
from tests.bench.plain_decode import Undecided, plain_decode

ORDERS = {17: COCO.grouping_order, 14: CROWDPOSE.grouping_order, 5: (2, 0, 4, 1, 3)}
CONFIGS = (
    DecodeConfig(),
    DecodeConfig(threshold=0.1),
    DecodeConfig(recover=False, max_people=3),
    DecodeConfig(candidates=3, tag_threshold=0.6, recover_floor=0.1),
    DecodeConfig(reach=0.4),
)


def check_equal(low: np.ndarray, high: np.ndarray, order: tuple[int, ...], config: DecodeConfig) -> int:
    """Hold both decoders against each other, where the promises leave no choice; returns the number of people."""
    try:
        (plain,) = plain_decode(low[None], high[None], order, config, strict=True)
    except Undecided:
        reject()
    (ours,) = decode(low[None], high[None], order, config)
    assert len(ours) == len(plain)
    np.testing.assert_allclose(ours.keypoints, plain.keypoints, atol=1e-4, rtol=0)
    np.testing.assert_allclose(ours.scores, plain.scores, atol=1e-4, rtol=0)
    return len(ours)


def oracle_maps(
    rng: np.random.Generator, joints: int, blocks: int, step: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """A small image's outputs; with two blocks of tags, the second are other tags of the same peaks."""
    image: dict[str, Any] = {"width": int(rng.integers(60, 121)), "height": int(rng.integers(60, 121))}
    people = rng.uniform((0, 0, 0.5), (image["width"], image["height"], 2.5), (int(rng.integers(1, 6)), joints, 3))
    people[..., 2] = np.round(people[..., 2])
    faults = Faults(missed=0.2, doubled=0.2, joint_spread=spread)
    seed = int(rng.integers(2**32))
    outputs = [
        make_output(image, people, seed, resolution=64, tag_step=step * (-1) ** t, tag_offset=t, faults=faults)
        for t in range(blocks)
    ]
    return np.concatenate([outputs[0].low, *(other.low[joints:] for other in outputs[1:])]), outputs[0].high


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(ORDERS)),
    st.integers(1, 2),
    st.sampled_from(CONFIGS),
    st.floats(0.5, 4),
    st.sampled_from((0.05, 0.12, 0.3)),
)
@settings(max_examples=25)
def test_on_what_networks_give(
    seed: int, joints: int, blocks: int, config: DecodeConfig, step: float, spread: float
) -> None:
    low, high = oracle_maps(np.random.default_rng(seed), joints, blocks, step, spread)
    check_equal(low, high, ORDERS[joints], config)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(ORDERS)),
    st.integers(1, 2),
    st.sampled_from(CONFIGS),
    st.floats(0.02, 1),
    st.floats(0.1, 30),
)
@settings(max_examples=40)
def test_on_pure_noise(seed: int, joints: int, blocks: int, config: DecodeConfig, heat: float, apart: float) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 17, 2))
    low = rng.uniform(-0.2 * heat, heat, (joints * (1 + blocks), height, width)).astype(np.float32)
    low[joints:] = rng.normal(0, apart, low[joints:].shape)
    high = rng.uniform(-0.2 * heat, heat, (joints, 2 * height, 2 * width)).astype(np.float32)
    check_equal(low, high, ORDERS[joints], config)


def test_a_crowd_is_seen_by_both() -> None:
    low, high = oracle_maps(np.random.default_rng(4), 14, 1, 2.0, 0.1)
    assert check_equal(low, high, ORDERS[14], DecodeConfig()) >= 2
