"""The kept table of a small space: it is whole, and its rows come out again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ofa_pose.arch.space import load_space
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.models.elastic import Supernet
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.synthetic.dataset import write_dataset

FOLDER = Path(__file__).parent / "table"
JOINTS = 17
CLOSE = 0.002  # AP
DECODE = DecodeConfig(threshold=0.3, tag_threshold=1.5)  # the recipe's
SCENES = {"train": (64, 4001), "search": (200, 4002)}  # images and seed


def rows() -> list[dict[str, str]]:
    with (FOLDER / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_holds_every_subnet_and_its_costs() -> None:
    space = load_space(FOLDER / "space.yaml")
    table = rows()
    genomes = [tuple(map(int, row["genome"].split("-"))) for row in table]
    assert len(set(genomes)) == len(table) == space.size
    for number in np.random.default_rng(0).permutation(len(table))[:50]:
        spec, row = space.decode(genomes[number], JOINTS), table[number]
        costs = {f"macs_{name}": value for name, value in spec_macs(spec).to_dict().items()}
        assert {key: int(row[key]) for key in (*costs, "params")} == {**costs, "params": spec_params(spec)}
    assert all(0.2 < float(row["AP"]) < 0.6 for row in table)


@pytest.mark.slow
def test_ten_rows_come_out_again(tmp_path: Path) -> None:
    parts = {}
    for name, (images, seed) in SCENES.items():
        write_dataset(tmp_path / name, images, 192, "coco", seed)
        parts[name] = load_dataset(tmp_path / name / "annotations.json", tmp_path / name / "images")
    checkpoint = load_checkpoint(FOLDER / "supernet.pt", kind="supernet")
    supernet = checkpoint.build()
    assert isinstance(supernet, Supernet)
    settings = SearchSettings(images=SCENES["search"][0], calibration_images=SCENES["train"][0])
    fitness = SubnetEvaluator(supernet, parts["train"], parts["search"], settings, decode=DECODE)
    table = rows()
    for number in np.random.default_rng(1).permutation(len(table))[:10]:
        genome = tuple(map(int, table[number]["genome"].split("-")))
        assert fitness(genome) == pytest.approx(float(table[number]["AP"]), abs=CLOSE), table[number]["genome"]
