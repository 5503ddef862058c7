"""A supernet's training step, and the loader that feeds it, beside plainly written ones: how many times as fast.

The step: forward, targets, losses, backward, clipping and the optimiser, of one subnet in the weights of the largest;
the other is `plain_training`'s, after the LitePose repository. The loader: augmented samples from photos, in one
process; beside the plain one, and beside decoding the same files whole, which is the most that a loader can reach that
does so. All take turns in one process, and what is said are medians of the ratios of each turn: a shared machine slows
both. A loader's time is the processor's, and so is a step's in one thread; milliseconds and samples a second are of the
fastest turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.data.loader import Batch, normalise, training_batches
from ofa_pose.data.transforms import Augmentation, sample_affine, training_sample
from ofa_pose.models.elastic import Supernet
from ofa_pose.recipe import LossSettings, TrainSettings
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.train.objectives import label_losses
from ofa_pose.train.updates import backpropagate, make_optimizer, update
from ofa_pose.utils.console import show
from ofa_pose.utils.seeding import generator
from tests.bench.plain_training import PlainSupernet, plain_sample, plain_step

PHOTOS = Path(__file__).resolve().parents[3] / "shared/data/coco_mini"
WAYS = ("ours", "plain")


def half_width(space: SearchSpace, joints: int) -> ArchSpec:
    """The subnet in the middle of every choice: of LitePose's space half of every width."""
    return space.decode([(len(choices) - 1) // 2 for choices in space.choices], joints)


def make_batch(count: int, side: int, joints: int, people: int = 4, seed: int = 0) -> Batch:
    """Random pixels with joints anywhere: what is in the images does not matter to the time a step takes."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    places = rng.uniform(0, side, (count, people, joints, 2))
    keypoints = np.concatenate([places, rng.integers(0, 3, (count, people, joints, 1))], axis=-1).astype(np.float32)
    mask = torch.ones(count, side // 2, side // 2, dtype=torch.uint8)
    return Batch(images, torch.from_numpy(keypoints), mask, side)


def make_steps(space: SearchSpace, spec: ArchSpec, batch: Batch) -> dict[str, Callable[[], float]]:
    """One training step of each way, with a network and an optimiser of its own; each gives its loss."""
    settings, losses = TrainSettings(), LossSettings()
    supernet = Supernet(space, spec.joints, torch.Generator().manual_seed(0)).train()
    supernet = supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(supernet, settings)

    def ours() -> float:
        low, high = supernet(normalise(batch.images), spec)
        optimizer.zero_grad(set_to_none=True)
        found = backpropagate(label_losses(low, high, batch, losses))
        return update(supernet, optimizer, found, settings.clip).read()["loss"]

    plain = PlainSupernet(space, spec.joints)
    plain.load_state_dict(supernet.state_dict())
    adam = torch.optim.Adam(plain.parameters(), lr=settings.lr)

    def reference() -> float:
        images = normalise(batch.images).contiguous()
        return plain_step(plain, adam, images, batch.keypoints.numpy(), batch.mask, spec)

    return {"ours": ours, "plain": reference}


def take_turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way, in turn, after one turn that warms up; see `ratio`."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    """How many times as fast one way is as the other: the median over the turns, and the middle half's ends."""
    low, median, high = np.percentile(np.divide(seconds[slow], seconds[fast]), (25, 50, 75))
    return {"median": round(float(median), 2), "low": round(float(low), 2), "high": round(float(high), 2)}


def measure_step(rounds: int, batch: int, side: int, joints: int) -> dict[str, Any]:
    """Our step beside the plain one: half the widths of LitePose's space."""
    space = load_space("litepose")
    spec = half_width(space, joints)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = take_turns(make_steps(space, spec, make_batch(batch, side, joints)), rounds, clock)
    best = {name: round(min(values) * 1e3, 1) for name, values in seconds.items()}
    return {
        "net": str(spec),
        "batch": batch,
        "side": side,
        "ms": best,
        "times_as_fast": ratio(seconds, "plain", "ours"),
    }


def find_photos(folder: Path) -> tuple[str, KeypointDataset]:
    """COCO's photos where they are, else drawn scenes of their size, as JPEGs."""
    if PHOTOS.is_dir():
        annotations = sorted((PHOTOS / "annotations").glob("*train*.json"))[0]
        images = next(path for path in sorted((PHOTOS / "images").iterdir()) if "train" in path.name)
        return "COCO's photos", load_dataset(annotations, images).with_people()
    write_dataset(folder, 24, 480, "coco", seed=5)
    return "drawn scenes", load_dataset(folder / "annotations.json", folder / "images").with_people()


def measure_loader(dataset: KeypointDataset, rounds: int, side: int, samples: int) -> dict[str, Any]:
    """Our samples beside plain ones, without and with targets, and beside decoding alone; each turn new samples."""
    augmentation = Augmentation()
    joints, skeleton, count = len(dataset.skeleton.joints), dataset.skeleton, len(dataset.images)
    epochs = {"ours": 0, "plain": 0, "plain, with targets": 0, "decoding": 0}

    def chosen(name: str) -> list[tuple[int, int]]:
        first = epochs[name] * samples
        epochs[name] += 1
        return [divmod(number, count) for number in range(first, first + samples)]

    def ours() -> None:
        for epoch, index in chosen("ours"):
            training_sample(0, epoch, index, dataset.images[index], side, skeleton, augmentation)

    def plain(name: str, targets: bool) -> None:
        for epoch, index in chosen(name):
            record, rng = dataset.images[index], generator(0, "augment", epoch, index)
            matrix, _ = sample_affine(rng, record.width, record.height, side, augmentation)
            plain_sample(str(record.path), matrix, side, record.keypoints, joints, targets)

    def decoding() -> None:
        for _, index in chosen("decoding"):
            cv2.imread(str(dataset.images[index].path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)

    names = {"plain": False, "plain, with targets": True}
    ways = {name: lambda name=name, targets=targets: plain(name, targets) for name, targets in names.items()}
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in a loader's process
    seconds = take_turns({"ours": ours, **ways, "decoding": decoding}, rounds, time.process_time)
    cv2.setNumThreads(before)
    return {
        "samples_a_second": {name: round(samples / min(values), 1) for name, values in seconds.items()},
        "times_as_fast": {name: ratio(seconds, name, "ours") for name in ("plain", "plain, with targets", "decoding")},
    }


def measure_workers(dataset: KeypointDataset, side: int, workers: int, steps: int) -> float:
    """Samples a second of batches of 16 from so many processes, once they have begun."""
    batches = training_batches(dataset, 16, 0, lambda _: side, 0, steps + workers, Augmentation(), workers)
    for _ in range(workers):
        next(batches)
    start = time.perf_counter()
    count = sum(len(batch.images) for batch in batches)
    return round(count / (time.perf_counter() - start), 1)


def show_figures(figures: Mapping[str, Any]) -> None:
    """The tables, on stderr."""
    step, loader = figures["step"], figures["loader"]
    title = f"A step: {step['net']}, {step['batch']} images of {step['side']} pixels, {figures['threads']} threads"
    table = Table("", "ms", "times as fast", title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_row("ours", f"{step['ms']['ours']:.1f}", _spread(step["times_as_fast"]))
    table.add_row("plain", f"{step['ms']['plain']:.1f}", "")
    show(table)
    title = f"Samples of {figures['side']} pixels: {figures['photos']}, one process"
    table = Table(
        "", "a second of a processor", "ours is times as fast", title=title, box=SIMPLE_HEAD, title_justify="left"
    )
    for name, rate in loader["samples_a_second"].items():
        ours = loader["times_as_fast"].get(name)
        table.add_row(name, f"{rate:.0f}", _spread(ours) if ours else "")
    table.add_row(f"ours, {figures['workers']} workers, by the clock", f"{loader['workers']:.0f}", "")
    show(table)


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="bin/bench train", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each way")
    parser.add_argument("--batch", type=int, default=4, help="images of a step")
    parser.add_argument("--side", type=int, default=256, help="of an image, in pixels")
    parser.add_argument("--joints", type=int, default=14)
    parser.add_argument("--samples", type=int, default=40, help="of a turn of the loaders")
    parser.add_argument("--workers", type=int, default=2, help="processes of the loader's last line")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--quick", action="store_true", help="two turns, small images")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.side, options.batch, options.samples = 2, 96, 2, 8
    if min(options.rounds, options.batch, options.side, options.joints, options.samples, options.threads) < 1:
        parser.error("numbers must be 1 or more")
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    torch.set_num_threads(options.threads)
    step = measure_step(options.rounds, options.batch, options.side, options.joints)
    with tempfile.TemporaryDirectory() as folder:
        photos, dataset = find_photos(Path(folder) / "scenes")
        loader = measure_loader(dataset, options.rounds, options.side, options.samples)
        steps = 2 if options.quick else 40
        loader["workers"] = measure_workers(dataset, options.side, options.workers, steps)
    about = {"threads": options.threads, "side": options.side, "workers": options.workers, "photos": photos}
    return {**about, "step": step, "loader": loader}


def main() -> None:
    """Parse, run, report."""
    options = parse()
    figures = run(options)
    show_figures(figures)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
