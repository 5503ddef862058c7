"""Networks compared: what is decoded, the arithmetic of the table, and what is refused before anything is measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ofa_pose
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.cli.device_views import show_comparison
from ofa_pose.families.table import load_net
from ofa_pose.latency import comparison
from ofa_pose.latency.comparison import compare_networks, scene_people, target_maps
from ofa_pose.pose.decode import decode
from ofa_pose.utils.errors import InputError
from tests.cli.conftest import Call, call  # noqa: F401  (a fixture)

NETWORK_MS = {"one": (10.0, 12.0, 50.0), "other": (30.0, 33.0, 36.0), "costs": (20.0, 20.0, 20.0)}  # of each round
DECODE_MS = {1: 2.0, 2: 3.0}  # by the number of tags


@pytest.mark.parametrize("resolution", [128, 256])
def test_the_maps_hold_the_people_of_the_scenes(resolution: int) -> None:
    people = scene_people()
    assert len(people) == comparison.SCENES and {len(one) for one in people} > {1}
    for drawn, (low, high) in zip(people, target_maps(people, 17, resolution), strict=True):
        assert low.shape == (1, 34, resolution // 4, resolution // 4) and low.dtype == high.dtype == np.float32
        assert high.shape == (1, 17, resolution // 2, resolution // 2)
        (found,) = decode(low, high, range(17))
        assert len(found) == len(drawn)
        seen = (drawn[..., 2] > 0).any(axis=0)
        assert (low[0, :17].max(axis=(1, 2)) > 0.8).tolist() == seen.tolist()
        largest = drawn[np.argmax((drawn[..., 2] > 0).sum(axis=1))]
        places = largest[largest[:, 2] > 0, :2] * resolution
        off = np.linalg.norm(found.keypoints[:, largest[:, 2] > 0, :2] - places, axis=2)
        assert np.median(off.min(axis=0)) < 2


def test_joints_begin_again_where_there_are_more_than_cocos() -> None:
    people = scene_people()[:1]
    ((low, high),) = target_maps(people, 20, 64)
    assert low.shape[1] == 40 and np.array_equal(high[0, :3], high[0, 17:])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tiny_spec: ArchSpec) -> dict[str, Any]:
    """Networks that take `NETWORK_MS` and a decoder that takes `DECODE_MS`, by a clock that only they move."""
    state: dict[str, Any] = {"ms": 0.0, "order": [], "round": {}}
    nets: dict[str, NetSpec] = {"one": tiny_spec, "other": tiny_spec.at(96)}
    state["nets"] = nets | {"costs": load_net("lightweight-openpose")}

    def load(spec: NetSpec) -> Callable[[], None]:
        (name,) = [name for name, one in state["nets"].items() if one == spec]

        def run() -> None:
            state["ms"] += NETWORK_MS[name][state["round"].get(name, 0)]
            state["order"].append(name)

        return run

    def visit(run: Callable[[], None], threads: int) -> float:
        before, state["ms"] = state["ms"], 0.0
        run()
        took, state["ms"] = state["ms"], before
        if len(state["order"]) % 3 == 0:  # one forward pass, then two
            state["round"] = {name: state["order"].count(name) // 3 for name in state["nets"]}
        return took

    def decoded(low: np.ndarray, high: np.ndarray, order: Any) -> None:
        state["ms"] += DECODE_MS[low.shape[1] // high.shape[1] - 1]

    monkeypatch.setattr(comparison, "open_device", lambda backend, threads: SimpleNamespace(runtime="it 1", load=load))
    monkeypatch.setattr(comparison, "visit", visit)
    monkeypatch.setattr(comparison, "decode", decoded)
    return state


def test_the_table_is_of_medians_over_rounds_that_take_turns(
    clock: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    found = compare_networks(clock["nets"], ["it"], 1, 3, "one")
    assert clock["order"] == [name for _ in range(3) for name in clock["nets"] for _ in range(3)]
    one, other, costs = found.nets
    assert (one.plain.network_ms, one.flip.network_ms) == (12, 24)
    assert (one.plain.decode_ms, one.flip.decode_ms) == (2, 3)
    assert (one.plain.total_ms, one.flip.total_ms) == (14, 27)
    assert one.plain.network_ratio == one.plain.total_ratio == one.flip.network_ratio == one.flip.total_ratio == 1
    assert (other.plain.network_ratio, other.flip.network_ratio) == (2.75, 2.75)
    assert (other.plain.total_ratio, other.flip.total_ratio) == (2.5, round(69 / 27, 4))
    assert costs.plain.network_ratio == round(20 / 12, 4)
    assert costs.plain.decode_ms is costs.flip.total_ms is costs.plain.total_ratio is None
    assert found.base == "one" and found.runtimes == {"it": "it 1"} and found.rounds == 3
    assert (other.resolution, costs.params, costs.macs["exact"]) == (96, 4_091_698, 8_881_647_616)
    show_comparison(found)
    shown = capfd.readouterr().err
    assert shown.count("flipped") == 4 and "–" in shown and "drawn scenes" in shown  # a row of each, and what it means


def test_several_backends_take_turns_with_each_network(clock: dict[str, Any]) -> None:
    found = compare_networks({"one": clock["nets"]["one"]}, ["it", "that"], 1, 1, "one")
    assert clock["order"] == ["one"] * 6  # once and twice, on each
    assert [(net.net, net.backend) for net in found.nets] == [("one", "it"), ("one", "that")]
    assert [net.plain.network_ratio for net in found.nets] == [1, 1.2]  # the second takes what a second round takes
    assert found.nets[0].plain.decode_ms == found.nets[1].plain.decode_ms == 2


def test_a_base_without_decoding_gives_ratios_of_networks_alone(clock: dict[str, Any]) -> None:
    one = compare_networks(clock["nets"], ["it"], 1, 1, "costs").nets[0]
    assert one.plain.network_ratio == 0.5 and one.plain.total_ratio is None and one.plain.total_ms == 12


@pytest.mark.parametrize(
    ("nets", "options", "words"),
    [
        (["litepose-xs", "lite-hrnet-18"], {}, "256×192: only square ones are measured"),
        (["litepose-xs", "litepose-s"], {"base": "litepose-m"}, "'litepose-m' is not among the networks"),
        (["litepose-xs", "litpose-s"], {}, "no such network: 'litpose-s'; did you mean 'litepose-s'"),
        (["litepose-xs"], {"backends": ["onnx"]}, "no such backend"),
        (["litepose-xs"], {"backends": "onnxruntime"}, "backends is 'onnxruntime' (str); give a list"),
        (["litepose-xs"], {"rounds": 0}, "--rounds 0"),
        ([], {}, "no networks are named"),
        ("litepose-xs", {}, "nets is 'litepose-xs' (str); give a list"),
    ],
)
def test_what_cannot_be_compared_is_refused_first(
    nets: Any, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "visit", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(InputError) as error:
        ofa_pose.latency_compare(nets, **options)
    assert words in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("ncnn") is None, reason="ncnn is not installed")
def test_a_runtime_that_cannot_hold_a_net_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "visit", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(InputError, match="written from a layer plan, and the family 'efficienthrnet' has none"):
        ofa_pose.latency_compare(["litepose-xs", "efficienthrnet-h-4"], backends=["ncnn"])


def test_two_runtimes_through_the_command_line(call: Call) -> None:  # noqa: F811
    pytest.importorskip("onnxruntime")
    done = call(
        "latency", "compare", "litepose-nano-coco", "--backend", "onnxruntime", "--backend", "torch", "--rounds", 1
    )
    assert done.code == 0, done.err
    assert "torch 2" in done.err and done.err.count("flipped") == 3  # a row of each, and below what it means


@pytest.mark.slow
def test_a_comparison_through_the_command_line(call: Call) -> None:  # noqa: F811
    pytest.importorskip("onnxruntime")
    words = ("latency", "compare", "litepose-xs", "lightweight-openpose", "--rounds", 1, "--joints", 5)
    done = call(*words, "--base", "lightweight-openpose", "--json")
    assert done.code == 0, done.err
    small, other = done.result["nets"]
    assert (small["net"], small["joints"], other["net"]) == ("litepose-xs", 5, "lightweight-openpose")
    assert 0 < small["plain"]["network_ms"] < other["plain"]["network_ms"] < other["flip"]["network_ms"]
    assert 0 < small["plain"]["decode_ms"] < small["plain"]["total_ms"] and other["plain"]["decode_ms"] is None
    assert small["plain"]["network_ratio"] < 1 == other["plain"]["network_ratio"]
    assert "flipped" not in done.err
