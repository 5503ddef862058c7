"""`ofa-pose table` and `fidelity` on tiny data: what they leave, and what they refuse."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import pytest

import ofa_pose
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.searches import evaluation as search
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, read_yaml, write_text
from tests.cli.conftest import TINY_SPACE, Call
from tests.cli.test_bad_input import refused

FEW = {**TINY_SPACE, "name": "few", "stem": [8], "stages": [[4, 8], [8], [12], [8, 16]], "deconv": [[8], [8], [8]]}
FEW["expansion"] = [2]


@pytest.fixture(scope="session")
def small_supernet(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a supernet of eight subnets."""
    from ofa_pose.cli import run

    out = tmp_path_factory.mktemp("few")
    write_text(out / "few.yaml", dump_yaml(FEW))
    words = ["--recipe", str(recipe), "--set", f"space={out / 'few.yaml'}", "--out", str(out / "run")]
    assert run(["train-supernet", *words, "--device", "cpu"]) == 0
    return out / "run"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_evaluates_every_subnet_and_resumes(
    call: Call, small_supernet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table"
    done = call("table", "--supernet", small_supernet, "--out", out, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    table = rows(out / "table.csv")
    assert done.result["subnets"] == done.result["judged"] == len(table) == SearchSpace.from_dict(FEW).size == 8
    assert ArchSpec.from_dict(done.result["best"]["spec"]).resolution in (32, 64)
    assert done.result["best"]["AP"] == max(float(row["AP"]) for row in table)
    assert read_yaml(out / "recipe.yaml")["search"]["images"] == 4
    assert (out / "command.txt").read_text().startswith("ofa-pose table ")

    whole = (out / "table.csv").read_text()
    lines = whole.splitlines(keepends=True)
    (out / "table.csv").write_text("".join(lines[:5]) + lines[5][:12])
    again = call("table", "--supernet", small_supernet, "--out", out, "--device", "cpu", "--resume", "--json")
    assert again.code == 0, again.err
    assert again.result["judged"] == 4
    for before, after in zip(table, rows(out / "table.csv"), strict=True):
        assert {**before, "seconds": ""} == {**after, "seconds": ""}

    monkeypatch.setattr(search, "EVALUATION_VERSION", search.EVALUATION_VERSION + 1)  # APs of another kind do not mix
    other = call("table", "--supernet", small_supernet, "--out", out, "--device", "cpu", "--resume")
    refused(other, "another judging", f"was {search.EVALUATION_VERSION - 1}")


def test_table_refuses(call: Call, supernet: Path, small_supernet: Path, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    refused(call("table", "--supernet", supernet, "--out", out, "--limit", 100), "'tiny' has", "--limit")
    refused(call("table", "--supernet", net, "--out", out), "supernet")
    assert not out.exists()
    out.mkdir()
    (out / "table.csv").write_text("mine")
    refused(call("table", "--supernet", small_supernet, "--out", out), "table.csv", "--resume")
    assert (out / "table.csv").read_text() == "mine"


FEWER = ("--subnets", 3, "--images", "2,4", "--calibration", "2,4", "--steps", 2, "--device", "cpu")


def test_fidelity_compares_and_resumes(call: Call, small_supernet: Path, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    words = ("fidelity", "--supernet", small_supernet, "--out", out, "--teacher", net, *FEWER, "--json")
    done = call(*words)
    assert done.code == 0, done.err
    table = rows(out / "fidelity.csv")
    assert done.result["subnets"] == len(table) == 3
    assert [line["count"] for line in done.result["images"]] == [2, 4]
    assert done.result["finetuned"]["steps"] == 2 and done.result["advice"]
    assert all(0 <= float(row[name]) <= 1 for row in table for name in row if name.startswith("AP_"))
    assert cv2.imread(str(out / "fidelity.png")) is not None
    assert not (out / "finetune").exists()

    text = (out / "fidelity.csv").read_text()
    *head, last = text.splitlines()
    (out / "fidelity.csv").write_text("\n".join([*head, last.rpartition(",")[0] + ","]) + "\n")
    again = call(*words, "--resume")
    assert again.code == 0, again.err
    assert "fine-tuning subnet 3 of 3" in again.err and "fine-tuning subnet 2" not in again.err
    assert (out / "fidelity.csv").read_text() == text
    changed = call(*words, "--resume", "--set", "train.lr=0.5")
    refused(changed, "fine-tuning.train.lr was")


def test_fidelity_refuses(call: Call, small_supernet: Path, net: Path, tmp_path: Path) -> None:
    start = ("fidelity", "--supernet", small_supernet, "--out", tmp_path / "study")
    refused(call(*start, "--images", "50,many"), "--images", "50,many")
    refused(call(*start, "--calibration", "0"), "--calibration")
    refused(call(*start, "--macs", "1K"), "smallest subnet", "--macs")
    refused(call(*start, "--macs", "1G", "--macs-convention", "tops"), "thop")
    refused(call(*start, "--subnets", 2), "subnets")
    refused(call("fidelity", "--supernet", net, "--out", tmp_path / "study"), "supernet")
    assert not (tmp_path / "study").exists()


def test_studies_from_python_are_those_of_the_shell(small_supernet: Path, tmp_path: Path) -> None:
    table = ofa_pose.table(small_supernet, out=tmp_path / "table", device="cpu", overrides=["search.images=2"])
    assert table.subnets == 8 and table.best["AP"] == max(float(row["AP"]) for row in rows(table.table))
    found = ofa_pose.fidelity(
        small_supernet, out=tmp_path / "study", images=(4, 2), calibration=[2], subnets=3, steps=0, device="cpu"
    )
    assert [line.count for line in found.images] == [2, 4] and found.finetuned is None
    assert found.to_dict()["advice"] == found.advice and found.picture is not None and found.picture.exists()
    with pytest.raises(InputError, match="--images"):
        ofa_pose.fidelity(small_supernet, out=tmp_path / "other", images=())
