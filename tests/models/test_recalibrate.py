"""Recalibrated BatchNorm statistics are those of the data, and nothing else of the net changes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ofa_pose.arch.spec import MEAN, STD, ArchSpec
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.transforms import clean_sample
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from tests.networks import picture, randomised, same_state


def test_a_single_norm_gets_the_mean_over_batches_of_the_datas_statistics() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
    batches = [torch.randn(4, 3, 5, 7) * scale + shift for scale, shift in ((1, 0), (2, 5), (0.5, -3))]
    recalibrate(net, batches)
    channels = [batch.transpose(0, 1).flatten(1).double().numpy() for batch in batches]
    mean = np.mean([values.mean(1) for values in channels], axis=0)
    variance = np.mean([values.var(1, ddof=1) for values in channels], axis=0)
    assert np.allclose(net[0].running_mean.numpy(), mean, atol=1e-6)
    assert np.allclose(net[0].running_var.numpy(), variance, rtol=1e-5)


def test_what_was_there_before_is_forgotten_and_doing_it_again_changes_nothing(tiny_spec: ArchSpec) -> None:
    fresh = LitePose(tiny_spec, torch.Generator().manual_seed(0))
    used = copy.deepcopy(fresh)
    for module in used.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(9)
            module.running_var.fill_(7)
            module.num_batches_tracked.fill_(5)
    batches = [picture(2, seed=seed) for seed in range(2)]
    for net in (fresh, used):
        recalibrate(net, batches)
    assert same_state(fresh, used)
    recalibrate(used, iter(batches))
    assert same_state(fresh, used)


def test_only_the_statistics_change_and_the_net_ends_in_eval_mode(tiny_spec: ArchSpec) -> None:
    net = randomised(LitePose(tiny_spec)).train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for number, norm in enumerate(norms):
        norm.momentum = 0.01 * (number + 1)
    before = copy.deepcopy(net)
    recalibrate(net, [picture(2)])
    assert [norm.momentum for norm in norms] == [0.01 * (number + 1) for number in range(len(norms))]
    assert not any(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    old = before.state_dict()
    for name, value in net.state_dict().items():
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, old[name]) != statistic, name


def test_in_eval_mode_the_net_then_gives_what_the_batch_gave_in_training_mode(tiny_spec: ArchSpec) -> None:
    net = randomised(LitePose(tiny_spec))
    image = picture(8, 64, 64)
    with torch.no_grad():
        trained = net.train()(image)
        recalibrate(net, [image])
        for ours, theirs in zip(net(image), trained, strict=True):
            assert (ours - theirs).abs().mean() < 0.05 * theirs.abs().mean(), "but for the variance's n / (n - 1)"


def test_no_batch_changes_no_statistic(tiny_spec: ArchSpec) -> None:
    net = randomised(LitePose(tiny_spec)).train()
    before = copy.deepcopy(net)
    recalibrate(net, [])
    assert same_state(net, before) and not net.training


@pytest.mark.parametrize("images", [5, 100])
def test_calibration_batches_are_a_fixed_choice_of_clean_images(tiny_dataset: KeypointDataset, images: int) -> None:
    def read() -> torch.Tensor:
        return torch.cat(list(calibration_batches(tiny_dataset, 64, images, torch.device("cpu"))))

    first = read()
    assert first.shape == (min(images, 8), 3, 64, 64) and torch.equal(first, read())
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = ((first * std + mean) * 255).round().to(torch.uint8)
    clean = [clean_sample(record, 64, tiny_dataset.skeleton).image for record in tiny_dataset.images]
    found = [next(i for i, c in enumerate(clean) if np.array_equal(p.permute(1, 2, 0).numpy(), c)) for p in pixels]
    assert len(set(found)) == len(first), "each image once"
    assert found != sorted(found), "not simply the first ones"
