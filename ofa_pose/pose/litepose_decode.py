"""The LitePose repository's own way from image to input and from maps to poses, step by step, to compare figures with.

It decodes HigherHRNet's way (Cheng et al., CVPR 2020): maps are enlarged to the input's size, peaks are whole pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ofa_pose.pose.decode import Poses
from ofa_pose.pose.geometry import HIGH_STRIDE, MAX_ASPECT, InputFrame
from ofa_pose.utils.errors import InputError

MULTIPLE = 64  # of both input sides
PEOPLE = 30  # peaks a joint, and people that a joint is matched with
THRESHOLD = 0.1
TAG_THRESHOLD = 1.0
WINDOW = np.ones((5, 5), np.uint8)  # a peak is the highest in it
FAR = 1e10  # cost of matching a peak with nobody
Matcher = Callable[[list[list[float]]], list[tuple[int, int]]]  # a matrix of costs -> rows with their columns
ORDER = (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16)  # of grouping, cut to the number of joints


def litepose_frame(width: int, height: int, resolution: int) -> InputFrame:
    """The frame of an image there: short side to `resolution`, both rounded up to 64. Raises InputError if thin."""
    short, long = min(width, height), max(width, height)
    if long > MAX_ASPECT * short:
        what = f"an image of {width}×{height} pixels is too thin to be decoded as LitePose's code does"
        raise InputError(what, hint="leave it out, or decode with --decoding ours")
    near = -(-resolution // MULTIPLE) * MULTIPLE
    far = int((near / short * long + MULTIPLE - 1) // MULTIPLE) * MULTIPLE
    side_x, side_y = (near, far) if width < height else (far, near)
    scale = near / short
    # its centre is a whole pixel, the later one of two
    offset_x, offset_y = side_x / 2 - int(width / 2 + 0.5) * scale, side_y / 2 - int(height / 2 + 0.5) * scale
    return InputFrame(width, height, side_x, side_y, scale, offset_x, offset_y)


def litepose_warp(image: np.ndarray, frame: InputFrame) -> np.ndarray:
    """The network's input there: bilinear samples at pixel indices, black around the image."""
    matrix = np.array([[frame.scale, 0, frame.offset_x], [0, frame.scale, frame.offset_y]])
    return cv2.warpAffine(image, matrix, (frame.width, frame.height), flags=cv2.INTER_LINEAR)


def decode_litepose(low: np.ndarray, high: np.ndarray, order: Sequence[int]) -> list[Poses]:
    """The poses of each image of a batch, in input pixels; arguments as of `decode`, NumPy arrays.

    The order of grouping counts where that repository has none: its own is for 13 to 17 joints, whatever they are.
    Raises InputError where munkres is not installed.
    """
    own = ORDER[: high.shape[1]]
    order = own if sorted(own) == list(range(high.shape[1])) else order
    match = load_matcher()
    return [_decode_image(one, other, order, match) for one, other in zip(low, high, strict=True)]


def load_matcher() -> Matcher:
    """The solver of the grouping. Raises InputError where its package is not installed."""
    # Rounded distances tie all the time, and which of equally cheap matchings is taken shows in the AP (by 0.005 and
    # more): only the solver that the repository calls gives its figures.
    try:
        from munkres import Munkres
    except ImportError:
        what = "decoding as LitePose's code does needs the package munkres"
        raise InputError(what, hint="pip install 'ofa-pose[litepose]'") from None
    solve: Matcher = Munkres().compute
    return solve


def _decode_image(low: np.ndarray, high: np.ndarray, order: Sequence[int], match: Matcher) -> Poses:
    joints, height, width = high.shape
    enlarged = _resize(low, height, width)
    size = (height * HIGH_STRIDE, width * HIGH_STRIDE)
    heat = _resize((enlarged[:joints] + high) / 2, *size)
    tags = _resize(enlarged[joints:], *size).reshape(-1, joints, *size).transpose(1, 2, 3, 0)  # (J, H, W, T)
    people = _group(*_peaks(heat, tags), order, match)
    scores = np.array([person[:, 2].mean() for person in people])
    keypoints = np.array([_placed(person, heat, tags) for person in people], np.float32).reshape(-1, joints, 3)
    best = np.argsort(-scores, kind="stable")
    return Poses(keypoints[best], scores[best].astype(np.float32))


def _resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in maps])


def _peaks(heat: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest peaks of each joint: (J, PEOPLE, 3) x, y, heat, and their tags (J, PEOPLE, T)."""
    joints, _, width = heat.shape
    alone = np.stack([np.where(each == cv2.dilate(each, WINDOW), each, 0) for each in heat]).reshape(joints, -1)
    cells = np.argsort(-alone, axis=1, kind="stable")[:, :PEOPLE]
    found = np.stack([cells % width, cells // width, np.take_along_axis(alone, cells, 1)], axis=-1)
    return found, np.stack([tag.reshape(-1, tag.shape[-1])[cell] for tag, cell in zip(tags, cells, strict=True)])


def _group(peaks: np.ndarray, tags: np.ndarray, order: Sequence[int], match: Matcher) -> list[np.ndarray]:
    """People as (J, 3) x, y, heat, zeros where a joint is missing; each joint's peaks go to the nearest mean tags."""
    people: list[np.ndarray] = []
    members: list[list[np.ndarray]] = []
    for joint in order:
        sure = peaks[joint, :, 2] > THRESHOLD
        mine, own = peaks[joint, sure], tags[joint, sure]
        if not len(mine):
            continue
        known = len(people[:PEOPLE])
        taken: dict[int, int] = {}
        if known:
            means = np.stack([np.mean(some, axis=0) for some in members[:PEOPLE]])
            distance = np.linalg.norm(own[:, None] - means[None], axis=2)
            cost = np.round(distance) * 100 - mine[:, 2:]
            cost = np.pad(cost, ((0, 0), (0, max(0, len(mine) - known))), constant_values=FAR)
            for row, column in match(cost.tolist()):
                if row < len(mine) and column < known and distance[row, column] < TAG_THRESHOLD:
                    taken[row] = column
        for row in range(len(mine)):
            if row not in taken:
                taken[row] = len(people)
                people.append(np.zeros((len(peaks), 3)))
                members.append([])
            people[taken[row]][joint] = mine[row]
            members[taken[row]].append(own[row])
    return people


def _placed(person: np.ndarray, heat: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """A person's joints, a quarter pixel to higher neighbours; missing ones where heat less tag distance is most."""
    joints, height, width = heat.shape
    joint, (x, y), found = np.arange(joints), person[:, :2].astype(int).T, person[:, 2] > 0
    mean = np.mean(np.ascontiguousarray(tags[joint[found], y[found], x[found]]), axis=0)
    for missing in np.flatnonzero(~found):
        worth = heat[missing] - np.round(np.linalg.norm(tags[missing] - mean, axis=-1))
        y[missing], x[missing] = np.unravel_index(np.argmax(worth), worth.shape)
    right = heat[joint, y, np.minimum(x + 1, width - 1)] > heat[joint, y, np.maximum(x - 1, 0)]
    below = heat[joint, np.minimum(y + 1, height - 1), x] > heat[joint, np.maximum(y - 1, 0), x]
    high = heat[joint, y, x]
    placed = np.stack([x + np.where(right, 0.75, 0.25), y + np.where(below, 0.75, 0.25), high], axis=1)
    return np.where(high[:, None] > 0, placed, 0)
