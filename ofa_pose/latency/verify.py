"""Verify a latency table: networks of its space, measured whole, against what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.latency.measure import Device
from ofa_pose.latency.pieces import Subject
from ofa_pose.latency.predictor import Predictor
from ofa_pose.utils import files
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.ranking import kendall, spearman
from ofa_pose.utils.result import Result
from ofa_pose.utils.seeding import generator

ROUNDS = 5


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


def random_nets(table: LatencyTable, count: int, seed: int) -> list[ArchSpec]:
    """Random networks of a table's space, different, none its own. Raises InputError where there are not so many."""
    rng, space = generator(seed, "latency", "verify"), table.header.space
    own, found = table.nets, dict[ArchSpec, None]()
    for _ in range(100 * count if count <= space.size else 0):
        spec = space.decode(space.sample(rng), table.header.joints)
        if spec not in own:
            found[spec] = None
        if len(found) == count:
            return list(found)
    raise InputError(f"the space {space.name} has no {count:,} subnets besides the table's own", hint="lower --nets")


def verify(table: LatencyTable, device: Device, specs: Sequence[ArchSpec], rounds: int = ROUNDS) -> Verification:
    """Measure networks whole, among the table's own, and predict them. Raises InputError if the table is incomplete."""
    predictor, header = Predictor(table), table.header
    now = LatencyTable(header, [], {spec: [] for spec in [*table.nets, *specs]})
    with progress("latency verify", rounds * len(now.ratios), "timings") as meter:
        anchor: Subject = header.space.smallest(header.joints)
        for new in on_device.sweep(device.load, device.threads, anchor, now.anchor, now.ratios, rounds):
            meter.step(len(new))
    drift = median(now.ms(spec) / ms for spec, ms in table.nets.items())
    measured, predicted = np.array([(now.ms(spec) / drift, predictor.predict_ms(spec)) for spec in specs]).T
    return Verification(list(specs), measured, predicted, drift)


def draw(path: str | Path, found: Verification, title: str) -> None:
    """Write a picture (PNG, or by the suffix SVG or PDF): predicted over measured, and where they are equal."""
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figures = found.to_dict()
    rho = "unknown" if figures["spearman"] is None else f"{figures['spearman']:.3f}"
    label = f"Spearman {rho}, mean error {figures['mape']:.1%}"
    axes.plot(found.measured, found.predicted, "o", alpha=0.75, markersize=6, markeredgewidth=0, label=label)
    both = np.concatenate([found.measured, found.predicted])
    axes.plot([both.min(), both.max()], [both.min(), both.max()], color="0.5", linestyle="--", lw=1, zorder=1)
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("predicted from the table, ms")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
