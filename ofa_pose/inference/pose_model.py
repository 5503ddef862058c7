"""A network that finds poses: test-time augmentation (mirrored, other sizes), the decoder, people in image pixels.

It needs no torch: devices run this very code.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np

from ofa_pose.arch.spec import NetSpec, read_shape
from ofa_pose.backends.runners import JointRunner, Runner, check_listed, no_maps
from ofa_pose.backends.runtimes import open_runner
from ofa_pose.data.images import read_upright
from ofa_pose.pose.decode import DecodeConfig, Poses, decode, group_joints
from ofa_pose.pose.draw import draw_poses
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE, InputFrame, check_resolution, input_frame, warp
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError

BATCH = 8  # images of one call
DRAWN = 0.2  # people and joints with lower scores are not drawn, people not returned
Image = Any  # a path, an RGB uint8 array (H, W, 3) or a PIL image
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
    if isinstance(runner, JointRunner) and not (flip or inputs.resized or decoder):
        joints, middle = runner.find_joints(inputs.images), time.perf_counter()
        side = min(inputs.images.shape[1:3])
        poses = group_joints(joints, skeleton.grouping_order, config or DecodeConfig(), side)
        return poses, {"network": middle - start, "decode": time.perf_counter() - middle}
    low, high = _compute(runner, inputs.images, skeleton, flip)
    heat, sizes = low[:, : len(skeleton.joints)], 1 + len(inputs.resized)
    for resized in inputs.resized:
        other_low, other_high = _compute(runner, resized.images, skeleton, flip)
        for b, frames in enumerate(zip(inputs.frames, resized.frames, strict=True)):
            heat[b] += _moved(other_low[b, : len(skeleton.joints)], *frames, low, LOW_STRIDE)
            high[b] += _moved(other_high[b], *frames, high, HIGH_STRIDE)
    if sizes > 1:
        heat /= sizes
        high /= sizes
    middle = time.perf_counter()
    order = skeleton.grouping_order
    poses = decoder(low, high, order) if decoder else decode(low, high, order, config)
    return poses, {"network": middle - start, "decode": time.perf_counter() - middle}


def _compute(runner: Runner, images: np.ndarray, skeleton: Skeleton, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    low, high = runner(images)
    return with_mirrored(low, high, *runner(images[:, :, ::-1]), skeleton.flip_index) if flip else (low, high)


def with_mirrored(
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
    own, other = (np.array((f.offset_x, f.offset_y)) / stride for f in (frame, source))
    matrix = np.column_stack((scale * np.eye(2), scale * (0.5 - own) + other - 0.5))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size, border = like.shape[:1:-1], cv2.BORDER_REPLICATE
    return np.stack([cv2.warpAffine(each, matrix, size, flags=flags, borderMode=border) for each in maps])


@dataclass(frozen=True, repr=False)
class PoseModel:
    """A network with all it takes to find the poses on an image: `model(image)`.

    Attributes:
        runner: computes the network.
        spec, skeleton: the network's shape and the joints it finds.
        resolution: what an image's short side is scaled to, in input pixels.
        flip: average with the mirrored image.
        config: the decoder's thresholds and limits; None for the default ones.
    """

    runner: Runner
    spec: NetSpec
    skeleton: Skeleton
    resolution: int
    flip: bool = False
    config: DecodeConfig | None = None

    def __repr__(self) -> str:
        flip = ", flip=True" if self.flip else ""
        return f"PoseModel({self.spec}; {self.skeleton.name}, resolution={self.resolution}{flip})"

    @overload
    def __call__(self, image: list[Image] | tuple[Image, ...], threshold: float = DRAWN) -> list[Poses]: ...
    @overload
    def __call__(self, image: Image, threshold: float = DRAWN) -> Poses: ...

    def __call__(self, image: Image | Sequence[Image], threshold: float = DRAWN) -> Poses | list[Poses]:
        """The people on an image, best first; of several images a list, computed together where their sizes are equal.

        Args:
            image: an image file or a PIL image, seen as a viewer shows it (turned as its EXIF data say), or RGB uint8
                (H, W, 3); or a list or tuple of such.
            threshold: the least score of a person; 0 gives every candidate, as average precision counts them.

        Returns:
            keypoints float32 (P, J, 3), x and y in image pixels; a missing joint has score 0, and x = y = 0 or a guess.
            Scores float32 (P,).

        Raises:
            InputError: the file is not a readable image, or the array is not an RGB uint8 image.
        """
        images = image if isinstance(image, list | tuple) else [image]
        poses: list[Poses] = []
        for start in range(0, len(images), BATCH):
            frames, prepared = zip(*(self.prepare(_pixels(one)) for one in images[start : start + BATCH]), strict=True)
            found: dict[int, Poses] = {}
            for size in dict.fromkeys(one.shape for one in prepared):
                same = [index for index, one in enumerate(prepared) if one.shape == size]
                batch, _ = self.run([frames[index] for index in same], np.stack([prepared[index] for index in same]))
                found |= zip(same, batch, strict=True)
            poses += (_sure(found[index], threshold) for index in range(len(prepared)))
        return poses if images is image else poses[0]

    def draw(self, image: Image, poses: Poses, threshold: float = DRAWN) -> np.ndarray:
        """A copy of the image with its poses over it, RGB uint8 (H, W, 3); not the people and joints below `threshold`.

        Takes what a call takes. OpenCV writes blue first: `cv2.imwrite("poses.jpg", drawn[..., ::-1])`.
        """
        sure = poses.scores >= threshold
        ids = None if poses.ids is None else poses.ids[sure].tolist()
        return draw_poses(_pixels(image), poses.keypoints[sure], self.skeleton, threshold, ids)

    def prepare(self, image: np.ndarray) -> tuple[InputFrame, np.ndarray]:
        """The network's input for an RGB uint8 image (H, W, 3): its frame, and RGB uint8 (frame height, width, 3)."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f"an array of shape {image.shape} and type {image.dtype} is not an image"
            raise InputError(what, hint="give RGB values as uint8 of shape (height, width, 3)")
        frame = input_frame(image.shape[1], image.shape[0], self.resolution)
        return frame, warp(image, frame)

    def run(self, frames: Sequence[InputFrame], inputs: np.ndarray) -> tuple[list[Poses], dict[str, float]]:
        """The poses, in image pixels, on inputs of one size, (B, H, W, 3); and the seconds of network and decoder."""
        batch = Inputs(tuple(range(len(frames))), tuple(frames), inputs)
        poses, seconds = estimate(self.runner, batch, self.skeleton, self.config, self.flip)
        placed = zip(poses, frames, strict=True)
        return [replace(found, keypoints=frame.poses_to_image(found.keypoints)) for found, frame in placed], seconds


