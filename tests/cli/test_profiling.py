"""`ofa-pose profile --measure` through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

import ofa_pose
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import layer_rows
from ofa_pose.latency import measure
from ofa_pose.utils import console
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml
from tests.cli.conftest import Call


def test_measured_figures_are_shown(
    call: Call, tiny_spec: ArchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST_S", 0.0)
    spec = tmp_path / "net.yaml"
    spec.write_text(dump_yaml(tiny_spec.to_dict()))
    shown = call("profile", spec, "--measure", "--backend", "torch")
    assert shown.code == 0, shown.err
    for word in ("median_ms", "p90_ms", "images_per_s", "memory_mb", "stages.0.0", "deconv.2", "share"):
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
    monkeypatch.setattr(console, "_err", Console(stderr=True, width=120))
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
