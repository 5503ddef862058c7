"""Measure a latency table: rounds over all pieces and some whole networks of a space, in a new order each."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ofa_pose.arch.space import SearchSpace
from ofa_pose.backends import on_device
from ofa_pose.latency.latency_table import Header, LatencyTable
from ofa_pose.latency.measure import open_device
from ofa_pose.latency.pieces import Subject, table_subjects
from ofa_pose.utils import files
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError

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
