"""A table of latencies: what pieces and some whole networks of a search space took on one device and runtime."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import MOST, ArchSpec
from ofa_pose.latency.pieces import Piece, Subject, table_subjects
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError

FORMAT = "ofa-pose latency table 1"
RESUME = "start the same `latency build` with --resume, it goes on where it was"

Samples = dict[Subject, list[float]]
LEAST = 1e-9  # of a time in milliseconds, or of a ratio; one by it is the most
MOST_COUNT = 10**6  # of threads, cores and rounds
WORDS, COUNTS = ("backend", "runtime", "device", "date"), ("joints", "threads", "cores", "rounds")  # of a header


@dataclass(frozen=True)
class Header:
    """What a table was measured of, and where.

    Attributes:
        backend, runtime: how networks were run: its name, and name and version of the runtime.
        threads: of one run.
        device, cores: the processor's name, and its number of cores.
        date: when measuring began, as ISO 8601.
        share: the share of the space's pieces that is measured; the others are interpolated.
        rounds: how many times each is measured.
    """

    space: SearchSpace
    joints: int
    backend: str
    runtime: str
    threads: int
    device: str
    cores: int
    date: str
    share: float = 1.0
    rounds: int = 5

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {**vars(self), "space": self.space.to_dict()}

    def differing(self, other: Header) -> list[str]:
        """The names of the fields, but the date, in which two differ."""
        return [name for name, value in vars(self).items() if name != "date" and value != getattr(other, name)]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: object = "") -> Header:
        """Read what `to_dict` gives, and perhaps more. Raises InputError on its space, else KeyError or ValueError."""
        plain: dict[str, Any] = {name: value[name] for name in (*WORDS, *COUNTS)}
        for name, given in plain.items():
            most = MOST.get(name, MOST_COUNT)
            if not (type(given) is str if name in WORDS else type(given) is int and 1 <= given <= most):
                raise ValueError(f"its {name} is {given!r:.60}")
        if plain["runtime"].split()[:1] != [plain["backend"]]:
            raise ValueError(f"its backend is {plain['backend']}, its runtime {plain['runtime']}")
        share = value["share"]
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise ValueError(f"its share is {share!r}")
        return cls(SearchSpace.from_dict(value["space"], where), share=share, **plain)


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of one device.

    The machine drifts: it is slower at one time than at another, by more than pieces differ. So a small network, the
    anchor, is timed again and again between the others, and what is kept of these is how long they took by its time.

    Attributes:
        anchor: every time of the anchor, in milliseconds.
        ratios: of pieces and whole networks, for each round the time divided by the anchor's just before and after.
    """

    header: Header
    anchor: list[float] = field(default_factory=list)
    ratios: Samples = field(default_factory=dict)

    def ms(self, subject: Subject) -> float:
        """The median over the rounds, in milliseconds. Raises KeyError where it was not measured."""
        return median(self.ratios[subject]) * median(self.anchor)

    @property
    def pieces(self) -> dict[Piece, float]:
        """Milliseconds of every measured piece."""
        return {one: self.ms(one) for one, seen in self.ratios.items() if seen and isinstance(one, Piece)}

    @property
    def nets(self) -> dict[ArchSpec, float]:
        """Milliseconds of the whole networks that were measured."""
        return {one: self.ms(one) for one, seen in self.ratios.items() if seen and isinstance(one, ArchSpec)}

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, a line for each piece; at once or not at all."""
        head = {"format": FORMAT, **self.header.to_dict(), "anchor_ms": _rounded(self.anchor)}
        lines = [f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in head.items()]
        nets, pieces = [], []
        for subject, ratios in self.ratios.items():
            row = json.dumps(_rounded(ratios))
            if isinstance(subject, Piece):
                pieces.append(f"  {json.dumps(str(subject))}: {row}")
            else:
                nets.append(f'  {{"spec": {json.dumps(subject.to_dict())}, "ratios": {row}}}')
        lines += [' "nets": [\n' + ",\n".join(nets) + "\n ]", ' "pieces": {\n' + ",\n".join(pieces) + "\n }"]
        files.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read what `save` writes. Raises InputError that names the file and what is wrong in it."""
        value = files.read_json(path)
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            raise InputError("is not a latency table", path, "name a file that `ofa-pose latency build` wrote")
        try:
            header = Header.from_dict(value, path)
            ratios: Samples = {Piece.parse(text, path): read_times(seen) for text, seen in value["pieces"].items()}
            for net in value["nets"]:
                ratios[ArchSpec.from_dict(net["spec"], path)] = read_times(net["ratios"])
            return cls(header, read_times(value["anchor_ms"]), ratios)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"the latency table is malformed ({type(error).__name__}: {error})"
            raise InputError(what, path, "build it again") from None

    def check_complete(self, where: object = "", hint: str = RESUME) -> None:
        """Raise InputError where a piece or network that the header promises has not been measured in every round."""
        if not self.ratios:  # before the pieces of a space that may be vast
            raise InputError("lacks all pieces and networks that its header names", where, "build or import it again")
        expected = table_subjects(self.header.space, self.header.joints, self.header.share)
        absent = sum(subject not in self.ratios for subject in expected)
        if absent or not self.anchor:  # what waits to be measured is there without times
            lacking = f"{absent:,} of the {len(expected):,} pieces and networks that its header names"
            what = f"lacks {lacking if absent else 'the times of its reference network'}"
            raise InputError(what, where, "build or import it again")
        waiting = sum(max(self.header.rounds - len(self.ratios[subject]), 0) for subject in expected)
        if waiting:
            what = f"measuring was cut off: {waiting:,} of {len(expected) * self.header.rounds:,} timings wait"
            raise InputError(what, where, hint)


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def read_times(values: Any) -> list[float]:
    """Times, or ratios of such, as read from a file. Raises ValueError or TypeError where one is beyond `LEAST`."""
    try:
        numbers = [float(value) for value in values]
    except OverflowError:  # an integer beyond a float
        numbers = [math.inf]
    if not all(LEAST <= number <= 1 / LEAST for number in numbers):
        raise ValueError(f"a time is not between {LEAST:g} and {1 / LEAST:g}")
    return numbers
