"""What other commands wrote about a run's network: evaluations, exports, latency tables, found by what they hold."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.backends.runners import LIST
from ofa_pose.families.table import read_spec
from ofa_pose.latency.latency_table import FORMAT, LatencyTable
from ofa_pose.latency.predictor import Predictor
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import are_numbers

EVALUATION = "metrics.json"
START = 400  # bytes by which a latency table is known


@dataclass(frozen=True)
class Evaluated:
    """What `eval --out` wrote.

    Attributes:
        folder: where it lies.
        checkpoint, sha256: the network's file, as it was then; '' where that is not known.
        figures: AP, AP_stderr and so on, 0 to 1; None where there are no such people.
        annotations, images: of the ground truth, as they are found now, or were then.
        truth: the SHA-256 of the annotations.
        draws: the APs of images drawn again, see `ofa_pose.pose.bootstrap`; None where they were not kept.
        made: when, with which versions and on which processor, in words; '' where that is not known.
    """

    folder: Path
    checkpoint: str
    sha256: str
    spec: NetSpec
    figures: Mapping[str, float | None]
    count: int
    people: int
    flip: bool
    annotations: str
    images: str
    truth: str
    metric: str
    breakdown: Mapping[str, Any]
    draws: np.ndarray | None = None
    made: str = ""

    @property
    def ap(self) -> float | None:
        """The AP."""
        return self.figures.get("AP")

    @property
    def error(self) -> float | None:
        """Its standard error."""
        return self.figures.get("AP_stderr")


@dataclass(frozen=True)
class Exported:
    """A format of a network that was exported: file name, bytes, and where it was timed milliseconds an image.

    Attributes:
        device: the processor that it was timed on; '' where that is not known.
    """

    name: str
    path: Path
    bytes: int
    ms: float | None
    ap: Mapping[str, Any]
    device: str = ""


@dataclass(frozen=True)
class Latency:
    """What a latency table predicts for a network: device and runtime in words, and milliseconds."""

    path: Path
    device: str
    ms: float


def moved(path: str, written: str, now: Path) -> str:
    """A path that was noted in a folder, as it is found from where that folder is now; else as it was noted.

    Args:
        path, written: the path, and the folder's, both absolute or both relative to one place.
        now: where the folder is.
    """
    with suppress(ValueError):
        place = os.path.normpath(files.real(now) / os.path.relpath(path, written))
        if os.path.exists(place):
            return place
    return path


def near(run: Path, pattern: str) -> Iterator[Path]:
    """Files of a name in a run's folders, and up to two folders deep in the folder that it lies in."""
    here, seen = files.real(run), set()
    for folder, depth in ((here, "*/"), (here, ""), (here.parent, ""), (here.parent, "*/"), (here.parent, "*/*/")):
        with suppress(OSError):
            for path in sorted(folder.glob(depth + pattern)):
                if path not in seen and path.is_file():
                    seen.add(path)
                    yield path


def find_evaluations(run: Path, note: Callable[[str], None]) -> list[Evaluated]:
    """What `eval --out` wrote of checkpoints in or beside a run; `note` gets a line of each file at fault."""
    found = []
    for path in near(run, EVALUATION):
        try:
            value = files.read_json(path)
            if isinstance(value, Mapping) and "network" in value and "data" in value:
                found.append(_evaluated(path, value))
        except InputError as error:
            note(str(error))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            note(f"{path}: is not what eval writes ({type(error).__name__}: {error})")
    return found


def _evaluated(path: Path, value: Mapping[str, Any]) -> Evaluated:
    network, truth, figures = value["network"], value["data"], value["metrics"]
    if not all(figure is None or are_numbers([figure], 1) for figure in figures.values()):
        raise ValueError("a figure is not a number")
    draws = value.get("draws")
    if draws is not None and not (
        isinstance(draws, list) and all(one is None or are_numbers([one], 1) for one in draws)
    ):
        raise ValueError("the APs of images drawn again are not numbers")
    written, here = str(value.get("out") or ""), path.parent
    places = [
        moved(str(truth[key]), written, here) if written else str(truth[key]) for key in ("annotations", "images")
    ]
    return Evaluated(
        folder=here,
        checkpoint=str(network["checkpoint"] or ""),
        sha256=str(network["sha256"] or ""),
        spec=read_spec(network["spec"], path),
        figures=dict(figures),
        count=int(value["images"]),
        people=int(value["people"]),
        flip=bool(value.get("flip")),
        annotations=places[0],
        images=places[1],
        truth=str(truth["sha256"]),
        metric=str(truth.get("metric", "coco")),
        breakdown=_breakdown(value.get("breakdown") or {}),
        draws=None if draws is None else np.array(draws, np.float64),
        made=_made(value),
    )


def _breakdown(parts: Mapping[str, Any]) -> Mapping[str, Mapping[str, Mapping[str, float | None]]]:
    """The parts as they stand. Raises ValueError, or AttributeError, where a figure is not a number."""
    for part in parts.values():
        for row in part.values():
            if not all(figure is None or are_numbers([figure], 1) for figure in row.values()):
                raise ValueError("a figure of the breakdown is not a number")
    return {name: {str(key): dict(row) for key, row in part.items()} for name, part in parts.items()}


def _made(value: Mapping[str, Any]) -> str:
    """Such as '2026-11-27, ofa-pose 0.1.0, torch 2.9.1, Intel Xeon'."""
    versions = dict(value.get("versions") or {})
    named = [f"{name} {versions[name]}" for name in ("ofa-pose", "torch") if name in versions]
    return ", ".join(str(part) for part in (value.get("date"), *named, value.get("processor")) if part)


def find_exports(run: Path, sha256: str, note: Callable[[str], None]) -> list[Exported]:
    """What was exported of a checkpoint into folders in or beside a run, and is still there; `note` as above."""
    found = []
    for path in near(run, LIST):
        try:
            value = files.read_json(path)
            if value["sha256"] != sha256:
                continue
            for name, one in value["files"].items():
                file, ms, ap = path.parent / str(one["name"]), one.get("ms"), one.get("AP")
                if file.exists():
                    timed = float(ms) if are_numbers([ms], 1) else None
                    known = ap if isinstance(ap, dict) else {}
                    device = str(one.get("processor") or "")
                    found.append(Exported(str(name), file, int(one["bytes"]), timed, known, device))
        except InputError as error:
            note(str(error))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            note(f"{path}: is not what export writes ({type(error).__name__}: {error})")
    return found


def find_latencies(run: Path, spec: NetSpec, named: Sequence[Path], note: Callable[[str], None]) -> list[Latency]:
    """What latency tables predict for a network: those named, and those in or beside a run that cover it."""
    if not isinstance(spec, ArchSpec):
        return []
    found, seen = [], set()
    for path in (*named, *near(run, "*.json")):
        if files.real(path) in seen or not _is_table(path):
            continue
        seen.add(files.real(path))
        try:
            table = LatencyTable.load(path)
        except InputError as error:
            note(str(error))
            continue
        try:
            ms = Predictor(table, path).predict_ms(spec)
        except InputError:  # of another space, or not complete
            continue
        header = table.header
        threads = "1 thread" if header.threads == 1 else f"{header.threads} threads"
        found.append(Latency(path, f"{header.device}, {header.runtime}, {threads}", ms))
    return found


def _is_table(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return FORMAT.encode() in file.read(START)
    return False
