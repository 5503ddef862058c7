"""One supernet step against the same computation written out plainly, in loops, on a net cut out of the supernet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ofa_pose.arch.space import load_space
from ofa_pose.data.loader import Batch, normalise
from ofa_pose.models.elastic import Supernet, extract, leading_slice
from ofa_pose.recipe import LossSettings
from ofa_pose.train.objectives import UniformSampling
from tests.networks import randomised

JOINTS = 5
SETTINGS = LossSettings(sigma=1.5, foreground=10.0, high=2.0, push=0.3, pull=0.2)


def scenes(side: int, people: int = 3) -> Batch:
    """Two images; joints also outside the image and unlabelled, a person without joints, a mask with holes."""
    rng = np.random.default_rng(side)
    images = torch.from_numpy(rng.integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    places = rng.uniform(-0.05 * side, 1.05 * side, (2, people, JOINTS, 2))
    keypoints = np.concatenate([places, rng.integers(0, 3, (2, people, JOINTS, 1))], axis=-1).astype(np.float32)
    keypoints[1, -1] = 0
    mask = torch.from_numpy((rng.random((2, side // 2, side // 2)) > 0.2).astype(np.uint8))
    return Batch(images, torch.from_numpy(keypoints), mask, side)


def heat_error(prediction: Tensor, batch: Batch, stride: int) -> Tensor:
    """The masked, weighted mean squared error of heatmaps, a person's joint at a time."""
    side = prediction.shape[-1]
    centres = torch.arange(side, dtype=torch.float64) + 0.5
    total = torch.zeros((), dtype=torch.float64)
    share = batch.mask.shape[-1] // side
    for image in range(len(prediction)):
        counts = batch.mask[image].double().view(side, share, side, share).mean((1, 3))
        for joint in range(JOINTS):
            target = torch.zeros(side, side, dtype=torch.float64)
            for x, y, seen in batch.keypoints[image, :, joint].tolist():
                if seen > 0:
                    across, down = ((centres - place / stride) / SETTINGS.sigma for place in (x, y))
                    near = (down.abs() <= 4)[:, None] & (across.abs() <= 4)[None]
                    target = target.maximum(torch.exp(-(down[:, None] ** 2 + across[None] ** 2) / 2) * near)
            weight = (1 + SETTINGS.foreground * target) * counts
            total = total + (weight * (prediction[image, joint].double() - target) ** 2).sum()
    return total / prediction[:, :JOINTS].numel()


def tag_errors(tags: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Push and pull, person by person; a joint's tag is read at the very cell where the joint stands."""
    side = tags.shape[-1]
    push = pull = torch.zeros((), dtype=torch.float64)
    for image in range(len(tags)):
        means, spreads = [], []
        for person in batch.keypoints[image].tolist():
            read = []
            for joint, (x, y, seen) in enumerate(person):
                column, row = math.floor(x / 4), math.floor(y / 4)
                if seen > 0 and 0 <= column < side and 0 <= row < side:
                    read.append(tags[image, joint, row, column].double())
            if read:
                means.append(torch.stack(read).mean())
                spreads.append(torch.stack([(tag - means[-1]) ** 2 for tag in read]).mean())
        if means:
            pull = pull + torch.stack(spreads).mean() / len(tags)
        if len(means) > 1:
            pairs = [torch.exp(-((a - b) ** 2)) for a in means for b in means if a is not b]
            push = push + 0.5 * torch.stack(pairs).mean() / len(tags)
    return push, pull


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    one, other = one.detach().double(), other.detach().double()
    return bool((one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max())))


CASES = [(name, side) for name in ("litepose-nano", "litepose") for side in load_space(name).resolution]


@pytest.mark.parametrize(
    ("name", "side"), [pytest.param(*case, marks=[pytest.mark.slow] if case[1] > 200 else []) for case in CASES]
)
def test_a_supernet_step_is_the_plain_computation(name: str, side: int) -> None:
    space = load_space(name)
    supernet = randomised(Supernet(space, JOINTS, torch.Generator().manual_seed(0))).train()
    objective = UniformSampling(supernet, seed=1, settings=SETTINGS)
    step = next(step for step in range(200) if objective.resolution(step) == side)
    subnet, batch = objective.subnet(step), scenes(side)
    alone = extract(supernet, subnet).train()

    losses = objective.loss(batch, step)
    torch.stack(list(losses.values())).sum().backward()

    low, high = alone(normalise(batch.images))
    push, pull = tag_errors(low[:, JOINTS:], batch)
    plain = {
        "low": heat_error(low, batch, 4),
        "high": SETTINGS.high * heat_error(high, batch, 2),
        "push": SETTINGS.push * push,
        "pull": SETTINGS.pull * pull,
    }
    torch.stack(list(plain.values())).sum().backward()

    assert losses.keys() == plain.keys()
    for part, value in plain.items():
        assert value > 0 and close(losses[part], value, 1e-5), part
    whole = dict(supernet.named_parameters())
    for part, parameter in alone.named_parameters():
        gradient = whole[part].grad
        assert gradient is not None and parameter.grad is not None
        own = leading_slice(gradient, parameter.shape)
        assert close(own, parameter.grad, 1e-4), part  # float32 sums over 100,000 cells
        rest = gradient.clone()
        rest[tuple(slice(0, size) for size in parameter.shape)] = 0
        assert not rest.any(), f"{part}: weights outside the subnet have a gradient"
