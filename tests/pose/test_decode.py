from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.pose import decode as decoding
from ofa_pose.pose.decode import DecodeConfig, Poses, decode
from ofa_pose.pose.geometry import input_frame
from ofa_pose.pose.metrics import KeypointEvaluator, to_results
from ofa_pose.skeleton import COCO, CROWDPOSE
from ofa_pose.utils.errors import InputError
from tests.pose.maps import crowd, make_maps

SHARED = Path(__file__).resolve().parents[3] / "shared"
ORDERS = {17: COCO.grouping_order, 14: CROWDPOSE.grouping_order, 5: (2, 0, 4, 1, 3)}


def decode_one(low: np.ndarray, high: np.ndarray, config: DecodeConfig | None = None) -> Poses:
    return decode(low[None], high[None], ORDERS.get(len(high), tuple(range(len(high)))), config)[0]


def match(poses: Poses, people: np.ndarray) -> np.ndarray:
    """The poses in the order of the people whose first joint they are nearest to."""
    assert len(poses) == len(people)
    apart = np.linalg.norm(people[:, None, 0, :2] - poses.keypoints[None, :, 0, :2], axis=-1)
    nearest = apart.argmin(axis=1)
    assert sorted(nearest) == list(range(len(people)))
    return poses.keypoints[nearest]


@pytest.mark.parametrize("joints", [17, 14, 5])
@pytest.mark.parametrize("size", [(256, 192), (160, 416), (512, 320)])
def test_people_are_found_where_they_stand(joints: int, size: tuple[int, int]) -> None:
    people = crowd(np.random.default_rng(joints), 4, joints, *size)
    poses = decode_one(*make_maps(people, np.array([-3.0, 0.0, 1.5, 6.0]), *size))
    found = match(poses, people)
    assert np.abs(found[..., :2] - people[..., :2]).max() < 0.25
    np.testing.assert_allclose(found[..., 2], people[..., 2], rtol=0.06)
    np.testing.assert_allclose(poses.scores, poses.keypoints[..., 2].mean(axis=1), rtol=1e-5)
    assert (np.diff(poses.scores) <= 0).all()
    assert poses.keypoints.dtype == poses.scores.dtype == np.float32


@given(st.floats(10, 118), st.floats(10, 86), st.floats(0.2, 1))
def test_one_joint_is_placed_below_the_cell(x: float, y: float, heat: float) -> None:
    low, high = make_maps(np.array([[[x, y, heat]]]), np.zeros(1), 128, 96)
    poses = decode(low[None], high[None], (0,), DecodeConfig(threshold=0.1))[0]
    assert len(poses) == 1
    assert np.abs(poses.keypoints[0, 0, :2] - (x, y)).max() < 0.25


@given(st.integers(40, 900), st.integers(40, 900), st.integers(2, 10), st.floats(0.02, 0.98), st.floats(0.02, 0.98))
@settings(max_examples=60)
def test_a_place_in_the_image_comes_back(width: int, height: int, size: int, across: float, down: float) -> None:
    """Image to input to cells and back, for any shape of image and any resolution: within half an input pixel."""
    frame = input_frame(width, height, 32 * size)
    place = np.array([across * width, down * height])
    person = np.array([[[*frame.to_input(place), 0.9]]])
    low, high = make_maps(person, np.zeros(1), frame.width, frame.height)
    (poses,) = decode(low[None], high[None], (0,))
    found = frame.poses_to_image(poses.keypoints)[0, 0, :2]
    assert np.abs(found - place).max() * frame.scale <= 0.5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_names_of_joints_and_values_of_tags_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people, tags = crowd(rng, 3, 5, 192, 160), rng.permutation([0.0, 2.0, 4.0])
    low, high = make_maps(people, tags, 192, 160)
    order = (2, 0, 4, 1, 3)
    plain = decode(low[None], high[None], order)[0]
    # joint k of the renamed maps is joint new[k] of the old ones
    new = rng.permutation(5)
    renamed = np.concatenate([low[:5][new], low[5:][new]])
    again = decode(renamed[None], high[new][None], [int(np.flatnonzero(new == j)[0]) for j in order])[0]
    np.testing.assert_array_equal(again.keypoints, plain.keypoints[:, new])
    np.testing.assert_allclose(again.scores, plain.scores, rtol=1e-6)
    # other tags, as far apart
    swapped, _ = make_maps(people, 7 - tags, 192, 160)
    np.testing.assert_array_equal(decode(swapped[None], high[None], order)[0].keypoints, plain.keypoints)


