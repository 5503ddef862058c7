"""Exported files run without torch and say what they are; other files are refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.runtimes import SUFFIXES, open_runner
from ofa_pose.backends.torch_net import TorchRunner, TorchscriptRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.exports.formats import export_checkpoint
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError
from tests.limits import no_more_files
from tests.networks import randomised

for _package in ("onnx", "onnxruntime", "openvino", "ncnn", "ai_edge_litert"):
    pytest.importorskip(_package)
ROOT = Path(__file__).resolve().parents[2]
SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)
SKELETON = Skeleton('"five"', ("head ×", "left", "right", "hip", "foot"), (0.05,) * 5, ((1, 2),), ((0, 3), (3, 4)))
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), np.uint8)
FORMATS = ("onnx", "openvino", "ncnn", "litert", "torchscript")


@pytest.fixture(scope="module")
def net() -> LitePose:
    return randomised(LitePose(SPEC)).eval()


@pytest.fixture(scope="module")
def models(net: LitePose, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The first file of each format, all in one folder."""
    recipe = {"decode": {"threshold": 0.15, "tag_threshold": 1.5}}
    source = Checkpoint("net", SPEC, None, SKELETON, net.state_dict(), recipe)
    files = export_checkpoint(source, FORMATS, tmp_path_factory.mktemp("models")).files
    return {name: str(path) for name, path in files.items()}


def test_files_open_by_suffix(models: dict[str, str], net: LitePose) -> None:
    assert {Path(models[name]).suffix for name in FORMATS[:-1]} == set(SUFFIXES)
    expected = TorchRunner(net)(IMAGES)
    for name in FORMATS[:-1]:
        runner = open_runner(models[name], threads=1, streams=2)
        assert runner.streams == 2
        for one, other in zip(runner(IMAGES), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_files_say_what_they_are(models: dict[str, str]) -> None:
    runners = [*(open_runner(models[name], threads=1) for name in FORMATS[:-1]), TorchscriptRunner(models[FORMATS[-1]])]
    for runner in runners:
        values = {key: json.loads(value) for key, value in runner.metadata.items()}
        assert ArchSpec.from_dict(values["spec"]) == SPEC
        assert Skeleton.from_dict(values["skeleton"]) == SKELETON
        assert (values["decode"]["threshold"], values["decode"]["tag_threshold"]) == (0.15, 1.5)
        assert values["normalisation"]["in_graph"] is True and values["input_multiple"] == 16
        assert values["strides"] == {"low": 4, "high": 2}
        assert runner.metadata == runners[0].metadata


def test_models_run_without_torch(models: dict[str, str], net: LitePose, tmp_path: Path) -> None:
    """Nor any other package of ours but NumPy and the model's runtime."""
    code = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "pydantic", "yaml", "typer", "rich", "cv2", "scipy"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Blocked())
import numpy as np
from ofa_pose.backends.runtimes import open_runner
for path in sys.argv[3:]:
    low, high = open_runner(path, threads=1)(np.load(sys.argv[1]))
    np.savez(f"{sys.argv[2]}/{path[-3:]}.npz", low=low, high=high)
"""
    np.save(tmp_path / "images.npy", IMAGES)
    paths = [models[name] for name in FORMATS[:-1]]
    call = [sys.executable, "-c", code, str(tmp_path / "images.npy"), str(tmp_path), *paths]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    low, high = TorchRunner(net)(IMAGES)
    for path in paths:
        found = np.load(tmp_path / f"{path[-3:]}.npz")
        np.testing.assert_allclose(found["low"], low, atol=1e-4)
        np.testing.assert_allclose(found["high"], high, atol=1e-4)


def test_a_torchscript_file_needs_no_code_of_ours(models: dict[str, str], net: LitePose, tmp_path: Path) -> None:
    code = """
