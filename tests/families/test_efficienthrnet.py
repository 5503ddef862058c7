"""EfficientHRNet has the shapes and costs that its paper publishes, and is a network like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ofa_pose.families.counting import count_net
from ofa_pose.families.efficienthrnet import FAMILY, EfficientHRNet, EfficientHRNetSpec
from ofa_pose.utils.errors import InputError
from tests.families.onnx_files import maps_of, onnx_error
from tests.networks import picture

SMALL = EfficientHRNetSpec(
    64, 8, (4, 6, 8, 8, 10, 8, 12), (1, 1, 2, 1, 1, 1, 1), (4, 6, 8, 10), (1, 1, 2), 1, 6, 1, joints=5
)
# Resolution, G multiply-adds in the paper's convention at 14 joints, M parameters at 17, and the paper's own figure.
FIGURES = {
    "efficienthrnet-h0": (512, "25.6285", "19.725", "25.6"),
    "efficienthrnet-h-1": (480, "14.2149", "13.004", "14.2"),
    "efficienthrnet-h-2": (448, "7.7284", "8.263", "7.7"),
    "efficienthrnet-h-3": (416, "4.2109", "5.360", "4.2"),
    "efficienthrnet-h-4": (384, "2.0975", "2.765", "2.1"),
}


def shape_only(spec: EfficientHRNetSpec) -> EfficientHRNet:
    """A network without weights."""
    with torch.device("meta"):
        return EfficientHRNet(spec)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_the_paper(name: str) -> None:
    resolution, macs, params, published = FIGURES[name]
    spec = FAMILY.presets[name]
    crowdpose = spec.with_joints(14)
    assert spec.joints == 17 and spec.input_size == (resolution, resolution)
    counted = count_net(crowdpose, shape_only(crowdpose))["macs"]["paper"] / 1e9
    assert (f"{counted:.4f}", f"{counted:.1f}") == (macs, published)
    assert f"{count_net(spec, shape_only(spec))['params'] / 1e6:.3f}" == params


def test_there_are_no_other_presets() -> None:
    assert set(FAMILY.presets) == set(FIGURES)


def test_h0_is_made_of_efficientnet_b0() -> None:
    net = shape_only(FAMILY.presets["efficienthrnet-h0"])
    trunk = sum(value.numel() for part in (net.stem, net.groups) for value in part.parameters())
    last, classifier = 320 * 1280 + 2 * 1280, 1280 * 1000 + 1000
    assert trunk + last + classifier == 5_288_548  # as its authors count it: 5.3 M


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (80, 112)])
def test_outputs(size: tuple[int, int]) -> None:
    height, width = size
    low, high = maps_of(EfficientHRNet(SMALL).eval(), picture(2, height, width))
    assert low.shape == (2, 10, height // 4, width // 4)
    assert high.shape == (2, 5, height // 2, width // 2)


def test_output_layers_are_those_that_follow_from_the_joints() -> None:
    shapes, others = (
        {name: value.shape for name, value in shape_only(SMALL.with_joints(joints)).state_dict().items()}
        for joints in (5, 7)
    )
    changed = {name.rpartition(".")[0] for name, shape in shapes.items() if others[name] != shape}
    assert changed == set(EfficientHRNet.output_layers)


def test_onnx_equals_torch(tmp_path: Path) -> None:
    assert onnx_error(EfficientHRNet(SMALL), [(64, 64), (80, 112)], tmp_path / "net.onnx") < 1e-4


def test_a_step_lowers_the_loss() -> None:
    source = torch.Generator().manual_seed(0)
    net, image = EfficientHRNet(SMALL), picture(2)
    net.reset_parameters(source)
    targets = [torch.rand(one.shape, generator=source) for one in maps_of(net, image)]
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = sum(((one - target) ** 2).mean() for one, target in zip(net(image), targets, strict=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_spec_round_trip() -> None:
    assert EfficientHRNetSpec.from_dict(SMALL.to_dict()) == SMALL
    assert SMALL.to_dict()["family"] == FAMILY.name == "efficienthrnet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 72}, "resolution 72 is not a positive multiple of 16"),
        ({"widths": (8,) * 6}, "7 widths"),
        ({"depths": (1,) * 8}, "7 depths"),
        ({"branches": (4, 6, 8)}, "4 branches"),
        ({"modules": (1, 1)}, "3 counts of modules"),
        ({"stem": 0}, "at least 1"),
        ({"blocks": 0}, "at least 1"),
        ({"joints": 0}, "at least 1"),
        ({"deconv_blocks": -1}, "deconv_blocks -1 is less than 0"),
        ({"deconv": 5000}, "width 5000 is more than 4096"),
        ({"modules": (1, 1, 17)}, "modules 17 is more than 16"),
        ({"blocks": 65}, "blocks 65 is more than 64"),
        ({"joints": 1001}, "joints 1001 is more than 1000"),
    ],
)
def test_impossible_specs_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


def test_depth_may_be_zero_after_the_deconvolution() -> None:
    plain = EfficientHRNet(replace(SMALL, deconv_blocks=0))
    assert len(plain.deconv) == 3 and len(EfficientHRNet(SMALL).deconv) == 4
