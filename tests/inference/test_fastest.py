"""The fastest runtime computes what torch computes, or steps aside."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.onnxruntime import OnnxRunner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.inference import fastest
from ofa_pose.inference.fastest import FastestRunner
from ofa_pose.models.litepose import LitePose
from tests.networks import randomised

pytest.importorskip("onnxruntime")
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), np.uint8)


@pytest.fixture
def net(tiny_spec: ArchSpec) -> LitePose:
    return randomised(LitePose(tiny_spec)).eval()


def test_same_outputs_as_torch(net: LitePose) -> None:
    runner = FastestRunner("cpu")(net)
    assert isinstance(runner, OnnxRunner)
    for found, expected in zip(runner(IMAGES), TorchRunner(net)(IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_later_changes_of_the_network_do_not_show(net: LitePose) -> None:
    runner = FastestRunner("cpu")(net)
    before = runner(IMAGES)
    randomised(net, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, runner(IMAGES), strict=True))


def test_torch_runs_where_they_differ(
    net: LitePose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fastest, "_difference", lambda one, other: 0.5)
    make = FastestRunner("cpu")
    assert isinstance(make(net), TorchRunner)
    assert isinstance(make(net), TorchRunner)
    assert capsys.readouterr().err.count("differs from torch") == 1
