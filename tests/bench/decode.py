"""Pose decoding: how long it takes beside the network, and how well it does. A row per decoder, then accuracy.

The reference is LitePose's code as `decode_litepose` has it, step by step; 'plain loops' is what our decoder promises,
written out joint by joint; 'XS, eager' is one forward pass of the smallest published net, batch 1, in eager torch.
All is timed in one run, image by image and in turn, with the threads that torch and OpenCV take by themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.arch.presets import load_spec
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import decode
from ofa_pose.pose.litepose_decode import decode_litepose
from ofa_pose.utils.console import show
from ofa_pose.utils.errors import InputError
from tests.bench import oracle, shared_oracle
from tests.bench.accuracy import Decoder, Results, Source, by_condition, by_refinement, limits, make_conditions
from tests.bench.plain_decode import plain_decode

NET = "litepose-xs"
EAGER = "XS, eager"
OURS, PLAIN, REFERENCE = "ours", "plain loops", "reference"


@dataclass
class Row:
    """What one decoder, or the network, did: seconds of each image, and results entries."""

    decoder: Decoder | None
    images: int
    seconds: list[float] = field(default_factory=list)
    results: Results = field(default_factory=list)


def make_forward() -> Callable[[], object]:
    """One forward pass of the smallest published net, batch 1, eager torch with random weights."""
    spec = load_spec(NET)
    generator = torch.Generator().manual_seed(0)
    net = LitePose(spec, generator).eval()
    image = torch.randn(1, 3, spec.resolution, spec.resolution, generator=generator)

    @torch.inference_mode()
    def forward() -> object:
        return net(image)

    return forward


def time_decoders(source: Source, reference_images: int, plain_images: int) -> dict[str, Row]:
    """Decode every image with each decoder in turn, from the arrays to poses in image pixels, and run the network."""
    count = len(source.truth.images)
    rows = {OURS: Row(decode, count), PLAIN: Row(plain_decode, plain_images)}
    rows |= {REFERENCE: Row(decode_litepose, reference_images), EAGER: Row(None, count)}
    forward = make_forward()
    for number, (image, output) in enumerate(source.outputs("timing")):
        if number == 0:  # first calls choose kernels and allocate
            for _ in range(3):
                forward()
                source.results(decode, image, output)
        for row in rows.values():
            if number >= row.images:
                continue
            start = time.perf_counter()
            if row.decoder is None:
                forward()
            else:
                row.results += source.results(row.decoder, image, output)
            row.seconds.append(time.perf_counter() - start)
    return rows


def summarise(rows: Mapping[str, Row], source: Source, reference_images: int) -> dict[str, dict[str, Any]]:
    """Each row's figures. Decoders are compared on the images that both decoded; ms are of all images of a row."""
    reference = rows[REFERENCE].seconds
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        median, p90 = np.percentile(row.seconds, (50, 90))
        common = min(len(row.seconds), len(reference))
        found[name] = {
            "images": len(row.seconds),
            "ap": source.take(row.images).truth.score(row.results) if row.decoder else None,
            "ap_common": None,
            "median_ms": round(float(median) * 1e3, 3),
            "p90_ms": round(float(p90) * 1e3, 3),
            "to_eager": round(float(median / np.median(rows[EAGER].seconds)), 4),
            "speed_up": round(float(np.median(reference[:common]) / np.median(row.seconds[:common])), 2),
        }
        if row.decoder and len(row.seconds) >= len(reference):
            found[name]["ap_common"] = source.take(reference_images).truth.score(row.results)
    return found