import sys, numpy as np, torch
torch.set_num_threads(1)
module = torch.jit.load(sys.argv[1])
images = torch.from_numpy(np.load(sys.argv[2])).permute(0, 3, 1, 2).float()
low, high = module(images)
assert not [name for name in sys.modules if name.startswith("ofa_pose")]
np.savez(sys.argv[3], low=low.numpy(), high=high.numpy())
"""
    np.save(tmp_path / "images.npy", IMAGES)
    call = [sys.executable, "-W", "ignore", "-c", code, models["torchscript"], "images.npy", "out.npz"]
    subprocess.run(call, cwd=tmp_path, check=True, timeout=100)
    for name, expected in zip(("low", "high"), TorchRunner(net)(IMAGES), strict=True):
        np.testing.assert_allclose(np.load(tmp_path / "out.npz")[name], expected, atol=1e-4)


@pytest.mark.parametrize("threads, streams", [(-1, 1), (1, 0)])
def test_impossible_threads_are_refused(models: dict[str, str], threads: int, streams: int) -> None:
    for name in FORMATS[:-1]:
        with pytest.raises(InputError, match="threads from 0, streams from 1"):
            open_runner(models[name], threads, streams)


@pytest.mark.parametrize("suffix, package", [(".onnx", "onnxruntime"), (".xml", "openvino"), (".param", "ncnn")])
def test_a_device_is_pointed_to_the_plain_package(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extra of ours would bring torch."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = tmp_path / f"net{suffix}"
    path.touch()
    with pytest.raises(InputError, match=f"needs the package {package}; pip install {package}$"):
        open_runner(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_something_else(models: dict[str, str], suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_runner(tmp_path / f"a{suffix}")
    whole = next(Path(path) for path in models.values() if path.endswith(suffix))
    content = whole.read_bytes()
    for damaged in (b"", b"hello\n", content[: len(content) // 3], content):  # the last without its weights
        (tmp_path / f"a{suffix}").write_bytes(damaged)
        if damaged == content and suffix in (".onnx", ".tflite"):
            continue
        with pytest.raises(InputError) as caught:
            open_runner(tmp_path / f"a{suffix}")
        assert f"a{suffix}" in str(caught.value) and "\n" not in str(caught.value)
    if suffix not in (".onnx", ".tflite"):
        weights = whole.with_suffix(".bin").read_bytes()
        (tmp_path / "a.bin").write_bytes(weights[: len(weights) // 2])
        with pytest.raises(InputError, match="cannot be loaded"):
            open_runner(tmp_path / f"a{suffix}")


def test_metadata_that_are_not_json(models: dict[str, str], tmp_path: Path) -> None:
    for suffix in (".param", ".bin"):
        (tmp_path / f"a{suffix}").write_bytes(Path(models["ncnn"]).with_suffix(suffix).read_bytes())
    assert open_runner(tmp_path / "a.param").metadata == {}
    for text in ("[1", "[1]", "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=r"a\.json: holds no metadata"):
            open_runner(tmp_path / "a.param")


def test_metadata_that_cannot_be_read_are_not_lacking(models: dict[str, str], tmp_path: Path) -> None:
    for suffix in (".param", ".bin"):
        (tmp_path / f"a{suffix}").write_bytes(Path(models["ncnn"]).with_suffix(suffix).read_bytes())
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(OSError, match="Too many open files"), no_more_files():
        open_runner(tmp_path / "a.param")
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InputError, match=r"a\.json: is a folder"):
        open_runner(tmp_path / "a.param")


@pytest.mark.parametrize("form", FORMATS[:-1])
def test_too_few_handles_are_not_a_damaged_model(models: dict[str, str], form: str) -> None:
    open_runner(models[form])
    with pytest.raises(OSError, match="Too many open files"), no_more_files():
        open_runner(models[form])


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is not an exported model; name a file that ends in \.onnx, \.xml, \.param or \.tflite"
    ):
        open_runner(tmp_path / "net.pt")


def test_a_model_of_something_else(tmp_path: Path) -> None:
    import onnx

    shape = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "other", shape[:1], shape[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "other.onnx"))
    (tmp_path / "other.param").write_text("7767517\n2 2\nInput x 0 1 x\nReLU y 1 1 x y\n")
    (tmp_path / "other.bin").write_bytes(b"")
    for name in ("other.onnx", "other.param"):
        with pytest.raises(InputError, match="is not a model that ofa-pose exported"):
            open_runner(tmp_path / name)


@pytest.mark.parametrize(("form", "suffix"), [("ncnn", ".param"), ("openvino", ".xml")])
def test_files_of_different_exports_are_not_one_model(net: LitePose, tmp_path: Path, form: str, suffix: str) -> None:
    others = {**net.state_dict()}
    others["stem.0.conv.weight"] = others["stem.0.conv.weight"] + 1
    for name, weights in (("one", net.state_dict()), ("other", others)):
        export_checkpoint(Checkpoint("net", SPEC, None, SKELETON, weights), [form], tmp_path / name)
    (model,) = (tmp_path / "one").glob(f"*{suffix}")
    own = model.with_suffix(".bin").read_bytes()
    other = (tmp_path / "other" / model.name).with_suffix(".bin").read_bytes()
    for changed in (other, own + b"\0", own[:-1], own[:-9] + bytes([own[-9] ^ 1]) + own[-8:]):
        model.with_suffix(".bin").write_bytes(changed)
        with pytest.raises(InputError, match=r"is not the \.bin that was exported with|cannot be loaded"):
            open_runner(model)
    model.with_suffix(".bin").write_bytes(own)
    open_runner(model)
