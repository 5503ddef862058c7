"""The benchmarks of trainings run from end to end, and the plainly written step and loader are what they stand for."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.loader import normalise
from ofa_pose.data.transforms import centre_affine
from ofa_pose.models.elastic import Supernet
from ofa_pose.train.losses import tag_loss
from tests.bench import plain_training, sampling, scale, train
from tests.networks import picture, randomised


def test_the_plain_supernet_is_the_same_network(tiny_space: SearchSpace) -> None:
    supernet = randomised(Supernet(tiny_space, 14, torch.Generator().manual_seed(0))).train()
    plain = plain_training.PlainSupernet(tiny_space, 14).train()
    plain.load_state_dict(supernet.state_dict())
    for seed in range(3):
        spec = tiny_space.decode(tiny_space.sample(np.random.default_rng(seed)), 14)
        for ours, theirs in zip(supernet(picture(2), spec), plain(picture(2), spec), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_plain_tag_loss_is_ours_where_the_joints_are_on_the_map() -> None:
    batch = train.make_batch(3, 64, 14, people=3)
    tags = torch.randn(3, 14, 16, 16, generator=torch.Generator().manual_seed(0))
    _, cells = plain_training.make_targets(batch.keypoints.numpy(), (16, 32), 64)
    pairs = [plain_training.tag_loss(one.flatten(), own) for one, own in zip(tags, cells, strict=True)]
    push, pull = tag_loss(tags, batch.keypoints)
    assert torch.stack([pair[0] for pair in pairs]).mean().item() == pytest.approx(push.item(), rel=1e-5)
    assert torch.stack([pair[1] for pair in pairs]).mean().item() == pytest.approx(pull.item(), rel=1e-5)


def test_plain_heatmaps_are_gaussians_at_the_joints_cells() -> None:
    keypoints = np.array([[[5.7, 8.2, 1], [0.4, 0.9, 2], [3, 3, 0], [40, 3, 1]]])
    maps = plain_training.make_heatmaps(keypoints, 16, 4)
    assert maps[0, 8, 5] == 1 and maps[1, 0, 0] == 1 and not maps[2:].any()
    assert maps[0, 8, 7] == pytest.approx(np.exp(-4 / 8)) and maps[0, 10, 5] == maps[0, 8, 7]


def test_a_plain_sample_shows_what_ours_shows(tiny_dataset: KeypointDataset) -> None:
    record = tiny_dataset.images[0]
    matrix = centre_affine(record.width, record.height, 64)
    image, keypoints, maps = plain_training.plain_sample(str(record.path), matrix, 64, record.keypoints, 14, True)
    own: Tensor = torch.from_numpy(cv2.cvtColor(cv2.imread(str(record.path)), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
    torch.testing.assert_close(image, normalise(own[None])[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(keypoints[..., :2], record.keypoints[..., :2], atol=1e-4)
    assert [one.shape for one in maps] == [(14, 16, 16), (14, 32, 32)] and maps[1].max() == 1


def test_both_steps_train(tiny_space: SearchSpace) -> None:
    spec = train.half_width(tiny_space, 14)
    steps = train.make_steps(tiny_space, spec, train.make_batch(2, 64, 14))
    for step in steps.values():
        losses = [step() for _ in range(30)]
        assert losses[-1] < 0.9 * losses[0]


def test_training_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--quick", "--json", "--threads", "1", "--workers", "1", "--side", "64"])
    train.main()
    shown = capsys.readouterr()
    assert "times as fast" in shown.err
    figures = json.loads(shown.out)
    assert figures["step"]["times_as_fast"]["median"] > 0 and set(figures["step"]["ms"]) == set(train.WAYS)
    assert set(figures["loader"]["samples_a_second"]) == {"ours", "plain", "plain, with targets", "decoding"}
    assert figures["loader"]["workers"] > 0


def test_the_subnets_of_the_sampling_benchmark_are_fixed_and_of_all_sizes() -> None:
    space = load_space(sampling.SPACE)
    chosen = sampling.choose_subnets(space, 30)
    assert chosen == sampling.choose_subnets(space, 30)
    assert {name: len(set(specs)) for name, specs in chosen.items()} == dict.fromkeys(sampling.THIRDS, 10)
    macs = [[sampling.spec_macs(spec).thop for spec in specs] for specs in chosen.values()]
    assert max(macs[0]) < min(macs[1]) and max(macs[1]) < min(macs[2])


def test_sampling_figures_are_means_over_subnets_and_seeds() -> None:
    seeds = [{"small": [0.1, 0.3], "middle": [0.4, 0.4], "large": [0.6, 0.6]}]
    seeds.append({"small": [0.2, 0.4], "middle": [0.5, 0.5], "large": [0.7, 0.7]})
    found = sampling.summarise(seeds)["AP"]
    assert found["small"] == {"mean": 0.25, "spread": 0.0707} and found["all"] == {"mean": 0.45, "spread": 0.0707}
    assert sampling.summarise(seeds[:1])["AP"]["large"] == {"mean": 0.6, "spread": None}


@pytest.mark.slow
@pytest.mark.parametrize("bench", [sampling, scale])
def test_quick_run(bench: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--quick", "--json"])
    bench.main()  # type: ignore[attr-defined]
    figures = json.loads(capsys.readouterr().out)
    if bench is sampling:
        assert set(figures["ways"]) == {"uniform", "sandwich, equal time", "sandwich, equal images"}
        assert all(len(row["APs"][0]["small"]) == 1 for row in figures["ways"].values()) and figures["step_cost"] > 1
    else:
        assert figures["search"]["ratio"] > 0
