"""The table of runtimes: what is read off it agrees with the records, and files of exported models are known by it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import ofa_pose
from ofa_pose.backends.runtimes import BACKENDS, BUNDLES, FORMATS, SUFFIXES, TABLE, Entry, instead_of_checkpoint, listed
from tests.test_floors import ROOT


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_a_line_agrees_with_its_record(entry: Entry) -> None:
    backend = entry.backend
    assert (backend.write is not None) == (backend.open is not None) == bool(entry.format) == bool(backend.files)
    assert backend.run or backend.write
    assert backend.prepare is not None and (backend.bundle is not None) == bool(entry.bundled)
    assert backend.write_half is None or backend.write
    assert not entry.suffix or backend.files[0].endswith(entry.suffix)
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    brought = setup["options.extras_require"][backend.extra].split() if backend.extra else ["torch"]
    assert {*backend.packages, *backend.to_write} <= {package.replace("-", "_") for package in brought}


def test_users_know_these_names() -> None:
    assert set(BACKENDS) == {"onnxruntime", "onnxruntime-int8", "torch", "openvino", "ncnn", "litert"}
    assert set(FORMATS) == {"onnx", "openvino", "ncnn", "litert", "torchscript"}
    assert set(BUNDLES) == {"onnx", "onnx-int8", "ncnn", "litert"}
    assert set(SUFFIXES) == {".onnx", ".xml", ".param", ".tflite"}
    assert listed(BACKENDS) == "onnxruntime, onnxruntime-int8, torch, openvino, ncnn or litert"
    assert listed({"onnx": TABLE[0]}) == "onnx"


def test_help_names_the_runtimes() -> None:
    cases = ((ofa_pose.profile, BACKENDS), (ofa_pose.latency_build, BACKENDS), (ofa_pose.export, FORMATS))
    for function, names in cases:
        text = " ".join((inspect.getdoc(function) or "").split())
        assert all(name in text for name in names) and "{" not in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model.onnx", "predict and eval run exported models; here name the checkpoint"),
        ("model.int8.onnx", "predict and eval run exported models; here name the checkpoint"),
        ("model.ncnn.param", "predict and eval run exported models; here name the checkpoint"),
        ("model.int8.tflite", "predict and eval run exported models; here name the checkpoint"),
        ("model.bin", "it is a part of an exported model: name the .xml file beside it"),
        ("model.ncnn.bin", "it is a part of an exported model: name the .xml or .param file beside it"),
        (
            "net.torchscript.pt",
            "TorchScript reads it; here name the checkpoint, or export it as onnx, openvino, ncnn or litert",
        ),
        ("model.pt", None),
        ("model.litepose.json", None),
    ],
)
def test_files_that_are_taken_for_checkpoints(name: str, hint: str | None) -> None:
    assert instead_of_checkpoint(Path(name)) == hint


def test_the_table_is_light() -> None:
    """So that the command line and a device without torch can read it."""
    code = "import sys, ofa_pose.backends.runtimes; print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
