"""MobileNetV2's weights as a start: state dicts of torchvision and of timm, read as LitePose's trunk.

LitePose's stem and stages are MobileNetV2's (Sandler et al., CVPR 2018) but for their widths and kernels: its first
convolution and first block are the stem, and its blocks at 1/4, 1/8 and 1/16 (64 and 96 channels) are the four stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_pose.arch.plan import STEM_WIDTH
from ofa_pose.arch.spec import STAGES, ArchSpec
from ofa_pose.checkpoints.digest import NoMemory, read_torch
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError

HINT = "name a checkpoint of ofa-pose, or a state dict of torchvision's or timm's MobileNetV2"
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
FIRST = {"torchvision": "features.0.0.weight", "timm": "conv_stem.weight"}
NORM = ("weight", "bias", "running_mean", "running_var")
Part = tuple[str, str, str]  # what it is in a block (expand, depthwise, project), its convolution, its BatchNorm


@dataclass(frozen=True)
class MobileNet:
    """The part of a MobileNetV2 that LitePose has too.

    Attributes:
        path: the file that it was read from.
        stem: channels that leave the first block.
        stages: channels of the four stages.
        expansions: of each stage's blocks.
        kernel: of the depthwise convolutions.
        weights: under LitePose's names.
    """

    path: Path
    stem: int
    stages: tuple[int, ...]
    expansions: tuple[tuple[int, ...], ...]
    kernel: int
    weights: Mapping[str, Tensor]

    def build(self, like: ArchSpec) -> LitePose:
        """A LitePose with these weights and widths, and an untrained head as that of `like`."""
        spec = ArchSpec(
            like.resolution, self.stem, self.stages, self.expansions, like.deconv, self.kernel, like.joints, like.head
        )
        net = LitePose(spec, torch.Generator().manual_seed(0)).eval()
        state = net.state_dict()
        for name, value in self.weights.items():
            if state[name].shape != value.shape:
                shapes = f"{tuple(value.shape)}, MobileNetV2's would be {tuple(state[name].shape)}"
                raise InputError(f"its weights for '{name}' have shape {shapes}", self.path, HINT)
        net.load_state_dict({**state, **self.weights})
        return net


def read_mobilenet(path: Path) -> MobileNet:
    """Read a state dict, .pth, .pt or .safetensors. Raises InputError where it is not MobileNetV2's."""
    tensors = _read_tensors(path)
    found = [(library, prefix) for library, first in FIRST.items() for prefix in _prefixes(tensors, first)]
    if not found:
        raise InputError("holds no weights that are known", path, HINT)
    library, prefix = found[0]
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        groups = _torchvision_blocks(own) if library == "torchvision" else _timm_blocks(own)
        if len(groups) <= STAGES:
            raise InputError(f"has {len(groups)} groups of blocks, MobileNetV2 has 7", path, HINT)
        return _renamed(path, own, FIRST[library].removesuffix(".weight"), groups)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, TypeError, RuntimeError):
        raise InputError("its layers are not MobileNetV2's", path, HINT) from None


def _renamed(path: Path, own: Mapping[str, Tensor], first: str, groups: list[list[list[Part]]]) -> MobileNet:
    weights: dict[str, Tensor] = {}

    def take(name: str, convolution: str, norm: str) -> Tensor:
        weights[f"{name}.conv.weight"] = own[f"{convolution}.weight"].float()
        for part in NORM:
            weights[f"{name}.norm.{part}"] = own[f"{norm}.{part}"].float()
        return weights[f"{name}.conv.weight"]

    take("stem.0", first, "features.0.1" if first.startswith("features") else "bn1")
    (_, *depthwise), (_, *project) = groups[0][0]
    take("stem.1", *depthwise)
    stem = len(take("stem.2", *project))
    stages: list[int] = []
    expansions: list[list[int]] = []
    kernel, before = 1, stem
    for stage, blocks in enumerate(groups[1 : STAGES + 1]):
        expansions.append([])
        for number, parts in enumerate(blocks):
            sizes = {role: take(f"stages.{stage}.{number}.{role}", *names).shape for role, *names in parts}
            expansion, rest = divmod(sizes["expand"][0], before)
            if rest or sizes.keys() != {"expand", "depthwise", "project"}:
                raise ValueError
            expansions[-1].append(expansion)
            kernel, before = sizes["depthwise"][-1], sizes["project"][0]
        stages.append(before)
    _fit_stem(weights)
    return MobileNet(path, stem, tuple(stages), tuple(map(tuple, expansions)), kernel, weights)


def _fit_stem(weights: dict[str, Tensor]) -> None:
    """Cut or pad the channels of the first convolution, which are as many in every LitePose."""
    for name, value in weights.items():
        axes = {"stem.0": (0,), "stem.1": (0,), "stem.2": (1,) if value.ndim > 1 else ()}.get(name[:6], ())
        for axis in axes:
            kept = value.narrow(axis, 0, min(value.shape[axis], STEM_WIDTH))
            missing = [*kept.shape]
            missing[axis] = STEM_WIDTH - kept.shape[axis]
            fill = torch.ones if name.endswith("running_var") else torch.zeros
            weights[name] = torch.cat([kept, fill(missing)], axis)


def _torchvision_blocks(own: Mapping[str, Tensor]) -> list[list[list[Part]]]:
    """The blocks in groups of equal width, the first block a group of its own."""
    groups: list[list[list[Part]]] = []
    number, width = 1, None
    while f"features.{number}.conv.0.0.weight" in own:
        at = f"features.{number}.conv"
        parts = [("depthwise", f"{at}.0.0", f"{at}.0.1"), ("project", f"{at}.1", f"{at}.2")]
        if f"{at}.3.weight" in own:
            parts = [
                ("expand", f"{at}.0.0", f"{at}.0.1"),
                ("depthwise", f"{at}.1.0", f"{at}.1.1"),
                ("project", f"{at}.2", f"{at}.3"),
            ]
        now = len(own[f"{parts[-1][1]}.weight"])
        if now != width or number == 2:
            groups.append([])
        groups[-1].append(parts)
        number, width = number + 1, now
    return groups


def _timm_blocks(own: Mapping[str, Tensor]) -> list[list[list[Part]]]:
    groups: list[list[list[Part]]] = []
    while f"blocks.{len(groups)}.0.conv_dw.weight" in own:
        stage: list[list[Part]] = []
        while f"{(at := f'blocks.{len(groups)}.{len(stage)}')}.conv_dw.weight" in own:
            if f"{at}.conv_pwl.weight" in own:
                roles = [("expand", "conv_pw", "bn1"), ("depthwise", "conv_dw", "bn2"), ("project", "conv_pwl", "bn3")]
            else:
                roles = [("depthwise", "conv_dw", "bn1"), ("project", "conv_pw", "bn2")]
            stage.append([(role, f"{at}.{convolution}", f"{at}.{norm}") for role, convolution, norm in roles])
        groups.append(stage)
    return groups


def _prefixes(tensors: Mapping[str, Tensor], first: str) -> Iterator[str]:
    """What stands before the names of a state dict, such as 'module.'."""
    return (name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}"))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            value: Any = load_file(path)
        else:
            value = read_torch(path)
    except (OSError, NoMemory):  # which says what is so
        raise
    except Exception:  # a damaged file raises whatever its bytes lead to
        raise InputError("is not a file of weights, or a truncated one", path, HINT) from None
    for wrapper in WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if not isinstance(value, dict):
        raise InputError("holds no weights by name", path, HINT)
    return {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
