"""How fast one network is on a backend of this machine, how much memory it takes, and where its time goes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_pose.arch.plan import Plan, make_plan
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.on_device import Run, time_runs, visit
from ofa_pose.backends.runtimes import make_runner
from ofa_pose.latency.measure import open_device
from ofa_pose.latency.pieces import Piece, plan_parts
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.result import Result

WARM_UP = 5
LEAST_S = 1.0  # what is timed goes on so long at least
BATCH = 8


@dataclass(frozen=True)
class PartTime(Result):
    """A part of a network: its name, its milliseconds alone (the fastest of a few runs), and its share of all parts."""

    name: str
    ms: float
    share: float


@dataclass(frozen=True)
class NetworkTime(Result):
    """How fast a network is on a runtime of this machine.

    Attributes:
        backend, runtime, threads: what ran it: its name, name and version, and the threads of a run.
        median_ms, p90_ms: of wall time, one image.
        images_per_s: of batches of 8, from uint8 images.
        memory_mb: the most that the process took for network and run, over what it had before; None where the system
            does not say.
        parts: in the order of execution.
    """

    backend: str
    runtime: str
    threads: int
    median_ms: float
    p90_ms: float
    images_per_s: float
    memory_mb: float | None
    parts: list[PartTime]


def measure_network(spec: ArchSpec, backend: str, threads: int = 1, repeats: int = 30) -> NetworkTime:
    """Time a network with random weights on this machine's CPU, as latency tables do: without pre- or post-processing.

    Raises InputError, as `open_device` does.

    Args:
        threads: of one run.
        repeats: at least so many runs are timed, batch 1, and for at least a second.
    """
    device = open_device(backend, threads)
    before = _reset_peak()  # this and the peak are None where the system does not tell them
    median, p90 = np.percentile(_times(device.load(spec), repeats), (50, 90)).round(3).tolist()
    peak = _memory("VmHWM") if before is not None else None
    memory = None if before is None or peak is None else round(max(peak - before, 0) / 1024, 1)
    runner, size = make_runner(LitePose(spec), backend, threads), (BATCH, spec.resolution, spec.resolution, 3)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    throughput = round(BATCH / float(np.median(_times(lambda: runner(images), 3))) * 1e3, 2)
    parts = _parts(make_plan(spec), lambda piece: visit(device.load(piece), threads))
    return NetworkTime(backend, device.runtime, threads, median, p90, throughput, memory, parts)


def _parts(plan: Plan, measure: Callable[[Piece], float]) -> list[PartTime]:
    parts = plan_parts(plan)
    ms = {piece: measure(piece) for piece in dict.fromkeys(part.piece for part in parts)}
    total = sum(ms[part.piece] for part in parts)
    return [PartTime(part.name, round(ms[part.piece], 4), round(ms[part.piece] / total, 4)) for part in parts]


def _times(run: Run, repeats: int) -> list[float]:
    """Milliseconds of each run."""
    return time_runs(run, repeats, math.inf, LEAST_S, WARM_UP)


def _reset_peak() -> int | None:
    """Forget the process's peak of memory; what it takes now, in kB. None where the system cannot do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    return None


def _memory(name: str) -> int | None:
    """A line of /proc/self/status, in kB."""
    with suppress(OSError):
        found = re.search(rf"^{name}:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1]) if found else None
    return None
