"""Measure a latency table: rounds over all pieces and some whole networks of a space, in a new order each."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.console import progress
from ofa_pose.costs.macs import layer_macs
from ofa_pose.errors import InputError
from ofa_pose.latency.measure import Device, open_device, visit
from ofa_pose.latency.pieces import space_pieces, spanning_pieces
from ofa_pose.latency.table import Header, LatencyTable, Samples, Subject
from ofa_pose.seeding import generator

NETS = 20  # whole networks in a table
POOL = 200  # random networks that they are chosen from
BATCH_S = 0.4  # between two visits of the anchor
SAVE_S = 5.0


def build_table(
    path: Path, space: SearchSpace, joints: int, backend: str, threads: int, share: float, rounds: int, resume: bool
) -> LatencyTable:
    """Measure pieces and whole networks of a space into a table, written as it grows.

    Raises:
        InputError: the table exists and `resume` is not given, or it holds something else; a package is missing.
    """
    device = open_device(backend, threads)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    header = Header(
        space, joints, backend, device.runtime, threads, cpu_name(), os.cpu_count() or 1, date, share, rounds
    )
    table = _open(path, header, resume)
    subjects: list[Subject] = [*spanning_pieces(space_pieces(space, joints), share), *reference_nets(space, joints)]
    for subject in subjects:
        table.ratios.setdefault(subject, [])
    done = sum(len(table.ratios[subject]) for subject in subjects)
    saved = time.monotonic()
    try:
        with progress("latency", rounds * len(subjects), "timings", done) as meter:
            for count in sweep(device, space.smallest(joints), table.anchor, table.ratios, rounds):
                meter.step(count, f"anchor {table.anchor[-1]:.2f} ms")
                if time.monotonic() - saved > SAVE_S:
                    table.save(path)
                    saved = time.monotonic()
    finally:
        table.save(path)
    return table


def _open(path: Path, header: Header, resume: bool) -> LatencyTable:
    if not path.exists():
        return LatencyTable(header)
    if not resume:
        raise InputError("exists already", path, "add --resume to go on with it, or name another file")
    table = LatencyTable.load(path)
    if not table.same_task(header):
        old, new = table.header.to_dict(), header.to_dict()
        differing = ", ".join(key for key in new if key != "date" and new[key] != old[key])
        raise InputError(f"is a table with other settings ({differing})", path, "name another file")
    return table


def sweep(device: Device, anchor: ArchSpec, times: list[float], ratios: Samples, rounds: int) -> Iterator[int]:
    """Time every subject of `ratios` until it has `rounds` entries, in place; yields how many are new.

    Args:
        anchor: the small network whose time all others are divided by.
        times: gets every time of the anchor, in milliseconds.
    """
    run = device.load(anchor)
    before = visit(run, device.threads)
    times.append(before)
    for number in range(rounds):
        waiting = [subject for subject, seen in ratios.items() if len(seen) <= number]
        order = generator("latency", number, len(waiting)).permutation(len(waiting))
        for batch in _batches(device, [waiting[index] for index in order]):
            after = visit(run, device.threads)
            times.append(after)
            for subject, ms in batch:
                ratios[subject].append(ms / ((before + after) / 2))
            before = after
            yield len(batch)


def _batches(device: Device, subjects: Sequence[Subject]) -> Iterator[list[tuple[Subject, float]]]:
    """Times of the subjects, in batches that take BATCH_S or one subject."""
    batch, start = [], time.monotonic()
    for subject in subjects:
        batch.append((subject, visit(device.load(subject), device.threads)))
        if time.monotonic() - start > BATCH_S:
            yield batch
            batch, start = [], time.monotonic()
    if batch:
        yield batch


def reference_nets(space: SearchSpace, joints: int, count: int = NETS) -> list[ArchSpec]:
    """Networks that span a space: its smallest and largest, then of random ones what is farthest from those chosen.

    Networks are near that divide their multiply-adds alike between stem, stages and head.
    """
    rng = generator("latency", "reference nets")
    pool = [space.smallest(joints), space.largest(joints)]
    pool += [space.decode(space.sample(rng), joints) for _ in range(POOL)]
    pool = list(dict.fromkeys(pool))
    points = np.array([_work(spec) for spec in pool])
    points = (points - points.mean(0)) / np.maximum(points.std(0), 1e-9)
    chosen = list(range(min(2, len(pool))))
    while len(chosen) < min(count, len(pool)):
        distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(1)
        chosen.append(int(distance.argmax()))
    return [pool[index] for index in chosen]


def _work(spec: ArchSpec) -> list[float]:
    """Logarithms of the multiply-adds of the stem, the stages and the head."""
    plan = make_plan(spec)
    backbone = [sum(layer_macs(layer).exact for block in stage for layer in block.layers) for stage in plan.stages]
    stem = sum(layer_macs(layer).exact for layer in plan.stem)
    head = sum(layer_macs(layer).exact for layer in plan.layers()) - stem - sum(backbone)
    return [float(np.log(value)) for value in (stem, *backbone, head)]


def cpu_name() -> str:
    """The processor's name, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"
