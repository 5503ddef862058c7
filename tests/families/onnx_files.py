"""ONNX files of networks of any family, compared with torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from tests.networks import picture, randomised


def onnx_error(net: nn.Module, sizes: Sequence[tuple[int, int]], path: Path) -> float:
    """The largest difference of one ONNX file's outputs from torch's, at these (height, width) and two images.

    The file is traced at another size, with dynamic batch, height and width.
    """
    net = randomised(net).eval()
    names = [f"output{index}" for index in range(len(maps_of(net, picture())))]
    axes = {name: {0: "batch", 2: "height", 3: "width"} for name in ("image", *names)}
    for name in names:
        axes[name] = {0: "batch", 2: f"{name}_height", 3: f"{name}_width"}
    options = {"input_names": ["image"], "output_names": names, "dynamic_axes": axes, "opset_version": 17}
    torch.onnx.export(net, (picture(height=64, width=96),), str(path), dynamo=False, **options)
    session = onnxruntime.InferenceSession(str(path))
    error = 0.0
    for height, width in sizes:
        image = picture(2, height, width)
        for torchs, onnxs in zip(maps_of(net, image), session.run(None, {"image": image.numpy()}), strict=True):
            assert torchs.shape == onnxs.shape
            error = max(error, float(np.abs(torchs.numpy() - onnxs).max()))
    return error


@torch.no_grad()
def maps_of(net: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """A network's outputs, without gradients."""
    return net(image)
