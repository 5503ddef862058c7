"""Lite-HRNet has the parameters that its paper publishes, and computes one person's heatmaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ofa_pose.families.counting import count_net
from ofa_pose.families.lite_hrnet import FAMILY, CrossResolutionWeighting, LiteHRNet, LiteHRNetSpec, _shuffled
from ofa_pose.utils.errors import InputError
from tests.families.onnx_files import maps_of, onnx_error
from tests.networks import picture, randomised

SMALL = LiteHRNetSpec(resolution=64, width=8, modules=(1, 2, 1), stem=6, units=1, joints=5)


@pytest.mark.parametrize(
    ("name", "params", "published"), [("lite-hrnet-18", "1.131", "1.1"), ("lite-hrnet-30", "1.764", "1.8")]
)
def test_published_figures(name: str, params: str, published: str) -> None:
    spec = FAMILY.presets[name]
    assert spec.input_size == (256, 192) and spec.joints == 17
    with torch.device("meta"):
        counted = count_net(spec, LiteHRNet(spec))["params"] / 1e6
    assert (f"{counted:.3f}", f"{counted:.1f}") == (params, published)


def test_there_are_no_other_presets() -> None:
    assert set(FAMILY.presets) == {"lite-hrnet-18", "lite-hrnet-30"}


@pytest.mark.parametrize("size", [(64, 48), (256, 192), (80, 112)])
def test_heatmaps_are_at_a_quarter(size: tuple[int, int]) -> None:
    height, width = size
    net = LiteHRNet(SMALL).eval()
    (heatmaps,) = maps_of(net, picture(2, height, width))
    assert net.map_channels == {"heatmaps": heatmaps.shape[1]}
    assert heatmaps.shape == (2, 5, height // 4, width // 4)


def test_channels_are_shuffled_in_turns() -> None:
    first, second = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    assert _shuffled(first, second).flatten().tolist() == [0, 2, 1, 3]


def test_channels_are_weighed_across_resolutions() -> None:
    weighting = randomised(CrossResolutionWeighting((4, 4, 8))).eval()
    source = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, *shape, generator=source) for shape in ((4, 16, 12), (4, 8, 6), (8, 4, 3))]
    with torch.no_grad():
        read = torch.cat([F.adaptive_avg_pool2d(x, (4, 3)) for x in maps], dim=1)  # as published
        weights = weighting.weigh(read)
        assert ((weights > 0) & (weights < 1)).all() and weights.shape == (2, 16, 4, 3)
        for x, result, start in zip(maps, weighting(maps), (0, 4, 8), strict=True):
            part = weights[:, start : start + x.shape[1]]
            step = x.shape[2] // 4
            expected = x * part.repeat_interleave(step, dim=2).repeat_interleave(step, dim=3)
            torch.testing.assert_close(result, expected)


def test_onnx_equals_torch(tmp_path: Path) -> None:
    assert onnx_error(LiteHRNet(SMALL), [(64, 96), (128, 64)], tmp_path / "net.onnx") < 1e-4


def test_spec_round_trip() -> None:
    assert LiteHRNetSpec.from_dict(SMALL.to_dict()) == SMALL
    assert SMALL.at(128).input_size == (128, 96)
    assert "one person" in FAMILY.why_costs_only


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 80}, "resolution 80 is not a positive multiple of 64"),
        ({"modules": (1, 2)}, "3 counts of modules"),
        ({"modules": (1, 2, 0)}, "at least 1"),
        ({"units": 0}, "at least 1"),
        ({"joints": 0}, "at least 1"),
        ({"width": 12}, "width 12 is not a multiple of 8"),
        ({"stem": 7}, "stem 7 not of 2"),
        ({"width": 4104}, "width 4104 is more than 4096"),
        ({"modules": (1, 17, 1)}, "modules 17 is more than 16"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)
