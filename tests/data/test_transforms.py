"""Augmentation moves pixels, joints and regions by one map, exact to a small part of a pixel."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pydantic import ValidationError

from ofa_pose.data.records import ImageRecord, Region, box_region, segment_region
from ofa_pose.data.transforms import (
    Augmentation,
    Sample,
    augmented_sample,
    centre_affine,
    clean_sample,
    decoding_reduction,
    ignore_mask,
    jitter_colour,
    make_sample,
    sample_affine,
    warp_image,
    warp_keypoints,
)
from ofa_pose.pose.geometry import MEAN_COLOUR
from ofa_pose.skeleton import COCO
from ofa_pose.utils.seeding import generator

PLAIN = Augmentation(rotation=0, scale=(1.0, 1.0), shift=0, flip=0, brightness=0, contrast=0, saturation=0, hue=0)
SEEDS = st.integers(0, 2**32)


def _spot(width: int, height: int, x: float, y: float, sigma: float) -> NDArray[np.uint8]:
    """A bright Gaussian spot at a continuous position on the border's colour."""
    across = np.exp(-((np.arange(width) + 0.5 - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(height) + 0.5 - y) ** 2) / (2 * sigma**2))
    image = np.array(MEAN_COLOUR) + 120 * (down[:, None] * across)[..., None]
    return np.round(image).astype(np.uint8)


def _centre(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The continuous centre of what differs from the border's colour by more than rounding."""
    bright = (image.astype(float) - MEAN_COLOUR).mean(-1)
    bright[bright < 4] = 0
    rows, columns = np.indices(bright.shape) + 0.5
    return np.array([(columns * bright).sum(), (rows * bright).sum()]) / bright.sum()


def _people(*positions: tuple[float, float]) -> NDArray[np.float32]:
    keypoints = np.zeros((len(positions), 17, 3), np.float32)
    keypoints[:, 5] = [(x, y, 2) for x, y in positions]  # the left shoulder
    return keypoints


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    size=st.sampled_from([(160, 120), (120, 200), (400, 300), (900, 700)]),
    place=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
)
def test_a_painted_joint_lands_at_its_transformed_keypoint(
    seed: int, size: tuple[int, int], place: tuple[float, float]
) -> None:
    width, height = size
    resolution = 128
    x, y = place[0] * width, place[1] * height
    matrix, flipped = sample_affine(generator(seed), width, height, resolution, Augmentation())
    sigma = 0.03 * min(size)
    moved = warp_keypoints(_people((x, y)), matrix, resolution, COCO.flip_index if flipped else None)
    assume(len(moved) == 1)
    joint = 6 if flipped else 5
    target = moved[0, joint]
    assert target[2] == 2 and not np.delete(moved[0], joint, 0).any()
    margin = 4 * sigma * resolution / (0.75 * min(size))
    assume(margin < target[0] < resolution - margin and margin < target[1] < resolution - margin)
    found = _centre(warp_image(_spot(width, height, x, y, sigma), matrix, resolution))
    np.testing.assert_allclose(found, target[:2], atol=0.08)


