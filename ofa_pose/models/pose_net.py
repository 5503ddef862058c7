"""What every network is, LitePose or of another family, and what those give that find poses from the bottom up."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import NetSpec

MOST_PARAMS = 200_000_000  # 0.8 GB; LitePose's own nets have some millions, HigherHRNet-W48 64
TRACED = (2, 3, 64, 96)  # no size stays in a traced graph
OUTPUT_STD = 1e-3  # near-zero outputs at the start: large random heatmaps take thousands of steps to unlearn


class Network(nn.Module):
    """A network of (B, 3, H, W) normalised images, H and W multiples of 16, that gives a tuple of maps.

    Attributes:
        spec: its shape.
        output_layers: names of the modules whose channels follow from the joints; with other joints they start anew.
            The convolutions among them give the outputs.
    """

    spec: NetSpec
    output_layers: tuple[str, ...] = ()

    @property
    def map_channels(self) -> dict[str, int]:
        """Names of the maps that forward gives, and their channels."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights, and of the images that it takes."""
        return next(self.parameters()).dtype

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """He-normal (fan out) weights, unit BatchNorms, near-zero output layers; drawn from `generator`."""
        outputs = {self.get_submodule(name) for name in self.output_layers}
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                last = module in outputs and isinstance(module, nn.Conv2d)
                std = OUTPUT_STD if last else (2.0 / _fan_out(module)) ** 0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
                if module.bias is not None:
                    module.bias.zero_()

    def save_onnx(
        self, path: Path, opset: int, inputs: Mapping[str, Mapping[int, str]], outputs: Mapping[str, Mapping[int, str]]
    ) -> None:
        """Write what torch exports of the network in eval mode, of normalised images of any size.

        Its exporter of today needs a further package, and does not promise graphs whose sides may be any.

        Args:
            inputs, outputs: names of the input and of the maps, and of each the names of the axes that vary.
        """
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.eval(),
                (torch.zeros(TRACED),),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=[*inputs],
                output_names=[*outputs],
                dynamic_axes={name: dict(axes) for name, axes in (*inputs.items(), *outputs.items())},
            )


class PoseNet(Network):
    """A network that finds poses, by two maps.

    low (B, 2J, H/4, W/4): J heatmaps, then J tag maps; high (B, J, H/2, W/2): heatmaps.
    """

    @property
    def map_channels(self) -> dict[str, int]:
        """Names of the maps that forward gives, and their channels."""
        return {"low": 2 * self.spec.joints, "high": self.spec.joints}

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images → low (B, 2J, H/4, W/4), high (B, J, H/2, W/2)."""
        raise NotImplementedError


def _fan_out(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    if isinstance(module, nn.Linear):
        return module.out_features
    area: float = module.kernel_size[0] * module.kernel_size[1]
    if isinstance(module, nn.ConvTranspose2d):
        area /= module.stride[0] * module.stride[1]
    return module.out_channels // module.groups * area
