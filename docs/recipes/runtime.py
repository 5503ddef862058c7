"""A runtime that is one file and one line: OpenCV's dnn module (runtime.diff adds it) in all that knows of runtimes."""

from pathlib import Path

import numpy as np

import ofa_pose
import ofa_pose.runtime
from ofa_pose.utils.files import dump_yaml, write_text

NET = "litepose-nano-coco"


def export_and_open(photo):
    """Its model is compared with torch when it is written, and finds the checkpoint's poses."""
    exported = ofa_pose.export(NET, out="models", formats=["opencv"])
    assert exported.reports["opencv"]["max_difference"] < 1e-3
    assert sorted(path.name for path in Path("models").glob("model.*")) == ["model.opencv", "model.opencv.json"]
    found, expected = ofa_pose.runtime.load("models/model.opencv")(photo), ofa_pose.load(NET, "cpu")(photo)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.5)


def evaluate(annotations, images):
    """`eval` takes it for a model by its suffix."""
    truth = {"annotations": annotations, "images": images, "flip": False}
    ours, torchs = (ofa_pose.evaluate(checkpoint, **truth).metrics["AP"] for checkpoint in ("models/model.opencv", NET))
    assert abs(ours - torchs) < 0.01 and ours > 0.3, (ours, torchs)


def measure():
    """Its latencies go into a table, and `profile` takes it."""
    space = {"name": "tiny", "resolution": [32], "stem": [4], "stages": [[4], [4], [4], [4, 8]], "deconv": [[4]] * 3}
    write_text("tiny.yaml", dump_yaml({**space, "expansion": [1], "blocks": [1, 1, 1, 1], "kernel": 3}))
    table = ofa_pose.latency_build("tiny.yaml", out="tiny.json", backend="opencv", rounds=1).to_dict()
    assert table["runtime"].startswith("opencv ") and table["pieces"] > 5
    profile = ofa_pose.profile(NET, measure=True, backend="opencv")
    assert profile.latency.median_ms > 0


if __name__ == "__main__":
    assert "opencv" in ofa_pose.export.__doc__ and "opencv" in ofa_pose.latency_build.__doc__  # what --help prints
    drawn = ofa_pose.data_synth("scenes", images=4, size=192, seed=5, workers=1)
    export_and_open(next(Path(drawn.images).iterdir()))
    evaluate(drawn.annotations, drawn.images)
    measure()
