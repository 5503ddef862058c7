"""What a fidelity study finds: how alike rankings of the same subnets are, in figures, in words and in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ofa_pose.utils import files
from ofa_pose.utils.result import Result

SURE = 10  # subnets; with fewer even a tau of 1 may be chance
GOOD = 0.9  # a tau at which a ranking may stand for the other
MARKS = "os^DvPX*"

Panel = tuple[str, str, dict[str, list[tuple[float, float]]]]
"""Of one comparison the x axis, the y axis, and the points of each legend entry."""


@dataclass(frozen=True)
class CountComparison(Result):
    """A number of images against the largest: Kendall's tau, its interval, and the median seconds of an evaluation."""

    count: int
    tau: float | None
    low: float | None
    high: float | None
    seconds: float


@dataclass(frozen=True)
class TuningComparison(Result):
    """AP with inherited weights against AP after so many steps of fine-tuning: Kendall's tau and its interval."""

    steps: int
    tau: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FidelityResult(Result):
    """The rank correlations over some subnets.

    Attributes:
        subnets: how many.
        images, calibration: of every number of search and of recalibration images, ascending.
        finetuned: None where nothing was fine-tuned.
        table: fidelity.csv, every figure.
        picture: fidelity.png; None where there was nothing to draw.
        seconds: what the study took now.
        out: the run directory.
    """

    subnets: int
    images: list[CountComparison]
    calibration: list[CountComparison]
    finetuned: TuningComparison | None
    table: Path
    picture: Path | None
    seconds: float
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """The fields and the advice as plain values."""
        return {**super().to_dict(), "advice": self.advice}

    @property
    def advice(self) -> str:
        """A sentence on what to set."""
        if self.images[-1].tau is None:
            return "the subnets have equal APs, so that no ranking can be compared: train the supernet further"
        sentences = []
        for key, lines in (("search.images", self.images), ("search.calibration_images", self.calibration)):
            *fewer, largest = lines
            enough = next((line for line in fewer if line.tau is not None and line.tau >= GOOD), None)
            if enough:
                sentences.append(f"{key}={enough.count} ranks subnets as {largest.count} do (tau {enough.tau:.2f})")
            elif fewer:
                sentences.append(f"keep {key} at {largest.count} or more (no smaller count reaches tau {GOOD})")
        tuned = self.finetuned
        if tuned:
            tau = "unknown" if tuned.tau is None else f"{tuned.tau:.2f}, {tuned.low:.2f} to {tuned.high:.2f}"
            sure = tuned.low is not None and tuned.low > 0
            alone = sure and tuned.tau is not None and tuned.tau >= GOOD
            meaning = "predicts" if sure else "says too little about"
            then = "" if alone else "; fine-tune several members of the front before choosing"
            sentences.append(f"inherited AP {meaning} AP after {tuned.steps} steps of fine-tuning (tau {tau}){then}")
        if not sentences:
            return "nothing was compared: name several image counts, or fine-tune"
        few = f"from {self.subnets} subnets only, so with care: " if self.subnets < SURE else ""
        return few + "; ".join(sentences)


def draw_comparisons(path: Path, panels: Sequence[Panel]) -> Path | None:
    """Write a PNG with a panel for each comparison and give its path; a dashed line shows where both agree.

    Where there are no panels, nothing is written.
    """
    if not panels:
        return None
    figure = Figure(figsize=(4.4 * len(panels), 4.4), layout="constrained")
    for axes, (x_label, y_label, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for mark, (label, points) in zip(MARKS * len(series), series.items(), strict=False):
            axes.plot(*zip(*points, strict=True), mark, label=label, alpha=0.75, markersize=6, markeredgewidth=0)
        start = next(iter(series.values()))[0][0]
        axes.axline((start, start), slope=1, color="0.5", linestyle="--", lw=1, zorder=1)
        axes.margins(0.08)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return path
