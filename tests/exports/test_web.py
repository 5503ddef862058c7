"""The folder of a page: what is in it, and what is refused before anything is written. tests/browser/ opens it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ofa_pose
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import CROWDPOSE
from ofa_pose.utils.errors import InputError
from ofa_pose.web.runtime_files import CDN, NEEDED

PAGE = {"index.html", "style.css", "app.js", "draw.js", "model.js", "decode.js", "model.json", "model.onnx"}


@pytest.fixture
def checkpoint(tiny_spec: ArchSpec, tmp_path: Path) -> Path:
    net = LitePose(tiny_spec, torch.Generator().manual_seed(0))
    path = tmp_path / "net.pt"
    save_checkpoint(path, Checkpoint("net", tiny_spec, None, CROWDPOSE, net.state_dict()))
    return path


@pytest.fixture
def runtime_files(tmp_path: Path) -> Path:
    files = tmp_path / "dist"
    files.mkdir()
    for name in (name for names in NEEDED.values() for name in names):
        (files / name).write_text(name)
    return files


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_all_that_a_page_needs(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = ofa_pose.export(checkpoint, out=out, formats=["web"])
    folder = result.files["web"]
    assert folder == out / "model.web" and [*out.glob("model.*")] == [folder]
    assert names(folder) == PAGE
    assert result.bytes["web"] == sum((folder / name).stat().st_size for name in PAGE)
    assert result.reports["web"]["max_difference"] <= 1e-4
    assert f'content="{CDN}"' in (folder / "index.html").read_text()
    said = json.loads((folder / "model.json").read_text())
    assert (said["model"], said["spec"]["resolution"], said["skeleton"]["name"]) == ("model.onnx", 64, "crowdpose")
    assert said["grouping_order"] == [*CROWDPOSE.grouping_order]


def test_the_decoder_is_one_module(checkpoint: Path, tmp_path: Path) -> None:
    folder = ofa_pose.export(checkpoint, out=tmp_path, formats=["web"]).files["web"]
    lines = (folder / "decode.js").read_text().splitlines()
    assert not any(line.startswith("import") for line in lines)
    for name in ("decode", "group"):
        assert sum(line.startswith(f"export function {name}(") for line in lines) == 1


def test_exported_again_it_is_replaced_and_other_files_stay(
    checkpoint: Path, runtime_files: Path, tmp_path: Path
) -> None:
    folder = ofa_pose.export(checkpoint, out=tmp_path / "out", formats=["web"]).files["web"]
    (folder / "index.html").write_text("old")
    (folder / "mine.txt").write_text("mine")
    ofa_pose.export(checkpoint, out=tmp_path / "out", formats=["web"], runtime_files=runtime_files)
    assert 'content="./onnxruntime-web/"' in (folder / "index.html").read_text()
    copied = {f"onnxruntime-web/{path.name}" for path in runtime_files.iterdir()}
    assert names(folder) == PAGE | copied | {"mine.txt"}


def test_what_cannot_be_is_refused_before_anything_is_written(
    checkpoint: Path, runtime_files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="runtime files are for web; add --format web"):
        ofa_pose.export(checkpoint, out=out, runtime_files=runtime_files)
    with pytest.raises(InputError, match="not a folder with onnxruntime-web's files"):
        ofa_pose.export(checkpoint, out=out, formats=["yaml", "web"], runtime_files=tmp_path)
    with pytest.raises(InputError, match="a decoder in the graph is of"):
        ofa_pose.export(checkpoint, out=out, formats=["web"], decoder="in-graph")
    assert not out.exists()
    out.mkdir()
    (out / "model.web").write_text("a file")
    with pytest.raises(InputError, match="is a file, not a folder"):
        ofa_pose.export(checkpoint, out=out, formats=["yaml", "web"])
    assert names(out) == {"model.web"}
