from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_pose.pose.geometry import MAX_ASPECT, MEAN_COLOUR, MULTIPLE, input_frame, warp
from ofa_pose.utils.errors import InputError
from tests.pose.maps import gaussian

SIDES = st.integers(1, 5000)
RESOLUTIONS = st.integers(1, 20).map(lambda n: 32 * n)
SIZES = [(640, 427), (427, 640), (333, 333), (1000, 333), (97, 64)]


@given(SIDES, SIDES, RESOLUTIONS)
def test_frame_keeps_the_aspect_and_adds_less_than_one_multiple(width: int, height: int, resolution: int) -> None:
    frame = input_frame(width, height, resolution)
    for side, length, offset in (
        (frame.width, width, frame.offset_x),
        (frame.height, height, frame.offset_y),
    ):
        padding = side - length * frame.scale
        assert side % MULTIPLE == 0 and -1e-6 < padding < MULTIPLE == 32
        assert offset <= padding / 2 + 1e-6 and padding - 2 * offset < 2 + 1e-6  # centred on a whole pixel
    if max(width, height) <= MAX_ASPECT * min(width, height):
        assert min(frame.width, frame.height) == resolution


@given(SIDES, SIDES, RESOLUTIONS, st.sampled_from([2, 4]), st.integers(0, 2**32 - 1))
def test_round_trip_through_pixels_and_cells(width: int, height: int, resolution: int, stride: int, seed: int) -> None:
    frame = input_frame(width, height, resolution)
    image_xy = np.random.default_rng(seed).uniform(0, 1, (20, 2)) * (width, height)
    input_xy = frame.to_input(image_xy)
    assert ((input_xy >= 0) & (input_xy <= (frame.width, frame.height))).all()
    np.testing.assert_allclose(frame.to_image(input_xy), image_xy, atol=1e-6)
    # exact through continuous cells, half an input pixel through pixel centres, half a cell through cell centres
    cells = input_xy / stride
    np.testing.assert_allclose(frame.to_image(cells * stride), image_xy, atol=1e-6)
    pixel = frame.to_image(np.floor(input_xy) + 0.5)
    assert (abs(pixel - image_xy) * frame.scale <= 0.5 + 1e-6).all()
    centre = frame.to_image((np.floor(cells) + 0.5) * stride)
    assert (abs(centre - image_xy) * frame.scale <= stride / 2 + 1e-6).all()
    rows, columns = frame.cells(stride)
    assert (np.floor(cells) <= (columns, rows)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resolution", [64, 256, 448])
def test_warped_pixels_lie_where_the_frame_says(size: tuple[int, int], resolution: int) -> None:
    width, height = size
    frame = input_frame(width, height, resolution)
    for place in ((0.3, 0.6), (0.71, 0.41)):
        x, y = place[0] * width, place[1] * height
        blob = gaussian(height, width, x, y, sigma=max(2.5, 2.5 / frame.scale)) * 255
        grey = warp(np.repeat(blob.round().astype(np.uint8)[..., None], 3, 2), frame, (0, 0, 0))[..., 0].astype(float)
        seen_x = (grey.sum(0) * (np.arange(frame.width) + 0.5)).sum() / grey.sum()
        seen_y = (grey.sum(1) * (np.arange(frame.height) + 0.5)).sum() / grey.sum()
        np.testing.assert_allclose((seen_x, seen_y), frame.to_input((x, y)), atol=0.06)


def test_warp_shows_the_whole_image_and_fills_only_the_border() -> None:
    image = np.full((375, 500, 3), (200, 10, 90), np.uint8)
    frame = input_frame(500, 375, 448)
    out = warp(image, frame)
    assert out.shape == (448, 608, 3) and out.dtype == np.uint8
    shown = (out == (200, 10, 90)).all(axis=2)
    assert shown[:, 5:602].all() and not shown[:, :5].any() and not shown[:, 603:].any()
    assert (out[:, :5] == MEAN_COLOUR).all()


def test_an_image_of_the_right_size_is_copied_and_a_mirrored_one_is_mirrored() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 100, 3), np.uint8)
    frame = input_frame(100, 96, 96)
    out = warp(image, frame)
    assert frame.scale == 1 and out.shape == (96, 128, 3)
    np.testing.assert_array_equal(out[:, 14:114], image)
    np.testing.assert_array_equal(warp(image[:, ::-1], frame), out[:, ::-1])


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    out = warp(np.repeat(checks.astype(np.uint8)[..., None], 3, 2), input_frame(512, 512, 96))
    assert abs(out.astype(int) - 127).max() <= 10


@pytest.mark.parametrize("size", [(1, 1), (1, 9000), (9000, 3), (2, 3)])
def test_odd_images_have_small_inputs(size: tuple[int, int]) -> None:
    frame = input_frame(*size, 64)
    out = warp(np.zeros((size[1], size[0], 3), np.uint8), frame)
    assert out.shape[:2] == (frame.height, frame.width) and max(out.shape) <= 64 * MAX_ASPECT


def test_poses_move_to_the_image_with_their_scores() -> None:
    frame = input_frame(500, 375, 448)
    poses = np.array([[[304.0, 224.0, 0.7], [5.0, 0.0, 0.2]]], np.float32)
    moved = frame.poses_to_image(poses)
    np.testing.assert_allclose(moved[0, :, :2], frame.to_image(poses[0, :, :2]), rtol=1e-6)
    np.testing.assert_array_equal(moved[..., 2], poses[..., 2])
    poses[0, 0] = 0
    assert not frame.poses_to_image(poses)[0, 0].any(), "a joint that is nowhere is nowhere in the image"
    assert moved is not poses and frame.poses_to_image(poses[:0]).shape == (0, 2, 3)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InputError):
        input_frame(0, 10, 64)
    with pytest.raises(InputError):
        input_frame(10, 10, 0)
    with pytest.raises(ValueError, match="does not fit"):
        warp(np.zeros((10, 12, 3), np.uint8), input_frame(10, 12, 64))
