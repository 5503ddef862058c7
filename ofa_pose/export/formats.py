"""A network's files for other programs: config (YAML, LitePose's JSON), weights (safetensors, LitePose's), ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_pose import files
from ofa_pose.arch.litepose_config import check_rebuildable, litepose_from_spec
from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.backends.onnx_graph import onnx_model
from ofa_pose.backends.onnx_runner import OnnxRunner
from ofa_pose.backends.packages import require_packages
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.checkpoint import Checkpoint, load_checkpoint
from ofa_pose.data.loader import MEAN, STD
from ofa_pose.errors import InputError, OfaPoseError, nearest
from ofa_pose.litepose_checkpoint import check_loadable, litepose_state_dict
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE
from ofa_pose.predict import fixed_net
from ofa_pose.profiling import profile
from ofa_pose.seeding import generator
from ofa_pose.skeleton import Skeleton

TOLERANCE = 1e-4  # between ONNX Runtime and torch, of outputs within ±1; larger outputs in proportion


@dataclass(frozen=True)
class _Net:
    """What every writer needs: the network in eval mode on the CPU, its joints, and the files' common name."""

    net: LitePose
    skeleton: Skeleton
    name: str


def export_checkpoint(
    checkpoint: Checkpoint | str | Path, formats: Sequence[str] | None, out: str | Path, name: str = "model"
) -> dict[str, Any]:
    """Write a network in other formats: OUT/NAME.yaml, .litepose.json, .litepose.pth.tar, .safetensors, .onnx.

    A supernet has one format, 'litepose-weights'.

    Args:
        checkpoint: a checkpoint, or what `load_checkpoint` takes.
        formats: any of `FORMATS`; None: all that this network can be written in.

    Returns:
        {'files': {format: path}}, and for ONNX 'onnx': {'max_difference', 'sizes'}: the largest absolute difference
        from torch's outputs, and the inputs (batch, height, width) it was measured on; for LitePose's JSON 'litepose':
        {'warning'} where that repository's code would build another net from it.

    Raises:
        InputError: a supernet, an unknown format, one that does not know the network's head, a package is not
            installed, or LitePose's code, for its weights, would build another net; nothing is written then.
        OfaPoseError: ONNX Runtime does not compute what torch computes; that file is not written.
    """
    for wanted in formats or ():
        if wanted not in _WRITERS:
            raise InputError(f"no such format: '{wanted}'", mend=nearest(wanted, FORMATS))
    files.check_folder(out)
    if formats is None or "onnx" in formats:
        require_packages("onnx", "onnxruntime")
    where = "" if isinstance(checkpoint, Checkpoint) else str(checkpoint)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    whole = formats is not None and set(formats) <= SUPERNET_FORMATS
    net = _Net(source.build() if whole else fixed_net(source, where), source.skeleton, name)
    if formats is None:
        formats = [known for known in DEFAULT_FORMATS if known != "litepose" or net.net.spec.head == "fusion"]
    elif "litepose" in formats:
        litepose_from_spec(net.net.spec)  # raises before anything is written
    if "litepose-weights" in formats:
        check_loadable(net.net)
    summary: dict[str, Any] = {"files": {}}
    for wanted in dict.fromkeys(formats):
        suffix, write = _WRITERS[wanted]
        path = Path(out) / f"{name}{suffix}"
        report = write(net, path)
        summary["files"][wanted] = str(path)
        if report:
            summary[wanted] = report
    return summary


def _write_yaml(net: _Net, path: Path) -> None:
    """Spec, joints, parameters and MACs; `load_spec` reads it."""
    figures = profile(net.net.spec, net.name)
    value = {"name": net.name, "spec": net.net.spec.to_dict(), "skeleton": net.skeleton.to_dict()}
    value |= {"params": figures["params"], "macs": figures["macs"]}
    files.write_text(path, files.dump_yaml(value))


def _write_litepose(net: _Net, path: Path) -> dict[str, Any] | None:
    """`load_spec` reads it as it is, whatever that repository's own code makes of it."""
    files.write_json(path, litepose_from_spec(net.net.spec))
    try:
        check_rebuildable(net.net.spec)
    except InputError as error:
        return {"warning": error.faults[0].what}
    return None


def _write_litepose_weights(net: _Net, path: Path) -> None:
    """A bare state dict, as that repository's `load_state_dict(torch.load(…), strict=True)` wants it."""
    weights = litepose_state_dict(net.net)
    with files.replacing(path) as temporary, temporary.open("wb") as file:  # a path's name would go into the file
        torch.save(weights, file)


def _write_safetensors(net: _Net, path: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: value.contiguous() for name, value in net.net.state_dict().items()}
    with files.replacing(path) as temporary:
        save_file(weights, temporary, {"format": "pt", **_metadata(net, in_graph=False)})


def _write_onnx(net: _Net, path: Path) -> dict[str, Any]:
    import onnx

    model = onnx_model(net.net, _metadata(net, in_graph=True))
    onnx.checker.check_model(model, full_check=True)
    with files.replacing(path) as temporary:
        onnx.save(model, str(temporary))
        return compare_onnx(net.net, temporary)


def compare_onnx(net: LitePose, path: str | Path) -> dict[str, Any]:
    """Run an ONNX file and the network it was written from on the same random images.

    Returns:
        {'max_difference': largest absolute difference of any output, 'sizes': [(batch, height, width), …]}.

    Raises:
        OfaPoseError: the outputs differ by more than `TOLERANCE`.
    """
    rng, runners = generator("export", "onnx"), (OnnxRunner(path), TorchRunner(net))
    side = net.spec.resolution
    other = (32 * max(1, side // 64), 32 * (side // 32 + 1))  # not square, multiples of 32
    sizes = [(1, side, side), (2, *other)]
    worst = 0.0
    for size in sizes:
        images = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for found, expected in zip(*(runner(images) for runner in runners), strict=True):
            scale = max(1.0, float(np.abs(expected).max()))
            difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
            if not difference <= TOLERANCE * scale:  # NaN too
                what = f"ONNX Runtime and torch differ by {difference:.2g} on an input of {size}"
                raise OfaPoseError(f"{what}; at most {TOLERANCE * scale:.2g} was expected")
            worst = max(worst, difference)
    return {"max_difference": worst, "sizes": [list(size) for size in sizes]}


def _metadata(net: _Net, in_graph: bool) -> dict[str, str]:
    """What a program needs to feed the network and to read its outputs, each value as JSON.

    Normalised pixel = (pixel / 255 - mean) / std in RGB order; `in_graph`: the graph does that itself.
    """
    values = {
        "spec": net.net.spec.to_dict(),
        "skeleton": net.skeleton.to_dict(),
        "normalisation": {"order": "RGB", "scale": 1 / 255, "mean": MEAN, "std": STD, "in_graph": in_graph},
        "strides": {"low": LOW_STRIDE, "high": HIGH_STRIDE},
        "input_multiple": TOTAL_STRIDE,
    }
    return {key: json.dumps(value) for key, value in values.items()}


_WRITERS: dict[str, tuple[str, Callable[[_Net, Path], dict[str, Any] | None]]] = {
    "yaml": (".yaml", _write_yaml),
    "litepose": (".litepose.json", _write_litepose),
    "litepose-weights": (".litepose.pth.tar", _write_litepose_weights),
    "safetensors": (".safetensors", _write_safetensors),
    "onnx": (".onnx", _write_onnx),
}
FORMATS = tuple(_WRITERS)
SUPERNET_FORMATS = {"litepose-weights"}
DEFAULT_FORMATS = tuple(name for name in FORMATS if name != "litepose-weights")  # not every net has an equal there
