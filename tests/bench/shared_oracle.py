"""The oracle outputs of ../shared/tools, where that folder is there, with what was put into them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from ofa_pose.pose.geometry import HIGH_STRIDE, InputFrame
from tests.bench.oracle import Output

SHARED = Path(__file__).resolve().parents[3] / "shared"
TOOL = SHARED / "tools" / "oracle_outputs.py"
CROWDS = SHARED / "fixtures" / "decode" / "annotations.json"
MORE_CROWDS = SHARED / "data" / "crowdpose" / "crowdpose_val.json"
SPREAD_OF_PEOPLE = 0.1  # the tool draws a number of this spread once a person, before its joints


def is_there() -> bool:
    """Whether the tool and its crowds are."""
    return TOOL.is_file() and CROWDS.is_file()


@cache
def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_outputs", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_output(
    image: Mapping[str, Any],
    people: np.ndarray,
    seed: int,
    resolution: int = 512,
    tag_step: float = 1.8,
    tag_offset: float = 0.0,
) -> Output:
    """The tool's outputs; it stretches the image over the input, each axis by a scale of its own."""
    tool = _tool()
    rng = _Listener(seed)
    placed = np.zeros(people.shape)
    stamp = tool._stamp

    def listen(plane: np.ndarray, x: float, y: float, sigma: float, height: float) -> Any:
        maps = plane.base
        if not rng.people_are_done and maps is not None and maps.shape[0] == people.shape[1]:  # high, not low
            joint = (plane.ctypes.data - maps.ctypes.data) // maps.strides[0]
            if not placed[rng.person, joint].any():  # a joint's second peak comes after its own
                placed[rng.person, joint] = (x * HIGH_STRIDE, y * HIGH_STRIDE, height)
        return stamp(plane, x, y, sigma, height)

    with mock.patch.object(tool, "_stamp", listen), mock.patch.object(np.random, "default_rng", lambda _: rng):
        low, high, scale = tool.oracle_outputs(
            image, people, resolution, seed, tag_step=tag_step, tag_offset=tag_offset
        )
    height, width = high.shape[1] * HIGH_STRIDE, high.shape[2] * HIGH_STRIDE
    # a frame's arithmetic takes a scale for each axis as well
    frame = InputFrame(image["width"], image["height"], width, height, np.array(scale))  # type: ignore[arg-type]
    return Output(low, high, frame, placed)


class _Listener(np.random.Generator):
    """`np.random.default_rng(seed)` that knows whose turn it is."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.person = -1
        self.people_are_done = False

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        self.person += size is None and scale == SPREAD_OF_PEOPLE
        return super().normal(loc, scale, size)

    def poisson(self, lam: Any = 1.0, size: Any = None) -> Any:
        self.people_are_done = True  # false peaks come last
        return super().poisson(lam, size)