def load_exported(
    path: str | Path, threads: int = 0, resolution: int | None = None, flip: bool = False, streams: int = 1
) -> PoseModel:
    """An exported model that finds the poses on an image: `model(image)`, see `PoseModel`.

    Args:
        path: a model that `ofa-pose export` wrote for a runtime: .onnx, .xml, .param, .tflite.
        threads: of one call; 0: the runtime chooses.
        resolution: what an image's short side is scaled to, in pixels; None takes the network's own.
        flip: average with the mirrored image: better and half as fast; not where the skeleton forbids mirroring.
        streams: how many calls are meant to be made at once.

    Raises:
        InputError: no such file, no model that ofa-pose exported, its runtime is not installed, no such resolution, or
            a flip test of a model with its decoder inside.
    """
    if resolution is not None:
        check_resolution(resolution)
    runner = open_runner(path, threads, streams)
    check_listed(Path(path))
    spec = read_shape(_read(runner.metadata, "spec", path), path)
    skeleton = Skeleton.from_dict(_read(runner.metadata, "skeleton", path), path)
    if spec.joints != len(skeleton.joints):
        what = f"its network finds {spec.joints} joints, its skeleton has {len(skeleton.joints)}"
        raise InputError(what, path, "export it again")
    if flip and skeleton.mirror and isinstance(runner, JointRunner):
        raise no_maps(path)
    says = "decode" in runner.metadata
    config = DecodeConfig.from_dict(_read(runner.metadata, "decode", path), path) if says else None
    return PoseModel(runner, spec, skeleton, resolution or spec.resolution, flip, config)


def _sure(poses: Poses, threshold: float) -> Poses:
    sure = poses.scores >= threshold
    return replace(poses, keypoints=poses.keypoints[sure], scores=poses.scores[sure])


def _pixels(image: Image) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, str | Path):
        return read_upright(image)
    pillow = sys.modules.get("PIL.Image")
    if pillow and isinstance(image, pillow.Image):  # whoever has one has loaded the package
        upright = importlib.import_module("PIL.ImageOps").exif_transpose(image)
        return np.asarray(upright.convert("RGB"))
    raise InputError(f"{type(image).__name__} is not an image", hint="give a path, an RGB array or a PIL image")


def _read(metadata: Mapping[str, str], key: str, path: str | Path) -> Any:
    if key not in metadata:
        hint = "write it with ofa-pose export, and leave its metadata in it"
        raise InputError(f"does not say its {key}", path, hint)
    try:
        return json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise InputError(f"holds no valid JSON as its {key}", path, "export it again") from None
