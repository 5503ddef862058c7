"""The tables of docs/file-formats.md name what the files hold, no more and no less."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import load_space
from ofa_pose.cli import run
from ofa_pose.costs.macs import QUANTITIES
from ofa_pose.latency.latency_table import Header, LatencyTable
from ofa_pose.skeleton import BUILT_IN
from ofa_pose.studies.summary import COLUMNS
from ofa_pose.utils.files import read_json, read_yaml
from tests.cli.conftest import data, net, recipe, supernet  # noqa: F401  (fixtures)
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")


def keys(heading: str, table: int = 0) -> list[str]:
    """The names in the first column of a table below a heading, in their order."""
    (text,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    cells = [line.split("|")[1] for line in tables[table].splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="module")
def searched(supernet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A tiny search."""
    out = tmp_path_factory.mktemp("search") / "search"
    assert run(["search", "--supernet", str(supernet), "--macs", "1G", "--out", str(out), "--device", "cpu"]) == 0
    return out


def test_the_files_of_a_search(searched: Path) -> None:
    named = {*keys("A search"), "recipe.yaml", "command.txt", "metrics.jsonl", "provenance.jsonl"} - {"front/001.yaml"}
    assert {path.name for path in searched.iterdir()} == named | {"front"}
    assert (searched / "front" / "001.yaml").exists()


def header(path: Path) -> list[str]:
    """A CSV file's columns."""
    with path.open(newline="") as file:
        return next(csv.reader(file))


def test_the_columns_of_a_search(searched: Path, data: Path) -> None:  # noqa: F811
    labels = load_space(data / "tiny.yaml").labels
    shared = ["genome", *labels, *QUANTITIES]
    assert header(searched / "history.csv") == ["order", "generation", "origin", *shared, "AP", "seconds"]
    assert header(searched / "pareto.csv") == ["rank", *shared, "AP"]
    first = keys("Tables of subnets", 0)
    assert [first[0], *first[-5:]] == ["genome", *QUANTITIES, "latency_ms"]
    assert first[1:-5] == ["resolution", "stem", "stage1", "deconv1", "depth1", "expansion1.1"]
    kinds = dict.fromkeys(re.sub(r"[\d.]+$", "", label) for label in load_space("litepose-depth").labels)
    assert [re.sub(r"[\d.]+$", "", name) for name in first[1:-5]] == [*kinds]


def test_the_keys_of_a_subnet(searched: Path) -> None:
    best = read_yaml(searched / "best.yaml")
    assert set(best) == set(keys("best.yaml"))
    assert set(read_yaml(searched / "front" / "001.yaml")) == {*best, "rank"}


def test_networks_spaces_and_skeletons() -> None:
    assert set(keys("Networks")) == set(load_spec("litepose-xs", 17).to_dict()) | {"head"}
    assert set(keys("Search spaces")) == {*load_space("litepose-depth").to_dict(), "head"}
    assert set(keys("Skeletons")) == {*BUILT_IN["coco"].to_dict(), "mirror"}


def test_a_checkpoint(net: Path) -> None:  # noqa: F811
    value = torch.load(net / "checkpoints" / "last.pt", weights_only=True)
    assert [*value] == keys("Checkpoints")
    assert f"`{value['format']}`, {value['version']}" in PAGE


def test_an_evaluation_and_an_export(net: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    truth = ["--annotations", str(data / "val" / "annotations.json"), "--images", str(data / "val" / "images")]
    assert run(["eval", "--checkpoint", str(net), *truth, "--breakdown", "--out", str(tmp_path)]) == 0
    assert [*read_json(tmp_path / "metrics.json")] == keys("Evaluations and predictions")
    assert run(["export", str(net), "--format", "torchscript", "--out", str(tmp_path)]) == 0
    listed = read_json(tmp_path / "export.json")
    assert [*listed] == ["checkpoint", "sha256", "files"]
    assert [*listed["files"]["torchscript"]] == ["name", "bytes", "ms", "AP", "sha256", "processor"]
    extra = {"metadata.json": ""}
    torch.jit.load(tmp_path / "model.torchscript.pt", _extra_files=extra)
    assert [*json.loads(extra["metadata.json"])] == keys("Exports")


def test_a_latency_table(tmp_path: Path) -> None:
    head = Header(load_space("litepose-nano"), 17, "torch", "torch 2", 1, "none", 1, "2026-01-01")
    LatencyTable(head, [1.0]).save(tmp_path / "table.json")
    assert set(read_json(tmp_path / "table.json")) == set(keys("Latency tables"))


def test_a_study() -> None:
    assert set(keys("Studies")) == set(COLUMNS)
