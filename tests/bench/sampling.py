"""The sampling rules of a supernet's training: the AP of 30 subnets after each, at equal images and at equal time.

The nano supernet is trained from the shipped weights on drawn scenes, by the recipe 'nano'. 'Equal images' gives the
sandwich rule as many steps as uniform sampling, each of which costs several passes; 'equal time' as many as take
uniform sampling's time, by the cost of a step that is measured first, both rules in turn on the same batches. The 30
subnets are drawn before anything is trained, ten from each third of the space by MACs; each is evaluated as a search
does it, on scenes that no weight was trained on. Seeds change the order of the images, their augmentation and the
subnets; the images and the weights at the start stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

import ofa_pose
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import spec_macs
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.data.loader import Batch, training_batches
from ofa_pose.data.transforms import Augmentation
from ofa_pose.models.elastic import Supernet
from ofa_pose.recipe import LossSettings, SearchSettings, TrainSettings, load_recipe
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.train.objectives import SandwichSampling, UniformSampling
from ofa_pose.train.updates import backpropagate, make_optimizer, update
from ofa_pose.utils.console import say, show
from ofa_pose.utils.seeding import generator

SPACE, START, JOINTS = "litepose-nano", "litepose-nano-coco", 17
THIRDS = ("small", "middle", "large")
POOL = 3000  # subnets drawn, of which the thirds are made
TIMED_STEPS = 12  # of each rule


def choose_subnets(space: SearchSpace, count: int) -> dict[str, list[ArchSpec]]:
    """`count` subnets, as many of each third of the space by MACs; the same ones always."""
    rng = generator(0, "subnets of the benchmark")
    drawn = list(dict.fromkeys(space.decode(space.sample(rng), JOINTS) for _ in range(POOL)))
    drawn.sort(key=lambda spec: spec_macs(spec).thop)
    parts = np.array_split(np.arange(len(drawn)), len(THIRDS))
    each = count // len(THIRDS)
    return {
        name: [drawn[i] for i in sorted(rng.choice(part, each, replace=False))]
        for name, part in zip(THIRDS, parts, strict=True)
    }


def step_cost(data: Path, batch: int, count: int, steps: int = TIMED_STEPS) -> float:
    """How many uniform steps a sandwich step takes, by the sums over the same batches, the rules in turn."""
    space, losses, settings = load_space(SPACE), LossSettings(), TrainSettings()
    nets = [make_supernet(space) for _ in range(2)]
    rules = [UniformSampling(nets[0], 0, losses), SandwichSampling(nets[1], 0, losses, count)]
    optimizers = [make_optimizer(net, settings) for net in nets]
    dataset = load_dataset(data / "annotations.json", data / "images").with_people()
    batches = training_batches(dataset, batch, 0, rules[0].resolution, 0, steps, Augmentation())
    seconds = [0.0, 0.0]
    for step, one in enumerate(batches):
        for number, (rule, optimizer) in enumerate(zip(rules, optimizers, strict=True)):
            seconds[number] += timed_step(rule, optimizer, one, step)
    return seconds[1] / seconds[0]


def make_supernet(space: SearchSpace) -> Supernet:
    """A supernet that is about to be trained; its weights do not matter to the time a step takes."""
    net: Any = Supernet(space, JOINTS).train()
    return net.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def timed_step(rule: Any, optimizer: Any, batch: Batch, step: int) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    update(rule.network, optimizer, backpropagate(rule.loss(batch, step)), 1.0)
    return time.perf_counter() - start


def train(folder: Path, name: str, steps: int, seed: int, options: argparse.Namespace, *more: str) -> Path:
    """Train a supernet as the command does; returns its last checkpoint."""
    overrides = [f"train.steps={steps}", f"train.evaluate_every={steps}", f"train.checkpoint_every={steps}"]
    overrides += [f"train.batch={options.batch}", "train.evaluate_images=8", "decode.calibrate=false", *more]
    overrides += [f"train.workers={options.workers}"]
    for split in ("train", "val"):
        data = folder / "data" / ("train" if split == "train" else "search")
        overrides += [f"data.{split}.annotations={data / 'annotations.json'}", f"data.{split}.images={data / 'images'}"]
    out = folder / f"{name.replace(' ', '-')}-{seed}"
    ofa_pose.train_supernet(out, recipe="nano", init=START, overrides=overrides, seed=seed, device="cpu")
    return out / "checkpoints" / "last.pt"


def evaluate(
    folder: Path, checkpoint: Path, subnets: Mapping[str, Sequence[ArchSpec]], images: int
) -> dict[str, list[float]]:
    """The AP of every subnet, by third."""
    found = load_checkpoint(checkpoint, kind="supernet")
    supernet = found.build()
    assert isinstance(supernet, Supernet)
    train, search = (
        load_dataset(folder / "data" / name / "annotations.json", folder / "data" / name / "images")
        for name in ("train", "search")
    )
    settings = SearchSettings(images=images, calibration_images=64)
    decode = load_recipe("search", "nano")[0].decode.config()
    evaluator = SubnetEvaluator(supernet, train.with_people(), search, settings, decode=decode)
    return {
        third: [evaluator.evaluate(spec).metrics["AP"] or 0.0 for spec in specs] for third, specs in subnets.items()
    }


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    write_dataset(folder / "data" / "train", options.train_images, options.size, "coco", seed=11)
    write_dataset(folder / "data" / "search", options.images, options.size, "coco", seed=12)
    subnets = choose_subnets(load_space(SPACE), options.subnets)
    cost = step_cost(folder / "data" / "train", options.batch, options.sandwich)
    say(f"a step of the sandwich rule takes the time of {cost:.2f} uniform ones")
    sandwich = ("train.sampling=sandwich", f"train.sandwich={options.sandwich}")
    ways: dict[str, tuple[int, tuple[str, ...]]] = {
        "uniform": (options.steps, ()),
        "sandwich, equal time": (max(1, round(options.steps / cost)), sandwich),
        "sandwich, equal images": (options.steps, sandwich),
    }
    rows: dict[str, Any] = {}
    for name, (steps, more) in ways.items():
        seeds = []
        for seed in range(options.seeds):
            checkpoint = train(folder, name, steps, seed, options, *more)
            seeds.append(evaluate(folder, checkpoint, subnets, options.images))
        rows[name] = {"steps": steps, **summarise(seeds)}
        say(f"{name}: {rows[name]['AP']['all']}")
    about = {name: getattr(options, name) for name in ("steps", "batch", "seeds", "sandwich", "images", "train_images")}
    return {**about, "step_cost": round(cost, 2), "subnets": options.subnets, "ways": rows}


def summarise(seeds: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """The mean AP of all subnets and of each third over the seeds, and the spread of the seeds' means."""
    found: dict[str, Any] = {"AP": {}, "APs": [dict(one) for one in seeds]}
    for part in ("all", *THIRDS):
        means = [float(np.mean([ap for t, aps in one.items() if part in ("all", t) for ap in aps])) for one in seeds]
        spread = round(float(np.std(means, ddof=1)), 4) if len(means) > 1 else None
        found["AP"][part] = {"mean": round(float(np.mean(means)), 4), "spread": spread}
    return found