def _saved(path: Path, width: int, height: int, x: float, y: float) -> ImageRecord:
    cv2.imwrite(str(path), _spot(width, height, x, y, 0.04 * height)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    boxes, areas = np.zeros((1, 4), np.float32), np.ones(1, np.float32)
    return ImageRecord(1, path, width, height, _people((x, y)), boxes, areas)


@pytest.mark.parametrize(("resolution", "reduction"), [(320, 1), (160, 2), (96, 4), (32, 8)])
def test_reduced_decoding_keeps_the_geometry(tmp_path: Path, resolution: int, reduction: int) -> None:
    record = _saved(tmp_path / "spot.jpg", 501, 403, 260.3, 190.7)
    matrix, _ = sample_affine(generator(1), 501, 403, resolution, PLAIN)
    assert decoding_reduction(matrix) == reduction
    sample = make_sample(record, matrix, False, resolution, COCO)
    np.testing.assert_allclose(_centre(sample.image), sample.keypoints[0, 5, :2], atol=0.08)


def test_augmented_sample_is_fixed_by_its_generator(tmp_path: Path) -> None:
    record = _saved(tmp_path / "spot.jpg", 120, 100, 60.0, 50.0)

    def draw(seed: int) -> Sample:
        return augmented_sample(generator(seed), record, 64, COCO, Augmentation())

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (64, 64, 3) and first.mask.shape == (32, 32)
    assert first.image.dtype == first.mask.dtype == np.uint8 and first.keypoints.dtype == np.float32
    clean = clean_sample(record, 64, COCO)
    np.testing.assert_allclose(clean.keypoints[0, 5], (32, 32, 2))


def test_a_mirror_exchanges_left_and_right() -> None:
    keypoints = 1 + np.arange(17 * 3, dtype=np.float32).reshape(1, 17, 3) / 4
    keypoints[..., 2] = 1 + np.arange(17) % 2
    mirror = np.array([[-1.0, 0, 64], [0, 1, 0]])
    flipped = warp_keypoints(keypoints, mirror, 64, COCO.flip_index)
    for joint, name in enumerate(COCO.joints):
        swapped = name.replace("left", "*").replace("right", "left").replace("*", "right")
        x, y, visibility = keypoints[0, COCO.joints.index(swapped)]
        np.testing.assert_allclose(flipped[0, joint], (64 - x, y, visibility))


def test_joints_that_leave_the_input_are_unlabelled_and_people_without_any_dropped() -> None:
    keypoints = np.zeros((3, 17, 3), np.float32)
    keypoints[0, :5] = [(0, 0, 2), (63.9, 63.9, 1), (64, 5, 2), (-0.1, 5, 2), (5, 64, 2)]
    keypoints[1, 3] = (99, 5, 2)
    keypoints[2, 16] = (10, 20, 1)
    kept = warp_keypoints(keypoints, np.eye(3)[:2], 64)
    assert kept.shape == (2, 17, 3)
    assert kept[0, :, 2].tolist() == [2, 1] + [0] * 15 and not kept[0, 2:].any()
    np.testing.assert_allclose(kept[1, 16], (10, 20, 1))


@given(x=st.floats(0, 100, width=32), size=st.integers(1, 100), turn=st.floats(-3, 3))
def test_kept_joints_lie_on_the_input(x: float, size: int, turn: float) -> None:
    matrix = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), size * 0.9999999999]])
    kept = warp_keypoints(_people((x, x / 3)), matrix, size)
    assert ((kept[..., :2] >= 0) & (kept[..., :2] < size)).all()


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (77, 77)])
def test_the_centre_square_has_the_scale_of_evaluation(width: int, height: int) -> None:
    corners = np.array([[0, 0, 1], [width, height, 1]]) @ centre_affine(width, height, 64).T
    side = np.array([width, height]) * 64 / min(width, height)
    np.testing.assert_allclose(corners, [32 - side / 2, 32 + side / 2], atol=1e-9)


@given(seed=SEEDS, width=st.integers(20, 2000), height=st.integers(20, 2000))
def test_drawn_crops_keep_to_their_ranges(seed: int, width: int, height: int) -> None:
    rng = generator(seed)
    matrix, flipped = sample_affine(rng, width, height, 256, Augmentation())
    turn = matrix[:, :2] * [[-1, -1], [1, 1]] if flipped else matrix[:, :2]
    assert bool(np.linalg.det(matrix[:, :2]) < 0) is flipped
    side = 256 / math.sqrt(abs(np.linalg.det(turn)))
    assert 0.75 - 1e-9 <= side / min(width, height) <= 1.5 + 1e-9
    assert abs(math.degrees(math.atan2(turn[1, 0], turn[0, 0]))) <= 30 + 1e-9
    centre = np.linalg.solve(matrix[:, :2], 128 - matrix[:, 2])
    assert (np.abs(centre - (width / 2, height / 2)) <= 0.2 * side * (1 + 1e-9)).all()
    fresh = generator(seed)
    fresh.random(5)
    assert rng.random() == fresh.random()  # the number of draws depends on nothing


def test_draws_spread_over_their_ranges() -> None:
    rng = generator(0)
    drawn = [sample_affine(rng, 100, 100, 100, Augmentation()) for _ in range(2000)]
    sides = np.array([1 / math.sqrt(abs(np.linalg.det(matrix[:, :2]))) for matrix, _ in drawn])
    assert sides.min() < 0.77 and sides.max() > 1.48 and abs(sides.mean() - 1.125) < 0.02
    assert 0.46 < np.mean([flipped for _, flipped in drawn]) < 0.54


def test_plain_augmentation_is_the_centre_square() -> None:
    matrix, flipped = sample_affine(generator(0), 300, 200, 100, PLAIN)
    np.testing.assert_allclose(matrix, [[0.5, 0, -25], [0, 0.5, 0]], atol=1e-12)
    assert not flipped
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    same, _ = sample_affine(generator(0), 64, 64, 64, PLAIN)
    np.testing.assert_array_equal(warp_image(image, same, 64), image)


