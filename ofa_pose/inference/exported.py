"""Loading exported models: no torch, so that a device can (see `ofa_pose.runtime`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.table import SUFFIXES, open_runner
from ofa_pose.inference.pose_model import PoseModel
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.pose.geometry import check_resolution
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError


def load_exported(
    path: str | Path, threads: int = 0, resolution: int | None = None, flip: bool = False, streams: int = 1
) -> PoseModel:
    """An exported model that finds the poses on an image: `model(image)`, see `PoseModel`.

    Args:
        path: a model that `ofa-pose export` wrote for a runtime: .onnx, .xml (OpenVINO), .param (ncnn) and the like.
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
    config = None
    if "decode" in runner.metadata:
        config = DecodeConfig.from_dict(_read(runner.metadata, "decode", path), path)
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
