"""What a recipe says about training: its `train` and `loss` sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.utils.config import Config

Side = Annotated[int, Field(gt=0, multiple_of=TOTAL_STRIDE)]


class TrainSettings(Config):
    """The optimisation. Steps are batches; evaluation and checkpoints come every so many steps."""

    steps: int = Field(1000, ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the rate rises")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    resolutions: tuple[Side, ...] | None = Field(None, description="a fixed net's training sides; none: its own")
    workers: int = Field(1, ge=0)
    evaluate_every: int = Field(500, ge=1)
    evaluate_images: int = Field(200, ge=1)
    checkpoint_every: int = Field(200, ge=1)


class LossSettings(Config):
    """The weights of the losses.

    HigherHRNet weighs push and pull 1e-3 beside plain heatmap errors; beside errors with a foreground weight, which
    are some 30 times larger, that is 1e-2 and more. Push outweighs pull: where all tags are equal neither has a slope,
    and with equal weights the tags can stay there.
    """

    sigma: float = Field(2.0, gt=0, description="of the target Gaussians, in cells")
    foreground: float = Field(30.0, ge=0, description="extra weight where the target is 1")
    high: float = Field(1.0, gt=0, description="weight of the heatmaps at 1/2; a joint covers a fourth of their area")
    push: float = Field(4e-2, ge=0)
    pull: float = Field(1e-2, ge=0)
    distill: float = Field(0.5, ge=0, le=1, description="share of the heatmap loss that comes from the teacher")
