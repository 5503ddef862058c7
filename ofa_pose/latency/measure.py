"""Measuring on the runtimes of this machine: a latency table built or verified; one network's speed and memory."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_pose.arch.plan import Apply, Layer, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.folding import NetPart, whole
from ofa_pose.backends.on_device import Run, time_runs, visit
from ofa_pose.backends.runners import INPUT
from ofa_pose.backends.runtimes import find_backend, make_runner
from ofa_pose.families.table import build_net
from ofa_pose.latency.latency_table import Header, LatencyTable
from ofa_pose.latency.pieces import Part, Subject, piece_part, plan_parts, table_subjects
from ofa_pose.latency.predictor import Predictor
from ofa_pose.models.litepose import LitePose, Unit, make_layer
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.utils import atomic
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.ranking import draw_comparisons, kendall, spearman
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import alone_on
from ofa_pose.utils.seeding import generator

SAVE_S = 5.0
ROUNDS = 5  # of a verification
WARM_UP = 5
LEAST_S = 1.0  # what is timed goes on so long at least
BATCH = 8


@dataclass(frozen=True)
class Device:
    """A runtime of this machine: `load(subject)()` computes a piece or a network once, at batch 1, in `threads`."""

    runtime: str  # name and version
    threads: int
    prepare: Callable[[NetPart, int], Run]

    def load(self, subject: Subject | NetSpec) -> Run:
        """Make it runnable, with random weights, on random inputs. Raises InputError where the runtime cannot."""
        return self.prepare(net_part(subject), self.threads)


def open_device(backend: str, threads: int) -> Device:
    """The device of a --backend.

    Raises InputError where there is none, its package is missing, or threads would wait for each other's processors.
    """
    record = find_backend(backend)
    if threads > (there := on_device.processors()):
        raise InputError(f"{threads} threads on {there} processors", hint=f"measure at most {there}")
    on_device.keep_memory()
    assert record.prepare
    version = on_device.runtime_module(record.packages[0]).__version__.split("-")[0]
    return Device(f"{backend} {version}", threads, record.prepare)


def net_part(subject: Subject | NetSpec) -> NetPart:
    """A piece or a whole network with random weights, always the same."""
    rng = torch.Generator().manual_seed(0)
    if isinstance(subject, NetSpec):
        return whole(build_net(subject, rng).eval().requires_grad_(False))
    part = piece_part(subject)
    names = {"stem": (INPUT,), "block": ("x",)}.get(subject.kind, ("x.0", "x.1"))
    inputs = {name: (layer.cin, layer.side_in) for name, layer in zip(names, part.reads, strict=False)}
    net, outputs = PieceNet(part, rng), {"y": part.layers[-1].cout}
    inner = {*inputs, *(() if subject.kind == "output" else outputs)} - {INPUT}
    return NetPart(net, inputs, outputs, net.walk, frozenset(inner))


class PieceNet(nn.Module):
    """A part of a network as a module in eval mode."""

    def __init__(self, part: Part, rng: torch.Generator) -> None:
        super().__init__()
        self.part = part
        for layer in part.layers:
            unit = make_layer(layer)
            self.add_module(layer.name.replace(".", "_"), unit)
            if layer.kind != "norm":
                LitePose.init_conv(layer, unit.conv.weight, rng)
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """The output for inputs (B, channels, side, side); an image is normalised already."""
        return self.walk(lambda layer, x: self.unit(layer)(x), *inputs)

    def unit(self, layer: Layer) -> Unit:
        """The modules of one layer."""
        return getattr(self, layer.name.replace(".", "_"))

    def walk(self, apply: Apply, *inputs: Any) -> tuple[Any]:
        """Compute the part with `apply(layer, input)`."""
        return (self.part.run(inputs[0], inputs[-1], apply),)


def build_table(
    path: Path, space: SearchSpace, joints: int, backend: str, threads: int, share: float, rounds: int, resume: bool
) -> LatencyTable:
    """See `ofa_pose.latency_build`; the table is written as it grows. Raises InputError where another process does."""
    atomic.check_folder(path.parent)
    device = open_device(backend, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_on(path):
        machine = (on_device.cpu_name(), os.cpu_count() or 1, on_device.today())
        header = Header(space, joints, backend, device.runtime, threads, *machine, share, rounds)
        return _measured(path, header, device, resume)


def _measured(path: Path, header: Header, device: Device, resume: bool) -> LatencyTable:
    space, joints, rounds = header.space, header.joints, header.rounds
    table = LatencyTable(header)
    if path.exists():
        if not resume:
            raise InputError("exists already", path, "add --resume to go on with it, or name another file")
        table = LatencyTable.load(path)
        if differing := ", ".join(table.header.differing(header)):
            raise InputError(f"is a table with other settings ({differing})", path, "name another file")
    subjects = table_subjects(space, joints, header.share)
    done, saved = sum(len(table.ratios.setdefault(subject, [])) for subject in subjects), time.monotonic()
    try:
        with progress("latency", rounds * len(subjects), "timings", done) as meter:
            anchor: Subject = space.smallest(joints)
            for new in on_device.sweep(device.load, header.threads, anchor, table.anchor, table.ratios, rounds):
                meter.step(len(new), f"anchor {table.anchor[-1]:.2f} ms")
                if time.monotonic() - saved > SAVE_S:
                    table.save(path)
                    saved = time.monotonic()
    finally:
        if table.anchor:
            table.save(path)
    return table


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
        images_per_s: of batches of 8, from uint8 images; None of a network that finds no poses here.
        memory_mb: the most that the process took for network and run, over what it had before; None where the system
            does not say.
        parts: in the order of execution; none of a network without a layer plan.
    """

    backend: str
    runtime: str
    threads: int
    median_ms: float
    p90_ms: float
    images_per_s: float | None
    memory_mb: float | None
    parts: list[PartTime]


