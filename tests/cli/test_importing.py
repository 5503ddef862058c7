"""`ofa-pose import-litepose`: what the commands after it make of its checkpoints, and calls that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ofa_pose.arch.presets import litepose_from_spec
from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import tensor_names
from ofa_pose.costs.macs import spec_macs
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import COCO, CROWDPOSE
from ofa_pose.utils.files import dump_yaml, read_json
from tests.cli.conftest import TINY_SPACE, Call
from tests.cli.test_bad_input import refused
from tests.networks import randomised

PIPELINE = Path(__file__).parents[3] / "shared" / "fixtures" / "official_pipeline"
SPACE = SearchSpace.from_dict(TINY_SPACE)


def save_theirs(net: LitePose, path: Path) -> Path:
    """A network as the LitePose repository's training saves it."""
    own = randomised(net).state_dict()
    state = {f"module.{key}": own[name] for name, key in tensor_names(own).items()}
    torch.save({"epoch": 1, "state_dict": state}, path)
    return path


@pytest.fixture
def fixed(tmp_path: Path) -> tuple[Path, Path]:
    """A fixed net for 17 joints in that repository's files: weights and config."""
    spec = SPACE.largest(17)
    (tmp_path / "arch.json").write_text(json.dumps(litepose_from_spec(spec)))
    return save_theirs(LitePose(spec), tmp_path / "net.pth.tar"), tmp_path / "arch.json"


def test_a_fixed_net_is_evaluated_drawn_and_exported(
    call: Call, data: Path, fixed: tuple[Path, Path], tmp_path: Path
) -> None:
    file, arch = fixed
    out = tmp_path / "new" / "net.pt"
    done = call("import-litepose", file, "--arch", arch, "--joints", 17, "--out", out, "--json")
    assert done.code == 0, done.err
    result = done.result
    assert (result["checkpoint"], result["kind"], result["joints"], result["skeleton"]) == (str(out), "net", 17, "coco")
    assert result["macs"] == spec_macs(SPACE.largest(17)).to_dict()
    assert result["used"]["count"] == len(load_checkpoint(out).weights)
    assert result["used"]["keys"][0] == "first.0.0.weight"
    assert result["ignored"] == result["missed"] == {"count": 0, "keys": []}
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    scored = call("eval", "--checkpoint", out, *where, "--json")
    assert scored.code == 0, scored.err
    posed = call("predict", data / "val" / "images", "--checkpoint", out, "--out", tmp_path / "poses", "--json")
    assert posed.code == 0, posed.err
    wanted = ("--format", "onnx", "--format", "litepose")
    exported = call("export", out, *wanted, "--out", tmp_path / "export", "--json")
    assert exported.code == 0, exported.err
    assert read_json(exported.result["files"]["litepose"]) == read_json(arch)


