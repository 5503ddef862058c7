"""Starting from MobileNetV2: state dicts with torchvision's and timm's names and shapes, made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import COCO
from ofa_pose.train.mobilenet import MobileNet, read_mobilenet
from ofa_pose.train.pretrained import initialise, load_start
from ofa_pose.utils.errors import InputError
from tests.networks import picture

SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
State = dict[str, Tensor]


def rounded(channels: float) -> int:
    """To a multiple of 8, as both libraries do."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def make(library: str, width: float = 1.0, seed: int = 0) -> State:
    """A state dict of MobileNetV2 with random weights."""
    source, state = torch.Generator().manual_seed(seed), State()

    def layer(convolution: str, norm: str, cout: int, cin: int, kernel: int = 1) -> None:
        scale = (2 / (cin * kernel**2)) ** 0.5
        state[f"{convolution}.weight"] = torch.randn(cout, cin, kernel, kernel, generator=source) * scale
        for name, low, high in (("weight", 0.5, 1.5), ("bias", 0, 1), ("running_mean", -1, 1), ("running_var", 0.5, 2)):
            state[f"{norm}.{name}"] = torch.rand(cout, generator=source) * (high - low) + low
        state[f"{norm}.num_batches_tracked"] = torch.tensor(100)

    vision = library == "torchvision"
    before, number = rounded(32 * width), 0
    layer("features.0.0" if vision else "conv_stem", "features.0.1" if vision else "bn1", before, 3, 3)
    for stage, (expansion, channels, blocks, _) in enumerate(SETTINGS):
        for block in range(blocks):
            number += 1
            hidden, cout, index = before * expansion, rounded(channels * width), 0
            at = f"features.{number}.conv" if vision else f"blocks.{stage}.{block}"
            names = ["conv_pw", "conv_dw", "conv_pwl"] if expansion > 1 else ["conv_dw", "conv_pw"]
            shapes = [(hidden, before, 1)] * (expansion > 1) + [(hidden, 1, 3), (cout, hidden, 1)]
            for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
                last = index == len(names) - 1
                convolution = f"{at}.{index}" if last else f"{at}.{index}.0"
                norm = f"{at}.{index + 1}" if last else f"{at}.{index}.1"
                layer(convolution if vision else f"{at}.{name}", norm if vision else f"{at}.bn{index + 1}", *shape)
            before = cout
    layer("features.18.0" if vision else "conv_head", "features.18.1" if vision else "bn2", 1280, before)
    state |= {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    return state


def features(state: State, image: Tensor) -> list[Tensor]:
    """The maps that LitePose's stem and stages stand for, computed from torchvision's names alone."""

    def run(x: Tensor, convolution: str, norm: str, stride: int = 1, act: bool = True) -> Tensor:
        weight = state[f"{convolution}.weight"]
        groups = len(weight) if weight.shape[1] == 1 else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)
        mean, variance, scale, shift = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, variance, scale, shift)
        return x.clamp(0, 6) if act else x

    x, maps, number = run(image, "features.0.0", "features.0.1", 2), [], 0
    for expansion, _, blocks, stage_stride in SETTINGS[:5]:
        for block in range(blocks):
            number += 1
            at, stride, y = f"features.{number}.conv", stage_stride if block == 0 else 1, x
            if expansion > 1:
                y = run(y, f"{at}.0.0", f"{at}.0.1")
            last = 2 if expansion > 1 else 1
            y = run(y, f"{at}.{last - 1}.0", f"{at}.{last - 1}.1", stride)
            y = run(y, f"{at}.{last}", f"{at}.{last + 1}", act=False)
            x = x + y if block else y
        maps.append(x)
    return maps


def trunk(net: LitePose, image: Tensor) -> list[Tensor]:
    """The outputs of a LitePose's stem and stages."""
    maps, x = [], image
    for layer in net.plan.stem:
        x = net.apply_layer(layer, x)
    maps.append(x)
    for stage in net.plan.stages:
        for block in stage:
            x = block.run(x, net.apply_layer)
        maps.append(x)
    return maps


def written(path: Path, state: Any, kind: str = ".pth") -> Path:
    path = path / f"mobilenet{kind}"
    if kind == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@torch.no_grad()