def show_figures(figures: Mapping[str, Any]) -> None:
    """The table, on stderr."""
    title = f"AP of {figures['subnets']} subnets, {figures['seeds']} seeds (± their standard deviation)"
    table = Table("rule", "steps", "images", "all", *THIRDS, title=title, box=SIMPLE_HEAD, title_justify="left")
    for name, row in figures["ways"].items():
        cells = [_text(row["AP"][part]) for part in ("all", *THIRDS)]
        table.add_row(name, str(row["steps"]), str(row["steps"] * figures["batch"]), *cells)
    show(table)


def _text(found: Mapping[str, float | None]) -> str:
    spread = "" if found["spread"] is None else f" ± {found['spread']:.4f}"
    return f"{found['mean']:.4f}{spread}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bin/bench sampling", description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="of uniform sampling")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sandwich", type=int, default=2, help="random subnets in a sandwich")
    parser.add_argument("--subnets", type=int, default=30, help="that are evaluated")
    parser.add_argument("--images", type=int, default=200, help="that they are evaluated on")
    parser.add_argument("--train-images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=192, help="of the scenes, in pixels")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images; 0: one process does all")
    parser.add_argument("--out", type=Path, help="keep the scenes and the runs here; scenes that are there are used")
    parser.add_argument("--quick", action="store_true", help="a run of a minute: few steps, images and subnets")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.batch, options.seeds, options.subnets = 4, 4, 1, 3
        options.images, options.train_images, options.size = 8, 16, 128
    counts = ("steps", "batch", "seeds", "sandwich", "images", "train_images")
    if min(getattr(options, name) for name in counts) < 1 or options.subnets < len(THIRDS):
        parser.error(f"numbers must be 1 or more, and --subnets {len(THIRDS)} or more")
    return options


def main() -> None:
    """Parse, run, report."""
    options = parse()
    if options.out:
        figures = run(options, options.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = run(options, Path(folder))
    show_figures(figures)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
