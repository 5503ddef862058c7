"""Lightweight OpenPose has the shapes and costs that its author publishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ofa_pose.families.counting import count_net
from ofa_pose.families.lightweight_openpose import FAMILY, LightweightOpenPose, LightweightOpenPoseSpec
from ofa_pose.utils.errors import InputError
from tests.families.onnx_files import maps_of, onnx_error
from tests.networks import picture

SPEC = FAMILY.presets["lightweight-openpose"]
SMALL = replace(SPEC, joints=5, limbs=4, width=8)


def test_published_figures() -> None:
    with torch.device("meta"):
        counted = count_net(SPEC, LightweightOpenPose(SPEC))
    assert SPEC.input_size == (368, 368)
    params, exact, paper = counted["params"] / 1e6, counted["macs"]["exact"] / 1e9, counted["macs"]["paper"] / 1e9
    assert (f"{params:.3f}", f"{exact:.4f}", f"{paper:.4f}") == ("4.092", "8.8816", "8.9626")
    assert (f"{params:.1f}", f"{paper:.1f}") == ("4.1", "9.0")  # as published


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_outputs_are_at_an_eighth(size: tuple[int, int]) -> None:
    height, width = size
    net = LightweightOpenPose(SMALL).eval()
    heatmaps, affinities = maps_of(net, picture(2, height, width))
    assert net.map_channels == {"heatmaps": heatmaps.shape[1], "affinities": affinities.shape[1]}
    assert heatmaps.shape == (2, 6, height // 8, width // 8)  # five joints and the background
    assert affinities.shape == (2, 8, height // 8, width // 8)  # x and y of four limbs


def test_published_outputs() -> None:
    with torch.device("meta"):
        heatmaps, affinities = LightweightOpenPose(SPEC)(torch.empty(1, 3, 368, 368))
    assert (heatmaps.shape, affinities.shape) == ((1, 19, 46, 46), (1, 38, 46, 46))


def test_a_stage_reads_the_outputs_of_the_one_before() -> None:
    net = LightweightOpenPose(replace(SMALL, refinements=2)).eval()
    before = maps_of(net, picture())
    with torch.no_grad():
        net.initial.affinities[-1].bias += 1.0
    assert not torch.equal(maps_of(net, picture())[0], before[0])
    alone = LightweightOpenPose(replace(SMALL, refinements=0)).eval()
    assert [one.shape for one in maps_of(alone, picture())] == [one.shape for one in before]


def test_onnx_equals_torch(tmp_path: Path) -> None:
    assert onnx_error(LightweightOpenPose(SMALL), [(64, 64), (48, 80)], tmp_path / "net.onnx") < 1e-4


def test_it_says_why_it_is_not_trained() -> None:
    assert "part-affinity" in FAMILY.why_costs_only
    assert LightweightOpenPoseSpec.from_dict(SMALL.to_dict()) == SMALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 0}, "resolution 0 is not a positive multiple of 16"),
        ({"joints": 0}, "at least 1"),
        ({"limbs": 0}, "at least 1"),
        ({"width": 0}, "at least 1"),
        ({"refinements": -1}, "refinements -1 is less than 0"),
        ({"refinements": 65}, "blocks 65 is more than 64"),
        ({"limbs": 1001}, "joints 1001 is more than 1000"),
        ({"width": 4097}, "width 4097 is more than 4096"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)
