"""The JavaScript of docs/in-graph.md runs, and finds on scenes the people that Python finds with the same file."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ofa_pose import runtime
from ofa_pose.data.images import read_image
from ofa_pose.exports.formats import export_checkpoint
from ofa_pose.synthetic.dataset import write_dataset
from tests.docs.pages import ROOT, blocks

NPM = ROOT / "tests" / "browser" / "node_modules"
CALL = """
import fs from "node:fs";
import { findPeople } from "./page.mjs";
import * as ort from "onnxruntime-web";
ort.env.wasm.numThreads = 1;
const [height, width] = process.argv.slice(2).map(Number);
const session = await ort.InferenceSession.create("model.joints.onnx");
const metadata = JSON.parse(fs.readFileSync("model.joints.json"));
const all = fs.readFileSync("planes");
const planes = new Float32Array(all.buffer, all.byteOffset, all.length / 4);
const size = 3 * height * width, found = [];
for (let start = 0; start < planes.length; start += size)
  found.push(await findPeople(session, metadata, planes.slice(start, start + size), height, width));
console.log(JSON.stringify(found));
"""


@pytest.mark.slow
def test_the_javascript_of_the_page(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NPM / "onnxruntime-web").exists():
        pytest.skip("there is no node, or onnxruntime-web is not installed: npm ci --prefix tests/browser")
    write_dataset(tmp_path / "scenes", images=12, size=128, joints="coco", seed=3, workers=1)
    export_checkpoint("litepose-nano-coco", ["onnx"], tmp_path, decoder_in_graph=True)
    model = runtime.load(tmp_path / "model.joints.onnx", threads=1, resolution=128)
    (block,) = [one for one in blocks("js") if one.page.name == "in-graph.md"]
    (tmp_path / "page.mjs").write_text(block.text, encoding="utf-8")
    (tmp_path / "run.mjs").write_text(CALL, encoding="utf-8")
    shutil.copy(ROOT / "ofa_pose" / "web" / "grouping.js", tmp_path / "grouping.js")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(NPM)
    photos = sorted((tmp_path / "scenes" / "images").iterdir())
    inputs = [model.prepare(read_image(photo)) for photo in photos]
    np.stack([pixels.transpose(2, 0, 1) for _, pixels in inputs]).astype(np.float32).tofile(tmp_path / "planes")
    done = subprocess.run([node, "run.mjs", "128", "128"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    people = 0
    for found, (frame, pixels) in zip(json.loads(done.stdout), inputs, strict=True):
        ((poses,), _) = model.run([frame], pixels[None])
        assert len(found) == len(poses)
        for one, keypoints, score in zip(found, poses.keypoints, poses.scores, strict=True):
            np.testing.assert_allclose(one["keypoints"], keypoints, atol=0.05)
            np.testing.assert_allclose(one["score"], score, atol=1e-4)
        people += len(poses)
    assert people > 30
