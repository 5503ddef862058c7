"""What `ofa_pose.pose.decode` promises, written out joint by joint and person by person: slow, and easy to check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from ofa_pose.pose.decode import MIN_EXTENT, NEARNESS, WARM_CELLS, DecodeConfig, Poses
from ofa_pose.pose.geometry import HIGH_STRIDE
from ofa_pose.pose.grouping import STEP_COST, TIE_WEIGHT
from ofa_pose.pose.peaks import LEAST_HEAT, MOST_HEAT

REACH = 2  # cells; a peak is the highest of 5 × 5
FORBIDDEN = 1e6  # far above any cost
TIE = 1e-5  # cost; sums that are nearer to each other than this are equal but for rounding
Plane = list[list[float]]


class Undecided(Exception):
    """The promises leave open who gets a peak: several ways to hand out a joint's peaks cost the same."""


@dataclass(frozen=True)
class Peak:
    """A cell of a joint's fused map, its heat, its tags, and where in it the joint is."""

    x: int
    y: int
    heat: float
    tags: list[float]
    place: tuple[float, float]  # input pixels


@dataclass
class Person:
    """The peaks of one person by joint."""

    peaks: dict[int, Peak] = field(default_factory=dict)

    def mean_tag(self) -> list[float]:
        blocks = len(next(iter(self.peaks.values())).tags)
        return [sum(peak.tags[t] for peak in self.peaks.values()) / len(self.peaks) for t in range(blocks)]

    def strength(self) -> float:
        return sum(peak.heat for peak in self.peaks.values())


def plain_decode(
    low: np.ndarray, high: np.ndarray, order: Sequence[int], config: DecodeConfig | None = None, strict: bool = False
) -> list[Poses]:
    """As `decode`; with `strict`, raises Undecided where that is free to choose."""
    config = config or DecodeConfig()
    return [_decode_image(low[b], high[b], order, config, strict) for b in range(len(high))]


def _decode_image(low: np.ndarray, high: np.ndarray, order: Sequence[int], config: DecodeConfig, strict: bool) -> Poses:
    joints = len(high)
    fused = [_fuse(low[joint].tolist(), high[joint].tolist()) for joint in range(joints)]
    people: list[Person] = []
    for joint in order:
        peaks = [_peak(fused[joint], low, joints, joint, x, y) for x, y in _local_maxima(fused[joint], config)]
        _hand_out(peaks, joint, people, config, strict, _reach(config, high))
    people.sort(key=lambda person: -person.strength())
    people = people[: config.max_people]
    keypoints = np.zeros((len(people), joints, 3), np.float32)
    for person, joints_of in zip(people, keypoints, strict=True):
        for joint, peak in person.peaks.items():
            joints_of[joint] = (*peak.place, peak.heat)
    if config.recover:
        _recover(people, keypoints, fused, low, config, _reach(config, high))
    return Poses(keypoints, np.array([person.strength() / joints for person in people], np.float32))


def _reach(config: DecodeConfig, high: np.ndarray) -> float:
    """The longest side of a person in input pixels."""
    return math.inf if config.reach is None else config.reach * HIGH_STRIDE * min(high.shape[1:])


def _longest_side(points: list[tuple[float, float]]) -> float:
    """The longer side of the box round points."""
    return max(max(point[axis] for point in points) - min(point[axis] for point in points) for axis in (0, 1))


def _fuse(low: Plane, high: Plane) -> Plane:
    """The mean of high and of low, enlarged bilinearly: a cell's centre is at its index + 0.5."""

    def sides(index: int, count: int) -> tuple[int, int, float]:
        at = (index + 0.5) / 2 - 0.5
        first = math.floor(at)
        return max(first, 0), min(first + 1, count - 1), at - first

    fused = []
    for y, row in enumerate(high):
        above, below, down = sides(y, len(low))
        line = []
        for x, fine in enumerate(row):
            left, right, along = sides(x, len(low[0]))
            top = low[above][left] * (1 - along) + low[above][right] * along
            bottom = low[below][left] * (1 - along) + low[below][right] * along
            line.append(0.5 * (top * (1 - down) + bottom * down) + 0.5 * fine)
        fused.append(line)
    return fused


def _local_maxima(heat: Plane, config: DecodeConfig) -> list[tuple[int, int]]:
    """Cells x, y above the threshold that no cell of the 5 × 5 round them exceeds, highest first."""
    found = []
    for y, row in enumerate(heat):
        for x, value in enumerate(row):
            if value > config.threshold and value >= _highest_round(heat, x, y):
                found.append((-value, y, x))
    return [(x, y) for _, y, x in sorted(found)[: config.candidates]]


def _highest_round(heat: Plane, x: int, y: int) -> float:
    rows = heat[max(y - REACH, 0) : y + REACH + 1]
    return max(max(row[max(x - REACH, 0) : x + REACH + 1]) for row in rows)


def _highest_of_four(heat: Plane, x: int, y: int) -> float:
    """The highest of the four cells that lie in one cell of the low map, this one among them."""
    x, y = x // 2 * 2, y // 2 * 2
    return max(*heat[y][x : x + 2], *heat[y + 1][x : x + 2])


