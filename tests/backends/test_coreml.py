"""Core ML's programs: what they compute, worked out here with torch, and what stands in a package."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ofa_pose.arch.spec import HEADS, ArchSpec, Head
from ofa_pose.backends.coreml import BACKEND, coreml_program, input_sides
from ofa_pose.backends.folding import whole
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.models.litepose import LitePose
from tests.networks import randomised

pytest.importorskip("coremltools")
SPEC = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


def network(head: Head = "fusion") -> LitePose:
    return randomised(LitePose(replace(SPEC, head=head), torch.Generator().manual_seed(0))).eval()


def computed(program: Any, image: Tensor) -> list[Tensor]:
    """The outputs of a program: its operations, as Core ML's documentation defines them, in torch."""
    function = program.functions["main"]
    values: dict[str, Any] = {"images": image}

    def value(source: Any) -> Any:
        if isinstance(source, (list, tuple)):
            return [value(one) for one in source]
        constant = None if source is None or source.name in values else source.val
        if source is None:
            return None
        if constant is None:
            return values[source.name]
        return torch.from_numpy(constant) if isinstance(constant, np.ndarray) and constant.ndim else constant

    for operation in function.operations:
        if operation.op_type == "const":
            continue
        read = {name: value(source) for name, source in operation.inputs.items()}
        if operation.op_type.startswith("conv"):
            pads, strides = read["pad"].tolist(), read["strides"].tolist()
            assert read["pad_type"] == "custom" and len({*pads}) == len({*strides}) == 1
            convolve = functional.conv2d if operation.op_type == "conv" else functional.conv_transpose2d
            shape = {"stride": strides[0], "padding": pads[0], "groups": int(read.get("groups") or 1)}
            y = convolve(read["x"], read["weight"], read.get("bias"), **shape)
        else:
            y = {
                "sub": lambda read: read["x"] - read["y"],
                "add": lambda read: read["x"] + read["y"],
                "concat": lambda read: torch.cat(read["values"], dim=int(read["axis"])),
                "relu": lambda read: functional.relu(read["x"]),
                "relu6": lambda read: functional.relu6(read["x"]),
                "identity": lambda read: read["x"],
            }[operation.op_type](read)
        values[operation.outputs[0].name] = y
    return [values[output.name] for output in function.outputs]


@pytest.mark.parametrize("head", HEADS)
def test_it_computes_the_network(head: Head) -> None:
    net = network(head)
    program = coreml_program(whole(net))
    assert [output.name for output in program.functions["main"].outputs] == ["low", "high"]
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 80, 3), np.uint8)
    planes = torch.from_numpy(images.astype(np.float32).transpose(0, 3, 1, 2))
    for found, expected in zip(computed(program, planes), TorchRunner(net)(images), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("resolution", [64, 192, 448])
def test_the_sides_are_those_that_predict_makes(resolution: int) -> None:
    sides = input_sides(resolution)
    assert sides[0] == (resolution, resolution) and len({*sides}) == len(sides) == 5
    assert {min(pair) for pair in sides} == {resolution} and not any(side % 32 for pair in sides for side in pair)
    for ratio, (height, width) in zip((4 / 3, 16 / 9), sides[1:3], strict=True):
        assert height == resolution and resolution * ratio <= width < resolution * ratio + 32


def test_what_stands_in_a_package(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert BACKEND.write
    path = tmp_path / "model.mlpackage"
    (path / "old").mkdir(parents=True)
    BACKEND.require()
    BACKEND.write(network(), path, {"spec": '{"a": 1}', "decode": "{}"})
    assert [one.name for one in tmp_path.iterdir()] == ["model.mlpackage"] and not (path / "old").exists()
    model = importlib.import_module("coremltools").models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    (image,), outputs = spec.description.input, spec.description.output
    assert image.name == "images" and image.type.imageType.colorSpace == image.type.imageType.RGB
    sizes = [(size.height, size.width) for size in image.type.imageType.enumeratedSizes.sizes]
    assert sorted(sizes) == sorted(input_sides(64))
    assert [output.name for output in outputs] == ["low", "high"]
    assert model.user_defined_metadata["spec"] == '{"a": 1}' and model.user_defined_metadata["decode"] == "{}"
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    kinds = {operation.type for operation in block.operations}
    assert {"conv", "conv_transpose", "concat", "add", "relu6", "relu"} <= kinds
    assert kinds <= {"const", "cast", "sub", "identity"} | {"conv", "conv_transpose", "concat", "add", "relu6", "relu"}
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_an_older_package_is_replaced_whole_and_no_other_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, path = tmp_path / "temporary", tmp_path / "out" / "a.mlpackage"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    path.mkdir(parents=True)
    (path / "old.txt").touch()
    rename = Path.replace
    seen: list[list[str] | None] = []

    def renamed(one: Path, other: Path) -> Path:
        seen.append(sorted(inside.name for inside in path.iterdir()) if path.exists() else None)
        return rename(one, other)

    monkeypatch.setattr(Path, "replace", renamed)
    assert BACKEND.write
    BACKEND.write(network(), path, {})
    assert seen == [["old.txt"], None]
    assert sorted(one.name for one in path.iterdir()) == ["Data", "Manifest.json"]
    assert [one.name for one in path.parent.iterdir()] == ["a.mlpackage"] and not [*elsewhere.glob("*.mlpackage")]