def test_a_batch_is_its_images_one_by_one() -> None:
    rng = np.random.default_rng(1)
    outputs = [make_maps(crowd(rng, n, 14, 192, 160), 2.0 * np.arange(n), 192, 160) for n in (3, 1, 2)]
    low, high = (np.stack(maps) for maps in zip(*outputs, strict=True))
    noise = rng.uniform(0, 0.3, high.shape).astype(np.float32)
    for one, pair in zip(decode(low, high + noise, ORDERS[14]), zip(low, high + noise, strict=True), strict=True):
        alone = decode_one(*pair)
        np.testing.assert_array_equal(one.keypoints, alone.keypoints)
        np.testing.assert_array_equal(one.scores, alone.scores)
        assert np.isfinite(one.keypoints).all() and len(one) > 0


def test_nobody_is_longer_than_the_reach() -> None:
    """Two of the same tag far from each other: the reach keeps them apart, and where a missing joint is sought."""
    body = np.array([[0, 0], [30, 10], [10, 40], [40, 40], [20, 20]])
    people = np.zeros((2, 5, 3))
    people[0, :, :2], people[1, :, :2] = body + (20, 30), body + (150, 60)
    people[0, :, 2], people[1, :, 2] = (0.9, 0.6, 0.9, 0.6, 0.9), (0.6, 0.9, 0.6, 0.9, 0.6)
    people[1, 4, 2] = 0  # hidden: the other's is no place for it
    low, high = make_maps(people, np.array([1.0, 1.0]), 224, 160)
    mixed = decode_one(low, high)
    assert max(np.ptp(pose[pose[:, 2] > 0, :2], axis=0).max() for pose in mixed.keypoints) > 100
    found = match(decode_one(low, high, DecodeConfig(reach=0.4)), people)
    seen = people[..., 2] > 0
    assert np.abs(found[..., :2] - people[..., :2])[seen].max() < 0.25 and found[1, 4, 2] == 0
    assert len(decode_one(low, high, DecodeConfig(reach=0.1))) > 2


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_maps_without_peaks_hold_nobody(value: float) -> None:
    low = np.full((2, 28, 8, 12), value, np.float32)
    for poses in decode(low, np.full((2, 14, 16, 24), value, np.float32), ORDERS[14]):
        assert poses.keypoints.shape == (0, 14, 3) and poses.scores.shape == (0,)


def test_broken_cells_and_tags_do_not_spread() -> None:
    people = crowd(np.random.default_rng(3), 2, 5, 192, 160)
    low, high = make_maps(people, np.array([0.0, 3.0]), 192, 160)
    x, y, _ = people[0, 1]
    high[1, int(y / 2), int(x / 2) + 1] = np.inf
    low[5 + 2] = np.nan
    high[3, :4] = np.nan
    poses = decode_one(low, high)
    assert len(poses) >= 2
    assert np.isfinite(poses.keypoints).all() and np.isfinite(poses.scores).all()


def test_equal_neighbours_are_one_peak_between_them() -> None:
    low, high = make_maps(np.array([[[64.0, 48.0, 0.9]]]), np.zeros(1), 128, 96)
    for maps in (low[:1], high):
        maps[:] = np.round(maps * 32) / 32  # as coarse as an 8-bit network's
    poses = decode(low[None], high[None], (0,))[0]
    assert len(poses) == 1
    np.testing.assert_allclose(poses.keypoints[0, 0, :2], (64, 48), atol=0.5)


def test_a_flat_map_is_one_peak_a_joint() -> None:
    (poses,) = decode(np.full((1, 4, 8, 8), 0.5), np.full((1, 2, 16, 16), 0.5), (0, 1))
    assert len(poses) == 1 and np.isfinite(poses.keypoints).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_decoded_as_their_arrays(dtype: torch.dtype) -> None:
    people = crowd(np.random.default_rng(19), 3, 5, 192, 160)
    low, high = (torch.from_numpy(m)[None].to(dtype) for m in make_maps(people, 2.0 * np.arange(3), 192, 160))
    (plain,) = decode(low.float().numpy(), high.float().numpy(), ORDERS[5])
    (poses,) = decode(low.requires_grad_(), high.requires_grad_(), ORDERS[5])
    assert len(poses) == 3
    np.testing.assert_array_equal(poses.keypoints, plain.keypoints)
    np.testing.assert_array_equal(poses.scores, plain.scores)


