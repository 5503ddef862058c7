"""Models from checkpoints, which take torch, and from exported files, which do not (see `ofa_pose.runtime`)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.exported import SUFFIXES, open_runner
from ofa_pose.inference.pose_model import PoseModel
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.pose.geometry import check_resolution
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError, nearest

if TYPE_CHECKING:
    from ofa_pose.checkpoints.checkpoint import Checkpoint


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
    import torch

    from ofa_pose.backends.fastest import FastestRunner
    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.checkpoints.checkpoint import Checkpoint, fixed_net, load_checkpoint
    from ofa_pose.pose.settings import decode_config

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
    config = decode_config(source.recipe)
    return PoseModel(runner, source.spec, source.skeleton, resolution or source.spec.resolution, flip, config)


def load_exported(
    path: str | Path, threads: int = 0, resolution: int | None = None, flip: bool = False, streams: int = 1
) -> PoseModel:
    """An exported model that finds the poses on an image: `model(image)`, see `PoseModel`.

    Args:
        path: a model that `ofa-pose export` wrote: .onnx, .xml (OpenVINO) or .param (ncnn).
        threads: of one call; 0: the runtime chooses.
        resolution: what an image's short side is scaled to, in pixels; None takes the network's own.
        flip: average with the mirrored image: better and half as fast.
        streams: how many calls are meant to be made at once.

    Raises:
        InputError: no such file, no model that ofa-pose exported, its runtime is not installed, or no such resolution.
    """
    if resolution is not None:
        check_resolution(resolution)
    runner = open_runner(path, threads, streams)
    spec = ArchSpec.from_dict(_read(runner.metadata, "spec", path), path)
    skeleton = Skeleton.from_dict(_read(runner.metadata, "skeleton", path), path)
    config = _decode_config(_read(runner.metadata, "decode", path), path) if "decode" in runner.metadata else None
    return PoseModel(runner, spec, skeleton, resolution or spec.resolution, flip, config)


def is_exported(name: str | Path) -> bool:
    """Whether a name is that of an exported model, not of a checkpoint: by its suffix."""
    return Path(name).suffix in SUFFIXES


def _read(metadata: Mapping[str, str], key: str, path: str | Path) -> Any:
    if key not in metadata:
        hint = "write it with ofa-pose export, and leave its metadata in it"
        raise InputError(f"does not say its {key}", path, hint)
    try:
        return json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise InputError(f"holds no valid JSON as its {key}", path, "export it again") from None


def _decode_config(value: Any, path: str | Path) -> DecodeConfig:
    """The decoder's settings that the checkpoint had; what it did not set is as by default."""
    defaults = {field.name: field.default for field in fields(DecodeConfig)}
    if not isinstance(value, Mapping):
        raise InputError("holds no mapping as its decode", path, "export it again")
    for key, setting in value.items():
        if key not in defaults:
            raise InputError(f"unknown decoder setting '{key}'", path, nearest(str(key), defaults))
        whole = isinstance(defaults[key], int)  # a bool is an int too
        if not isinstance(setting, int if whole else int | float) or not math.isfinite(setting):
            raise InputError(f"decoder setting '{key}' is {setting!r}", path, "export it again")
    return DecodeConfig(**value)