def test_a_larger_trunk_computes_what_mobilenet_computes(tmp_path: Path) -> None:
    state = make("torchvision")
    found = read_mobilenet(written(tmp_path, state))
    assert (found.stem, found.stages, found.kernel) == (16, (24, 32, 64, 96), 3)
    assert found.expansions == ((6,) * 2, (6,) * 3, (6,) * 4, (6,) * 3)
    spec = ArchSpec(64, 24, (32, 32, 64, 120), ((6,) * 3, (6,) * 3, (6,) * 4, (6,) * 5), (16, 16, 16), 7)
    net = LitePose(spec, torch.Generator().manual_seed(1)).eval()
    notes = initialise(net, found, COCO)
    assert notes[-1].startswith("39 of 65 layers and ") and "%" in notes[-1]
    expected, image = features(state, picture()), picture()
    for one, other in zip(trunk(net, image), expected, strict=True):
        leading = one[:, : other.shape[1]]
        # channels are in another order: each must be there once
        distance = (leading.flatten(2)[0][:, None] - other.flatten(2)[0][None]).abs().amax(2)
        assert (distance.min(0).values <= 1e-3).all() and (distance.min(1).values <= 1e-3).all()
        assert sorted(distance.argmin(1).tolist()) == list(range(other.shape[1]))
        assert other.abs().mean() > 0.05


@pytest.mark.parametrize("kind", [".pt", ".safetensors"])
def test_both_libraries_names_give_the_same_weights(tmp_path: Path, kind: str) -> None:
    one, other = (read_mobilenet(written(tmp_path, make(library), kind)) for library in ("torchvision", "timm"))
    assert one.weights.keys() == other.weights.keys() and len(one.weights) == (3 + 3 * 12) * 5
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert (one.stem, one.stages, one.expansions) == (other.stem, other.stages, other.expansions)


@pytest.mark.parametrize("width", [0.5, 1.0, 1.4])
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_supernet_of_other_widths_starts_from_it(tmp_path: Path, library: str, width: float) -> None:
    space = load_space("litepose-nano")
    net = Supernet(space, 17, torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = load_start(written(tmp_path, make(library, width)))
    assert isinstance(found, MobileNet)
    notes = initialise(net, found, COCO)
    assert notes[0] == "channels sorted by importance" and "layers and" in notes[1]
    after = net.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} >= {
        name for name in found.weights if name in after and not name.endswith("batches_tracked")
    }
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(("deconv", "outputs")))
    assert all(output.isfinite().all() for output in net.eval()(picture()))


def test_names_may_be_wrapped(tmp_path: Path) -> None:
    plain = read_mobilenet(written(tmp_path, make("torchvision")))
    for wrap in (
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model": {f"backbone.net.{name}": value for name, value in state.items()}, "epoch": 3},
    ):
        wrapped = read_mobilenet(written(tmp_path, wrap(make("torchvision"))))
        assert all(torch.equal(value, wrapped.weights[name]) for name, value in plain.weights.items())


BREAKS: dict[str, tuple[Callable[[State], object], str]] = {
    "another net": (lambda state: {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "holds no weights that are known"),
    "no dict": (lambda state: [torch.zeros(3)], "holds no weights by name"),
    "without a BatchNorm": (lambda state: without(state, "features.3.conv.1.1.weight"), "not MobileNetV2's"),
    "without blocks": (lambda state: without(state, "features.4."), "groups of blocks"),
    "without a convolution": (lambda state: without(state, "features.1.conv.1.weight"), "not MobileNetV2's"),
    "a number for a convolution": (
        lambda state: state | {"features.1.conv.1.weight": torch.tensor(1.0)},
        "not MobileNetV2's",
    ),
    "another shape": (
        lambda state: state | {"features.5.conv.0.0.weight": torch.zeros(192, 16, 1, 1)},
        "weights for 'stages.1.1.expand.conv.weight' have shape",
    ),
}


def without(state: State, start: str) -> State:
    return {name: value for name, value in state.items() if not name.startswith(start)}


@pytest.mark.parametrize("name", BREAKS)
def test_other_files_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    change, message = BREAKS[name]
    path = tmp_path / "other.pth"
    torch.save(change(make("torchvision")), path)
    net = LitePose(load_space("litepose-nano").largest(17))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        start = load_start(path)
        initialise(net, start, COCO)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "none.pth", "none.safetensors"])
def test_damaged_and_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("cut"):
        path.write_bytes(written(tmp_path, make("timm"), path.suffix).read_bytes()[:2000])
    with pytest.raises(InputError) as caught:
        load_start(path)
    assert str(path) in str(caught.value)
