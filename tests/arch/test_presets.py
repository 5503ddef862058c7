"""Named networks: the published parameter counts, and spec files in YAML and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofa_pose.arch.presets import PRESETS, load_spec
from ofa_pose.costs.macs import spec_params
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, find_yaml


@pytest.mark.parametrize(
    ("name", "millions"), [("litepose-xs", 1.676), ("litepose-s", 2.731), ("litepose-m", 3.534), ("litepose-l", 5.738)]
)
def test_published_parameter_counts(name: str, millions: float) -> None:
    spec = load_spec(name, joints=14)
    counted = sum(parameter.numel() for parameter in LitePose(spec).parameters())
    assert round(counted / 1e6, 3) == millions
    assert spec_params(spec) == counted


def test_a_preset_takes_the_number_of_joints() -> None:
    assert load_spec("litepose-s").joints == 17
    assert load_spec("litepose-s", joints=5) == PRESETS["litepose-s"].with_joints(5)


def test_spec_files_in_yaml_and_json_plain_or_under_spec(tmp_path: Path) -> None:
    spec = PRESETS["litepose-xs"].with_joints(14)
    texts = {
        "a.yaml": dump_yaml(spec.to_dict()),
        "b.yaml": dump_yaml({"AP": 0.4, "spec": spec.to_dict()}),
        "c.json": json.dumps(spec.to_dict()),
        "d.json": json.dumps({"spec": spec.to_dict()}, indent="\t"),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert load_spec(tmp_path / name) == spec, name
        assert load_spec(tmp_path / name, joints=3).joints == 3


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such network: 'litepose-xss'; did you mean 'litepose-xs'"):
        load_spec("litepose-xss")
    with pytest.raises(InputError, match="no such file; name a preset, a spec file or a checkpoint"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=rf"no such file; 'ofa-pose search --out {tmp_path}' writes it"):
        load_spec(tmp_path / "best.yaml")
    (tmp_path / "bad.yaml").write_text("stem: 3")
    with pytest.raises(InputError, match=r"bad\.yaml: the network spec has no 'resolution'"):
        load_spec(tmp_path / "bad.yaml")
    space = Path(find_yaml("search_spaces", "litepose-nano"))
    with pytest.raises(InputError, match=r"nano\.yaml: is a search space, not a network; name one network of it, such"):
        load_spec(space)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json:1:2: is not valid JSON"):
        load_spec(tmp_path / "bad.json")
