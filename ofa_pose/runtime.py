"""Exported models on a device: no torch, nothing but NumPy, OpenCV, SciPy and the model's own runtime.

`ofa-pose export CHECKPOINT --format onnx --out DIR` writes such a model. On the device:

    pip install numpy opencv-python-headless scipy onnxruntime
    pip install --no-deps ofa-pose

and then, for a photo, its poses and a picture of them:

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
the package openvino) and ncnn's `.param` (with ncnn) are loaded in the same way.
"""

from ofa_pose.inference.pose_model import PoseModel
from ofa_pose.inference.pose_model import load_exported as load

__all__ = ["PoseModel", "load"]