def measure_network(spec: NetSpec, backend: str, threads: int = 1, repeats: int = 30) -> NetworkTime:
    """Time a network with random weights on this machine's CPU, as latency tables do: without pre- or post-processing.

    At least `repeats` runs are timed, batch 1, and for at least a second. Raises InputError, as `open_device` does.
    """
    check_square(spec)
    device = open_device(backend, threads)
    before = _memory("VmRSS", reset=True)
    middle, p90 = np.percentile(_times(device.load(spec), repeats), (50, 90)).round(3).tolist()
    peak = _memory("VmHWM") if before is not None else None
    memory = None if before is None or peak is None else round(max(peak - before, 0) / 1024, 1)
    net, throughput = build_net(spec), None
    if isinstance(net, PoseNet):
        size, runner = (BATCH, spec.resolution, spec.resolution, 3), make_runner(net, backend, threads)
        images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        throughput = round(BATCH / float(np.median(_times(lambda: runner(images), 3))) * 1e3, 2)
    parts = plan_parts(make_plan(spec)) if isinstance(spec, ArchSpec) else []
    ms = {piece: visit(device.load(piece), threads) for piece in dict.fromkeys(part.piece for part in parts)}
    total = sum(ms[part.piece] for part in parts)
    times = [PartTime(part.name, round(ms[part.piece], 4), round(ms[part.piece] / total, 4)) for part in parts]
    return NetworkTime(backend, device.runtime, threads, middle, p90, throughput, memory, times)


def check_square(spec: NetSpec) -> None:
    """Raise InputError where a network's input is not square."""
    if len({*spec.input_size}) > 1:
        height, width = spec.input_size
        raise InputError(f"the input of {spec} is {height}×{width}: only square ones are measured")


def _times(run: Run, repeats: int) -> list[float]:
    """Milliseconds of each run."""
    return time_runs(run, repeats, math.inf, LEAST_S, WARM_UP)


def _memory(name: str, reset: bool = False) -> int | None:
    """A line of /proc/self/status, in kB, its peak of memory perhaps forgotten first; None where there is none."""
    with suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        found = re.search(rf"^{name}:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1]) if found else None
    return None


@dataclass(frozen=True)
class Verification(Result):
    """Networks measured whole and predicted.

    Attributes:
        measured, predicted: milliseconds; the machine's drift since the table was built is divided out of `measured`.
        drift: how many times as long the table's own networks take now.
    """

    specs: list[ArchSpec]
    measured: NDArray[np.float64]
    predicted: NDArray[np.float64]
    drift: float

    @property
    def errors(self) -> NDArray[np.float64]:
        """(nets,): relative errors of what was predicted."""
        return self.predicted / self.measured - 1

    def to_dict(self) -> dict[str, Any]:
        """{'spearman', 'kendall' (null where all are alike), 'mape' (a share, not per cent), 'nets', 'drift'}"""
        rho, tau = spearman(self.measured, self.predicted), kendall(self.measured, self.predicted)
        mape = float(np.abs(self.errors).mean())
        return {"spearman": rho, "kendall": tau, "mape": mape, "nets": len(self.specs), "drift": self.drift}


def random_nets(space: SearchSpace, joints: int, own: Container[ArchSpec], count: int, seed: int) -> list[ArchSpec]:
    """At most `count` random networks of a space, different, none of a table's `own`."""
    rng, found = generator(seed, "latency", "verify"), dict[ArchSpec, None]()
    for _ in range(100 * count):
        spec = space.decode(space.sample(rng), joints)
        if spec not in own:
            found[spec] = None
        if len(found) == count:
            break
    return list(found)


def verify(table: LatencyTable, device: Device, specs: Sequence[ArchSpec], rounds: int = ROUNDS) -> Verification:
    """Measure networks whole, among the table's own, and predict them. Raises InputError if the table is incomplete."""
    predictor, header = Predictor(table), table.header
    now = LatencyTable(header, [], {spec: [] for spec in [*table.nets, *specs]})
    with progress("latency verify", rounds * len(now.ratios), "timings") as meter:
        anchor: Subject = header.space.smallest(header.joints)
        for new in on_device.sweep(device.load, device.threads, anchor, now.anchor, now.ratios, rounds):
            meter.step(len(new))
    drift = median(now.ms(spec) / ms for spec, ms in table.nets.items())
    return compare(predictor, {spec: now.ms(spec) for spec in specs}, drift)


def compare(predictor: Predictor, ms: Mapping[ArchSpec, float], drift: float = 1.0) -> Verification:
    """What networks took, and what is predicted of them."""
    measured, predicted = np.array([(taken / drift, predictor.predict_ms(spec)) for spec, taken in ms.items()]).T
    return Verification(list(ms), measured, predicted, drift)


def draw(path: str | Path, found: Verification, title: str) -> None:
    """Write a picture (PNG, or by the suffix SVG or PDF): predicted over measured, and where they are equal."""
    figures = found.to_dict()
    rho = "unknown" if figures["spearman"] is None else f"{figures['spearman']:.3f}"
    label = f"Spearman {rho}, mean error {figures['mape']:.1%}"
    panel = ("measured, ms", "predicted from the table, ms", {label: found.predicted})
    draw_comparisons(path, found.measured, [panel], title)
