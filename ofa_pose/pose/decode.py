"""From heatmaps and tags to poses: peaks, then grouping by associative embedding.

Associative embedding: Newell, Huang and Deng, 2017; two resolutions and filling: HigherHRNet, Cheng et al., 2020.
Peaks are found at half the input's size and refined below the cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.pose.geometry import HIGH_STRIDE, Array, box_round
from ofa_pose.pose.grouping import FoundJoints, Groups, group
from ofa_pose.pose.peaks import Maps, Spots, find_peaks, fuse, place, warm_cells
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError, nearest

NEARNESS = 0.2  # heat that a missing joint's place loses for each extent of the person it lies from the person's middle
MIN_EXTENT = 32.0  # input pixels: a person of one joint has no extent of its own
WARM_CELLS = 4096  # of a plane that may hold a missing joint, the warmest: only a useless net has more
CHUNK_CELLS = 1 << 20  # of the images that are decoded at once: enough to share the overhead, few enough for a cache
BLOCK_CELLS = 1 << 17  # that are weighed at once as places of missing joints

MOST_PEOPLE, MOST_THRESHOLD = 10_000, 1000.0  # of an image, also candidates; of a height, a distance of tags, a reach


@dataclass(frozen=True)
class DecodeConfig:
    """How poses are read from maps.

    Attributes:
        max_people: at most so many poses an image, the best ones.
        candidates: at most so many peaks a joint, the highest ones.
        threshold: the height above which a peak is a joint. The paper's code takes 0.1; weak nets gain with 0.2.
        tag_threshold: a joint is a person's where its tag lies within half of this from the mean of the person's other
            tags. How far apart a net puts people
            depends on its training: the paper's losses go with 1.
        recover: look for a person's missing joints by its mean tag; none has less heat than `recover_floor`.
        reach: the longer side of the box round a person's peaks, and of that with one joint that was recovered, as a
            share of the input's short side, is at most this; None: of any size.
    """

    max_people: int = 30
    candidates: int = 30
    threshold: float = 0.2
    tag_threshold: float = 1.0
    recover: bool = True
    recover_floor: float = 0.05
    reach: float | None = None

    @classmethod
    def from_dict(cls, value: Any, where: object) -> DecodeConfig:
        """Read some of the attributes; the others are as by default. Raises InputError that names `where`."""
        defaults = {field.name: field.default for field in fields(cls)}
        if not isinstance(value, Mapping):
            raise InputError("holds no mapping as its decode", where, "export it again")
        for key, setting in value.items():
            if key not in defaults:
                raise InputError(f"unknown decoder setting '{key}'", where, nearest(str(key), defaults))
            whole = isinstance(defaults[key], int)  # a bool is an int too
            least = 1e-9 if key in ("threshold", "tag_threshold", "reach") else 0
            most = MOST_PEOPLE if whole else MOST_THRESHOLD
            if setting is None and key == "reach":
                continue
            if not isinstance(setting, int if whole else int | float) or not least <= setting <= most:
                raise InputError(f"decoder setting '{key}' is {setting!r}", where, "correct that value")
        return cls(**value)

    def longest(self, short_side: float) -> float:
        """`reach` in input pixels."""
        return math.inf if self.reach is None else self.reach * short_side

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a limit that there is not is left out, as earlier versions know of none."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, repr=False)
class Poses:
    """The people of one image, best first.

    Attributes:
        keypoints: float32 (P, J, 3): x, y in input pixels and the joint's score, its heat. A joint that was not found
            has score 0, and a guess at x, y or 0, 0.
        scores: float32 (P,): the mean over all J joints of the scores of the joints that were found as peaks.
        ids: int64 (P,): numbers that people keep over the frames of a film, see `pose.tracking`; None where nobody is
            followed.
    """

    keypoints: Array
    scores: Array
    ids: Array | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        scores = f", scores {self.scores.max():.2f} to {self.scores.min():.2f}" if len(self) else ""
        return f"Poses({len(self)} {'person' if len(self) == 1 else 'people'}{scores})"

    @property
    def boxes(self) -> Array:
        """float32 (P, 4): x, y, width and height of the box round each person's joints of a score above 0."""
        boxes = [box_round(person[person[:, 2] > 0, :2]) for person in self.keypoints]
        return np.array(boxes, np.float32).reshape(-1, 4)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: {'people': [{'score', 'box', 'keypoints', of a film 'id'}, …]}, best first."""
        people = []
        for number, (box, keypoints) in enumerate(zip(self.boxes, self.keypoints, strict=True)):
            person = {"score": float(self.scores[number]), "box": box.tolist(), "keypoints": keypoints.tolist()}
            people.append(person if self.ids is None else {"id": int(self.ids[number]), **person})
        return {"people": people}

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        files.write_json(Path(path), self.to_dict())


def decode(low: Any, high: Any, order: Sequence[int], config: DecodeConfig | None = None) -> list[Poses]:
    """The poses of each image of a batch; each as if it were alone.

    Args:
        low: (B, J + J·T, h, w), J heatmaps, then T blocks of J tag maps (T = 1 without a flip test), at stride 4; a
            NumPy array or a torch tensor on any device and of any floating type, as `high`.
        high: (B, J, 2h, 2w), heatmaps at stride 2.
        order: the joints' indices in the order of grouping, `Skeleton.grouping_order`.

    Raises ValueError where the maps do not fit each other, or `order` does not fit them.
    """
    config = config or DecodeConfig()
    # a torch tensor as a NumPy array; bfloat16, which NumPy does not know, as float32
    low, high = (
        np.asarray(maps.detach().float().cpu().numpy() if hasattr(maps, "detach") else maps) for maps in (low, high)
    )
    if low.ndim != 4 or high.ndim != 4 or low.shape[1] % high.shape[1] or low.shape[1] < 2 * high.shape[1]:
        raise ValueError(f"low {low.shape} does not hold heatmaps and tags of the joints of high {high.shape}")
    batch, joints, height, width = high.shape
    if (len(low), 2 * low.shape[2], 2 * low.shape[3]) != (batch, height, width):
        raise ValueError(f"maps do not fit each other: low {low.shape}, high {high.shape}")
    if sorted(order) != list(range(joints)):
        raise ValueError(f"order {tuple(order)} is not an order of {joints} joints")
    step = max(1, CHUNK_CELLS // (joints * height * width))
    chunks = (slice(start, start + step) for start in range(0, batch, step))
    return [poses for chunk in chunks for poses in _decode_chunk(low[chunk], high[chunk], order, config)]


def _decode_chunk(low: Array, high: Array, order: Sequence[int], config: DecodeConfig) -> Iterator[Poses]:
    batch, joints = high.shape[:2]
    maps = Maps(fuse(low[:, :joints], high), low[:, joints:].reshape(batch, -1, joints, *low.shape[2:]))
    warm, heat = warm_cells(maps.fused, min(config.recover_floor, config.threshold))
    peaks = find_peaks(maps, warm, heat, config.threshold, config.candidates)
    candidates = FoundJoints(peaks.plane, place(maps, peaks), peaks.tags)
    reach = config.longest(HIGH_STRIDE * min(high.shape[2:]))
    people = group(candidates, batch, order, config.tag_threshold, reach, config.max_people)
    keypoints, found = people.keypoints(candidates), people.found
    if config.recover and not found.all():
        tags = np.where(found[..., None], peaks.tags[people.member], 0).sum(axis=1) / found.sum(axis=1)[:, None]
        warm, heat = warm[heat > config.recover_floor], heat[heat > config.recover_floor]
        _recover(keypoints, found, people.image, tags, maps, warm, heat, config.tag_threshold, reach)
    yield from _by_image(people, keypoints, batch)


def _by_image(people: Groups, keypoints: Array, batch: int) -> Iterator[Poses]:
    scores = people.scores.astype(np.float32)
    for start, end in pairwise(np.searchsorted(people.image, np.arange(batch + 1))):
        yield Poses(keypoints[start:end], scores[start:end])


def group_joints(joints: Array, order: Sequence[int], config: DecodeConfig, short_side: int) -> list[Poses]:
    """The poses of each image of a batch, of the output of a network with its decoder inside; none is recovered.

    Args:
        joints: float32 (B, J, K, 4): x, y in input pixels, heat, tag; a row of heat 0 is empty.
        order: the joints' indices in the order of grouping, `Skeleton.grouping_order`.
        short_side: of the input, in pixels.

    Raises ValueError where `order` is not an order of J joints, or a row does not hold four numbers.
    """
    if joints.ndim != 4 or joints.shape[3] != 4 or sorted(order) != list(range(joints.shape[1])):
        raise ValueError(f"joints {joints.shape} are not those of {len(order)} joints, four numbers a row")
    image, joint, row = np.nonzero(joints[..., 2] > 0)
    found = joints[image, joint, row].astype(np.float64)
    candidates = FoundJoints(image * joints.shape[1] + joint, found[:, :3], found[:, 3:])
    reach = config.longest(short_side)
    people = group(candidates, len(joints), order, config.tag_threshold, reach, config.max_people)
    return list(_by_image(people, people.keypoints(candidates), len(joints)))


def _recover(
    keypoints: Array,
    found: Array,
    image: Array,
    tags: Array,
    maps: Maps,
    warm: Array,
    heat: Array,
    threshold: float,
    reach: float,
) -> None:
    """Fill in place the missing joints of keypoints (P, J, 3) from the warm cells with the nearest tags to tags (P, T).

    A cell's worth is its heat less its tag distance in whole thresholds (HigherHRNet) and a little for its distance
    from the person; one that would make the person longer than `reach` input pixels is a threshold farther away. One
    whose tag is not the person's gets no score.
    """
    planes, height, width = maps.fused.shape
    person, joint = np.nonzero(~found)
    plane = image[person] * found.shape[1] + joint
    spots = _places(maps, *_wanted(warm, heat, height * width, np.unique(plane)))
    starts = np.searchsorted(spots.plane, np.arange(planes + 1))
    count = starts[plane + 1] - starts[plane]
    some = count > 0
    person, joint, first, count = person[some], joint[some], starts[plane[some]], count[some]
    if not len(person):
        return
    centre = np.stack([spots.x + 0.5, spots.y + 0.5], axis=1) * HIGH_STRIDE
    here, xy = found[..., None], keypoints[..., :2]
    middle = np.where(here, xy, 0).sum(axis=1) / found.sum(axis=1)[:, None]
    upper, lower = np.where(here, xy, -np.inf).max(axis=1), np.where(here, xy, np.inf).min(axis=1)
    extent = np.maximum((upper - lower).max(axis=1), MIN_EXTENT)  # the longer side of the found joints' box
    chosen, steps = np.empty(len(person), np.int64), np.empty(len(person))
    cuts = 1 + np.flatnonzero(np.diff(np.cumsum(count) // BLOCK_CELLS))
    for start, end in pairwise([0, *cuts.tolist(), len(count)]):
        block = slice(start, end)
        length = count[block]
        ends = np.cumsum(length)
        mine = np.arange(ends[-1]) + np.repeat(first[block] - ends + length, length)
        who = person[block]
        step = np.round(_distance(spots.tags, mine, tags[who], length) / threshold)
        if reach < math.inf:
            at, own = centre[mine], np.repeat(who, length)
            grown = np.maximum(upper[own], at) - np.minimum(lower[own], at)
            step += (grown > reach).any(axis=1)
        away = _distance(centre, mine, middle[who], length)
        worth = spots.heat.take(mine) - step - np.repeat(NEARNESS / extent[who], length) * away
        highest = np.maximum.reduceat(worth, ends - length)
        hits = np.flatnonzero(worth == np.repeat(highest, length))
        best = hits[np.searchsorted(hits, ends - length)]  # each run's first maximum
        chosen[block], steps[block] = mine[best], step[best]
    keypoints[person, joint] = place(maps, spots.take(chosen))
    guessed = steps > 0
    keypoints[person[guessed], joint[guessed], 2] = 0


def _wanted(warm: Array, heat: Array, size: int, wanted: Array) -> tuple[Array, Array]:
    """The warm cells of the wanted planes (of `size` cells each), at most `WARM_CELLS` of a plane, the warmest."""
    starts, ends = np.searchsorted(warm, wanted * size), np.searchsorted(warm, (wanted + 1) * size)
    kept = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        cells = np.arange(start, end)
        if len(cells) > WARM_CELLS:
            cells = start + np.sort(np.argpartition(-heat[start:end], WARM_CELLS)[:WARM_CELLS])
        kept.append(cells)
    index = np.concatenate(kept)
    return warm[index], heat[index]


def _places(maps: Maps, warm: Array, heat: Array) -> Spots:
    """Where a missing joint may be: of the four cells that share a tag, the hottest."""
    width = maps.fused.shape[2]
    below = warm + width * (1 - 2 * (warm // width & 1))  # or above: both sides of a map are even
    beside, across = warm ^ 1, below ^ 1
    hottest = np.ones(len(warm), bool)
    for mate in (beside, below, across):
        hottest &= ~(maps.fused.ravel().take(mate) > heat)
    plane, x, y = maps.split(warm[hottest])
    return Spots(plane, x, y, heat[hottest], maps.tags_at(plane, x, y))


def _distance(cells: Array, cell: Array, people: Array, repeats: Array) -> Array:
    """(N,) Euclidean distances of cells[cell] from people, each repeated so many times; cells (M, D), people (P, D)."""
    square = np.zeros(len(cell))
    for theirs, own in zip(cells.T, people.T, strict=True):
        apart = theirs.take(cell)
        apart -= np.repeat(own, repeats)
        apart *= apart
        square += apart
    return np.sqrt(square, out=square)
