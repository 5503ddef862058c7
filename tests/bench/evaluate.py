"""A candidate's evaluation: images a second of ours, and of LitePose's own steps, in one run.

Both read the images, run the network on each and its mirror image, decode and score. Ours takes the fastest runtime at
hand; the reference runs eager torch, one image at a time, and decodes as `eval --decoding reference` does. 'XS, eager'
is one forward pass of the smallest published net at 256 pixels, as a measure of the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.arch.presets import spec_from_litepose
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import import_checkpoint
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.data.loader import normalise
from ofa_pose.inference.evaluate import Evaluation, evaluate, make_evaluator, read_inputs
from ofa_pose.inference.fastest import FastestRunner
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.litepose_decode import decode_litepose, litepose_frame, litepose_warp
from ofa_pose.skeleton import COCO
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.console import show
from ofa_pose.utils.files import read_json
from tests.bench.decode import make_forward

SHARED = Path(__file__).resolve().parents[3] / "shared/fixtures/official_pipeline"
REFERENCE_MS, REFERENCE_EAGER_MS = 54.0, 94.0  # that repository's own code on SHARED, and XS on the same machine


class EagerRunner:
    """The network as that repository runs it: eager torch in its default memory format."""

    streams = 1

    def __init__(self, net: LitePose) -> None:
        self._net = net.eval()

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous()
        low, high = self._net(normalise(batch))
        return low.numpy(), high.numpy()


def choose(folder: Path, images: int) -> tuple[str, Checkpoint, KeypointDataset]:
    """The net trained with LitePose's code and its 100 scenes where they are, else the shipped one on drawn scenes."""
    if SHARED.is_dir():
        arch = spec_from_litepose(read_json(SHARED / "arch.json"), 17)
        checkpoint = import_checkpoint(SHARED / "checkpoint.pth.tar", arch, COCO).checkpoint
        dataset = load_dataset(SHARED / "annotations.json", SHARED / "images", None)
        return "official_pipeline", checkpoint, dataset.limit(images)
    write_dataset(folder, images, 192, "coco", seed=7)
    dataset = load_dataset(folder / "annotations.json", folder / "images", None)
    return "drawn scenes", load_checkpoint("litepose-nano-coco"), dataset


def measure(checkpoint: Checkpoint, dataset: KeypointDataset, rounds: int) -> dict[str, Any]:
    """Median milliseconds an image of each way, taken in turn, their AP, and the median of XS's forward passes."""
    evaluator, config = make_evaluator(dataset), checkpoint.decode
    side, net = checkpoint.spec.resolution, checkpoint.build()

    def ours() -> Evaluation:
        runner = FastestRunner("cpu")(net)  # as for every candidate: made anew
        return evaluate(runner, dataset, read_inputs(dataset, side), evaluator, config, flip=True)

    def reference() -> Evaluation:
        inputs = read_inputs(dataset, side, 1, litepose_frame, litepose_warp)
        return evaluate(EagerRunner(net), dataset, inputs, evaluator, flip=True, decoder=decode_litepose)

    ways: dict[str, Callable[[], Evaluation]] = {"ours": ours, "reference": reference}
    forward = make_forward()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    eager: list[float] = []
    figures: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            done = way()
            if number:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / len(dataset))
            figures[name] = {"AP": done.metrics["AP"]}
            for _ in range(5):
                start = time.perf_counter()
                forward()
                eager.append(time.perf_counter() - start)
    for name, values in seconds.items():
        figures[name]["ms"] = round(float(np.median(values)) * 1e3, 3)
    xs = float(np.median(eager)) * 1e3
    figures["xs_eager_ms"] = round(xs, 2)
    figures["times_as_fast"] = round(figures["reference"]["ms"] / figures["ours"]["ms"], 2)
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="bin/bench evaluate", description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    options = parser.parse_args()
    if min(options.images, options.rounds) < 1:
        parser.error("--images and --rounds must be 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        source, checkpoint, dataset = choose(Path(folder), options.images)
        figures = {"source": source, "images": len(dataset), **measure(checkpoint, dataset, options.rounds)}
    if SHARED.is_dir():
        scaled = REFERENCE_MS * figures["xs_eager_ms"] / REFERENCE_EAGER_MS
        figures["times_as_fast_as_scaled"] = round(scaled / figures["ours"]["ms"], 2)
    table = Table("", "AP", "ms an image", title=f"Evaluation with flip test: {source}", box=SIMPLE_HEAD)
    for name in ("ours", "reference"):
        table.add_row(name, f"{figures[name]['AP']:.4f}", f"{figures[name]['ms']:.2f}")
    table.add_row("XS, eager, one forward at 256", "", f"{figures['xs_eager_ms']:.2f}")
    table.add_row("times as fast", "", f"{figures['times_as_fast']:.2f}")
    show(table)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
