"""Networks computed in int8, with the ranges that `export` gives them: those of the same training images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ofa_pose.backends.folding import whole
from ofa_pose.backends.onnxruntime import OnnxRunner, onnx_model
from ofa_pose.backends.onnxruntime_int8 import measure_ranges, quantised
from ofa_pose.backends.runners import planes
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.inference.evaluate import read_inputs
from ofa_pose.models.pose_net import PoseNet

CALIBRATION_IMAGES = 64
BATCH = 8


def choose_calibration(train: KeypointDataset, images: int = CALIBRATION_IMAGES) -> KeypointDataset:
    """Those of a network's training images, a fixed choice, that the ranges of its maps are taken from."""
    return train.choose(images, "int8", "calibration")


def calibration_inputs(train: KeypointDataset, resolution: int) -> Iterator[np.ndarray]:
    """The inputs (B, H, W, 3) uint8 of `choose_calibration`'s images. Raises InputError where one is unreadable."""
    return (batch.images for batch in read_inputs(choose_calibration(train), resolution, BATCH))


def int8_runner(net: PoseNet, inputs: Iterable[np.ndarray], streams: int = 1) -> OnnxRunner:
    """A runner of a network's int8 form, on the CPU: `streams` calls at once, each in a thread.

    Args:
        net: in eval mode; it stays as it is.
        inputs: what it is calibrated with.
    """
    model = onnx_model(whole(net.eval()))
    ranges = measure_ranges(model, map(planes, inputs), streams)
    return OnnxRunner(quantised(model, ranges).SerializeToString(), 1, streams)
