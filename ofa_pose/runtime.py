"""Exported models on a device: no torch, nothing but NumPy, OpenCV, SciPy and the model's own runtime.

`ofa-pose export CHECKPOINT --format onnx --out DIR` writes such a model. On the device:

    pip install numpy opencv-python-headless scipy onnxruntime
    pip install --no-deps ofa-pose

and then, for photos, a line for each person, and pictures and JSON of them:

    python -m ofa_pose.runtime model.onnx photo.jpg another.jpg --out poses

or in Python:

    import cv2
    import ofa_pose.runtime as runtime

    model = runtime.load("model.onnx")
    poses = model("photo.jpg")
    for keypoints, score in zip(poses.keypoints, poses.scores):
        print(f"a person, score {score:.2f}:")
        for name, (x, y, heat) in zip(model.skeleton.joints, keypoints):
            print(f"  {name}: {x:.0f}, {y:.0f}" if heat else f"  {name}: not seen")
    cv2.imwrite("poses.jpg", model.draw("photo.jpg", poses)[..., ::-1])

The poses are those of the checkpoint that the model was exported from: the code is the same. OpenVINO's `.xml` (with
the package openvino), ncnn's `.param` (ncnn) and LiteRT's `.tflite` (ai-edge-litert) are loaded in the same way.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from ofa_pose.inference.pose_model import DRAWN, PoseModel
from ofa_pose.inference.pose_model import load_exported as load
from ofa_pose.pose.decode import Poses
from ofa_pose.utils import atomic, files
from ofa_pose.utils.errors import InputError, OfaPoseError

__all__ = ["PoseModel", "load", "main"]


def _check_names(photos: Sequence[str], out: Path) -> None:
    """Raise InputError where two photos would be written as one, or one over itself; make the folder."""
    stems: dict[str, str] = {}
    for photo in photos:
        stem = Path(photo).stem
        if stem in stems:
            raise InputError(f"has the name of {stems[stem]}", photo, "run them apart, with an --out of their own")
        if files.real(out / f"{stem}.jpg") == files.real(photo):
            raise InputError("the picture would replace this photo", photo, "choose another --out")
        stems[stem] = photo
    atomic.check_folder(out)
    out.mkdir(parents=True, exist_ok=True)


def _write(model: PoseModel, photo: str, poses: Poses, out: Path) -> None:
    """NAME.json and NAME.jpg of a photo."""
    poses.save(out / f"{Path(photo).stem}.json")
    encoded = cv2.imencode(".jpg", model.draw(photo, poses)[..., ::-1])[1]
    files.write_bytes(out / f"{Path(photo).stem}.jpg", encoded.tobytes())


def main(words: Sequence[str] | None = None) -> int:
    """`python -m ofa_pose.runtime MODEL PHOTO …`: the poses on photos; returns the exit code."""
    parser = argparse.ArgumentParser("python -m ofa_pose.runtime", description="The poses on photos, by a model.")
    parser.add_argument("model", help="that ofa-pose export wrote: .onnx, .xml, .param or .tflite")
    parser.add_argument("photos", nargs="+", help="image files")
    parser.add_argument("--out", type=Path, help="also write NAME.json and, with the poses drawn on it, NAME.jpg here")
    parser.add_argument("--threshold", type=float, default=DRAWN, help="the least score of a person (%(default)s)")
    parser.add_argument("--resolution", type=int, help="short side in pixels; default: the network's")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    parser.add_argument("--threads", type=int, default=0, help="0: the runtime chooses")
    given = parser.parse_args(words)
    try:
        if given.out:
            _check_names(given.photos, given.out)
        model = load(given.model, given.threads, given.resolution, given.flip)
        for photo in given.photos:
            poses = model(photo, given.threshold)
            print(f"{photo}: {len(poses)} {'person' if len(poses) == 1 else 'people'}")
            for score, (x, y, width, height) in zip(poses.scores, poses.boxes, strict=True):
                print(f"  score {score:.2f}, box {x:.0f}, {y:.0f}, {width:.0f} × {height:.0f} pixels")
            if given.out:
                _write(model, photo, poses, given.out)
    except OfaPoseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
