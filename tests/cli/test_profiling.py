"""`ofa-pose profile --measure` through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import ofa_pose
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import layer_rows
from ofa_pose.families.table import load_net
from ofa_pose.latency import measure
from ofa_pose.utils import console
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml
from tests.cli.conftest import TINY_SPACE, Call


def test_measured_figures_are_shown(
    call: Call, tiny_spec: ArchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST_S", 0.0)
    spec = tmp_path / "net.yaml"
    spec.write_text(dump_yaml(tiny_spec.to_dict()))
    shown = call("profile", spec, "--measure", "--backend", "torch")
    assert shown.code == 0, shown.err
    for word in ("ms (median", "nine of ten within", "images/s", "MACs", "stages.0.0", "deconv.2", "share"):
        assert word in shown.out + shown.err
    measured = call("profile", spec, "--measure", "--backend", "torch", "--threads", 1, "--json").result
    assert measured["latency"]["backend"] == "torch" and measured["macs"]["thop"] > 0
    for words, message in (
        (("--backend", "torch"), "add --measure"),
        (("--measure", "--backend", "tflite"), "no such backend"),
    ):
        refused = call("profile", spec, *words)
        assert refused.code == 2 and message in refused.err


def test_layers_are_shown_on_stderr(
    call: Call, tiny_spec: ArchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_err", console._PlainConsole(stderr=True, width=120))
    spec = tmp_path / "net.yaml"
    spec.write_text(dump_yaml(tiny_spec.to_dict()))
    shown = call("profile", spec, "--layers")
    assert shown.code == 0 and shown.out == ""
    assert all(row["name"] in shown.err for row in layer_rows(tiny_spec))


def test_the_python_api_gives_what_the_shell_prints(call: Call, tiny_spec: ArchSpec, tmp_path: Path) -> None:
    spec = tmp_path / "net.yaml"
    spec.write_text(dump_yaml(tiny_spec.to_dict()))
    found = ofa_pose.profile(spec, layers=True)
    assert found.spec == tiny_spec and found.latency is None
    assert found.to_dict() == call("profile", spec, "--layers", "--json").result
    with pytest.raises(InputError, match="--threads 0 is out of range; give a number from 1"):
        ofa_pose.profile(spec, measure=True, threads=0)


def test_the_spec_files_of_every_family_are_nets_not_spaces(call: Call, tmp_path: Path) -> None:
    for name in ("litepose-xs", "scaled-higherhrnet-shrink3", "efficienthrnet-h-4", "lite-hrnet-18"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(dump_yaml(load_net(name).at(64).to_dict()))
        assert call("profile", path, "--json").result["resolution"] == 64


def test_a_search_space_is_profiled_by_name_and_file(call: Call, tmp_path: Path) -> None:
    shipped = call("profile", "litepose-nano", "--json").result
    assert (shipped["name"], shipped["joints"], shipped["subnets"]) == ("litepose-nano", 17, 26244)
    assert list(shipped["resolutions"]) == ["96", "128", "160", "192"] and "budget" not in shipped
    space = tmp_path / "mine.yaml"
    space.write_text(dump_yaml(TINY_SPACE))
    found = call("profile", space, "--joints", 5, "--macs", "1M", "--macs-convention", "exact", "--json").result
    assert (found["name"], found["joints"], found["budget"]["convention"]) == ("tiny", 5, "exact")
    shown = call("profile", space, "--macs", "1M")
    assert shown.code == 0 and shown.out == "" and "inside" in shown.err and "the largest is" in shown.err
    for words, message in (
        (("litepose-nano", "--macs", "1K"), "raise --macs to at least"),
        (("litepose-nano", "--macs", "1M", "--params", "1K"), "raise --params to at least"),
        (("litepose-nano", "--layers"), "is a search space, many networks"),
        (("litepose-xs", "--macs", "1G"), "name a search space"),
    ):
        refused = call("profile", *words)
        assert refused.code == 2 and message in refused.err, refused.err
