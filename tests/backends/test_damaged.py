"""Exported models that are not what was exported, and places whose names are no UTF-8."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ofa_pose.api.exchanging import export
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.onnxruntime import OnnxRunner
from ofa_pose.backends.torch_net import TorchscriptRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.inference.pose_model import load_exported
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import CROWDPOSE
from ofa_pose.utils.errors import InputError
from tests.networks import packed_otherwise

SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=14)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.pt"
    save_checkpoint(path, Checkpoint("net", SPEC, None, CROWDPOSE, LitePose(SPEC).state_dict()))
    return path


def test_a_flipped_bit_among_the_weights_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    path = export(checkpoint, out=tmp_path, formats=["onnx"]).files["onnx"]
    before = load_exported(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model.onnx: is not the file that was exported, as export.json lists it"):
        load_exported(path)
    (tmp_path / "export.json").write_text("{")  # which says nothing
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load_exported(path).resolution == before.resolution


def test_a_flipped_bit_in_the_parts_of_a_torchscript_file_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    path = export(checkpoint, out=tmp_path, formats=["torchscript"]).files["torchscript"].rename(tmp_path / "a.pt")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        parts = [part for part in archive.infolist() if part.file_size]
    for part in parts:
        lengths = struct.unpack_from("<HH", content, part.header_offset + 26)  # of its name and of what follows that
        start = part.header_offset + 30 + sum(lengths)
        changed = bytearray(content)
        changed[start + rng.integers(part.compress_size)] ^= 1
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"is damaged|cannot be loaded"):
            TorchscriptRunner(path)
    assert len(parts) > 5


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_parts_of_a_torchscript_file_that_are_said_to_be_packed_otherwise(
    checkpoint: Path, tmp_path: Path, method: int
) -> None:
    path = export(checkpoint, out=tmp_path, formats=["torchscript"]).files["torchscript"]
    path.write_bytes(packed_otherwise(path.read_bytes(), method))
    with pytest.raises(InputError, match=r"is damaged|cannot be loaded"):
        TorchscriptRunner(path)


def test_names_that_are_no_text_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = export(checkpoint, out=tmp_path, formats=["onnx"]).files["onnx"]
    path.write_bytes(path.read_bytes().replace(b"images", b"imag\xff\xfe"))
    with pytest.raises(InputError, match=r"not UTF-8|cannot be loaded"):
        OnnxRunner(path)


@pytest.mark.skipif(os.name == "nt", reason="names there are text")
@pytest.mark.parametrize("name", ["ncnn", "torchscript", "onnx"])
def test_a_folder_may_have_a_name_that_is_no_utf8(checkpoint: Path, tmp_path: Path, name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = []
    for folder in ("plain", os.fsdecode(b"caf\xe9")):
        path = export(checkpoint, out=tmp_path / folder, formats=[name]).files[name]
        runner = TorchscriptRunner(path) if name == "torchscript" else load_exported(path, threads=1).runner
        found.append(runner(image[None])[0])
    assert_array_equal(*found)