def choose_source(options: argparse.Namespace) -> tuple[Source, Source | None]:
    """The crowds to decode and, for the table of conditions, others. Raises InputError."""
    settings = {"resolution": options.resolution}
    if options.shared and not shared_oracle.is_there():
        raise InputError("is not here", shared_oracle.TOOL, "leave out --shared")
    shared = options.shared or (options.shared is None and not options.annotations and shared_oracle.is_there())
    maker = shared_oracle.make_output if shared else oracle.make_output
    if options.annotations or shared:
        path = options.annotations or shared_oracle.CROWDS
        truth, name = oracle.load_truth(path), f"{path.name}, {'shared' if shared else 'our'} outputs"
    else:
        truth, name = oracle.draw_crowds(options.images), "drawn crowds, our outputs"
    source = Source(name, truth.take(slice(options.images)), maker, settings)
    more = None
    if shared and not options.annotations and not options.quick and shared_oracle.MORE_CROWDS.is_file():
        everything = oracle.load_truth(shared_oracle.MORE_CROWDS)
        used = {image["id"] for image in truth.images}
        other = [i for i, image in enumerate(everything.images) if image["id"] not in used]
        chosen = np.sort(np.random.default_rng(0).permutation(other)[: options.more_images]).tolist()
        more = Source(f"{len(chosen)} other images of it", everything.take(chosen), maker, settings)
    return source, more


def show_figures(figures: Mapping[str, Any]) -> None:
    """The tables, on stderr."""
    first = figures["decoders"][REFERENCE]["images"]
    columns = ("", "images", "AP", f"AP first {first}", "ms", "p90 ms", "/ forward", "× as fast")
    body = [
        (name, row["images"], row["ap"], row["ap_common"], row["median_ms"], row["p90_ms"], row["to_eager"])
        + (row["speed_up"] if name != EAGER else None,)
        for name, row in figures["decoders"].items()
    ]
    show(_table(f"Decoding: {figures['source']}, {figures['resolution']} px", columns, body))
    show(_table("Places of peaks, by our decoder", ("refinement", "AP"), figures["refinements"].items()))
    head = ("condition", "images", "AP ours", "AP reference")
    show(_table("Other conditions", head, [tuple(row.values()) for row in figures["conditions"]]))
    show(_table("Knowing what was put in", ("decoder", "AP"), figures["limits"].items()))


def _table(title: str, head: Sequence[str], body: Iterable[Sequence[object]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left")
    for row in body:
        table.add_row(*(_text(value, head[index]) for index, value in enumerate(row)))
    return table


def _text(value: object, column: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if column.startswith("AP") else f"{value:.2f}"
    return str(value)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures. Raises InputError."""
    source, more = choose_source(options)
    reference_images = min(options.reference_images, len(source.truth.images))
    rows = time_decoders(source, reference_images, min(options.plain_images, len(source.truth.images)))
    return {
        "source": source.name,
        "resolution": options.resolution,
        "threads": {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads()},
        "decoders": summarise(rows, source, reference_images),
        "refinements": by_refinement(source),
        "conditions": by_condition(make_conditions(source, options.condition_images, more)),
        "limits": limits(source),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; --quick makes the defaults small."""
    parser = argparse.ArgumentParser(prog="bin/bench decode", description=__doc__)
    parser.add_argument("--images", type=int, default=60, help="crowds to decode")
    parser.add_argument("--reference-images", type=int, default=15, help="of them by LitePose's code as well")
    parser.add_argument("--plain-images", type=int, default=5, help="of them by plain loops as well")
    parser.add_argument("--condition-images", type=int, default=20, help="of them under other conditions")
    parser.add_argument("--more-images", type=int, default=100, help="of CrowdPose's val in ../shared/data")
    parser.add_argument("--resolution", type=int, default=512, help="of the inputs")
    parser.add_argument("--annotations", type=Path, help="crowds of a file in COCO's layout")
    parser.add_argument(
        "--shared",
        action=argparse.BooleanOptionalAction,
        help="crowds and outputs of ../shared (the default where it is), or our own on drawn crowds",
    )
    parser.add_argument("--quick", action="store_true", help="a run of some seconds: few images, small inputs")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    options, _ = parser.parse_known_args(arguments)
    if options.quick:
        few = {"images": 4, "reference_images": 2, "plain_images": 1, "condition_images": 1, "resolution": 256}
        parser.set_defaults(**few)
    options = parser.parse_args(arguments)
    for name in ("images", "reference_images", "plain_images", "condition_images", "more_images"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    return options


def main() -> None:
    """Parse, run, report."""
    options = parse()
    try:
        figures = run(options)
    except InputError as error:
        sys.exit(f"error: {error}")
    show_figures(figures)
    if options.json:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