def test_shrinking_averages_and_the_outside_is_the_border_colour() -> None:
    board = (np.indices((240, 240)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    matrix, _ = sample_affine(generator(3), 240, 240, 48, Augmentation(rotation=10, shift=0, scale=(0.9, 0.9)))
    shrunk = warp_image(board, matrix, 48)
    assert np.abs(shrunk.astype(float) - 127.5).max() <= 2
    wide, _ = sample_affine(generator(3), 20, 20, 50, Augmentation(rotation=0, shift=0, scale=(2, 2)))
    fitted = warp_image(np.zeros((20, 20, 3), np.uint8), wide, 50)
    assert (fitted[:11] == MEAN_COLOUR).all() and (fitted[39:] == MEAN_COLOUR).all() and not fitted[14:36, 14:36].any()


def _inside(mask: NDArray[np.uint8], matrix: NDArray[np.float64], resolution: int) -> NDArray[np.uint8]:
    """For each cell of the half-size mask whether its centre lies on the image's `mask`: a loop in plain words."""
    cells = resolution // 2
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    result = np.zeros((cells, cells), np.uint8)
    for row in range(cells):
        for column in range(cells):
            x, y, _ = inverse @ (2 * column + 1, 2 * row + 1, 1)
            if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]:
                result[row, column] = mask[int(y), int(x)]
    return result


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_ignored_regions_cover_what_they_cover_in_the_image(seed: int) -> None:
    rng = generator(seed)
    matrix, _ = sample_affine(rng, 120, 90, 64, Augmentation())
    box = (20, 30, 50, 35)
    drawn = np.zeros((90, 120), np.uint8)
    drawn[30:65, 20:70] = 1
    packed = coco_mask.encode(np.asfortranarray(drawn))
    packed = {"size": packed["size"], "counts": packed["counts"].decode()}
    polygon = [[20, 30, 70, 30, 70, 65, 20, 65]]
    expected = _inside(drawn, matrix, 64)
    for region in (box_region(box), segment_region(polygon, 120, 90), segment_region(packed, 120, 90)):
        assert region is not None
        ignored = 1 - ignore_mask([region], matrix, 64)
        differs = (ignored != expected).astype(np.uint8)  # along the edges: nowhere three cells thick
        assert not cv2.erode(differs, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0).any()
    exact = 1 - ignore_mask([segment_region(packed, 120, 90) or Region()], matrix, 64)
    assert (exact != expected).mean() < 0.01


def test_no_region_and_far_regions() -> None:
    assert ignore_mask([], np.eye(3)[:2], 32).tolist() == np.ones((16, 16)).tolist()
    huge = box_region((-1e7, -1e7, 3e7, 3e7))
    assert not ignore_mask([huge], np.eye(3)[:2], 32).any()
    far = box_region((1e7, 1e7, 5, 5))
    assert ignore_mask([far, box_region((0, 0, 0, 0))], np.eye(3)[:2], 32)[1:, 1:].all()
    both = ignore_mask([box_region((0, 0, 8, 8)), box_region((16, 16, 8, 8))], np.eye(3)[:2], 32)
    assert not both[:4, :4].any() and not both[8:12, 8:12].any() and both[14:, 14:].all()


@given(seed=SEEDS, height=st.integers(1, 40), width=st.integers(1, 40))
def test_packed_run_lengths_are_read_as_pycocotools_reads_them(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    packed = coco_mask.encode(np.asfortranarray(drawn))
    region = segment_region({"size": [height, width], "counts": packed["counts"].decode()}, width, height)
    assert region is not None and region.runs is not None
    np.testing.assert_array_equal(region.runs.mask(), drawn)


def test_colour_jitter() -> None:
    image = np.random.default_rng(0).integers(60, 190, (8, 8, 3), np.uint8)
    assert jitter_colour(generator(0), image, PLAIN) is image
    bright = jitter_colour(generator(5), image, PLAIN.model_copy(update={"brightness": 0.2}))
    factor = 1 + 0.2 * (2 * generator(5).random(4)[0] - 1)
    np.testing.assert_allclose(bright, image * factor, atol=0.51)
    grey = image[..., :1].repeat(3, 2)
    turned = jitter_colour(generator(6), grey, PLAIN.model_copy(update={"saturation": 0.9, "hue": 0.5}))
    np.testing.assert_allclose(turned.astype(int), grey, atol=1)
    contrast = jitter_colour(generator(7), image, PLAIN.model_copy(update={"contrast": 0.5}))
    factor = 1 + 0.5 * (2 * generator(7).random(4)[1] - 1)
    np.testing.assert_allclose(contrast, MEAN_COLOUR + factor * (image - np.array(MEAN_COLOUR, float)), atol=0.51)
    third = PLAIN.model_copy(update={"hue": 1 / 3})  # a third of the circle at most: colours change places
    red = np.full((1, 1, 3), (200, 20, 20), np.uint8)
    hue = jitter_colour(generator(8), red, third).astype(int)[0, 0]
    assert hue[0] < 200 and hue.max() - hue.min() > 50


@pytest.mark.parametrize(
    "wrong", [{"scale": (1.5, 0.75)}, {"scale": (0, 1)}, {"flip": 2}, {"rotation": -1}, {"size": 1}]
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Augmentation.model_validate(wrong)
