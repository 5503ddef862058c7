"""The classifiers of the kernel study: LitePose's trunk, its costs as thop counts them, trained the same each time."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import thop
import torch

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models.litepose import LitePose
from ofa_pose.studies.classify import TrunkClassifier, classify
from ofa_pose.synthetic.crops import CLASSES, SPLITS, write_crops
from ofa_pose.utils.files import dump_yaml, write_text


def trunk(spec: ArchSpec) -> TrunkClassifier:
    return TrunkClassifier(spec, 8, torch.Generator().manual_seed(1))


def test_the_trunk_is_litepose_s(tiny_spec: ArchSpec) -> None:
    model, net = trunk(tiny_spec).eval(), LitePose(tiny_spec).eval()
    for layer in model.layers():
        net.unit(layer).load_state_dict(model.unit(layer).state_dict())
    maps = []
    last = net.unit(net.plan.stages[-1][-1].layers[-1])
    last.register_forward_hook(lambda _, __, output: maps.append(output))
    block_input: list[torch.Tensor] = []
    first = net.unit(net.plan.stages[-1][-1].layers[0])
    first.register_forward_pre_hook(lambda _, given: block_input.append(given[0]))
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net(image)
        deepest = maps[0] + block_input[0] * net.plan.stages[-1][-1].residual
        assert torch.allclose(model(image), model.linear(deepest.mean((2, 3))), atol=1e-6)


def test_costs_are_thop_s(tiny_spec: ArchSpec) -> None:
    model = trunk(tiny_spec).eval()
    counted, params = model.costs()
    with contextlib.redirect_stdout(io.StringIO()):
        macs, size = thop.profile(trunk(tiny_spec).eval(), inputs=(torch.zeros(1, 3, 64, 64),), verbose=False)
    assert (counted.thop, params) == (macs, size)
    assert trunk(replace(tiny_spec, kernel=7)).costs()[0].exact > counted.exact


@pytest.fixture
def made(tiny_spec: ArchSpec, tmp_path: Path) -> dict[str, Path]:
    write_text(tmp_path / "net.yaml", dump_yaml(replace(tiny_spec, resolution=32).to_dict()))
    return {"net": tmp_path / "net.yaml", "crops": write_crops(tmp_path / "crops.npz", 24, 24, 32, seed=4)}


def test_training_follows_from_the_seed(made: dict[str, Path], tmp_path: Path) -> None:
    one, again, other = (
        classify(tmp_path / "out", **made, seed=seed, steps=12, batch=8, lr=1e-2) for seed in (0, 0, 1)
    )
    assert one == again
    assert one.macs == other.macs and 0 <= one.accuracy <= 1
    assert one.to_dict()["macs"]["exact"] == one.macs.exact


def test_it_learns(made: dict[str, Path], tmp_path: Path) -> None:
    labels = np.arange(64) % len(CLASSES)
    images = np.broadcast_to((labels * 30).astype(np.uint8)[:, None, None, None], (64, 32, 32, 3))
    arrays = {f"{split}_{name}": data for split in SPLITS for name, data in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "grey.npz", **arrays)
    found = classify(
        tmp_path / "out", net=made["net"], crops=tmp_path / "grey.npz", seed=0, steps=150, batch=16, lr=1e-2
    )
    assert found.accuracy > 0.6
