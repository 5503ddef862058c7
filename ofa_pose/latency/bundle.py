"""Folders that measure a latency table on another device, and the way back from what they wrote."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.ncnn_graph import ncnn_part
from ofa_pose.backends.packages import require_packages
from ofa_pose.latency.measure import PartNet
from ofa_pose.latency.pieces import Piece
from ofa_pose.latency.subjects import Subject, table_subjects
from ofa_pose.latency.table import Header, LatencyTable, Samples, read_times
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError, nearest

FORMATS = {"onnx": "onnxruntime", "ncnn": "ncnn"}  # and the runtime that computes it
WEIGHT = 0.01
README = """\
This folder times pieces of networks on a device. It needs Python 3.9 or newer, numpy and {package}:

    pip install numpy {package}
    python measure.py --threads 1

It takes minutes on a PC, longer on a small device; cut off, it goes on where it was. Bring results.csv home:

    ofa-pose latency import results.csv --out table.json
"""


def write_bundle(folder: Path, space: SearchSpace, joints: int, form: str, share: float) -> int:
    """Write a folder that needs numpy and a runtime only: models, a manifest and a script. Returns how many subjects.

    Args:
        form: a key of FORMATS.
        share: the share of the pieces that is measured.

    Raises:
        InputError: the folder holds something, or there is no such format.
    """
    if form not in FORMATS:
        raise InputError(f"no such format: '{form}'", hint=nearest(form, FORMATS))
    if form == "onnx":
        require_packages("onnx")
    files.check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError("is not empty", folder, "name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as temporary:
        count = _write(Path(temporary), space, joints, form, share)
        for name in ("models", "manifest.json", "README.txt", "measure.py"):  # the script when all is there
            Path(temporary, name).replace(folder / name)
    return count


def _write(folder: Path, space: SearchSpace, joints: int, form: str, share: float) -> int:
    models = folder / "models"
    models.mkdir()
    names: dict[bytes, str] = {}
    entries: dict[str, dict[str, Any]] = {on_device.ANCHOR: _entry(space.smallest(joints), form, models, names)}
    nets = {}
    for subject in table_subjects(space, joints, share):
        entries[_name(subject)] = _entry(subject, form, models, names)
        if isinstance(subject, ArchSpec):
            nets[_name(subject)] = subject.to_dict()
    header = {"space": space.to_dict(), "joints": joints, "backend": FORMATS[form], "share": share, "nets": nets}
    files.write_text(folder / "manifest.json", json.dumps({"header": header, "subjects": entries}))
    shutil.copyfile(on_device.__file__, folder / "measure.py")
    files.write_text(folder / "README.txt", README.format(package=FORMATS[form]))
    return len(entries) - 1


def _name(subject: Subject) -> str:
    return str(subject) if isinstance(subject, Piece) else f"net {subject.digest}"


def _entry(subject: Subject, form: str, models: Path, names: dict[bytes, str]) -> dict[str, Any]:
    """A subject's line of the manifest; its model is written unless one for another side is there already."""
    part = PartNet(subject)
    entry: dict[str, Any] = {"inputs": part.shapes}
    if form == "onnx":
        content = _light(part.onnx())
    else:
        outputs = list(part.ends)
        param, weights = ncnn_part(part, list(part.shapes), part.walk, outputs)
        content = param.encode()
        entry |= {"outputs": outputs, "weights": len(weights)}
    if content not in names:
        names[content] = f"{len(names)}.{'onnx' if form == 'onnx' else 'param'}"
        (models / names[content]).write_bytes(content)
    return {"model": names[content], **entry}


def _light(model: bytes) -> bytes:
    """An ONNX model with all weights alike, made when it is loaded: a thousandth of the size, and as fast."""
    import onnx
    from onnx import helper, numpy_helper

    loaded = onnx.load_model_from_string(model)
    graph, nodes = loaded.graph, []
    for weight in [tensor for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.name != "mean"]:
        shape = f"{weight.name}.shape"
        value = helper.make_tensor("value", weight.data_type, [1], [WEIGHT])
        nodes.append(helper.make_node("ConstantOfShape", [shape], [weight.name], name=weight.name, value=value))
        sizes = numpy_helper.from_array(np.array(weight.dims, np.int64), shape)
        graph.initializer.remove(weight)
        graph.initializer.append(sizes)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    return loaded.SerializeToString()


def import_results(path: Path) -> LatencyTable:
    """The table of a bundle's results.csv. Raises InputError where it is none, or not complete."""
    try:
        header, times, ratios = on_device.read_results(path)
        nets = {name: ArchSpec.from_dict(spec, path) for name, spec in header["nets"].items()}
        named = ((nets.get(name) or Piece.parse(name, path), seen) for name, seen in ratios.items())
        samples: Samples = {subject: read_times(seen) for subject, seen in named}
        times, head = read_times(times), Header.from_dict(header, path)
    except FileNotFoundError:
        raise InputError("no such file", path, "check the path") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"is no results.csv of a bundle ({error})", path, "run its measure.py again") from None
    expected = table_subjects(head.space, head.joints, head.share)  # in whose order `latency build` writes them too
    table = LatencyTable(head, times, {subject: samples.get(subject, []) for subject in expected})
    table.check_complete(path, "start measure.py again, it goes on where it was")
    return table
