"""Exported files: what they hold, that they compute the same, and that nothing half-done is left behind."""

from __future__ import annotations

import errno
import functools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ofa_pose.arch.presets import load_spec, spec_from_litepose
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import MEAN, STD, ArchSpec
from ofa_pose.backends import onnxruntime
from ofa_pose.backends.folding import NetPart
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import import_checkpoint
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.exports.formats import DEFAULT_FORMATS, export_checkpoint, write_list
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils import atomic
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.files import read_json, read_yaml
from tests.limits import largest_file
from tests.networks import hide_package

SKELETON = Skeleton("five", ("head", "left", "right", "hip", "foot"), (0.05,) * 5, ((1, 2),), ((0, 3), (3, 4)))
SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


@torch.no_grad()
def lively(net: LitePose, seed: int = 0) -> LitePose:
    """The net with random norms and statistics, so that a norm that is forgotten or folded wrongly shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            for value in (module.bias, module.running_mean):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    for name, value in net.named_parameters():
        if name.endswith("pointwise.conv.weight"):
            value.mul_(100)  # outputs near one, as after training
    return net.eval()


@pytest.fixture(scope="module")
def net() -> LitePose:
    return lively(LitePose(SPEC, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def checkpoint(net: LitePose) -> Checkpoint:
    return Checkpoint("net", SPEC, None, SKELETON, net.state_dict())


def outputs(net: LitePose, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Torch's outputs for RGB images (B, 3, H, W) from 0 to 255, normalised here by hand."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    with torch.inference_mode():
        low, high = net((torch.from_numpy(images) / 255 - mean) / std)
    return low.numpy(), high.numpy()


def test_all_formats_from_a_file_quietly(
    checkpoint: Checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "net.pt", checkpoint)
    summary = export_checkpoint(tmp_path / "net.pt", DEFAULT_FORMATS, tmp_path / "out", "tiny")
    names = {"yaml": "tiny.yaml", "litepose": "tiny.litepose.json", "safetensors": "tiny.safetensors"}
    expected = {key: tmp_path / "out" / name for key, name in {**names, "onnx": "tiny.onnx"}.items()}
    assert summary.files == expected
    assert sorted((tmp_path / "out").iterdir()) == sorted(expected.values())
    assert summary.reports["onnx"]["max_difference"] <= 1e-4
    json.dumps(summary.to_dict())
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_a_plain_head_leaves_out_the_format_that_does_not_know_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    spec = replace(SPEC, head="plain")
    plain = replace(checkpoint, spec=spec, weights=LitePose(spec).state_dict())
    with pytest.raises(InputError, match="a LitePose config knows no plain head"):
        export_checkpoint(plain, DEFAULT_FORMATS, tmp_path / "none")
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").iterdir())
    summary = export_checkpoint(plain, None, tmp_path / "out")
    assert set(summary.files) == set(DEFAULT_FORMATS) - {"litepose"}
    assert load_spec(summary.files["yaml"]) == spec
    assert set(export_checkpoint(checkpoint, None, tmp_path / "all").files) == set(DEFAULT_FORMATS)


def test_yaml(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = Path(export_checkpoint(checkpoint, ["yaml"], tmp_path).files["yaml"])
    assert path == tmp_path / "model.yaml"
    assert load_spec(path) == SPEC
    value = read_yaml(path)
    assert Skeleton.from_dict(value["skeleton"]) == SKELETON
    assert (value["macs"], value["params"]) == (spec_macs(SPEC).to_dict(), spec_params(SPEC))


def test_litepose_config(checkpoint: Checkpoint, tmp_path: Path) -> None:
    summary = export_checkpoint(checkpoint, ["litepose"], tmp_path)
    assert spec_from_litepose(read_json(summary.files["litepose"]), joints=5) == SPEC
    assert "stage 2 is 12 wide" in summary.reports["litepose"]["warning"]
    spec = replace(SPEC, stages=(8, 16, 24, 32))
    plain = Checkpoint("net", spec, None, SKELETON, LitePose(spec).state_dict())
    assert "litepose" not in export_checkpoint(plain, ["litepose"], tmp_path).reports


def test_litepose_weights(tmp_path: Path) -> None:
    """A bare state dict in single precision; the same bytes each time."""
    spec = replace(SPEC, stages=(8, 16, 24, 32))
    net = lively(LitePose(spec, torch.Generator().manual_seed(0)))
    source = Checkpoint("net", spec, None, SKELETON, net.state_dict())
    first, second = (
        Path(export_checkpoint(source, ["litepose-weights"], tmp_path / part).files["litepose-weights"])
        for part in ("a", "b")
    )
    assert first == tmp_path / "a" / "model.litepose.pth.tar"
    assert first.read_bytes() == second.read_bytes()
    assert import_checkpoint(first, spec, SKELETON).used == tuple(torch.load(first, weights_only=True))
    read = import_checkpoint(first, spec, SKELETON).checkpoint.build()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in read.state_dict().items())


def test_litepose_weights_that_its_code_would_not_load(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage 2 is 12 wide: LitePose's code rounds that to a multiple of 8"):
        export_checkpoint(checkpoint, ["yaml", "litepose-weights"], tmp_path)
    space = load_space("litepose-nano")
    whole = Checkpoint("supernet", space.largest(5), space, SKELETON, Supernet(space, 5).state_dict())
    with pytest.raises(InputError, match="the supernet's stem 16 is not that"):
        export_checkpoint(whole, ["litepose-weights"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_safetensors(checkpoint: Checkpoint, net: LitePose, tmp_path: Path) -> None:
    path = export_checkpoint(checkpoint, ["safetensors"], tmp_path).files["safetensors"]
    weights = load_file(path)
    assert weights.keys() == net.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert ArchSpec.from_dict(json.loads(metadata["spec"])) == SPEC
    assert Skeleton.from_dict(json.loads(metadata["skeleton"])) == SKELETON
    normalisation = json.loads(metadata["normalisation"])
    assert (normalisation["mean"], normalisation["std"]) == (list(MEAN), list(STD))
    assert normalisation["in_graph"] is False


def test_safetensors_of_a_subnets_slices(tmp_path: Path) -> None:
    """Weights that are slices of the supernet's memory are written as they are."""
    space = load_space("litepose-nano")
    supernet = Supernet(space, 5, torch.Generator().manual_seed(1)).eval()
    small = space.smallest(5)
    subnet = extract(supernet, small).state_dict()
    whole = supernet.state_dict()
    views: dict[str, Tensor] = {n: whole[n][tuple(slice(0, k) for k in v.shape)] for n, v in subnet.items()}
    assert any(not view.is_contiguous() for view in views.values())
    path = export_checkpoint(Checkpoint("net", small, space, SKELETON, views), ["safetensors"], tmp_path).files
    written = load_file(path["safetensors"])
    assert all(torch.equal(written[name], value) for name, value in subnet.items())


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx")
    return Path(export_checkpoint(checkpoint, ["onnx"], out).files["onnx"])