def test_noise_everywhere_is_decoded_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of a useless net: more warm cells than are weighed at once, or than may hold a missing joint."""
    rng = np.random.default_rng(23)
    low, high = rng.random((3, 10, 24, 32), np.float32), rng.random((3, 5, 48, 64), np.float32)
    whole = decode(low, high, ORDERS[5])
    monkeypatch.setattr(decoding, "BLOCK_CELLS", 1000)
    monkeypatch.setattr(decoding, "CHUNK_CELLS", 1)
    for one, other in zip(whole, decode(low, high, ORDERS[5]), strict=True):
        assert len(one) == DecodeConfig().max_people
        np.testing.assert_array_equal(one.keypoints, other.keypoints)
    monkeypatch.setattr(decoding, "WARM_CELLS", 50)
    few = decode(low, high, ORDERS[5])
    assert [len(poses) for poses in few] == [len(poses) for poses in whole]
    np.testing.assert_array_equal(few[0].scores, whole[0].scores)


def test_limits_of_people_candidates_and_heat() -> None:
    people = crowd(np.random.default_rng(5), 6, 5, 256, 256)
    people[..., 2] = np.linspace(0.9, 0.15, 6)[:, None]
    maps = make_maps(people, 2.0 * np.arange(6), 256, 256)
    assert len(decode_one(*maps, DecodeConfig(threshold=0.1))) == 6
    best = decode_one(*maps, DecodeConfig(max_people=2))
    assert np.abs(match(best, people[:2])[..., :2] - people[:2, :, :2]).max() < 0.25
    assert len(decode_one(*maps, DecodeConfig(candidates=3))) == 3
    assert len(decode_one(*maps, DecodeConfig(threshold=0.5))) == (people[:, 0, 2] > 0.5).sum()


def test_two_tags_of_a_flip_test_decide_together() -> None:
    people = crowd(np.random.default_rng(7), 2, 5, 192, 160)
    low, high = make_maps(people, np.array([0.0, 0.2]), 192, 160)
    second, _ = make_maps(people, np.array([0.0, 3.0]), 192, 160)
    both = np.concatenate([low, second[5:]])
    poses = decode_one(both, high)
    assert np.abs(match(poses, people)[..., :2] - people[..., :2]).max() < 0.25


def test_a_missing_joint_is_found_by_its_tag() -> None:
    people = crowd(np.random.default_rng(11), 2, 5, 192, 160)
    people[0, 4, 2] = 0.08  # below the threshold of a peak
    people[1, 2] = (*(people[0, 2, :2] + (7, 0)), 0.3)  # on the slope of the other's joint: no peak of its own
    maps = make_maps(people, np.array([0.0, 3.0]), 192, 160)
    plain, filled = (match(decode_one(*maps, DecodeConfig(recover=recover)), people) for recover in (False, True))
    assert (plain[0, 4] == 0).all() and (plain[1, 2] == 0).all()
    assert np.abs(filled[0, 4, :2] - people[0, 4, :2]).max() < 1
    assert filled[0, 4, 2] == pytest.approx(0.08, rel=0.1)
    assert np.abs(filled[1, 2, :2] - people[1, 2, :2]).max() < 6
    assert filled[1, 2, 2] > 0
    scores = decode_one(*maps).scores
    np.testing.assert_allclose(sorted(scores), sorted(plain[..., 2].mean(axis=1)), rtol=1e-5)


def test_a_joint_that_nothing_shows_is_a_guess_without_a_score() -> None:
    people = crowd(np.random.default_rng(13), 2, 5, 192, 160)
    people[0, 3, 2] = 0
    found = match(decode_one(*make_maps(people, np.array([0.0, 3.0]), 192, 160)), people)
    assert found[0, 3, 2] == 0
    assert np.isfinite(found).all()


def test_a_second_peak_beside_a_joint_does_not_tear_its_person_in_two() -> None:
    rng = np.random.default_rng(17)
    people = crowd(rng, 2, 14, 256, 256)
    people[..., 2] = rng.uniform(0.6, 1.0, (2, 14))
    ghosts = people.copy()
    ghosts[..., :2] += 12
    ghosts[..., 2] *= np.where(rng.random((2, 14)) < 0.5, 0.5, 0)
    ghosts[:, CROWDPOSE.grouping_order[0], 2] = 0.4
    maps = make_maps(np.concatenate([people, ghosts]), np.array([0.0, 3.0, 0.0, 3.0]), 256, 256)
    poses = decode_one(*maps)
    first = Poses(poses.keypoints[:2], poses.scores[:2])
    # a neighbouring slope moves a peak a little
    assert np.abs(match(first, people)[..., :2] - people[..., :2]).max() < 2


def test_pairs_without_hope_do_not_push_good_ones_apart() -> None:
    """With costs that grow with the distance, tag 5 would be moved off its own person to spare tag 40 a longer way."""
    people = np.array([[[40.0, 40.0, 0.9], [40.0, 120.0, 0.9]], [[150.0, 40.0, 0.9], [150.0, 120.0, 0.9]]])
    low, high = make_maps(people, np.array([0.0, 5.0]), 192, 160)
    low[3][low[1] > 0.01] += np.where(np.arange(48) < 24, 5.45, 40.0 - 5.0)[None].repeat(40, 0)[low[1] > 0.01]
    found = decode(low[None], high[None], (0, 1), DecodeConfig(recover=False))[0].keypoints
    # the joint at the left carries tag 5.45, so it belongs to the person at the right; the other belongs to nobody
    owner = found[np.abs(found[:, 0, 0] - 150).argmin()]
    np.testing.assert_allclose(owner[1, :2], (40, 120), atol=0.25)
    assert len(found) == 3


def test_maps_that_do_not_fit_are_refused() -> None:
    low, high = np.zeros((1, 10, 8, 8)), np.zeros((1, 5, 16, 16))
    with pytest.raises(ValueError, match="order"):
        decode(low, high, (0, 1, 2, 3))
    with pytest.raises(ValueError, match="does not hold"):
        decode(low[:, :7], high, range(5))
    with pytest.raises(ValueError, match="do not fit"):
        decode(low, high[:, :, :15], range(5))


FIXTURE = SHARED / "fixtures/decode/annotations.json"
ORACLE = SHARED / "tools/oracle_outputs.py"


@pytest.mark.skipif(not (FIXTURE.is_file() and ORACLE.is_file()), reason="shared/fixtures/decode is not here")
def test_real_crowds_are_decoded_as_well_as_by_the_reference() -> None:
    """60 crowds at 512: the paper's code reaches AP .8525 on these outputs (times: bin/bench decode)."""
    spec = importlib.util.spec_from_file_location("oracle_outputs", ORACLE)
    assert spec is not None and spec.loader is not None
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    truth = json.loads(FIXTURE.read_text())
    images, people = oracle.load(FIXTURE)
    results = []
    for image_id, image in images.items():
        low, high, scale = oracle.oracle_outputs(image, people[image_id], resolution=512, seed=1000 + image_id)
        poses = decode_one(low, high)
        keypoints = poses.keypoints.astype(np.float64)
        keypoints[..., :2] /= scale
        results += to_results(image_id, keypoints, poses.scores)
    score = KeypointEvaluator(truth["images"], truth["annotations"], CROWDPOSE, "crowdpose").score(results)
    assert score["AP"] is not None and score["AP"] >= 0.8525


