"""The classification side of the kernel study: a trunk of LitePose's stem and stages that classifies drawn crops.

The same blocks as LitePose's backbone, a mean over the deepest map and a linear layer, as in MobileNetV2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ofa_pose.arch.plan import Layer, make_plan, run_layers
from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import Macs, layer_macs, layer_params
from ofa_pose.data.loader import normalise
from ofa_pose.models.depthwise import depthwise_conv
from ofa_pose.models.litepose import LitePose, Unit, make_layer
from ofa_pose.recipe import TrainSettings
from ofa_pose.synthetic.crops import CLASSES, read_crops
from ofa_pose.train.updates import backpropagate, make_optimizer, set_rate, update
from ofa_pose.utils.console import progress
from ofa_pose.utils.result import Result
from ofa_pose.utils.seeding import generator, key_seed

SHIFT = 0.08  # of a training crop's side, at most
TEST_BATCH = 64


@dataclass(frozen=True)
class Classification(Result):
    """A trained classifier: the share of test crops that it classifies correctly, and its costs."""

    accuracy: float
    macs: Macs
    params: int


class TrunkClassifier(nn.Module):
    """LitePose's stem and stages, a mean over the map and a linear layer: (B, 3, H, W) → (B, classes)."""

    def __init__(self, spec: ArchSpec, classes: int, weights: torch.Generator) -> None:
        super().__init__()
        self.plan = make_plan(spec)
        self.units = nn.ModuleDict({_key(layer): make_layer(layer) for layer in self.layers()})
        for layer in self.layers():
            LitePose.init_conv(layer, self.unit(layer).conv.weight, weights)
        self.linear = nn.Linear(spec.stages[-1], classes)
        nn.init.zeros_(self.linear.bias)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(self.linear.weight.shape, generator=weights) / spec.stages[-1] ** 0.5)

    def layers(self) -> list[Layer]:
        """Its convolutions, in the order of execution."""
        blocks = [block for stage in self.plan.stages for block in stage]
        return [*self.plan.stem, *(layer for block in blocks for layer in block.layers)]

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""
        unit = self.units[_key(layer)]
        assert isinstance(unit, Unit)
        return unit

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images → (B, classes) logits."""
        x = run_layers(self.plan.stem, images, self.apply_layer)
        for stage in self.plan.stages:
            for block in stage:
                x = block.run(x, self.apply_layer)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits

    def apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
        """Compute one layer of the plan."""
        unit = self.unit(layer)
        if not (self.training and layer.depthwise):
            return unit(x)
        return unit.act(unit.norm(depthwise_conv(x, unit.conv.weight, layer.stride, layer.padding)))

    def costs(self) -> tuple[Macs, int]:
        """Multiply-adds by convention, at the spec's resolution, and parameters."""
        weights = self.linear.in_features * self.linear.out_features
        macs = sum((layer_macs(layer) for layer in self.layers()), Macs(weights, weights, weights))
        return macs, sum(map(layer_params, self.layers())) + weights + self.linear.out_features


def classify(
    out: str | Path, *, net: str | Path, crops: str | Path, seed: int, steps: int, batch: int = 16, lr: float = 2e-3
) -> Classification:
    """Train a trunk on drawn crops and take its accuracy on others; nothing but `out` itself is written.

    It takes a minute, so one that is cut off begins anew. The same arguments give the same weights.

    Args:
        out: a folder, which stays empty.
        net: preset or spec file whose stem, stages and kernel the trunk has.
        crops: the file that `write_crops` wrote.
        seed: of the weights, the order of the crops and their shifts.
        steps: of so many crops (batch) each, with AdamW: the learning rate `lr` rises, then falls to zero.

    Raises:
        InputError: no such net.
    """
    data = read_crops(crops)
    Path(out).mkdir(parents=True, exist_ok=True)
    weights = torch.Generator().manual_seed(key_seed(seed, "weights") >> 1)
    model = TrunkClassifier(load_spec(net), len(CLASSES), weights)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = TrainSettings(steps=steps, batch=batch, lr=lr)
    optimizer = make_optimizer(model, settings)  # type: ignore[arg-type]
    images, labels = data["train"]
    model.train()
    with progress("classify", steps, "steps") as meter:
        for step in range(steps):
            rng = generator(seed, "crops of a step", step)
            chosen = rng.integers(len(images), size=batch)
            shown = np.stack([_augmented(images[place], rng) for place in chosen])
            set_rate(optimizer, settings, step)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(_input(shown)), torch.from_numpy(labels[chosen]))
            update(model, optimizer, backpropagate({"classes": loss}), settings.clip)  # type: ignore[arg-type]
            meter.step()
    macs, params = model.costs()
    return Classification(_accuracy(model, *data["test"]), macs, params)


@torch.no_grad()
def _accuracy(model: TrunkClassifier, images: np.ndarray, labels: np.ndarray) -> float:
    model.eval()
    starts = range(0, len(images), TEST_BATCH)
    found = [model(_input(images[start : start + TEST_BATCH])).argmax(1).numpy() for start in starts]
    return float((np.concatenate(found) == labels).mean())


def _input(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) RGB uint8 → (B, 3, H, W) normalised."""
    return normalise(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2), torch.float32)


def _augmented(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop mirrored or not, and shifted; what comes in at the edges is a mirror image."""
    most = round(SHIFT * len(image))
    x, y = rng.integers(0, 2 * most + 1, 2)
    image = image[:, ::-1] if rng.random() < 0.5 else image
    padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="reflect")
    return padded[y : y + len(image), x : x + len(image)]


def _key(layer: Layer) -> str:
    return layer.name.replace(".", "-")
