"""The demo: the whole journey on drawn scenes, each step a command as a user would type it."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.table import Table

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import spec_macs
from ofa_pose.data.images import read_image
from ofa_pose.utils import atomic, files
from ofa_pose.utils.console import say_command
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.numbers import format_count
from ofa_pose.utils.process import run_command
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import alone_in

PRETRAINED = "litepose-nano-coco"
SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3}
VAL_IMAGES = 150
MARK = ".ofa-pose-demo"  # in a folder that another demo may empty


@dataclass(frozen=True)
class DemoResult(Result):
    """What the demo found; AP is of the test scenes, with flip test.

    Attributes:
        budget: 'macs' and their 'convention'.
        supernet: its 'checkpoint'.
        searched: the chosen net: 'spec', 'checkpoint', 'onnx', 'resolution', 'macs' (thop), 'macs_exact',
            'ap_inherited' (with the supernet's weights) and 'ap_finetuned'.
        uniform: the best uniformly scaled net: 'spec', 'macs' (thop), 'ap' (fine-tuned), and all 'candidates'.
        teacher: its 'checkpoint' and 'ap'.
        test: 'annotations', 'images', 'count'.
        seconds: of each step, and in 'total'.
    """

    budget: dict[str, Any]
    supernet: dict[str, Any]
    searched: dict[str, Any]
    uniform: dict[str, Any]
    teacher: dict[str, Any]
    test: dict[str, Any]
    seconds: dict[str, float]


class Demo:
    """Runs commands under one folder and keeps the seconds of each step."""

    def __init__(self, out: Path, seed: int, macs: str, counts: dict[str, int], overrides: Sequence[str]) -> None:
        self.out, self.seed, self.macs, self.counts = out, seed, macs, counts
        self.overrides = [word for override in overrides for word in ("--set", override)]
        self.seconds: dict[str, float] = {}
        self.tests = 0  # evaluations on the test images so far

    def command(self, step: str, *arguments: object) -> dict[str, Any]:
        """Run `ofa-pose` with these arguments and return its JSON. Raises OfaPoseError where it fails."""
        words = [str(argument) for argument in arguments]
        shown = f"ofa-pose {shlex.join(words)}"
        say_command(f"\n$ {shown}")
        start = time.monotonic()
        done = run_command([*words, "--json"])
        self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - start, 1)
        if done.returncode:
            raise OfaPoseError(f"the demo ended with exit code {done.returncode} of: {shown}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def data(self, split: str) -> tuple[Path, Path]:
        """Annotations and images of a drawn split."""
        folder = self.out / "data" / split
        return folder / "annotations.json", folder / "images"

    def test(self, step: str, checkpoint: Path | str) -> float:
        """AP on the test split, with flip test."""
        annotations, images = self.data("test")
        where = ("--annotations", annotations, "--images", images, "--flip", "--breakdown")
        self.tests += 1
        out = self.out / "test" / str(self.tests)
        done = self.command(step, "eval", "--checkpoint", checkpoint, *where, "--out", out)
        return float(done["metrics"]["AP"])

    def finetune(self, step: str, subnet: Path, out: Path) -> str:
        """Fine-tune a subnet under the teacher; returns its best checkpoint."""
        origin = ("--supernet", self.out / "supernet", "--teacher", PRETRAINED, "--seed", self.seed)
        result = self.command(step, "finetune", "--subnet", subnet, *origin, "--out", out, *self.overrides)
        return str(result["checkpoint"])


def run_demo(demo: Demo) -> DemoResult:
    """The journey, from an emptied folder to its summary.json.

    Raises InputError where the folder is not a demo's, or another demo runs there.
    """
    _check_own(demo.out)
    demo.out.mkdir(parents=True, exist_ok=True)
    with alone_in(demo.out):
        _empty(demo.out)
        return _journey(demo)


def _journey(demo: Demo) -> DemoResult:
    for split, count in demo.counts.items():
        drawn = ("--images", count, "--size", 192, "--seed", SPLIT_SEEDS[split] + 10_000 * demo.seed)
        demo.command("synth", "data", "synth", demo.out / "data" / split, *drawn)
    sources = []
    for split in ("train", "val"):
        annotations, images = demo.data(split)
        sources += ["--set", f"data.{split}.annotations={annotations}", "--set", f"data.{split}.images={images}"]

    start = ("--recipe", "nano", "--init", PRETRAINED, "--seed", demo.seed)
    trained = demo.command(
        "supernet", "train-supernet", *start, "--out", demo.out / "supernet", *sources, *demo.overrides
    )
    budget = ("--macs", demo.macs, "--seed", demo.seed, *demo.overrides)
    found = demo.command("search", "search", "--supernet", demo.out / "supernet", *budget, "--out", demo.out / "search")
    tuned = demo.finetune("finetune", demo.out / "search" / "best.yaml", demo.out / "finetuned")
    uniform = write_uniform(demo.out)
    uniform_tuned = demo.finetune("finetune uniform", demo.out / "uniform.yaml", demo.out / "uniform")

    inherited_ap = demo.test("eval", demo.out / "search" / "best.pt")
    tuned_ap = demo.test("eval", tuned)
    uniform_ap = demo.test("eval", uniform_tuned)
    teacher_ap = demo.test("eval", PRETRAINED)
    exported = demo.command("export", "export", tuned, "--out", demo.out / "export")
    annotations, images = demo.data("test")
    demo.command("predict", "predict", f"{images}/0000[01]*.jpg", "--checkpoint", tuned, "--out", demo.out / "poses")

    demo.command("report", "report", demo.out / "finetuned", "--out", demo.out / "report.html")

    write_mosaic(sorted((demo.out / "poses" / "overlays").glob("*.jpg"))[:10], demo.out / "poses.jpg")
    best = found["best"]
    summary = {
        "budget": {"macs": demo.macs, "convention": "thop"},
        "supernet": {"checkpoint": trained["checkpoint"]},
        "searched": {
            "spec": best["spec"],
            "checkpoint": tuned,
            "onnx": exported["files"]["onnx"],
            "resolution": best["spec"]["resolution"],
            "macs": best["macs"]["thop"],
            "macs_exact": best["macs"]["exact"],
            "ap_inherited": inherited_ap,
            "ap_finetuned": tuned_ap,
        },
        "uniform": {**uniform, "ap": uniform_ap},
        "teacher": {"checkpoint": PRETRAINED, "ap": teacher_ap},
        "test": {"annotations": str(annotations), "images": str(images), "count": demo.counts["test"]},
        "seconds": {**demo.seconds, "total": round(sum(demo.seconds.values()), 1)},
    }
    files.write_json(demo.out / "summary.json", summary)
    return DemoResult(**summary)


def _check_own(out: Path) -> None:
    atomic.check_folder(out)
    if out.is_dir() and atomic.holds_something(out) and not (out / MARK).is_file():
        raise InputError("holds what no demo wrote", out, "name another folder with --out, or empty it")


def _empty(out: Path) -> None:
    """Remove what an earlier demo wrote, all but the mark, by which the next one knows what a killed one left."""
    (out / MARK).touch()
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (MARK, atomic.LOCK):
            path.unlink(missing_ok=True)


def write_mosaic(pictures: list[Path], out: Path, columns: int = 5) -> None:
    """One picture of several of equal size, side by side."""
    images = [read_image(path)[..., ::-1] for path in pictures]
    rows = [cv2.hconcat(images[i : i + columns]) for i in range(0, len(images) - columns + 1, columns)]
    if rows:
        encoded = cv2.imencode(".jpg", cv2.vconcat(rows))[1]
        files.write_bytes(out, encoded.tobytes())


def write_uniform(out: Path) -> dict[str, Any]:
    """The uniform nets that the search evaluated, and the best of them by inherited AP as uniform.yaml."""
    with (out / "search" / "history.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["origin"] == "uniform"]
    best = max(rows, key=lambda row: float(row["AP"]))
    chosen = load_spec(out / "search" / "best.yaml")
    candidates = []
    for row in rows:
        figures = {"macs": int(row["macs_thop"]), "ap_search": float(row["AP"])}
        candidates.append({"resolution": int(row["resolution"]), **figures})
    space = load_space(files.read_yaml(out / "supernet" / "recipe.yaml")["space"])
    spec = space.decode([int(gene) for gene in best["genome"].split("-")], chosen.joints)
    files.write_text(out / "uniform.yaml", files.dump_yaml({"spec": spec.to_dict()}))
    return {"candidates": candidates, "spec": spec.to_dict(), "macs": spec_macs(spec).thop}


def demo_table(result: DemoResult) -> Table:
    """The figures as a table."""
    shown = Table(title=f"AP on {result.test['count']} test scenes (flip test); MACs in thop's convention")
    for column in ("net", "resolution", "MACs", "exact MACs", "AP"):
        shown.add_column(column, justify="left" if column == "net" else "right")
    searched, uniform, teacher = result.searched, result.uniform, result.teacher
    macs = (str(searched["resolution"]), format_count(searched["macs"]), format_count(searched["macs_exact"]))
    shown.add_row("searched, inherited weights", *macs, f"{searched['ap_inherited']:.3f}")
    shown.add_row("[bold]searched, fine-tuned", *macs, f"[bold]{searched['ap_finetuned']:.3f}")
    for name, spec, ap in (
        ("best uniform net, fine-tuned", ArchSpec.from_dict(uniform["spec"]), uniform["ap"]),
        ("teacher", load_checkpoint(teacher["checkpoint"]).spec, teacher["ap"]),
    ):
        cost = spec_macs(spec)
        row = (str(spec.resolution), format_count(cost.thop), format_count(cost.exact))
        shown.add_row(name, *row, f"{ap:.3f}")
    return shown
