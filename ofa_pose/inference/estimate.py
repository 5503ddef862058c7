"""From network inputs to poses: the network, test-time augmentation (mirrored, other sizes), the decoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ofa_pose.backends import Runner
from ofa_pose.pose.decode import DecodeConfig, Poses, decode
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE, InputFrame
from ofa_pose.skeleton import Skeleton

Decoder = Callable[[np.ndarray, np.ndarray, Sequence[int]], list[Poses]]


@dataclass(frozen=True)
class Inputs:
    """A batch of network inputs of one size.

    Attributes:
        ids: of the images; frames: how each lies in its input.
        images: RGB uint8 (B, H, W, 3).
        resized: the same images at other sizes, for a multi-scale test.
    """

    ids: tuple[int | str, ...]
    frames: tuple[InputFrame, ...]
    images: np.ndarray
    resized: tuple[Inputs, ...] = ()


def estimate(
    runner: Runner,
    inputs: Inputs,
    skeleton: Skeleton,
    config: DecodeConfig | None = None,
    flip: bool = False,
    decoder: Decoder | None = None,
) -> tuple[list[Poses], dict[str, float]]:
    """The poses, in input pixels of `inputs`, and the seconds of 'network' and 'decode'.

    Args:
        flip: average the heatmaps with those of the mirrored images, and group by the tags of both; not where the
            skeleton forbids mirroring.
        decoder: takes the place of our own, whose `config` then says nothing.
    """
    start = time.perf_counter()
    flip = flip and skeleton.mirror
    low, high = _compute(runner, inputs.images, skeleton, flip)
    for resized in inputs.resized:
        other_low, other_high = _compute(runner, resized.images, skeleton, flip)
        for b, frames in enumerate(zip(inputs.frames, resized.frames, strict=True)):
            low[b, : len(skeleton.joints)] += _moved(other_low[b, : len(skeleton.joints)], *frames, low, LOW_STRIDE)
            high[b] += _moved(other_high[b], *frames, high, HIGH_STRIDE)
    if inputs.resized:
        low[:, : len(skeleton.joints)] /= 1 + len(inputs.resized)
        high /= 1 + len(inputs.resized)
    middle = time.perf_counter()
    order = skeleton.grouping_order
    poses = decoder(low, high, order) if decoder else decode(low, high, order, config)
    return poses, {"network": middle - start, "decode": time.perf_counter() - middle}


def _compute(runner: Runner, images: np.ndarray, skeleton: Skeleton, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    low, high = runner(images)
    return _with_mirrored(low, high, *runner(images[:, :, ::-1]), skeleton.flip_index) if flip else (low, high)


def _with_mirrored(
    low: np.ndarray, high: np.ndarray, mirrored_low: np.ndarray, mirrored_high: np.ndarray, index: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps averaged with the mirrored images' and the tags of both: low (B, 3J, h, w), high (B, J, H, W)."""
    joints = len(index)
    both = np.empty((len(low), 3 * joints, *low.shape[2:]), np.float32)
    both[:, joints : 2 * joints] = low[:, joints:]
    mean = np.empty_like(high)
    for joint, other in enumerate(index):  # joint by joint: a copy of all mirrored maps would leave the cache
        np.add(low[:, joint], mirrored_low[:, other, :, ::-1], out=both[:, joint])
        np.add(high[:, joint], mirrored_high[:, other, :, ::-1], out=mean[:, joint])
        both[:, 2 * joints + joint] = mirrored_low[:, joints + other, :, ::-1]
    both[:, :joints] *= 0.5
    mean *= 0.5
    return both, mean


def _moved(maps: np.ndarray, frame: InputFrame, source: InputFrame, like: np.ndarray, stride: int) -> np.ndarray:
    """An image's maps (J, h, w) of the input `source`, sampled at the cells of `like` (B, C, H, W), of input `frame`.

    A cell's centre is carried to image pixels and on; beyond the source there is what is at its edge.
    """
    scale = source.scale / frame.scale

    def shift(own: float, other: float) -> float:
        return scale * (0.5 - own / stride) + other / stride - 0.5

    matrix = np.array(
        [
            [scale, 0, shift(frame.offset_x, source.offset_x)],
            [0, scale, shift(frame.offset_y, source.offset_y)],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size, border = like.shape[:1:-1], cv2.BORDER_REPLICATE
    return np.stack([cv2.warpAffine(each, matrix, size, flags=flags, borderMode=border) for each in maps])
