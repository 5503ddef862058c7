"""Losses against plainly written references."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ofa_pose.train.losses import distillation_loss, heatmap_loss, tag_loss
from tests.train.test_targets import people

SEEDS = st.integers(0, 10**6)


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _plain_tag_loss(tags: Tensor, keypoints: Tensor, stride: int) -> tuple[float, float]:
    pushes, pulls = [], []
    for maps, persons in zip(tags.tolist(), keypoints.tolist(), strict=True):
        references, deviations = [], []
        for person in persons:
            read = []
            for joint, (x, y, visibility) in enumerate(person):
                row, column = math.floor(y / stride), math.floor(x / stride)
                if visibility > 0 and 0 <= row < len(maps[0]) and 0 <= column < len(maps[0][0]):
                    read.append(maps[joint][row][column])
            if read:
                mean = sum(read) / len(read)
                references.append(mean)
                deviations.append(sum((tag - mean) ** 2 for tag in read) / len(read))
        n = len(references)
        pulls.append(sum(deviations) / n if n else 0.0)
        total = sum(math.exp(-((references[a] - references[b]) ** 2)) for a in range(n) for b in range(n) if a != b)
        pushes.append(0.5 * total / (n * (n - 1)) if n > 1 else 0.0)
    return sum(pushes) / len(pushes), sum(pulls) / len(pulls)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, batch=st.integers(1, 3), persons=st.integers(0, 5), joints=st.integers(1, 4))
def test_tag_loss(seed: int, batch: int, persons: int, joints: int) -> None:
    keypoints = people(seed, batch, persons, joints, 40)
    tags = _random(seed, batch, joints, 9, 10)
    found = tag_loss(tags, keypoints)
    expected = _plain_tag_loss(tags, keypoints, 4)
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_tag_loss_of_nobody_and_of_one_person() -> None:
    tags = _random(0, 1, 3, 8, 8).requires_grad_()
    push, pull = tag_loss(tags, torch.zeros(1, 0, 3, 3))
    assert push == 0 and pull == 0
    (push + pull).backward()
    assert not tags.grad.any()
    one = torch.tensor([[[[1.0, 1, 2], [9, 9, 1], [0, 0, 0]]]])
    push, pull = tag_loss(tags, one)
    assert push == 0 and pull > 0


def test_following_the_gradient_groups_people() -> None:
    keypoints = people(3, 1, 3, 4, 32).clamp(min=0, max=31)
    tags = torch.zeros(1, 4, 8, 8, requires_grad=True)
    with torch.no_grad():
        tags += 0.1 * _random(1, 1, 4, 8, 8)
    before = sum(tag_loss(tags, keypoints))
    for _ in range(200):
        (gradient,) = torch.autograd.grad(sum(tag_loss(tags, keypoints)), tags)
        with torch.no_grad():
            tags -= 2 * gradient
    assert sum(tag_loss(tags, keypoints)) < 0.3 * before


def _plain_heatmap_loss(prediction: Tensor, target: Tensor, mask: Tensor, foreground: float) -> float:
    batch, joints, height, width = prediction.shape
    cell = mask.shape[1] // height
    total = 0.0
    for b in range(batch):
        for j in range(joints):
            for r in range(height):
                for c in range(width):
                    share = mask[b, r * cell : (r + 1) * cell, c * cell : (c + 1) * cell].double().mean().item()
                    t = target[b, j, r, c].item()
                    total += share * (1 + foreground * t) * (prediction[b, j, r, c].item() - t) ** 2
    return total / prediction.numel()


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, cell=st.sampled_from([1, 2]), foreground=st.sampled_from([0.0, 5.0, 30.0]))
def test_heatmap_loss(seed: int, cell: int, foreground: float) -> None:
    prediction, target = _random(seed, 2, 3, 4, 5), _random(seed + 1, 2, 3, 4, 5).sigmoid()
    mask = (_random(seed + 2, 2, 4 * cell, 5 * cell) > 0).to(torch.uint8)
    expected = _plain_heatmap_loss(prediction, target, mask, foreground)
    assert heatmap_loss(prediction, target, mask, foreground).item() == pytest.approx(expected, rel=1e-4)


def test_ignored_cells_get_no_gradient() -> None:
    prediction = _random(0, 1, 2, 4, 4).requires_grad_()
    mask = torch.ones(1, 8, 8, dtype=torch.uint8)
    mask[:, :4] = 0
    heatmap_loss(prediction, torch.zeros(1, 2, 4, 4), mask).backward()
    assert not prediction.grad[:, :, :2].any() and prediction.grad[:, :, 2:].all()


def test_a_teacher_of_another_size_is_resized_and_gets_no_gradient() -> None:
    prediction, mask = _random(0, 2, 3, 8, 8).requires_grad_(), torch.ones(2, 8, 8, dtype=torch.uint8)
    teacher = _random(1, 2, 3, 4, 4).requires_grad_()
    loss = distillation_loss(prediction, teacher, mask)
    resized = F.interpolate(teacher, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(loss, heatmap_loss(prediction, resized, mask))
    loss.backward()
    assert teacher.grad is None and prediction.grad.any()


def test_a_teachers_negative_values_never_weigh_negatively() -> None:
    """Noise of -0.1 would make 1 + 30 × target negative, and the loss would reward errors."""
    teacher, mask = torch.full((1, 1, 4, 4), -0.1), torch.ones(1, 4, 4)
    assert distillation_loss(torch.zeros(1, 1, 4, 4), teacher, mask).item() == pytest.approx(0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_summed_in_single(dtype: torch.dtype) -> None:
    """Squares of 300 overflow half precision."""
    keypoints = torch.tensor([[[[2.0, 2, 2], [10, 10, 2]], [[14.0, 2, 2], [0, 0, 0]]]])
    tags = (300 * _random(0, 1, 2, 4, 4)).to(dtype).requires_grad_()
    push, pull = tag_loss(tags, keypoints)
    heat = heatmap_loss(tags, torch.zeros(1, 2, 4, 4, dtype=dtype), torch.ones(1, 8, 8, dtype=torch.uint8))
    expected = tag_loss(tags.detach().float(), keypoints)
    assert push.dtype == pull.dtype == heat.dtype == torch.float32
    assert torch.isfinite(heat) and heat > 1e4
    torch.testing.assert_close((push, pull), expected)
    (push + pull + heat * 1e-4).backward()
    assert torch.isfinite(tags.grad).all()