@pytest.mark.parametrize("size", [(1, 64, 64), (2, 96, 160), (3, 16, 48), (1, 112, 80)])
def test_onnx_computes_the_network(onnx_file: Path, net: LitePose, size: tuple[int, int, int]) -> None:
    """Pixels from 0 to 255 in, any batch, any sides that are multiples of 16; nothing of ours runs the file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).uniform(0, 255, (size[0], 3, *size[1:])).astype(np.float32)
    assert [i.name for i in session.get_inputs()] == ["images"]
    assert [o.name for o in session.get_outputs()] == ["low", "high"]
    for found, expected in zip(session.run(None, {"images": images}), outputs(net, images), strict=True):
        assert found.shape == expected.shape
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_onnx_says_how_to_use_it(onnx_file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file))
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert ArchSpec.from_dict(metadata["spec"]) == SPEC
    assert Skeleton.from_dict(metadata["skeleton"]) == SKELETON
    assert metadata["normalisation"]["in_graph"] is True and metadata["normalisation"]["order"] == "RGB"
    assert metadata["strides"] == {"low": 4, "high": 2}
    assert metadata["input_multiple"] == 16
    (images,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node if node.name.startswith("stages")}


def test_exports_are_reproducible(checkpoint: Checkpoint, tmp_path: Path) -> None:
    wanted = ("yaml", "litepose", "onnx")  # safetensors writes its metadata in any order
    first, second = (export_checkpoint(checkpoint, wanted, tmp_path / part).files for part in ("a", "b"))
    for name in wanted:
        assert Path(first[name]).read_bytes() == Path(second[name]).read_bytes()


def test_safetensors_are_the_same_bytes_each_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    found = set()
    for number in range(6):  # of six orders of eight names two alike are rare
        export_checkpoint(checkpoint, ["safetensors"], tmp_path / str(number))
        found.add((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert len(found) == 1


def test_a_graph_that_differs_is_reported_and_not_written(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"the last good one")
    real = onnxruntime.onnx_model

    def wrong(part: NetPart, metadata: dict[str, str]) -> Any:
        net: Any = part.net
        with torch.no_grad():
            net.get_submodule("stages.0.0.project.conv").weight[0, 0] += 0.05
        model = real(part, metadata)
        with torch.no_grad():
            net.get_submodule("stages.0.0.project.conv").weight[0, 0] -= 0.05
        return model

    monkeypatch.setattr(onnxruntime, "onnx_model", wrong)
    with pytest.raises(OfaPoseError, match="ONNX Runtime and torch differ by") as caught:
        export_checkpoint(checkpoint, ["onnx"], tmp_path)
    assert caught.value.exit_code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"the last good one"


def test_outputs_that_are_not_numbers_are_reported(net: LitePose, tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    for name in (name for name in weights if name.startswith("outputs") and name.endswith("weight")):
        weights[name] *= 1e38
    with pytest.raises(OfaPoseError, match=r"differ by (nan|inf)"):
        export_checkpoint(Checkpoint("net", SPEC, None, SKELETON, weights), ["onnx"], tmp_path)


@pytest.mark.parametrize("name", ["safetensors", "torchscript", "onnx", "openvino", "ncnn"])
def test_a_disk_without_room_is_named_and_nothing_is_left(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    with largest_file(4096), pytest.raises(OSError) as error:
        export_checkpoint(checkpoint, [name], tmp_path / "out")
    assert error.value.errno == errno.EFBIG and str(error.value.filename).startswith(str(tmp_path / "out" / "model."))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["openvino", "ncnn", "web"])
def test_one_that_is_killed_while_files_take_their_places_leaves_none_that_leads_to_others(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip({"web": "onnxruntime"}.get(name, name))
    first = export_checkpoint(checkpoint, [name], tmp_path).files[name]
    first = first / "index.html" if name == "web" else first
    assert first.is_file()
    replace_file = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target.parent in (tmp_path, first.parent) and target.name != first.name and "ofa-pose" not in path.name:
            assert not first.exists()
            raise KeyboardInterrupt
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(checkpoint, [name], tmp_path)
    assert not first.exists()
    monkeypatch.undo()
    assert export_checkpoint(checkpoint, [name], tmp_path).files[name].exists() and first.is_file()


def test_exports_of_two_formats_at_once_are_both_listed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.pt", checkpoint)
    out, results = tmp_path / "out", {}
    for name in ("yaml", "safetensors"):
        results[name] = export_checkpoint(load_checkpoint(tmp_path / "net.pt"), [name], out)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(functools.partial(write_list, out, tmp_path / "net.pt"), [*results.values()] * 20))
        assert {*read_json(out / "export.json")["files"]} == {"yaml", "safetensors"}
        (out / "export.json").unlink()
        with atomic.locked_beside(out / "export.json", 0.0):
            writing = pool.submit(write_list, out, tmp_path / "net.pt", results["yaml"])
            time.sleep(0.3)
            assert not (out / "export.json").exists()
        writing.result()
    assert {*read_json(out / "export.json")["files"]} == {"yaml"}


def test_unknown_format(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such format: 'onxx'; did you mean 'onnx'"):
        export_checkpoint(checkpoint, ["yaml", "onxx"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_names_its_extra(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    hide_package(monkeypatch, missing)
    with pytest.raises(InputError) as caught:
        export_checkpoint(checkpoint, ["yaml", "onnx"], tmp_path)
    assert str(caught.value) == f"ONNX Runtime needs the package {missing}; pip install 'ofa-pose[onnx]'"
    assert not list(tmp_path.iterdir())
    assert export_checkpoint(checkpoint, ["yaml"], tmp_path).files.keys() == {"yaml"}


def test_a_supernet_is_refused(tmp_path: Path) -> None:
    space = load_space("litepose-nano")
    source = Checkpoint("supernet", space.largest(5), space, SKELETON, {})
    for wanted in DEFAULT_FORMATS:
        with pytest.raises(InputError, match=r"holds a supernet.*; search it for a subnet and finetune that"):
            export_checkpoint(source, [wanted], tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        export_checkpoint(replace(checkpoint, spec=replace(SPEC, stem=16)), DEFAULT_FORMATS, tmp_path)
    assert not list(tmp_path.iterdir())
