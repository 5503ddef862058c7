"""Every runtime computes what torch computes, from networks in memory and from exported files."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.plan import Apply
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.backends.folding import NetPart
from ofa_pose.backends.ncnn import ncnn_model
from ofa_pose.backends.on_device import ncnn_net
from ofa_pose.backends.runners import Runner, check_sides
from ofa_pose.backends.runtimes import BACKENDS, make_runner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError
from tests.networks import hide_package, randomised

for _package in ("onnx", "onnxruntime", "openvino", "ncnn", "ai_edge_litert"):
    pytest.importorskip(_package)
NANO = load_space("litepose-nano")
EXACT = [name for name in BACKENDS if not name.endswith("-int8")]
SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)
SIDES = st.integers(1, 4).map(lambda cells: 16 * cells)


def network() -> LitePose:
    return randomised(LitePose(SPEC, torch.Generator().manual_seed(0)))


@cache
def runner_of(backend: str) -> Runner:
    return make_runner(network(), backend, threads=1)


def equal(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32 and one.flags.c_contiguous
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1.0, float(np.abs(other).max())))


@settings(max_examples=3)
@given(st.integers(0, 2**32), st.sampled_from(HEADS), st.integers(1, 20), st.integers(1, 3), SIDES, SIDES)
def test_every_runtime_computes_random_networks(
    seed: int, head: Head, joints: int, batch: int, height: int, width: int
) -> None:
    """Subnets of the nano space with either head, any batch, any sides."""
    rng = np.random.default_rng(seed)
    spec = replace(NANO.decode(NANO.sample(rng), joints), head=head)
    net = randomised(LitePose(spec, torch.Generator().manual_seed(seed)), seed).eval()
    images = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
    expected = TorchRunner(net)(images)
    assert expected[0].shape == (batch, 2 * joints, height // 4, width // 4)
    for backend in EXACT:
        equal(make_runner(net, backend, threads=1)(images), expected)


@pytest.mark.parametrize("backend", EXACT)
def test_one_runner_takes_any_size_and_views(backend: str) -> None:
    """Also after other sizes, mirrored as the flip test hands images over, and more images than go in one chunk."""
    rng = np.random.default_rng(0)
    for size in ((2, 64, 48), (1, 16, 16), (9, 96, 112), (2, 64, 48)):
        images = rng.integers(0, 256, (*size, 3), np.uint8)
        for view in (images, images[:, :, ::-1]):
            equal(runner_of(backend)(view), runner_of("torch")(view))


@pytest.mark.parametrize("backend", EXACT)
def test_a_runner_is_called_from_threads(backend: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 48, 3), np.uint8)
    low, high = runner_of(backend)(images)
    with ThreadPoolExecutor(4) as pool:
        for index, found in enumerate(pool.map(runner_of(backend), images[:, None])):
            equal(found, (low[index : index + 1], high[index : index + 1]))


@pytest.mark.parametrize("backend", EXACT)
def test_later_changes_of_the_network_do_not_show(backend: str) -> None:
    net = network().train()
    runner = make_runner(net, backend, threads=1)
    assert net.training
    randomised(net, seed=1)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3), np.uint8)
    equal(runner(images), runner_of("torch")(images))


@pytest.mark.parametrize("backend", EXACT)
def test_sides_that_do_not_fit_are_refused(backend: str) -> None:
    with pytest.raises(InputError) as caught:
        runner_of(backend)(np.zeros((1, 130, 100, 3), np.uint8))
    what = "the network cannot take an input of 100×130 pixels"
    assert str(caught.value) == f"{what}; the nearest sizes it takes are 96×128 and 112×144"


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_nearest_sizes_are_reported(height: int, width: int) -> None:
    images = np.broadcast_to(np.uint8(0), (1, height, width, 3))
    try:
        check_sides(images)
    except InputError as error:
        sizes = error.faults[0].hint.replace("×", " ").split()
        sides = [int(word) for word in sizes if word.isdigit()]
        assert len(sides) in (2, 4)
        for index, side in enumerate(sides):
            wanted = (width, height)[index % 2]
            assert side > 0 and side % 16 == 0 and abs(side - wanted) <= 16
            assert side >= wanted or index < 2
    else:
        assert height and width and not height % 16 and not width % 16


@pytest.mark.parametrize(
    ("backend", "missing", "extra"),
    [
        ("onnxruntime", "onnx", "onnx"),
        ("onnxruntime", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("ncnn", "ncnn", "ncnn"),
    ],
)
def test_a_missing_package_names_its_extra(
    backend: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_package(monkeypatch, missing)
    with pytest.raises(InputError, match=rf"needs the package {missing}; pip install 'ofa-pose\[{extra}\]'"):
        make_runner(LitePose(SPEC), backend)
    make_runner(LitePose(SPEC), "torch")


@pytest.mark.parametrize(("backend", "broken"), [("onnxruntime", "onnx"), ("openvino", "openvino"), ("ncnn", "ncnn")])
def test_a_package_that_cannot_be_imported_is_reported(
    backend: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, broken, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: ModuleSpec(name, None))
    with pytest.raises(InputError, match=rf"{broken} is installed and cannot be imported \(.*\); pip install --force"):
        make_runner(LitePose(SPEC), backend)


def test_no_such_backend() -> None:
    with pytest.raises(InputError, match="no such backend: 'onxruntime'; did you mean 'onnxruntime'"):
        make_runner(LitePose(SPEC), "onxruntime")


def test_threads_of_torch_are_given_back() -> None:
    before, seen = torch.get_num_threads(), []
    net = LitePose(SPEC)
    net.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    runner = TorchRunner(net, threads=before + 1)
    runner(np.zeros((1, 32, 32, 3), np.uint8))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


class Lone:
    """Layers of a network under an ncnn graph of their own: a residual block, then a deconv step."""

    def __init__(self, net: LitePose) -> None:
        self.net = net
        self.block, self.step = net.plan.stages[1][1], net.plan.deconv[0]

    def walk(self, apply: Apply, x: Any, refined: Any, raw: Any) -> list[Any]:
        return [self.block.run(x, apply), self.step.run(refined, raw, apply)]


def test_a_part_of_a_network_as_ncnn(tmp_path: Path) -> None:
    net = network().eval()
    lone = Lone(net)
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": (12, 6, 10), "refined": (20, 4, 4), "raw": (16, 4, 4)}
    inputs = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    with torch.inference_mode():
        expected = lone.walk(net.apply_layer, *(value[None] for value in inputs.values()))
    shapes = {name: (value.shape[0], value.shape[1]) for name, value in inputs.items()}
    part = NetPart(net, shapes, {"block": 12, "step": 8}, lone.walk)
    found = run_ncnn(ncnn_model(part), inputs, ["block", "step"], tmp_path)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other[0].numpy(), atol=1e-4)


def run_ncnn(
    model: tuple[str, bytes], inputs: dict[str, torch.Tensor], outputs: list[str], folder: Path
) -> list[np.ndarray]:
    import ncnn

    (folder / "a.param").write_text(model[0])
    (folder / "a.bin").write_bytes(model[1])
    net = ncnn_net(folder / "a.param", folder / "a.bin", threads=1)
    extractor = net.create_extractor()
    for name, value in inputs.items():
        extractor.input(name, ncnn.Mat(value.numpy()).clone())
    return [np.array(extractor.extract(name)[1]) for name in outputs]


def test_a_layer_that_ncnn_reads_twice_is_split(tmp_path: Path) -> None:
    """A blob has one reader in ncnn; readers of more go through a Split."""

    def walk(apply: Apply, x: Any) -> list[Any]:
        return [x + x]

    param, weights = ncnn_model(NetPart(LitePose(SPEC), {"x": (2, 3)}, {"y": 2}, walk))
    lines = [line.split() for line in param.splitlines()[2:]]
    assert [line[0] for line in lines] == ["Input", "Split", "BinaryOp"] and not weights
    assert lines[1][-2:] == lines[2][4:6]
    (found,) = run_ncnn((param, weights), {"x": torch.full((2, 3, 5), 1.5)}, ["y"], tmp_path)
    assert (found == 3).all() and found.shape == (2, 3, 5)
