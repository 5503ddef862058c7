"""The journey through the command line with what LitePose itself fixes: elastic depth, a plain head, other kernels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ofa_pose.arch.presets import litepose_from_spec
from ofa_pose.arch.spec import Head
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.utils.files import dump_yaml
from tests.cli.conftest import TINY_SPACE, Call


@pytest.mark.parametrize(("head", "kernel"), [("fusion", 3), pytest.param("plain", 9, marks=pytest.mark.slow)])
def test_a_supernet_of_elastic_depth(call: Call, recipe: Path, tmp_path: Path, head: Head, kernel: int) -> None:
    depth = {"blocks": [2, 2, 1, 2], "depth": [[1, 2], [1, 2], [1], [2]]}
    (tmp_path / "space.yaml").write_text(dump_yaml(TINY_SPACE | depth | {"head": head, "kernel": kernel}))
    own = ("--recipe", recipe, "--set", f"space={tmp_path / 'space.yaml'}", "--json")
    largest = call("pretrain", *own, "--out", tmp_path / "largest")
    assert largest.code == 0, largest.err
    supernet = tmp_path / "supernet"
    trained = call("train-supernet", *own, "--init", tmp_path / "largest", "--out", supernet)
    assert trained.code == 0, trained.err
    found = call("search", "--supernet", supernet, "--macs", "1G", "--out", tmp_path / "search", "--json")
    assert found.code == 0, found.err
    again = call("search", "--supernet", supernet, "--macs", "1G", "--out", tmp_path / "search", "--json", "--resume")
    assert again.code == 0 and again.result["best"] == found.result["best"], again.err

    space = load_checkpoint(supernet).space
    assert space is not None and (space.head, space.kernel, space.depth[0]) == (head, kernel, (1, 2))
    spec = space.largest(17)
    shallow = replace(spec, expansions=(*spec.expansions[:3], spec.expansions[3][:1]))
    subnet = tmp_path / "shallow.json"
    subnet.write_text(json.dumps(litepose_from_spec(shallow) if head == "fusion" else shallow.to_dict()))
    tuned = call("finetune", "--subnet", subnet, "--supernet", supernet, "--out", tmp_path / "tuned", "--json")
    assert tuned.code == 0, tuned.err
    warning = "the net has blocks 2/2/1/1, space 'tiny' 1,2/1,2/1/2: the leading blocks are taken"
    assert tuned.err.count(warning) == 1
    assert load_checkpoint(tuned.result["checkpoint"]).spec == shallow
    exported = call("export", tuned.result["checkpoint"], "--out", tmp_path / "export", "--json")
    assert exported.code == 0 and ("litepose" in exported.result["files"]) == (head == "fusion"), exported.err