@pytest.mark.slow
def test_a_supernet_is_searched_tuned_and_trained_on(call: Call, recipe: Path, tmp_path: Path) -> None:
    file = save_theirs(Supernet(SPACE, 17), tmp_path / "super.pth.tar")
    (tmp_path / "tiny.yaml").write_text(dump_yaml(TINY_SPACE))
    ours = tmp_path / "super.pt"
    space = ("--supernet", "--space", tmp_path / "tiny.yaml")
    done = call("import-litepose", file, *space, "--joints", 17, "--out", ours, "--json")
    assert done.code == 0, done.err
    assert done.result["kind"] == "supernet"
    assert "next: ofa-pose search" in done.err
    budget = ("--macs", spec_macs(SPACE.largest(17)).thop // 2)
    less = ("--recipe", recipe, "--set", "search.population=2", "--set", "train.steps=1", "--json")
    found = call("search", "--supernet", ours, *budget, *less, "--out", tmp_path / "found")
    assert found.code == 0, found.err
    assert "the imported supernet may have seen" in found.err
    subnet = ("--subnet", tmp_path / "found" / "best.yaml", "--supernet", ours)
    tuned = call("finetune", *subnet, *less, "--out", tmp_path / "tuned")
    assert tuned.code == 0, tuned.err
    more = call("train-supernet", "--init", ours, *less, "--out", tmp_path / "more")
    assert more.code == 0, more.err


def test_a_skeleton_of_ones_own(call: Call, tmp_path: Path) -> None:
    skeleton = {"name": "three", "joints": ["a", "b", "c"], "sigmas": [0.1] * 3, "flip_pairs": [], "limbs": []}
    (tmp_path / "three.yaml").write_text(dump_yaml(skeleton))
    spec = SPACE.largest(3)
    (tmp_path / "arch.json").write_text(json.dumps(litepose_from_spec(spec)))
    file = save_theirs(LitePose(spec), tmp_path / "net.pt")
    words = (file, "--arch", tmp_path / "arch.json", "--skeleton", tmp_path / "three.yaml")
    assert call("import-litepose", *words, "--out", tmp_path / "ours.pt").code == 0
    assert load_checkpoint(tmp_path / "ours.pt").skeleton.joints == ("a", "b", "c")
    refused(call("import-litepose", *words, "--joints", 17, "--out", tmp_path / "b.pt"), "three.yaml", "--joints 17")
    assert not (tmp_path / "b.pt").exists()


def test_the_joints_name_the_skeleton(call: Call, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(json.dumps(litepose_from_spec(SPACE.largest(14))))
    for skeleton in (COCO, CROWDPOSE):
        joints = len(skeleton.joints)
        file = save_theirs(LitePose(SPACE.largest(joints)), tmp_path / "net.pt")
        words = (file, "--arch", tmp_path / "arch.json", "--joints", joints, "--out", tmp_path / "ours.pt")
        assert call("import-litepose", *words).code == 0
        assert load_checkpoint(tmp_path / "ours.pt").skeleton == skeleton


def test_calls_that_are_refused(call: Call, fixed: tuple[Path, Path], tmp_path: Path) -> None:
    file, arch = fixed
    out = ("--out", tmp_path / "out.pt")
    net, joints = ("--arch", arch), ("--joints", 17)
    refused(call("import-litepose", file, *joints, *out), "--arch or --supernet")
    refused(call("import-litepose", file, *net, "--supernet", *joints, *out), "--arch or --supernet")
    refused(call("import-litepose", file, *net, *joints, "--space", "litepose", *out), "--space is a supernet's")
    refused(call("import-litepose", file, *net, *out), "needs --joints")
    refused(call("import-litepose", file, *net, "--joints", 5, *out), "5 joints", "--skeleton")
    refused(call("import-litepose", file, *net, *joints, "--out", tmp_path), "is a folder")
    refused(call("import-litepose", file, *net, *joints, "--out", file), "is the file to import")
    refused(call("import-litepose", tmp_path / "none.pt", *net, *joints, *out), "no such file", "none.pt")
    refused(call("import-litepose", file, "--arch", tmp_path / "none.json", *joints, *out), "no such file", "none.json")
    refused(call("import-litepose", file, "--arch", "litepose-xx", *joints, *out), "litepose-xs")
    wrong = call("import-litepose", file, *net, "--joints", 14, *out)
    refused(wrong, "net.pth.tar: 'final_refined.0.conv.3.weight'", "(34, 8, 1, 1)", "(28, 8, 1, 1)", lines=4)
    refused(call("eval", "--checkpoint", file, "--annotations", arch, "--images", tmp_path), "import-litepose")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.skipif(not PIPELINE.exists(), reason="no ../shared/fixtures/official_pipeline")
def test_a_trained_net_reaches_the_repositorys_ap(call: Call, tmp_path: Path) -> None:
    expected = read_json(PIPELINE / "expected.json")
    ours = tmp_path / "ours.pt"
    words = ("--arch", PIPELINE / "arch.json", "--joints", 17, "--out", ours, "--json")
    done = call("import-litepose", PIPELINE / "checkpoint.pth.tar", *words)
    assert done.code == 0, done.err
    where = ("--annotations", PIPELINE / "annotations.json", "--images", PIPELINE / "images")
    for flip, key, least in (("--flip", "flip", 0.372), ("--no-flip", "no_flip", 0.347)):
        scored = call("eval", "--checkpoint", ours, *where, flip, "--json")
        assert scored.code == 0, scored.err
        assert scored.result["images"] == 100
        assert scored.result["metrics"]["AP"] >= max(least, expected[key]["AP"])
