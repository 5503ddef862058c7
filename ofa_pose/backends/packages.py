"""Optional packages: which extra brings them."""

from __future__ import annotations

import importlib.util

from ofa_pose.errors import InputError

EXTRAS = {  # of a package: what needs it, and our extra that brings it
    "onnx": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX", "onnx"),
    "openvino": ("OpenVINO", "openvino"),
    "ncnn": ("ncnn", "ncnn"),
}


def require_packages(*packages: str) -> None:
    """Raise InputError that names the extra to install where one of these optional packages is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            what, extra = EXTRAS[package]
            raise InputError(f"{what} needs the package {package}", mend=f"pip install 'ofa-pose[{extra}]'")
