"""Targets against a plainly written reference, at positions between the cells' centres too."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ofa_pose.train.losses import CUT, heatmaps, tag_cells


def people(seed: int, batch: int, persons: int, joints: int, side: float) -> Tensor:
    """Random keypoints (B, P, J, 3) on an input of `side` pixels, a third of them unlabelled, a few beyond it."""
    random = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(batch, persons, joints, 3, generator=random)
    keypoints[..., :2] = (keypoints[..., :2] * 1.2 - 0.1) * side
    keypoints[..., 2] = torch.randint(0, 3, (batch, persons, joints), generator=random)
    return keypoints


def _plain(keypoints: Tensor, size: tuple[int, int], stride: float, sigma: float) -> Tensor:
    maps = torch.zeros(keypoints.shape[0], keypoints.shape[2], *size, dtype=torch.float64)
    for image, persons in enumerate(keypoints.tolist()):
        for person in persons:
            for joint, (x, y, visibility) in enumerate(person):
                if visibility == 0:
                    continue
                for row in range(size[0]):
                    for column in range(size[1]):
                        across, down = column + 0.5 - x / stride, row + 0.5 - y / stride
                        value = math.exp(-(across**2 + down**2) / (2 * sigma**2))
                        if max(abs(across), abs(down)) <= CUT * sigma:
                            maps[image, joint, row, column] = max(maps[image, joint, row, column], value)
    return maps


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    persons=st.integers(0, 4),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    stride=st.sampled_from([2, 4]),
    sigma=st.sampled_from([0.7, 1.5, 2.0]),
)
def test_heatmaps_are_the_largest_gaussian(
    seed: int, persons: int, size: tuple[int, int], stride: int, sigma: float
) -> None:
    keypoints = people(seed, 2, persons, 3, 12 * stride)
    found = heatmaps(keypoints, size, stride, sigma)
    torch.testing.assert_close(found.double(), _plain(keypoints, size, stride, sigma), atol=1e-5, rtol=1e-4)


def test_what_is_cut_off_is_nothing_to_speak_of() -> None:
    assert math.exp(-(CUT**2) / 2) < 3.4e-4


def test_the_peak_is_one_at_a_cells_centre_and_lies_between_cells_elsewhere() -> None:
    keypoints = torch.tensor([[[[4 * 7.5, 4 * 3.5, 2.0]]]])
    maps = heatmaps(keypoints, (8, 16), 4)
    assert maps[0, 0, 3, 7] == 1 and maps.max() == 1
    keypoints[..., 0] = 4 * 8.0
    maps = heatmaps(keypoints, (8, 16), 4)
    assert maps[0, 0, 3, 7] == maps[0, 0, 3, 8] == maps.max()
    torch.testing.assert_close(maps.max(), torch.tensor(math.exp(-0.25 / 8)))


def test_both_scales_agree_on_the_position() -> None:
    """The Gaussian's own centre of mass, in input pixels, is the joint at either stride."""
    keypoints = torch.tensor([[[[61.3, 44.9, 1.0]]]])
    for stride, side in ((4, 32), (2, 64)):
        maps = heatmaps(keypoints, (side, side), stride)[0, 0]
        centres = (torch.arange(side) + 0.5) * stride
        x, y = (maps.sum(0) * centres).sum() / maps.sum(), (maps.sum(1) * centres).sum() / maps.sum()
        torch.testing.assert_close(torch.stack([x, y]), keypoints[0, 0, 0, :2], atol=0.01, rtol=0)


def test_nothing_labelled_gives_nothing() -> None:
    for keypoints in (torch.zeros(2, 0, 5, 3), torch.zeros(2, 3, 5, 3)):
        maps = heatmaps(keypoints, (8, 9), 4)
        assert maps.shape == (2, 5, 8, 9) and not maps.any()


@given(seed=st.integers(0, 10**6), stride=st.sampled_from([2, 4]))
def test_tag_cells(seed: int, stride: int) -> None:
    keypoints = people(seed, 2, 3, 4, 10 * stride)
    cells, valid = tag_cells(keypoints, (10, 11), stride)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in (2, 3, 4))).tolist():
        x, y, visibility = keypoints[tuple(place)].tolist()
        column, row = math.floor(x / stride), math.floor(y / stride)
        expected = visibility > 0 and 0 <= column < 11 and 0 <= row < 10
        assert bool(valid[tuple(place)]) is expected
        assert int(cells[tuple(place)]) == (row * 11 + column if expected else 0)
