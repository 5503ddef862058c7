"""What many tests share: a tiny dataset on disk, a tiny search space, and calm settings."""

from __future__ import annotations

import signal

import pytest
import torch
from hypothesis import settings

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.synthetic.dataset import write_dataset

torch.set_num_threads(1)  # tiny nets gain nothing from more, and crawl where cores are shared
settings.register_profile("ofa-pose", deadline=None, derandomize=True)
settings.load_profile("ofa-pose")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C, tests press it


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> KeypointDataset:
    """Eight drawn scenes of 64 × 64 pixels with CrowdPose's 14 joints; every image has people."""
    out = tmp_path_factory.mktemp("tiny") / "scenes"
    write_dataset(out, images=8, size=64, joints="crowdpose", seed=3, workers=1)
    dataset = load_dataset(out / "annotations.json", out / "images")
    assert all(len(image.keypoints) for image in dataset.images)
    return dataset


@pytest.fixture
def tiny_space() -> SearchSpace:
    """A space with every quantity elastic, expansions too; its largest net has some 10,000 parameters."""
    return SearchSpace(
        name="tiny",
        resolution=(32, 64),
        stem=(4, 8),
        stages=((4, 8), (4, 6, 8), (8, 12), (8, 16)),
        deconv=((4, 8), (4, 8), (6, 8)),
        expansion=(1, 2),
        blocks=(1, 2, 1, 2),
        kernel=3,
    )


@pytest.fixture
def tiny_spec(tiny_space: SearchSpace) -> ArchSpec:
    """The largest net of the tiny space for the tiny dataset's joints; its resolution is 64."""
    return tiny_space.largest(joints=14)
