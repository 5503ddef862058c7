"""ofa-pose: fit LitePose, multi-person pose estimation, to a device's budget.

    poses = ofa_pose.load("runs/finetuned")("photo.jpg")
    found = ofa_pose.search("runs/supernet", macs="1.2G", out="runs/search")

Every command of the shell is a function here, with the options as keyword arguments. Importing the package is light;
torch comes with the first call that needs it. A device without torch loads exported models with `ofa_pose.runtime`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ofa_pose.api.datasets import data_check, data_convert, data_synth
    from ofa_pose.api.evaluating import evaluate, predict
    from ofa_pose.api.exporting import export
    from ofa_pose.api.importing import import_litepose
    from ofa_pose.api.profiling import latency_build, latency_bundle, latency_import, latency_verify, profile
    from ofa_pose.api.reporting import report
    from ofa_pose.api.searching import search
    from ofa_pose.api.studying import fidelity, table
    from ofa_pose.api.training import finetune, pretrain, train_supernet
    from ofa_pose.inference.pose_model import PoseModel

__version__ = "0.1.0"
_FUNCTIONS = {  # of the Python API, and the module of `ofa_pose.api` that holds each
    "data_check": "datasets",
    "data_convert": "datasets",
    "data_synth": "datasets",
    "evaluate": "evaluating",
    "export": "exporting",
    "fidelity": "studying",
    "finetune": "training",
    "import_litepose": "importing",
    "latency_build": "profiling",
    "latency_bundle": "profiling",
    "latency_import": "profiling",
    "latency_verify": "profiling",
    "predict": "evaluating",
    "pretrain": "training",
    "profile": "profiling",
    "report": "reporting",
    "search": "searching",
    "table": "studying",
    "train_supernet": "training",
}
__all__ = [
    "__version__",
    "data_check",
    "data_convert",
    "data_synth",
    "evaluate",
    "export",
    "fidelity",
    "finetune",
    "import_litepose",
    "latency_build",
    "latency_bundle",
    "latency_import",
    "latency_verify",
    "load",
    "predict",
    "pretrain",
    "profile",
    "report",
    "search",
    "table",
    "train_supernet",
]


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'ofa_pose' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ofa_pose.api.{_FUNCTIONS[name]}"), name)


def load(
    checkpoint: str | Path, device: str | None = None, resolution: int | None = None, flip: bool = False
) -> PoseModel:
    """A model that finds the poses on an image: `model(image)`, see `ofa_pose.inference.pose_model.PoseModel`.

    Args:
        checkpoint: a checkpoint file, a run directory (its best checkpoint), a shipped name, or an exported model
            (such as an .onnx file).
        device: such as 'cpu' or 'cuda:1'; None takes the GPU if there is one. Exported models run on the CPU.
        resolution: what an image's short side is scaled to, in pixels; None takes the network's own.
        flip: average with the mirrored image: better and half as fast.

    Raises:
        InputError: no such checkpoint, one of a supernet, a device for an exported model, or torch is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        from ofa_pose.utils.errors import InputError

        hint = "install it; a device without it runs exported models with ofa_pose.runtime.load"
        raise InputError("torch is not installed", hint=hint)
    from ofa_pose.inference.load import load_model

    return load_model(checkpoint, device, resolution, flip)
