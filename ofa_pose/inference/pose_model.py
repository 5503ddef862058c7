"""A network that finds poses, from an image to people in its pixels. It needs no torch: devices run this very code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import Runner
from ofa_pose.backends.runtimes import open_runner
from ofa_pose.data.images import read_upright
from ofa_pose.inference.estimate import Inputs, estimate
from ofa_pose.pose.decode import DecodeConfig, Poses
from ofa_pose.pose.draw import draw_poses
from ofa_pose.pose.geometry import InputFrame, check_resolution, input_frame, warp
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import InputError

DRAWN = 0.2  # people and joints with lower scores are not drawn, people not returned


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
    spec: ArchSpec
    skeleton: Skeleton
    resolution: int
    flip: bool = False
    config: DecodeConfig | None = None

    def __repr__(self) -> str:
        flip = ", flip=True" if self.flip else ""
        return f"PoseModel({self.spec}; {self.skeleton.name}, resolution={self.resolution}{flip})"

    def __call__(self, image: str | Path | np.ndarray, threshold: float = DRAWN) -> Poses:
        """The people on an image, best first.

        Args:
            image: an image file, seen as a viewer shows it (turned as its EXIF data say), or RGB uint8 (H, W, 3).
            threshold: the least score of a person; 0 gives every candidate, as average precision counts them.

        Returns:
            keypoints float32 (P, J, 3), x and y in image pixels; a missing joint has score 0, and x = y = 0 or a guess.
            Scores float32 (P,).

        Raises:
            InputError: the file is not a readable image, or the array is not an RGB uint8 image.
        """
        frame, prepared = self.prepare(_pixels(image))
        ((found,), _) = self.run([frame], prepared[None])
        sure = found.scores >= threshold
        return replace(found, keypoints=found.keypoints[sure], scores=found.scores[sure])

    def draw(self, image: str | Path | np.ndarray, poses: Poses, threshold: float = DRAWN) -> np.ndarray:
        """A copy of the image with its poses over it, RGB uint8 (H, W, 3); not the people and joints below `threshold`.

        Takes what a call takes. OpenCV writes blue first: `cv2.imwrite("poses.jpg", drawn[..., ::-1])`.
        """
        people = poses.keypoints[poses.scores >= threshold]
        return draw_poses(_pixels(image), people, self.skeleton, threshold)

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
        moved = [
            replace(found, keypoints=frame.poses_to_image(found.keypoints))
            for found, frame in zip(poses, frames, strict=True)
        ]
        return moved, seconds


def load_exported(
    path: str | Path, threads: int = 0, resolution: int | None = None, flip: bool = False, streams: int = 1
) -> PoseModel:
    """An exported model that finds the poses on an image: `model(image)`, see `PoseModel`.

    Args:
        path: a model that `ofa-pose export` wrote for a runtime: .onnx, .xml (OpenVINO), .param (ncnn) and the like.
        threads: of one call; 0: the runtime chooses.
        resolution: what an image's short side is scaled to, in pixels; None takes the network's own.
        flip: average with the mirrored image: better and half as fast; not where the skeleton forbids mirroring.
        streams: how many calls are meant to be made at once.

    Raises:
        InputError: no such file, no model that ofa-pose exported, its runtime is not installed, or no such resolution.
    """
    if resolution is not None:
        check_resolution(resolution)
    runner = open_runner(path, threads, streams)
    spec = ArchSpec.from_dict(_read(runner.metadata, "spec", path), path)
    skeleton = Skeleton.from_dict(_read(runner.metadata, "skeleton", path), path)
    config = None
    if "decode" in runner.metadata:
        config = DecodeConfig.from_dict(_read(runner.metadata, "decode", path), path)
    return PoseModel(runner, spec, skeleton, resolution or spec.resolution, flip and skeleton.mirror, config)


def _pixels(image: str | Path | np.ndarray) -> np.ndarray:
    if not isinstance(image, str | Path | np.ndarray):
        raise InputError(f"{type(image).__name__} is not an image", hint="give a path or an RGB array")
    return image if isinstance(image, np.ndarray) else read_upright(image)


def _read(metadata: Mapping[str, str], key: str, path: str | Path) -> Any:
    if key not in metadata:
        hint = "write it with ofa-pose export, and leave its metadata in it"
        raise InputError(f"does not say its {key}", path, hint)
    try:
        return json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise InputError(f"holds no valid JSON as its {key}", path, "export it again") from None
