"""Running exported ONNX files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.backends.folding import whole
from ofa_pose.backends.onnxruntime import OnnxRunner, onnx_model
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError
from tests.networks import randomised

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SPEC = ArchSpec(64, 8, (8, 8, 8, 8), ((2,), (2,), (2,), (2,)), (8, 8, 8), kernel=3, joints=4)


@pytest.fixture(scope="module")
def net() -> LitePose:
    return LitePose(SPEC, torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def runner(net: LitePose, tmp_path_factory: pytest.TempPathFactory) -> OnnxRunner:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    path.write_bytes(onnx_model(whole(net), {"note": "tiny"}).SerializeToString())
    return OnnxRunner(path, threads=1)


def test_equals_the_torch_runner(net: LitePose, runner: OnnxRunner) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    for found, expected in zip(runner(images), TorchRunner(net)(images), strict=True):
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    mirrored = images[:, :, ::-1]  # a view, as the flip test hands it over
    np.testing.assert_allclose(runner(mirrored)[1], TorchRunner(net)(mirrored)[1], atol=1e-6)
    assert runner.metadata == {"note": "tiny"}


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("head", HEADS)
def test_any_kernel_and_head(head: Head, kernel: int, tmp_path: Path) -> None:
    net = randomised(LitePose(replace(SPEC, head=head, kernel=kernel), torch.Generator().manual_seed(0))).eval()
    (tmp_path / "net.onnx").write_bytes(onnx_model(whole(net)).SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    found, expected = OnnxRunner(tmp_path / "net.onnx", threads=1)(images), TorchRunner(net)(images)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(("height", "width"), [(72, 64), (64, 40), (0, 64), (8, 8)])
def test_sides_that_do_not_fit_are_refused(runner: OnnxRunner, height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{width}×{height} pixels; the nearest sizes? it takes"):
        runner(np.zeros((1, height, width, 3), np.uint8))


def test_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="cannot be loaded by ONNX Runtime") as caught:
        OnnxRunner(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
