"""The demo: every command of the journey as a user would call it, then a table and runs/demo/summary.json."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.table import Table

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import spec_macs
from ofa_pose.utils import files
from ofa_pose.utils.numbers import format_count

console = Console(stderr=True, highlight=False)
PRETRAINED = "litepose-nano-coco"
SPLIT_SEEDS = {"train": 1, "val": 2, "test": 3}


class Demo:
    """Runs commands under one folder and keeps the seconds of each step."""

    def __init__(self, out: Path, seed: int, macs: str, counts: dict[str, int], overrides: list[str]) -> None:
        self.out, self.seed, self.macs, self.counts, self.overrides = out, seed, macs, counts, overrides
        self.seconds: dict[str, float] = {}

    def command(self, step: str, *arguments: object) -> dict[str, Any]:
        """Run `ofa-pose` with these arguments and return its JSON; a failure ends the demo with the same exit code."""
        words = [str(argument) for argument in arguments]
        console.rule(f"[bold]{step}", align="left")
        console.print(f"$ ofa-pose {shlex.join(words)}", style="cyan", markup=False, soft_wrap=True)
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "ofa_pose", *words, "--json"], stdout=subprocess.PIPE, text=True)
        self.seconds[step] = round(self.seconds.get(step, 0.0) + time.monotonic() - start, 1)
        if done.returncode:
            console.print(f"the command failed with exit code {done.returncode}", style="red")
            sys.exit(done.returncode)
        return json.loads(done.stdout)

    def data(self, split: str) -> tuple[Path, Path]:
        """Annotations and images of a drawn split."""
        folder = self.out / "data" / split
        return folder / "annotations.json", folder / "images"

    def test(self, step: str, checkpoint: Path | str) -> float:
        """AP on the test split, with flip test."""
        annotations, images = self.data("test")
        where = ("--annotations", annotations, "--images", images, "--flip")
        return self.command(step, "eval", "--checkpoint", checkpoint, *where)["metrics"]["AP"]

    def finetune(self, step: str, subnet: Path, out: Path) -> str:
        """Fine-tune a subnet under the teacher; returns its best checkpoint."""
        origin = ("--supernet", self.out / "supernet", "--teacher", PRETRAINED, "--seed", self.seed)
        result = self.command(step, "finetune", "--subnet", subnet, *origin, "--out", out, *self.overrides)
        return result["checkpoint"]


def run(demo: Demo) -> dict[str, Any]:
    """The journey; returns the summary."""
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
    return {
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


def write_mosaic(pictures: list[Path], out: Path, columns: int = 5) -> None:
    """One picture of several of equal size, side by side."""
    images = [cv2.imread(str(path)) for path in pictures]
    rows = [cv2.hconcat(images[i : i + columns]) for i in range(0, len(images) - columns + 1, columns)]
    if rows:
        cv2.imwrite(str(out), cv2.vconcat(rows))


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


def table(summary: dict[str, Any]) -> Table:
    """The figures as a table."""
    shown = Table(title=f"AP on {summary['test']['count']} test scenes (flip test); MACs in thop's convention")
    for column in ("net", "resolution", "MACs", "exact MACs", "AP"):
        shown.add_column(column, justify="left" if column == "net" else "right")
    searched, uniform, teacher = summary["searched"], summary["uniform"], summary["teacher"]
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


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write (emptied first)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes and subnets")
    parser.add_argument("--macs", default="250M", help="the budget, in thop's convention")
    parser.add_argument("--train-images", type=int, default=3000, help="scenes to train on")
    parser.add_argument("--test-images", type=int, default=400, help="scenes that give the final figures")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override a recipe key")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    counts = {"train": options.train_images, "val": 150, "test": options.test_images}
    overrides = [word for override in options.set for word in ("--set", override)]
    summary = run(Demo(options.out, options.seed, options.macs, counts, overrides))
    files.write_json(options.out / "summary.json", summary)
    console.print(table(summary))
    console.print(f"everything is in {options.out}: report.html, summary.json, poses.jpg, export/")
    console.print(f"{summary['seconds']['total']:.0f} s in all")


if __name__ == "__main__":
    main()
