"""ofa-pose: fit LitePose, multi-person pose estimation, to a device's budget.

    poses = ofa_pose.load("runs/finetuned")("photo.jpg")

Importing the package is light; torch comes with the first `load`. A device without torch loads exported models with
`ofa_pose.runtime`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ofa_pose.inference.pose_model import PoseModel

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(
    checkpoint: str | Path, device: str | None = None, resolution: int | None = None, flip: bool = False
) -> PoseModel:
    """A model that finds the poses on an image: `model(image)`, see `ofa_pose.inference.pose_model.PoseModel`.

    Args:
        checkpoint: a checkpoint file, a run directory (its best checkpoint), a shipped name, or an exported model
            (.onnx, .xml, .param).
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
    from ofa_pose.inference.predict import load_model

    return load_model(checkpoint, device, resolution, flip)
