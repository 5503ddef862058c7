"""What a second process brings: a search with two workers, and a training under torchrun, beside one process.

One thread a process. The same work is done by one and by two in turn, and what is said is the median of the ratios of
each turn: 2 would be all that a second process can bring on an idle machine of two processors. A search's time is that
of the whole command, its workers' start included; a training's that of its steps, as its metrics.jsonl has it, each
process reading its own images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.console import say, show

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "does not share its work"
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


class Unshared(Exception):
    """The command does not share its work between torchrun's processes."""


def call(*words: object) -> None:
    """Run Python with these words, a thread a process. Raises Unshared, or CalledProcessError with what it wrote."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and REFUSED in done.stderr:
        raise Unshared
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)


def data_words(folder: Path) -> list[str]:
    """The overrides that name the scenes."""
    words = []
    for split in ("train", "val"):
        words += ["--set", f"data.{split}.annotations={folder / 'scenes/annotations.json'}"]
        words += ["--set", f"data.{split}.images={folder / 'scenes/images'}"]
    return words


def search(folder: Path, out: Path, processes: int, options: argparse.Namespace) -> float:
    """Seconds of a search that evaluates `options.evaluations` random subnets."""
    words = ["--supernet", folder / "supernet", "--macs", "100G", "--out", out, "--workers", processes]
    words += ["--algorithm", "random", "--device", "cpu", "--set", f"search.population={options.evaluations}"]
    words += ["--set", "search.generations=0", "--set", f"search.images={options.images}", *data_words(folder)]
    start = time.perf_counter()
    call("-m", "ofa_pose", "search", *words)
    return time.perf_counter() - start


def train(folder: Path, out: Path, processes: int, options: argparse.Namespace) -> float:
    """Seconds of the steps of a supernet's training; a step's images are the same, however many processes there are."""
    words = ["--recipe", "nano", "--init", "litepose-nano-coco", "--out", out, "--device", "cpu"]
    settings = {"steps": options.steps, "evaluate_every": options.steps, "evaluate_images": 4, "workers": 0}
    settings["batch"] = options.batch
    for key, value in settings.items():
        words += ["--set", f"train.{key}={value}"]
    words += ["--set", "decode.calibrate=false", *data_words(folder)]
    launcher = (*LAUNCHER, processes) if processes > 1 else ()
    call(*launcher, "-m", "ofa_pose", "train-supernet", *words)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return float(next(line["seconds"] for line in lines if "val" in line and line["step"] == options.steps))


def compare(work: Callable[..., float], name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """The seconds of one and of two processes in turn, and their ratio; None where the work is not shared."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(options.rounds):
        for processes, found in seconds.items():
            try:
                found.append(work(folder, folder / f"{name}-{turn}-{processes}", processes, options))
            except Unshared:
                say(f"{name}: this version does not share its work between processes; left out")
                return None
    ratios = np.divide(seconds[1], seconds[2])
    return {"ratio": round(float(np.median(ratios)), 2), "ratios": ratios.round(2).tolist(), "seconds": seconds}


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    write_dataset(folder / "scenes", options.scenes, 192, "coco", seed=21)
    words = ["--recipe", "nano", "--init", "litepose-nano-coco", "--device", "cpu", "--out", folder / "supernet"]
    words += ["--set", "train.steps=1", "--set", "train.batch=2", "--set", "train.evaluate_images=2"]
    call("-m", "ofa_pose", "train-supernet", *words, "--set", "decode.calibrate=false", *data_words(folder))
    works: Sequence[tuple[str, Callable[..., float]]] = (("search", search), ("training", train))
    return {"rounds": options.rounds, **{name: compare(work, name, folder, options) for name, work in works}}


def show_figures(figures: Mapping[str, Any]) -> None:
    """The table, on stderr."""
    title = f"One process's time over two's, {figures['rounds']} turns"
    table = Table("", "median", "turns", title=title, box=SIMPLE_HEAD, title_justify="left")
    for name in ("search", "training"):
        if found := figures[name]:
            table.add_row(name, f"{found['ratio']:.2f}", ", ".join(f"{one:.2f}" for one in found["ratios"]))
    show(table)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bin/bench scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--evaluations", type=int, default=16, help="of a search")
    parser.add_argument("--images", type=int, default=64, help="of an evaluation")
    parser.add_argument("--steps", type=int, default=60, help="of a training")
    parser.add_argument("--batch", type=int, default=16, help="images of a step")
    parser.add_argument("--scenes", type=int, default=400, help="that are drawn")
    parser.add_argument("--quick", action="store_true", help="one turn, little work: the start is most of the time")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.evaluations, options.images = 1, 2, 4
        options.steps, options.batch, options.scenes = 2, 4, 16
    if min(options.rounds, options.images, options.steps, options.batch) < 1 or options.evaluations < 2:
        parser.error("numbers must be 1 or more, and --evaluations 2 or more")
    return options


def main() -> None:
    """Parse, run, report."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(options, Path(folder))
    show_figures(figures)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
