"""What a run was computed with: dates, versions, the machine, the data and the files that it started from.

A run directory keeps it in provenance.jsonl: a record as a command begins or resumes the run, another as it ends.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_pose.backends.on_device import cpu_name, processors, today
from ofa_pose.checkpoints.checkpoint import find_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.utils import atomic, files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.result import plain
from ofa_pose.utils.run_dir import PROVENANCE, RunDir, read_records

PACKAGES = ("ofa-pose", "torch", "numpy", "opencv-python-headless", "faster-coco-eval", "onnxruntime")
INPUTS = ("--init", "--supernet", "--subnet", "--teacher", "--latency-table")  # options that name a file of a run


def note_start(run: RunDir, device: torch.device, data: Mapping[str, KeypointDataset], processes: int = 1) -> None:
    """Keep what a run begins or goes on with; the run directory is open.

    A run that goes on has the files that it began from, whatever this call names: where those are others, a warning
    says so.

    Args:
        data: the splits that it uses, by name.
        processes: that share the work.
    """
    record = {
        "started": today(),
        "versions": versions(),
        "machine": machine(device),
        "processes": processes,
        "data": {split: data_statistics(dataset) for split, dataset in data.items()},
        "inputs": _inputs(run),
    }
    if run.fresh:  # what a run left that was killed before its first checkpoint
        (run.path / PROVENANCE).unlink(missing_ok=True)
    _append(run.path / PROVENANCE, record)


def _inputs(run: RunDir) -> dict[str, dict[str, str]]:
    """See `input_digests`; of a run that goes on, those that it began from."""
    now, before, path = input_digests(run.command), dict[str, dict[str, str]](), run.path / PROVENANCE
    if run.fresh or not path.is_file():
        return now
    for _, record in read_records(path):
        kept = record.get("inputs")
        known = kept.items() if isinstance(kept, dict) else ()
        before = {**{option: one for option, one in known if isinstance(one, dict)}, **before}
    for option in ("--init", "--supernet"):  # whose weights a training reads when it begins
        given, begun = now.get(option, {}), before.get(option, {})
        if given and begun and given["sha256"] != begun.get("sha256"):
            warn(f"{option} {given['path']} is not read: the run goes on from its own checkpoint, not from that file")
    return {**now, **before}


def note_end(run: RunDir, seconds: float) -> None:
    """Keep when a run ended, and how long its last command took."""
    _append(run.path / PROVENANCE, {"ended": today(), "seconds": round(seconds, 1)})


def versions() -> dict[str, str]:
    """Of Python and the packages that figures depend on, as far as installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """System, processor, its cores that may be used and threads that are, and the GPU that a device is."""
    found = {"system": f"{platform.system()} {platform.release()}", "processor": cpu_name(), "cores": processors()}
    found["threads"] = torch.get_num_threads()
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def data_statistics(dataset: KeypointDataset) -> dict[str, Any]:
    """Where a split's annotations are, their SHA-256, and how many images, people and joints it has."""
    labels = [image.keypoints[..., 2].ravel() for image in dataset.images]
    seen = np.concatenate(labels) if labels else np.zeros(0)
    return {
        "annotations": str(dataset.annotations_path),
        "sha256": dataset.fingerprint,
        "images": len(dataset),
        "background": len(dataset.background),
        "people": dataset.people,
        "joints": int((seen > 0).sum()),
        "hidden": int((seen == 1).sum()),
        "metric": dataset.metric,
    }


def input_digests(command: Sequence[str]) -> dict[str, dict[str, str]]:
    """The files that the options of a command name, each with its SHA-256, by option; those that are found."""
    found = {}
    for option, value in pairwise(part for word in command for part in _parts(word)):
        if option in INPUTS:
            with suppress(InputError, OSError):
                path = Path(value) if Path(value).is_file() else find_checkpoint(value)
                found[option] = {"path": value, "sha256": files.sha256(path)}
    return found


def _parts(word: str) -> list[str]:
    """A word of a command; of --option=value both parts."""
    return word.split("=", 1) if word.startswith("--") else [word]


def _append(path: Path, record: Mapping[str, Any]) -> None:
    torn = path.is_file() and not path.read_bytes().endswith(b"\n")  # by a full disk
    with atomic.naming(path), path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps(plain(record), allow_nan=False) + "\n")
