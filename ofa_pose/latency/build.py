"""Measure a latency table: rounds over all pieces and some whole networks of a space, in a new order each."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from ofa_pose import files
from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.console import progress
from ofa_pose.costs.macs import layer_macs
from ofa_pose.errors import InputError
from ofa_pose.latency import on_device
from ofa_pose.latency.measure import open_device
from ofa_pose.latency.pieces import space_pieces, spanning_pieces
from ofa_pose.latency.table import Header, LatencyTable, Subject
from ofa_pose.seeding import generator

NETS = 20  # whole networks in a table
POOL = 200  # random networks that they are chosen from
SAVE_S = 5.0


def build_table(
    path: Path, space: SearchSpace, joints: int, backend: str, threads: int, share: float, rounds: int, resume: bool
) -> LatencyTable:
    """Measure pieces and whole networks of a space into a table, written as it grows.

    Raises:
        InputError: the table exists and `resume` is not given, or it holds something else; a package is missing.
    """
    files.check_folder(path.parent)
    device = open_device(backend, threads)
    machine = (on_device.cpu_name(), os.cpu_count() or 1, on_device.today())
    header = Header(space, joints, backend, device.runtime, threads, *machine, share, rounds)
    table = _open(path, header, resume)
    subjects = table_subjects(space, joints, share)
    for subject in subjects:
        table.ratios.setdefault(subject, [])
    done = sum(len(table.ratios[subject]) for subject in subjects)
    saved = time.monotonic()
    try:
        with progress("latency", rounds * len(subjects), "timings", done) as meter:
            anchor: Subject = space.smallest(joints)
            for new in on_device.sweep(device.load, threads, anchor, table.anchor, table.ratios, rounds):
                meter.step(len(new), f"anchor {table.anchor[-1]:.2f} ms")
                if time.monotonic() - saved > SAVE_S:
                    table.save(path)
                    saved = time.monotonic()
    finally:
        if table.anchor:
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


def table_subjects(space: SearchSpace, joints: int, share: float) -> list[Subject]:
    """What a table of a space measures: pieces, then whole networks."""
    return [*spanning_pieces(space_pieces(space, joints), share), *reference_nets(space, joints)]


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
