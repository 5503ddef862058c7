from __future__ import annotations

import pytest

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.latency import measure
from ofa_pose.latency.pieces import plan_parts, plan_pieces
from ofa_pose.utils.errors import InputError

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LEAST_S", 0.0)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_time_memory_and_parts_of_a_network(tiny_spec: ArchSpec, backend: str) -> None:
    timed = measure.measure_network(tiny_spec, backend, repeats=5)
    assert timed.backend == backend and timed.threads == 1
    assert 0 < timed.median_ms <= timed.p90_ms and timed.images_per_s > 0
    assert timed.memory_mb is None or timed.memory_mb >= 0
    assert sum(part.share for part in timed.parts) == pytest.approx(1, abs=0.01)
    assert len(timed.parts) == len(plan_pieces(make_plan(tiny_spec)))


@pytest.mark.slow
def test_a_network_of_larger_images_takes_more_memory(tiny_spec: ArchSpec) -> None:
    small, large = (measure.measure_network(tiny_spec.at(side), "torch", repeats=1) for side in (64, 1024))
    if small.memory_mb is None or large.memory_mb is None:
        pytest.skip("this system does not tell the memory's peak")
    assert large.memory_mb > small.memory_mb + 10  # the input alone has 12 MB


def test_parts_are_named_after_their_layers() -> None:
    plan = make_plan(PRESETS["litepose-xs"])
    names = [part.name for part in plan_parts(plan)]
    layers = {layer.name for layer in plan.layers()}
    assert len(set(names)) == len(names) == len(plan_pieces(plan))
    assert all(any(layer.startswith(f"{name}.") for layer in layers) for name in names)
    assert all(any(layer.startswith(f"{name}.") for name in names) for layer in layers)


def test_no_such_backend(tiny_spec: ArchSpec) -> None:
    with pytest.raises(InputError, match="no such backend"):
        measure.measure_network(tiny_spec, "tflite")
