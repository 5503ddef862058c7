"""model.js beside `ofa_pose.pose.geometry`: the same frames and the same inputs, in Node."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ofa_pose.pose.geometry import input_frame, warp
from tests.web.node import run_node

FRAMES = "([w, h, r]) => { const f = module.inputFrame(w, h, r); return [f.width, f.height, f.scale, f.left, f.top]; }"
WARP = """([width, height, resolution], take) => {
  const data = Uint8ClampedArray.from(take(4 * width * height));
  return Array.from(module.warp({ data, width, height }, module.inputFrame(width, height, resolution)));
}"""


def test_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(1, 5000, (300, 2)).tolist(), [1, 4000], [640, 480], [3, 7], [1, 1], [192, 192]]
    cases = [[*size, 32 * int(rng.integers(1, 20))] for size in sizes]
    for case, found in zip(cases, run_node("model.js", FRAMES, cases, [], tmp_path), strict=True):
        frame = input_frame(*case)
        assert found == [frame.width, frame.height, frame.scale, frame.offset_x, frame.offset_y], case


def test_inputs_are_those_of_opencv(tmp_path: Path) -> None:
    """Shrunk, enlarged and copied; odd sizes, whole scales, strips thinner than an input pixel."""
    rng = np.random.default_rng(1)
    cases = [[*rng.integers(20, 300, 2).tolist(), int(rng.choice([32, 96, 192]))] for _ in range(10)]
    cases += [
        [192, 192, 96],
        [256, 260, 192],
        [384, 384, 192],
        [288, 320, 192],
        [480, 640, 192],
        [64, 96, 64],
        [333, 250, 125],
        [1, 1, 32],
        [2, 2, 64],
        [1, 900, 32],
        [700, 3, 64],
    ]
    images = [rng.integers(0, 256, (height, width, 4), dtype=np.uint8) for width, height, _ in cases]
    results = run_node("model.js", WARP, cases, images, tmp_path)
    for (width, height, resolution), image, found in zip(cases, images, results, strict=True):
        frame = input_frame(width, height, resolution)
        expected = warp(np.ascontiguousarray(image[..., :3]), frame).astype(float)
        apart = np.abs(np.reshape(found, (3, frame.height, frame.width)).transpose(1, 2, 0) - expected)
        assert apart.max() <= 1, (width, height, resolution)
        assert apart.mean() < 0.001
