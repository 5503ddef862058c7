"""What every format is written from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ofa_pose.arch.spec import MEAN, STD, TOTAL_STRIDE
from ofa_pose.backends import OUTPUTS
from ofa_pose.checkpoints.checkpoint import Checkpoint, fixed_net, load_checkpoint
from ofa_pose.exports.int8 import Int8Data
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.pose.settings import decode_config
from ofa_pose.skeleton import Skeleton


@dataclass(frozen=True)
class ExportSource:
    """A network in eval mode on the CPU, and what its files say about it.

    Attributes:
        decode: how poses are read from its outputs.
        name: what its files' names begin with.
        recipe: what it was trained with.
        int8: what an int8 form of it is made with; None where none is.
    """

    net: LitePose
    skeleton: Skeleton
    decode: DecodeConfig
    name: str
    recipe: Mapping[str, Any]
    int8: Int8Data | None = None


def open_source(checkpoint: Checkpoint | str | Path, name: str, supernets: bool) -> ExportSource:
    """What to write a checkpoint's files from. Raises InputError on a supernet's, unless those are allowed."""
    where = "" if isinstance(checkpoint, Checkpoint) else str(checkpoint)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    net = source.build() if supernets else fixed_net(source, where)
    return ExportSource(net, source.skeleton, decode_config(source.recipe), name, source.recipe)


def metadata(source: ExportSource, in_graph: bool) -> dict[str, str]:
    """What a program needs to feed the network and to read its outputs, each value as JSON.

    Normalised pixel = (pixel / 255 - mean) / std in RGB order; `in_graph`: the graph does that itself.
    """
    values: Mapping[str, Any] = {
        "spec": source.net.spec.to_dict(),
        "skeleton": source.skeleton.to_dict(),
        "normalisation": {"order": "RGB", "scale": 1 / 255, "mean": MEAN, "std": STD, "in_graph": in_graph},
        "strides": OUTPUTS,
        "input_multiple": TOTAL_STRIDE,
        "decode": asdict(source.decode),
    }
    return {key: json.dumps(value) for key, value in values.items()}
