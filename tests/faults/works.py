"""What the faults are tried on: small calls of the command line, and what each leaves when it ends."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.checkpoints.digest import digest
from ofa_pose.cli import run
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import dump_yaml, read_json, write_text
from tests.cli.conftest import TINY_SPACE
from tests.cli.test_ablations import TINY as TINY_STUDY
from tests.cli.test_studies import FEW

CLOCK = {"seconds", "data_wait", "evaluations_per_second", "measured"}
ONE_TIME = {"time", "seconds"}  # of a row of an archive


@dataclass(frozen=True)
class Work:
    """One call.

    Attributes:
        words: of the command line, but for its folder.
        left: all that it left in a trial's folder that is the same each time.
        out: the option that names its folder; '' where the folder stands by itself.
        inside: the name of its folder in the trial's, where it also writes beside its own; '': it is the trial's.
    """

    words: Sequence[str]
    left: Callable[[Path], Any]
    out: str = "--out"
    inside: str = ""

    def call(self, folder: Path) -> list[str]:
        """The words of a call, which begins or goes on, in a trial's folder."""
        place = str(folder / self.inside)
        return [*self.words, self.out, place] if self.out else [*self.words, place]


def make_works(folder: Path) -> dict[str, Work]:
    """All works, of data that are drawn into a folder."""
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
    supernet, subnet, teacher = folder / "supernet", folder / "subnet.yaml", folder / "teacher"
    write_text(subnet, dump_yaml({"spec": SearchSpace.from_dict(TINY_SPACE).smallest(17).to_dict()}))
    device = ["--device", "cpu"]
    begun = ["--set", "train.steps=2", "--quiet", "--out"]
    trained = ["train-supernet", "--recipe", str(folder / "recipe.yaml"), *device]
    assert run([*trained, *begun, str(supernet)]) == 0
    tuned = ["finetune", "--subnet", str(subnet), "--supernet", str(supernet), *device]
    assert run([*tuned, *begun, str(teacher)]) == 0
    searched = ["search", "--supernet", str(supernet), "--params", "1G", *device, "--resume"]
    drawn = ["data", "synth", "--images", "40", "--size", "64", "--workers", "1", "--resume"]
    converted = ["data", "convert", str(folder / "train" / "annotations.json"), "--copy-images"]
    few, study = folder / "few", folder / "study.yaml"
    write_text(folder / "few.yaml", dump_yaml(FEW))
    assert run([*trained, "--set", f"space={folder / 'few.yaml'}", *begun, str(few)]) == 0
    counts = ["--subnets", "3", "--images", "2,4", "--calibration", "2,4", "--steps", "2"]
    write_text(study, dump_yaml(TINY_STUDY))
    shorter = ["--set", "settings.train.steps=6", "--set", "settings.train.evaluate_every=6"]
    return {
        "training": Work([*trained, "--resume"], left_by_training),
        "search": Work(searched, left_by_search),
        "data synth": Work(drawn, left_in_files, ""),
        "finetune": Work([*tuned, "--teacher", str(teacher), "--resume"], left_by_training),
        "export": Work(["export", str(teacher), "--format", "onnx"], left_by_export),
        "data convert": Work(converted, left_in_files, inside="converted"),
        "table": Work(["table", "--supernet", str(few), *device, "--resume"], left_in_rows("table.csv")),
        "fidelity": Work(
            ["fidelity", "--supernet", str(few), *counts, *device, "--resume"], left_in_rows("fidelity.csv")
        ),
        "study": Work(["study", str(study), *shorter, *device], left_by_study),
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


def left_by_export(out: Path) -> Any:
    """The model byte for byte, and what stands of it in export.json, but for how fast it is."""
    listed = read_json(out / "export.json")
    told = [{key: value for key, value in one.items() if key != "ms"} for one in listed["files"].values()]
    return (out / "model.onnx").read_bytes(), listed["sha256"], told, sorted(path.name for path in out.iterdir())


def left_in_rows(name: str) -> Callable[[Path], Any]:
    """Every row of a table, but for the clock's columns."""
    return lambda out: (_rows(out / name), _hidden(out))


def left_by_study(out: Path) -> Any:
    """Every row of its table, and what each training left."""
    runs = [path.parent for path in sorted(out.glob("seed-*/*/command.txt"))]
    return _rows(out / "study.csv"), [left_by_training(path) for path in runs], _hidden(out)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def left_in_files(out: Path) -> Any:
    """Every file, byte for byte, and every hidden folder."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return found, _hidden(out)


def _records(out: Path) -> list[dict[str, Any]]:
    return [_without_clock(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _without_clock(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in CLOCK}


def _hidden(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*")]