def test_settings_are_read_and_checked() -> None:
    given = {"threshold": 0.3, "recover": False}
    assert DecodeConfig.from_dict(given, "a.pt") == DecodeConfig(threshold=0.3, recover=False)
    for value, message in (
        ({"threshold": 0}, r"a\.pt: decoder setting 'threshold' is 0"),
        ({"tag_threshold": float("inf")}, "decoder setting 'tag_threshold' is inf"),
        ({"max_people": -1}, "decoder setting 'max_people' is -1"),
        ({"treshold": 1}, "unknown decoder setting 'treshold'; did you mean 'threshold'"),
        ([], "holds no mapping as its decode"),
    ):
        with pytest.raises(InputError, match=message):
            DecodeConfig.from_dict(value, "a.pt")


def test_poses_as_boxes_and_json(tmp_path: Path) -> None:
    keypoints = np.zeros((2, 3, 3), np.float32)
    keypoints[0] = [(1, 2, 0.5), (5, 10, 0.25), (100, 100, 0)]
    poses = Poses(keypoints, np.array([0.5, 0.25], np.float32))
    assert repr(poses) == "Poses(2 people, scores 0.50 to 0.25)"
    assert poses.boxes.tolist() == [[1, 2, 4, 8], [0, 0, 0, 0]]  # the joint that was not found has no part in it
    poses.save(tmp_path / "poses.json")
    kept = json.loads((tmp_path / "poses.json").read_text())
    assert kept == poses.to_dict()
    assert kept["people"][0] == {"score": 0.5, "box": [1, 2, 4, 8], "keypoints": keypoints[0].tolist()}
    followed = replace(poses, ids=np.array([7, -1]))
    assert [person["id"] for person in followed.to_dict()["people"]] == [7, -1]
    nobody = Poses(np.zeros((0, 3, 3), np.float32), np.zeros(0, np.float32))
    assert repr(nobody) == "Poses(0 people)" and nobody.boxes.shape == (0, 4) and nobody.to_dict() == {"people": []}