def _peak(heat: Plane, low: np.ndarray, joints: int, joint: int, x: int, y: int) -> Peak:
    """The cell with its tags: those of the low map's cell that it lies in."""
    blocks = len(low) // joints - 1
    tags = [float(low[joints * (1 + t) + joint, y // 2, x // 2]) for t in range(blocks)]
    return Peak(x, y, heat[y][x], tags, _refine(heat, x, y))


def _tag_distance(one: list[float], other: list[float]) -> float:
    """The distance in all blocks together."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def _hand_out(
    peaks: list[Peak], joint: int, people: list[Person], config: DecodeConfig, strict: bool, reach: float
) -> None:
    """Give a joint's peaks to people, dearer pairs last; a peak that fits nobody starts a new person."""
    owners: dict[int, Person] = {}
    if peaks and people:
        fits = np.zeros((len(peaks), len(people)), bool)
        cost = np.empty(fits.shape)
        for i, peak in enumerate(peaks):
            for k, person in enumerate(people):
                near = _tag_distance(peak.tags, person.mean_tag()) / config.tag_threshold < 0.5
                together = [other.place for other in (peak, *person.peaks.values())]
                fits[i, k] = near and _longest_side(together) <= reach
                cost[i, k] = (-TIE_WEIGHT * peak.heat * person.strength() if fits[i, k] else STEP_COST) - peak.heat
        pairs = list(zip(*linear_sum_assignment(cost), strict=True))
        if strict:
            _check_decided(cost, fits, pairs)
        for i, k in pairs:
            if fits[i, k]:
                owners[i] = people[k]
    for i, peak in enumerate(peaks):
        if i not in owners:
            owners[i] = Person()
            people.append(owners[i])
        owners[i].peaks[joint] = peak


def _check_decided(cost: np.ndarray, fits: np.ndarray, pairs: list[tuple[int, int]]) -> None:
    """Raise Undecided where other pairs of which some fit, or without some of these that fit, cost no more."""
    best = sum(cost[pair] for pair in pairs)
    for pair in zip(*np.nonzero(fits), strict=True):
        other = cost.copy()
        if pair in pairs:
            other[pair] = FORBIDDEN
        else:
            other[pair[0], :] = other[:, pair[1]] = FORBIDDEN
            other[pair] = cost[pair]
        if other[linear_sum_assignment(other)].sum() < best + TIE:
            raise Undecided


def _refine(heat: Plane, x: int, y: int) -> tuple[float, float]:
    """Input pixels of the vertex, along each axis, of the parabola through the logarithms of three cells."""
    across, down = _vertex(heat[y], x), _vertex([row[x] for row in heat], y)
    return (x + 0.5 + across) * HIGH_STRIDE, (y + 0.5 + down) * HIGH_STRIDE


def _vertex(line: list[float], cell: int) -> float:
    """Where the vertex lies, in cells from `cell`; a cell at the end of the line takes the next three."""
    if len(line) < 3:
        three = [line[max(cell - 1, 0)], line[cell], line[min(cell + 1, len(line) - 1)]]
        middle = cell
    else:
        middle = min(max(cell, 1), len(line) - 2)
        three = line[middle - 1 : middle + 2]
    before, here, after = (math.log(min(max(value, LEAST_HEAT), MOST_HEAT)) for value in three)
    bend = min(before + after - 2 * here, -1e-9)
    return min(max(middle - cell + 0.5 * (before - after) / bend, -0.5), 0.5)


def _recover(
    people: list[Person], keypoints: np.ndarray, fused: list[Plane], low: np.ndarray, config: DecodeConfig, reach: float
) -> None:
    """Give each person's missing joints the cells that are worth most to it."""
    joints = len(fused)
    warm: list[list[Peak]] = [[] for _ in range(joints)]
    for joint, plane in enumerate(fused):
        for y, row in enumerate(plane):
            for x, heat in enumerate(row):
                if heat > config.recover_floor and heat >= _highest_of_four(plane, x, y):
                    warm[joint].append(_peak(plane, low, joints, joint, x, y))
    assert sum(map(len, warm)) <= WARM_CELLS * joints, "more warm cells than are looked at"
    for person, joints_of in zip(people, keypoints, strict=True):
        places = [(float(joints_of[joint, 0]), float(joints_of[joint, 1])) for joint in person.peaks]
        middle = (sum(x for x, _ in places) / len(places), sum(y for _, y in places) / len(places))
        extent, tag = max(_longest_side(places), MIN_EXTENT), person.mean_tag()
        for joint in set(range(joints)) - set(person.peaks):
            most, best, fits = -math.inf, None, False
            for cell in warm[joint]:
                steps = round(_tag_distance(cell.tags, tag) / config.tag_threshold)
                centre = ((cell.x + 0.5) * HIGH_STRIDE, (cell.y + 0.5) * HIGH_STRIDE)
                steps += _longest_side([centre, *places]) > reach
                worth = cell.heat - steps - NEARNESS * math.dist(centre, middle) / extent
                if worth > most:
                    most, best, fits = worth, cell, steps == 0
            if best is not None:
                joints_of[joint] = (*best.place, best.heat if fits else 0)
