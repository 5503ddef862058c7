"""How fast one network is on a backend of this machine, how much memory it takes, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ofa_pose.arch.plan import Plan, make_plan
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.factory import make_runner
from ofa_pose.backends.on_device import Run, visit
from ofa_pose.latency.measure import open_device
from ofa_pose.latency.pieces import Piece, plan_pieces
from ofa_pose.models.litepose import LitePose

WARM_UP = 5
LEAST_S = 1.0  # what is timed goes on so long at least
BATCH = 8


def measure_network(spec: ArchSpec, backend: str, threads: int = 1, repeats: int = 30) -> dict[str, Any]:
    """Time a network with random weights on this machine's CPU, as latency tables do: without pre- or post-processing.

    Args:
        threads: of one run.
        repeats: at least so many runs are timed, batch 1, and for at least a second.

    Returns:
        {"backend", "runtime", "threads", "median_ms", "p90_ms" (of wall time, one image), "images_per_s" (batches of 8,
        from uint8 images), "memory_mb" (the most that the process took for network and run, over what it had before;
        None where the system does not tell), "parts": [{"name", "ms" (alone, the fastest of a few runs), "share"}]}.

    Raises:
        InputError: no such backend, or its package is missing.
    """
    device = open_device(backend, threads)
    before = _reset_peak()
    run = device.load(spec)
    times = _times(run, repeats)
    peak = _memory("VmHWM") if before is not None else None
    median, p90 = np.percentile(times, (50, 90)) * 1e3
    return {
        "backend": backend,
        "runtime": device.runtime,
        "threads": threads,
        "median_ms": round(float(median), 3),
        "p90_ms": round(float(p90), 3),
        "images_per_s": round(_throughput(spec, backend, threads), 2),
        "memory_mb": None if before is None or peak is None else round(max(peak - before, 0) / 1024, 1),
        "parts": _parts(make_plan(spec), lambda piece: visit(device.load(piece), threads)),
    }


def parts_table(figures: dict[str, Any]) -> Table:
    """What `measure_network` tells of the parts, for people."""
    table = Table(title=f"Parts, each measured alone: {figures['runtime']}", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("part")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for part in figures["parts"]:
        table.add_row(part["name"], f"{part['ms']:.3f}", f"{part['share']:.1%}")
    return table


def part_names(plan: Plan) -> list[str]:
    """The names of a plan's pieces, in the order of `plan_pieces`; each is the path of its layers."""
    names = ["stem"]
    names += [f"stages.{stage}.{block}" for stage, blocks in enumerate(plan.stages) for block in range(len(blocks))]
    outputs = 0
    for index, step in enumerate(plan.deconv):
        names.append(f"deconv.{index}")
        if step.output:
            names.append(f"outputs.{outputs}")
            outputs += 1
    return names


def _parts(plan: Plan, measure: Callable[[Piece], float]) -> list[dict[str, Any]]:
    pieces = plan_pieces(plan)
    known = {piece: measure(piece) for piece in dict.fromkeys(pieces)}
    total = sum(known[piece] for piece in pieces)
    return [
        {"name": name, "ms": round(known[piece], 4), "share": round(known[piece] / total, 4)}
        for name, piece in zip(part_names(plan), pieces, strict=True)
    ]


def _times(run: Run, repeats: int) -> list[float]:
    """Seconds of each run, after a warm-up."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    while len(times) < repeats or sum(times) < LEAST_S:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _throughput(spec: ArchSpec, backend: str, threads: int) -> float:
    """Images a second."""
    runner = make_runner(LitePose(spec), backend, threads)
    size = (BATCH, spec.resolution, spec.resolution, 3)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return BATCH / float(np.median(_times(lambda: runner(images), 3)))


def _reset_peak() -> int | None:
    """Forget the process's peak of memory; what it takes now, in kB. None where the system cannot do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    return None


def _memory(name: str) -> int | None:
    """A line of /proc/self/status, in kB."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return None
