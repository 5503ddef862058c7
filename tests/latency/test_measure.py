"""What is timed computes what the network computes, on every backend."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.spec import MEAN, STD, ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.on_device import random_inputs, visit
from ofa_pose.backends.runtimes import BACKENDS
from ofa_pose.latency.measure import PieceNet, net_part, open_device
from ofa_pose.latency.pieces import piece_part, plan_pieces
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError

EXPORTED = ("onnxruntime", "openvino", "ncnn", "litert")


def outputs_of(result: Any) -> list[np.ndarray]:
    values = result.values() if hasattr(result, "values") and not isinstance(result, torch.Tensor) else result
    return [np.array(value) for value in values]


@pytest.mark.parametrize("head", ["fusion", "plain"])
def test_pieces_one_after_another_are_the_network(tiny_spec: ArchSpec, head: str) -> None:
    spec = ArchSpec.from_dict(tiny_spec.to_dict() | {"head": head})
    plan, net = make_plan(spec), LitePose(spec, torch.Generator().manual_seed(0)).eval()
    parts = [PieceNet(piece_part(piece), torch.Generator()) for piece in plan_pieces(plan)]
    for part, layers in zip(parts, _layers_of_pieces(plan), strict=True):
        for mine, layer in zip(part.part.layers, layers, strict=True):
            part.unit(mine).load_state_dict(net.unit(layer).state_dict())
    image = torch.randn(1, 3, spec.resolution, spec.resolution, generator=torch.Generator().manual_seed(1))
    queue = iter(parts)
    with torch.inference_mode():
        maps = [*next(queue)(image)]
        for stage in plan.stages:
            x = maps[-1]
            for _ in stage:
                (x,) = next(queue)(x)
            maps.append(x)
        refined, outputs = maps[-1], []
        for step in plan.deconv:
            (refined,) = next(queue)(refined, maps[step.raw_source])
            if step.output:
                outputs += next(queue)(refined, maps[step.output.raw_source])
        expected = net(image)
    for found, wanted in zip(outputs, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def _layers_of_pieces(plan):
    yield plan.stem
    yield from (block.layers for stage in plan.stages for block in stage)
    for step in plan.deconv:
        yield (step.refined, *((step.raw,) if step.raw else ()), step.norm)
        if step.output:
            yield (*step.output.refined, *(step.output.raw or ()))


@pytest.mark.parametrize("backend", EXPORTED)
def test_backends_compute_the_same(tiny_spec: ArchSpec, backend: str) -> None:
    pytest.importorskip(BACKENDS[backend].backend.packages[0])
    device = open_device(backend, threads=1)
    assert device.runtime.startswith(backend) and device.threads == 1
    for subject in [*dict.fromkeys(plan_pieces(make_plan(tiny_spec))), tiny_spec]:
        part = net_part(subject)
        inputs = random_inputs(part.inputs)
        if "images" in inputs:
            mean, std = (np.array(value, np.float32).reshape(1, 3, 1, 1) * 255 for value in (MEAN, STD))
            inputs = {"images": (inputs["images"] - mean) / std}
        with torch.inference_mode():
            expected = part.net(*map(torch.from_numpy, inputs.values()))
        found = outputs_of(device.load(subject)())
        assert len(found) == len(expected)
        for mine, wanted in zip(found, expected, strict=True):
            assert np.abs(mine.reshape(wanted.shape) - wanted.numpy()).max() < 1e-4, str(subject)


def test_torch_computes_the_part(tiny_spec: ArchSpec) -> None:
    threads = torch.get_num_threads()
    device = open_device("torch", threads=1)
    torch.set_num_threads(threads)
    for piece in plan_pieces(make_plan(tiny_spec)):
        part = net_part(piece)
        expected = part.net(*map(torch.from_numpy, random_inputs(part.inputs).values()))
        for mine, wanted in zip(device.load(piece)(), expected, strict=True):
            assert torch.allclose(mine, wanted, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_visit_runs_a_few_times_and_gives_a_time(threads: int) -> None:
    runs = []
    ms = visit(lambda: runs.append(sum(range(1000))), threads)
    assert 0 < ms < 1000
    assert len(runs) > 5


def test_a_coarse_processor_clock_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows': it stands still during a short run."""
    monkeypatch.setattr(on_device.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(on_device, "CPU_CLOCK", False)
    assert on_device.visit(lambda: sum(range(1000)), 1) > 0


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(InputError, match="onnxruntme"):
        open_device("onnxruntme", 1)


def test_missing_packages_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"onnx", "onnxruntime", "openvino", "ncnn", "ai_edge_litert"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else object())
    for backend in BACKENDS:
        if backend != "torch":
            with pytest.raises(InputError, match="ofa-pose\\["):
                open_device(backend, 1)


def test_more_threads_than_processors_are_refused() -> None:
    with pytest.raises(InputError, match=r"9999 threads on \d+ processors; measure at most \d+"):
        open_device("torch", 9999)
