"""Test-time augmentation: mirrored and resized images lead to the same people at the same places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ofa_pose.inference.pose_model import Inputs, PoseModel, estimate
from ofa_pose.pose.geometry import input_frame, warp
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError
from tests.inference.light_scenes import SPEC
from tests.pose.maps import make_maps

PAIR = Skeleton("pair", ("left", "right"), (0.05, 0.05), ((0, 1),), ((0, 1),))
NOBODY = (124, 116, 104)


class Seer:
    """A network that knows white squares: the one further right is the person's left joint, as people face us."""

    streams = 1

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.seen.append(images.shape)
        outputs = []
        for image in images:
            height, width = image.shape[:2]
            light = np.clip(image.astype(float) - 124, 0, None).sum(axis=2)
            half = (light.sum(axis=0) * np.arange(width)).sum() / light.sum()  # between the squares
            places = []
            for side in (np.arange(width) > half, np.arange(width) <= half):
                part = light * side
                x = (part.sum(axis=0) * (np.arange(width) + 0.5)).sum() / part.sum()
                y = (part.sum(axis=1) * (np.arange(height) + 0.5)).sum() / part.sum()
                places.append((x, y, 0.8))
            outputs.append(make_maps(np.array([places]), np.array([float(places[0][0] > width / 2)]), width, height))
        low, high = (np.stack(maps) for maps in zip(*outputs, strict=True))
        return low, high


def photo(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with two white squares and their centres, the right one first, in image pixels."""
    image = np.full((height, width, 3), NOBODY, np.uint8)
    centres = np.array([(0.7 * width, 0.6 * height), (0.3 * width, 0.4 * height)]).round()
    for x, y in centres.astype(int):
        image[y - 6 : y + 6, x - 6 : x + 6] = 255
    return image, centres


def test_several_images_are_computed_together_where_sizes_are_equal() -> None:
    sizes = [(200, 140), (140, 200), (200, 140), (200, 140), (140, 200)] * 2
    images = [photo(*size)[0] for size in sizes]
    seer = Seer()
    model = PoseModel(seer, SPEC, PAIR, 128)
    poses = model(images)
    assert [shape[0] for shape in seer.seen] == [5, 3, 1, 1]  # of the first eight, then of the others
    for image, found in zip(images, poses, strict=True):
        alone = model(image)
        np.testing.assert_array_equal(found.keypoints, alone.keypoints)
        np.testing.assert_array_equal(found.scores, alone.scores)
    assert len(model(tuple(images[:1]))) == 1 and model([]) == []
    with pytest.raises(InputError, match="no such image"):
        model([images[0], "no-photo.jpg"])


@pytest.mark.parametrize("size", [(200, 140), (140, 200), (170, 170)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("more", [(), (96,), (64, 160, 224)])
def test_augmented_images_agree(size: tuple[int, int], flip: bool, more: tuple[int, ...]) -> None:
    image, centres = photo(*size)
    batches = []
    for side in (128, *more):
        frame = input_frame(*size, side)
        batches.append(Inputs((1,), (frame,), warp(image, frame)[None]))
    seer = Seer()
    (poses,), seconds = estimate(seer, replace(batches[0], resized=tuple(batches[1:])), PAIR, flip=flip)
    assert len(seer.seen) == (1 + flip) * (1 + len(more))
    assert len(poses) == 1 and set(seconds) == {"network", "decode"}
    found = batches[0].frames[0].poses_to_image(poses.keypoints)[0]
    assert np.abs(found[:, :2] - centres).max() < 1.0
    assert poses.keypoints[0, :, 2].min() > 0.6


def test_heat_that_only_one_size_shows_counts_by_its_share() -> None:
    """At a second size that sees nothing, heat is halved."""

    class OnlySmall(Seer):
        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            low, high = super().__call__(images)
            return (low, high) if images.shape[1] == 128 else (low * 0, high * 0)

    image, _ = photo(160, 160)
    frames = [input_frame(160, 160, side) for side in (128, 160)]
    one, other = (Inputs((1,), (frame,), warp(image, frame)[None]) for frame in frames)
    (alone,), _ = estimate(OnlySmall(), one, PAIR)
    (both,), _ = estimate(OnlySmall(), replace(one, resized=(other,)), PAIR)
    np.testing.assert_allclose(both.scores, alone.scores / 2, rtol=1e-4)
    np.testing.assert_allclose(both.keypoints[..., :2], alone.keypoints[..., :2], atol=0.01)
