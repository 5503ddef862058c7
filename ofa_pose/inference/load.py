"""Models from checkpoints and from exported files."""

from __future__ import annotations

from pathlib import Path

import torch

from ofa_pose.backends.fastest import FastestRunner
from ofa_pose.backends.runtimes import SUFFIXES
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.checkpoints.checkpoint import Checkpoint, fixed_net, load_checkpoint
from ofa_pose.inference.pose_model import PoseModel, load_exported
from ofa_pose.pose.geometry import check_resolution
from ofa_pose.utils.errors import InputError


def load_model(
    checkpoint: str | Path | Checkpoint,
    device: str | None = None,
    resolution: int | None = None,
    flip: bool = False,
    latency: bool = True,
) -> PoseModel:
    """A model of a checkpoint or an exported file; see `ofa_pose.load`.

    Args:
        latency: one image is to be done soon, rather than many at once; see `FastestRunner`.
    """
    if isinstance(checkpoint, str | Path) and is_exported(checkpoint):
        if device is not None:
            raise InputError("an exported model runs on the CPU", checkpoint, "name no device, or a checkpoint")
        threads, streams = (0, 1) if latency else (1, torch.get_num_threads())
        return load_exported(checkpoint, threads, resolution, flip, streams)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    net = fixed_net(source, "" if source is checkpoint else checkpoint)
    if resolution is not None:
        check_resolution(resolution)
    runner = FastestRunner(pick_device(device), latency)(net)
    side = resolution or source.spec.resolution
    return PoseModel(runner, source.spec, source.skeleton, side, flip, source.decode)


def is_exported(name: str | Path) -> bool:
    """Whether a name is that of an exported model, not of a checkpoint: by its suffix."""
    return Path(name).suffix in SUFFIXES
