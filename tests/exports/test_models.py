"""Models for runtimes: what is written, compared with torch and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import ncnn, openvino
from ofa_pose.backends.folding import whole
from ofa_pose.backends.runtimes import open_runner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.cli import run
from ofa_pose.exports.formats import compare, export_checkpoint, make_reference
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.networks import hide_package, randomised

for _package in ("onnx", "onnxruntime", "openvino", "ncnn", "ai_edge_litert"):
    pytest.importorskip(_package)
SKELETON = Skeleton("five", ("head", "left", "right", "hip", "foot"), (0.05,) * 5, ((1, 2),), ((0, 3), (3, 4)))
SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (2,), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)
FILES = {
    "onnx": ["model.onnx"],
    "openvino": ["model.xml", "model.bin"],
    "ncnn": ["model.ncnn.param", "model.ncnn.bin", "model.ncnn.json"],
    "litert": ["model.tflite"],
    "torchscript": ["model.torchscript.pt"],
}


@pytest.fixture(scope="module")
def net() -> LitePose:
    return randomised(LitePose(SPEC)).eval()


@pytest.fixture(scope="module")
def checkpoint(net: LitePose) -> Checkpoint:
    return Checkpoint("net", SPEC, None, SKELETON, net.state_dict())


def test_all_runtimes(checkpoint: Checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = export_checkpoint(checkpoint, list(FILES), tmp_path)
    json.dumps(summary.to_dict())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        name for names in FILES.values() for name in names
    )
    for wanted, names in FILES.items():
        report = summary.reports[wanted]
        assert summary.files[wanted] == tmp_path / names[0]
        assert report.get("files", [str(summary.files[wanted])]) == [str(tmp_path / name) for name in names]
        assert summary.bytes[wanted] == sum((tmp_path / name).stat().st_size for name in names)
        assert report["max_difference"] <= 1e-4
        assert report["sizes"] == [[1, 64, 64], [2, 16, 80]]
        assert report["ms"] > 0 and report["seconds"] > 0
        assert len({(tmp_path / name).stat().st_mode for name in names}) == 1
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_half_precision(checkpoint: Checkpoint, net: LitePose, tmp_path: Path) -> None:
    """Half the size, float32 at both ends, and the metadata of the model in single precision."""
    names = {"onnx": "model.fp16.onnx", "litert": "model.fp16.tflite"}
    result = export_checkpoint(checkpoint, [*names, *(f"{name}-fp16" for name in names)], tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 80, 3), np.uint8)
    for name, file in names.items():
        half = f"{name}-fp16"
        assert result.files[half] == tmp_path / file
        assert result.reports[half]["max_difference"] > 1e-5 and result.bytes[half] < 0.75 * result.bytes[name]
        ours, theirs = (open_runner(result.files[form], 1) for form in (half, name))
        assert ours.metadata == theirs.metadata
        for found, expected in zip(ours(images), TorchRunner(net)(images), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=0.02 * max(1.0, float(np.abs(expected).max())))
    weights = onnx.load(result.files["onnx-fp16"]).graph.initializer
    assert {onnx.helper.tensor_dtype_to_np_dtype(entry.data_type) for entry in weights} == {np.dtype("float16")}


def test_what_runs_on_a_mac_is_not_compared(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    result = export_checkpoint(checkpoint, ["coreml"], tmp_path)
    assert result.files == {"coreml": tmp_path / "model.mlpackage"} and result.reports == {}
    parts = [part for part in (tmp_path / "model.mlpackage").rglob("*") if part.is_file()]
    assert result.bytes["coreml"] == sum(part.stat().st_size for part in parts) > 10_000


@pytest.mark.parametrize("resolution", [16, 64, 240, 256])
def test_two_sizes_are_compared(resolution: int) -> None:
    reference = make_reference(LitePose(ArchSpec(resolution, 4, (4,) * 4, ((1,),) * 4, (4,) * 3, kernel=3, joints=2)))
    (_, *square, _), (batch, *other, _) = (images.shape for images, _ in reference)
    assert square == [resolution] * 2 and batch > 1
    assert {side % 32 for side in other} == {16}
    assert other[0] != other[1] or resolution == 16


def test_a_difference_is_reported(net: LitePose) -> None:
    reference = make_reference(net)

    class Off:
        streams = 1

        def __init__(self, by: float) -> None:
            self.by, self.run = by, TorchRunner(net)

        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            low, high = self.run(images)
            high = high.copy()
            high[-1, -1, -1, -1] += self.by
            return low, high

    assert compare(Off(5e-5), reference, "it", 1e-4)["max_difference"] == pytest.approx(5e-5, rel=0.1)
    for by in (0.01, float("nan")):
        with pytest.raises(OfaPoseError, match=r"it and torch differ by .* on an input of \(1, 64, 64\)"):
            compare(Off(by), reference, "it", 1e-4)


@pytest.mark.parametrize("wanted", ["openvino", "ncnn"])
def test_a_wrong_model_is_not_written(
    checkpoint: Checkpoint, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = randomised(LitePose(SPEC), seed=1).eval()
    backend: Any = openvino if wanted == "openvino" else ncnn
    monkeypatch.setattr(backend, "whole", lambda net: whole(other))
    (tmp_path / FILES[wanted][0]).write_text("the last good one")
    with pytest.raises(OfaPoseError, match="and torch differ by") as caught:
        export_checkpoint(checkpoint, [wanted], tmp_path)
    assert caught.value.exit_code == 1
    assert [file.name for file in tmp_path.iterdir()] == [FILES[wanted][0]]
    assert (tmp_path / FILES[wanted][0]).read_text() == "the last good one"


def test_the_same_bytes_each_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """OpenVINO and torch number what they write by what they wrote before."""
    for part in ("a", "b"):
        export_checkpoint(checkpoint, ["ncnn", "litert"], tmp_path / part)
    for name in FILES["ncnn"] + FILES["litert"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("missing", ["openvino", "ncnn"])
def test_a_missing_package_names_its_extra(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    hide_package(monkeypatch, missing)
    with pytest.raises(InputError, match=rf"needs the package {missing}; pip install 'ofa-pose\[{missing}\]'"):
        export_checkpoint(checkpoint, ["yaml", missing], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_shows_a_table(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "net.pt", checkpoint)
    monkeypatch.chdir(tmp_path)
    wanted = ("--format", "litepose", "--format", "ncnn")
    assert run(["export", "net.pt", *wanted, "--out", "out"]) == 0
    shown = capsys.readouterr()
    assert not shown.out
    for word in ("files in out", "model.litepose.json", *FILES["ncnn"], "max difference", "in one thread", "kB"):
        assert word in shown.err
    assert "warning: litepose: stage 2 is 12 wide" in shown.err
    assert run(["export", "net.pt", *wanted, "--out", "out", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ncnn"]["max_difference"] <= 1e-4 and set(result["files"]) == {"litepose", "ncnn"}
