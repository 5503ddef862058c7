"""What the faults are tried on: a training, a search and a drawn dataset, small, and what each leaves when it ends."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.checkpoints.digest import digest
from ofa_pose.cli import run
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import dump_yaml, write_text
from tests.cli.conftest import TINY_SPACE

CLOCK = {"seconds", "data_wait", "evaluations_per_second", "measured"}
ONE_TIME = {"time", "seconds"}  # of a row of an archive


@dataclass(frozen=True)
class Work:
    """One call.

    Attributes:
        words: of the command line, but for its folder.
        left: all that it left in a folder that is the same each time.
    """

    words: Sequence[str]
    left: Callable[[Path], Any]
    out: str = "--out"

    def call(self, folder: Path) -> list[str]:
        """The words of a call, which begins or goes on."""
        place = [self.out, str(folder)] if self.out else [str(folder)]
        return [*self.words, "--resume", *place]


def make_works(folder: Path) -> dict[str, Work]:
    """The three works, of data that are drawn into a folder."""
    for seed, (name, images) in enumerate({"train": 12, "val": 4}.items()):
        write_dataset(folder / name, images=images, size=64, joints="coco", seed=seed, workers=1)
    write_text(folder / "space.yaml", dump_yaml(TINY_SPACE))
    splits = {
        name: {"annotations": str(folder / name / "annotations.json"), "images": str(folder / name / "images")}
        for name in ("train", "val")
    }
    training = {"steps": 12, "batch": 2, "workers": 0, "evaluate_every": 5, "evaluate_images": 4, "checkpoint_every": 3}
    search = {"population": 4, "generations": 1, "images": 4, "calibration_images": 4, "batch": 4}
    recipe = {
        "space": str(folder / "space.yaml"),
        "data": {**splits, "search_share": 0.25},
        "train": training,
        "search": search,
    }
    write_text(folder / "recipe.yaml", dump_yaml(recipe))
    trained = ["train-supernet", "--recipe", str(folder / "recipe.yaml"), "--device", "cpu"]
    begun = [*trained, "--set", "train.steps=2", "--out", str(folder / "supernet")]
    assert run(begun) == 0
    searched = ["search", "--supernet", str(folder / "supernet"), "--params", "1G", "--device", "cpu"]
    drawn = ["data", "synth", "--images", "40", "--size", "64", "--workers", "1"]
    return {
        "training": Work(trained, left_by_training),
        "search": Work(searched, left_by_search),
        "data synth": Work(drawn, left_by_drawing, ""),
    }


def left_by_training(out: Path) -> Any:
    """Every figure of every step, and both checkpoints bit for bit."""
    found = [load_checkpoint(out / "checkpoints" / f"{name}.pt") for name in ("last", "best")]
    kept = [digest([one.info, one.weights, one.training]) for one in found]
    return kept, _records(out), _hidden(out)


def left_by_search(out: Path) -> Any:
    """Every candidate, every row of the archive, and the chosen subnet bit for bit."""
    with (out / "history.csv").open(newline="") as file:
        history = [_without_clock(row) for row in csv.DictReader(file)]
    with sqlite3.connect(out / "archive.sqlite") as archive:
        archive.row_factory = sqlite3.Row
        rows = [dict(row) for row in archive.execute("SELECT * FROM evaluations ORDER BY genome")]
    archive.close()
    best = load_checkpoint(out / "best.pt")
    found = [{key: value for key, value in row.items() if key not in ONE_TIME | {"id"}} for row in rows]
    texts = [(out / name).read_text() for name in ("best.yaml", "pareto.csv")]
    return digest([best.info, best.weights]), texts, history, found, _records(out), _hidden(out)


def left_by_drawing(out: Path) -> Any:
    """Every file, byte for byte."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _records(out: Path) -> list[dict[str, Any]]:
    return [_without_clock(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _without_clock(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in CLOCK}


def _hidden(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*")]
